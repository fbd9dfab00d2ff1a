"""Gymnasium's mountain car and pendulum as goal environments, in batches. Reaching the goal ends the episode.

Both are tasks of Hierarchical Actor-Critic (Levy 2019): the goal is a state, with a tolerance for each entry. The
reward is 0 where it is reached and -1 elsewhere. The dynamics are those of MountainCarContinuous-v0 and Pendulum-v1.
"""

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
    """N environments whose goal is one state, to be reached within a tolerance. A subclass has the dynamics."""

    low: ClassVar[tuple[float, ...]]
    """Least observation."""
    high: ClassVar[tuple[float, ...]]
    """Greatest observation."""
    target: ClassVar[tuple[float, ...]]
    """The goal."""
    tolerance: ClassVar[tuple[float, ...]]
    """Greatest difference of each entry from the goal."""

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        seen = spaces.Box(np.array(self.low, np.float32), np.array(self.high, np.float32))
        observed = spaces.Dict({"observation": seen, "achieved_goal": seen, "desired_goal": seen})
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

    @abstractmethod
    def seen(self, state: Tensor) -> Tensor:
        """[N, D] the observations of states [N, 2]."""

    def begin(self, where: Tensor) -> None:
        """Draw initial states."""
        self.state.copy_(torch.where(where.unsqueeze(-1), self.drawn(), self.state))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step."""
        self.state.copy_(self.moved(self.state, actions.squeeze(-1).clamp(-1.0, 1.0)))
        reward, reached = self.task_reward(self.seen(self.state), self.goal)
        return reward, reached, reached

    def task_reward(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """(achieved, desired) [..., D] -> (reward [...], whether it ends the episode [...])."""
        reached = ((achieved - desired).abs() <= self.reach).all(-1)
        return reached.float() - 1.0, reached

    def observe(self) -> dict[str, Tensor]:
        """The observation, which is also the achieved goal, and the goal."""
        seen = self.seen(self.state)
        return {"observation": seen, "achieved_goal": seen.clone(), "desired_goal": self.goal.expand_as(seen).clone()}

    def picture(self, index: int) -> np.ndarray:
        """The observation's first two entries within their bounds [H, W, 3]: goal red, state green."""
        image = np.full((SIZE, SIZE, 3), 245, np.uint8)
        low, high = np.array(self.low[:2]), np.array(self.high[:2])
        now = self.seen(self.state)[index, :2].cpu().numpy()
        for place, colour in ((np.array(self.target[:2]), (230, 120, 120)), (now, (40, 150, 70))):
            column, row = ((place - low) / (high - low) * SIZE).clip(4, SIZE - 5).astype(int)
            image[SIZE - row - 4 : SIZE - row + 5, column - 4 : column + 5] = colour
        return image


class MountainCarGoal(StateGoal):
    """N cars too weak to climb the hill at once. Observes [position, velocity].

    The goal is a position of .48 ± .03, whose lower end is MountainCarContinuous-v0's goal, .45, at a velocity of
    .04 ± .04 (units per step). Cars start at rest, at a position in [-.6, -.4].
    """

    low, high = (-1.2, -0.07), (0.6, 0.07)
    target, tolerance = (0.48, 0.04), (0.03, 0.04)

    def drawn(self) -> Tensor:
        """A position in [-.6, -.4], at rest."""
        place = self.uniform(self.num_envs) * 0.2 - 0.6
        return torch.stack([place, torch.zeros_like(place)], -1)

    def moved(self, state: Tensor, push: Tensor) -> Tensor:
        """v' = v + .0015 a - .0025 cos 3x, x' = x + v'; the wall at -1.2 stops the car."""
        place, speed = state.unbind(-1)
        speed = (speed + 0.0015 * push - 0.0025 * (3 * place).cos()).clamp(-0.07, 0.07)
        place = (place + speed).clamp(-1.2, 0.6)
        speed = torch.where((place <= -1.2) & (speed < 0), 0.0, speed)
        return torch.stack([place, speed], -1)

    def seen(self, state: Tensor) -> Tensor:
        """The state itself."""
        return state.clone()


class PendulumGoal(StateGoal):
    """N pendulums with too little torque to rise at once. Observes [cos θ, sin θ, θ'], θ = 0 upright.

    The goal is upright within about 10° (sin θ within ±.17), at an angular velocity within ±1 rad/s. Pendulums start at
    any angle, at a velocity in [-1, 1].
    """

    low, high = (-1.0, -1.0, -8.0), (1.0, 1.0, 8.0)
    target, tolerance = (1.0, 0.0, 0.0), (0.17, 0.17, 1.0)

    def drawn(self) -> Tensor:
        """Any angle, and a velocity in [-1, 1]."""
        lot = self.uniform(self.num_envs, 2) * 2 - 1
        return lot * torch.tensor([torch.pi, 1.0], device=self.device)

    def moved(self, state: Tensor, push: Tensor) -> Tensor:
        """θ'' = 15 sin θ + 3 u with torque u = 2 a, over .05 s."""
        angle, speed = state.unbind(-1)
        speed = (speed + 0.05 * (15 * angle.sin() + 6 * push)).clamp(-8.0, 8.0)
        return torch.stack([angle + 0.05 * speed, speed], -1)

    def seen(self, state: Tensor) -> Tensor:
        """[cos θ, sin θ, θ']."""
        angle, speed = state.unbind(-1)
        return torch.stack([angle.cos(), angle.sin(), speed], -1)


class MountainCarGoalEnv(SingleGoalEnv):
    """A single mountain car with numpy values."""

    task = MountainCarGoal


class PendulumGoalEnv(SingleGoalEnv):
    """A single pendulum with numpy values."""

    task = PendulumGoal
