"""Navigation in the plane to a hidden goal (Finn, Abbeel, Levine 2017, section 5.3)."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.tasks.family import TaskFamily
from hrl.envs.tasks.tensor import SingleEnv

STRIDE, REACH, SPREAD = 0.1, 0.01, 0.5


class Navigation(TaskFamily):
    """N points that start at the origin and move by a tenth of the action, at most 0.1 along x and y per step.

    A task is a goal, uniform in [-0.5, 0.5]². The reward is minus the distance to the goal. An episode ends within 0.01
    of the goal along x and y.
    """

    task_dim = 2

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        seen = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        moved = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(num_envs, device, max_episode_steps, render_mode, seen, moved)
        self.place = torch.zeros(num_envs, 2, device=self.device)
        self.goal = torch.zeros(num_envs, 2, device=self.device)
        self.drawn = True  # each episode samples a task until `set_tasks` is called

    def sample_tasks(self, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """Sample [count, 2] goals. No goals are held out, because they are continuous."""
        return (torch.rand(count, 2, generator=generator, device=self.device) * 2 - 1) * SPREAD

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the goals [N, 2]."""
        self.drawn = False
        self.goal.copy_(tasks)

    def begin(self, where: Tensor) -> None:
        """Start at the origin."""
        wide = where.unsqueeze(-1)
        self.place.masked_fill_(wide, 0.0)
        if self.drawn:
            self.goal.copy_(torch.where(wide, (self.uniform(self.num_envs, 2) * 2 - 1) * SPREAD, self.goal))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move the points. The reward is minus the distance to the goal."""
        self.place += STRIDE * actions.clamp(-1.0, 1.0)
        way = self.place - self.goal
        reached = (way.abs() < REACH).all(-1)
        return -torch.linalg.vector_norm(way, dim=-1), reached, reached

    def observe(self) -> Tensor:
        """[N, 2] positions of the points."""
        return self.place.clone()

    def picture(self, index: int) -> np.ndarray:
        """The plane from above [H, W, 3]: goal red, point green."""
        size, half = 200, 1.0
        image = np.full((size, size, 3), 245, np.uint8)
        marks: list[tuple[Any, Any]] = [(self.goal[index], (230, 120, 120)), (self.place[index], (40, 150, 70))]
        for place, colour in marks:
            column, row = ((place.cpu().numpy() * (1, -1) + half) / (2 * half) * size).clip(4, size - 5).astype(int)
            image[row - 4 : row + 5, column - 4 : column + 5] = colour
        return image


class NavigationEnv(SingleEnv):
    """A single navigation environment with numpy values."""

    task = Navigation
