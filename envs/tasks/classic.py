"""Gymnasium's mountain car and pendulum as goal environments, in batches. Reaching the goal ends the episode.

Both are tasks of Hierarchical Actor-Critic (Levy 2019): the goal is a state, with a tolerance for each entry. The
reward is 0 at the goal and -1 elsewhere. The dynamics are those of MountainCarContinuous-v0 and Pendulum-v1.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.tasks.tensor import SingleGoalEnv, TensorEnv

SIZE = 200
"""Pixels of a picture's sides."""


class StateGoal(TensorEnv):
    """N environments with one goal state, to be reached within a tolerance. Subclasses define the dynamics."""

    observed: ClassVar[tuple[float, ...]]
    """Maximum of each observation entry; the minimum is its negative."""
    low: ClassVar[tuple[float, ...]]
    """Minimum of each goal entry."""
    high: ClassVar[tuple[float, ...]]
    """Maximum of each goal entry."""
    target: ClassVar[tuple[float, ...]]
    """The goal."""
    tolerance: ClassVar[tuple[float, ...]]
    """Maximum absolute difference of each entry from the goal."""

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        low, high, most = (np.array(x, np.float32) for x in (self.low, self.high, self.observed))
        goal = spaces.Box(low, high)
        observed = spaces.Dict({"observation": spaces.Box(-most, most), "achieved_goal": goal, "desired_goal": goal})
        push = spaces.Box(-1.0, 1.0, (1,), np.float32)
        super().__init__(num_envs, device, max_episode_steps, render_mode, observed, push)
        self.reward_range = (-1.0, 0.0)
        self.goal = torch.tensor(self.target, device=self.device)
        self.reach = torch.tensor(self.tolerance, device=self.device)
        self.state = torch.zeros(num_envs, 2, device=self.device)

    @abstractmethod
    def drawn(self) -> Tensor:
        """[N, 2] random initial states."""

    @abstractmethod
    def moved(self, state: Tensor, push: Tensor) -> Tensor:
        """[N, 2] the states after one step with actions [N] in [-1, 1]."""

    def seen(self, state: Tensor) -> Tensor:
        """[N, D] the observations of states [N, 2]."""
        return state.clone()

    def achieved(self, state: Tensor) -> Tensor:
        """[N, 2] the goals that states [N, 2] achieve."""
        return state.clone()

    def apart(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[..., 2] the difference of two goals."""
        return achieved - desired

    def begin(self, where: Tensor) -> None:
        """Sample initial states at the mask `where` [N]."""
        self.state.copy_(torch.where(where.unsqueeze(-1), self.drawn(), self.state))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step with actions [N, 1]. Returns (reward [N], whether the task ended [N], success [N])."""
        self.state.copy_(self.moved(self.state, actions.squeeze(-1).clamp(-1.0, 1.0)))
        reward, reached = self.task_reward(self.achieved(self.state), self.goal)
        return reward, reached, reached

    def task_reward(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """(achieved, desired) [..., 2] -> (reward [...], whether it ends the episode [...])."""
        reached = (self.apart(achieved, desired).abs() <= self.reach).all(-1)
        return reached.float() - 1.0, reached

    def observe(self) -> dict[str, Tensor]:
        """The observation and both goals."""
        achieved = self.achieved(self.state)
        goal = self.goal.expand_as(achieved).clone()
        return {"observation": self.seen(self.state), "achieved_goal": achieved, "desired_goal": goal}

    def picture(self, index: int) -> np.ndarray:
        """The goal space [H, W, 3]: the task's goal in red, the achieved goal in green."""
        image = np.full((SIZE, SIZE, 3), 245, np.uint8)
        low, high = np.array(self.low), np.array(self.high)
        now = self.achieved(self.state)[index].cpu().numpy()
        for place, colour in ((np.array(self.target), (230, 120, 120)), (now, (40, 150, 70))):
            column, row = ((place - low) / (high - low) * SIZE).clip(4, SIZE - 5).astype(int)
            image[SIZE - row - 4 : SIZE - row + 5, column - 4 : column + 5] = colour
        return image


class MountainCarGoal(StateGoal):
    """N cars that are too weak to drive straight up the hill. Observes [position, velocity].

    The goal is a position of 0.48 ± 0.03 at a velocity of 0.04 ± 0.04 (units per step); the lower end of the positions,
    0.45, is the goal of MountainCarContinuous-v0. Cars start at rest, at a position in [-0.6, -0.4].
    """

    observed, low, high = (1.2, 0.07), (-1.2, -0.07), (0.6, 0.07)
    target, tolerance = (0.48, 0.04), (0.03, 0.04)

    def drawn(self) -> Tensor:
        """[N, 2] positions in [-0.6, -0.4], at rest."""
        place = self.uniform(self.num_envs) * 0.2 - 0.6
        return torch.stack([place, torch.zeros_like(place)], -1)

    def moved(self, state: Tensor, push: Tensor) -> Tensor:
        """v' = v + 0.0015 a - 0.0025 cos 3x, x' = x + v'. The wall at -1.2 stops the car."""
        place, speed = state.unbind(-1)
        speed = (speed + 0.0015 * push - 0.0025 * (3 * place).cos()).clamp(-0.07, 0.07)
        place = (place + speed).clamp(-1.2, 0.6)
        speed = torch.where((place <= -1.2) & (speed < 0), 0.0, speed)
        return torch.stack([place, speed], -1)


class PendulumGoal(StateGoal):
    """N pendulums with too little torque to swing up directly. Observes [cos θ, sin θ, θ'], with θ = 0 upright.

    A goal is (angle from hanging down in [-π, π], angular velocity). The task's goal is upright within 10°, at a
    velocity within ±1 rad/s. Pendulums start at any angle, at a velocity in [-1, 1].
    """

    observed, low, high = (1.0, 1.0, 8.0), (-math.pi, -8.0), (math.pi, 8.0)
    target, tolerance = (math.pi, 0.0), (math.radians(10), 1.0)

    def drawn(self) -> Tensor:
        """[N, 2] any angle, and a velocity in [-1, 1]."""
        lot = self.uniform(self.num_envs, 2) * 2 - 1
        return lot * torch.tensor([torch.pi, 1.0], device=self.device)

    def moved(self, state: Tensor, push: Tensor) -> Tensor:
        """θ'' = 15 sin θ + 3 u with torque u = 2 a, over 0.05 s."""
        angle, speed = state.unbind(-1)
        speed = (speed + 0.05 * (15 * angle.sin() + 6 * push)).clamp(-8.0, 8.0)
        return torch.stack([angle + 0.05 * speed, speed], -1)

    def seen(self, state: Tensor) -> Tensor:
        """[cos θ, sin θ, θ']."""
        angle, speed = state.unbind(-1)
        return torch.stack([angle.cos(), angle.sin(), speed], -1)

    def achieved(self, state: Tensor) -> Tensor:
        """[angle from hanging down, θ']."""
        angle, speed = state.unbind(-1)
        return torch.stack([torch.atan2(-angle.sin(), -angle.cos()), speed], -1)

    def apart(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """[..., 2] the difference of two goals, with the angle in [-π, π]."""
        angle, speed = (achieved - desired).unbind(-1)
        return torch.stack([torch.atan2(angle.sin(), angle.cos()), speed], -1)


class MountainCarGoalEnv(SingleGoalEnv):
    """A single mountain car with numpy values."""

    task = MountainCarGoal


class PendulumGoalEnv(SingleGoalEnv):
    """A single pendulum with numpy values."""

    task = PendulumGoal
