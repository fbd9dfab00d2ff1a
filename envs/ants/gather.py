"""Ant Gather (Duan 2016, section 4.4; HIRO's and HRAC's fourth task): collect apples, avoid bombs."""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.ants.batch import ANT_QPOS, ANT_QVEL, GREEN, ORANGE, Ants, require_number, require_positive
from hrl.envs.ants.physics import Simulator
from hrl.envs.ants.worlds import RED, room
from hrl.envs.scene import Outline
from hrl.envs.tasks.tensor import SingleEnv

RANGE = 10
"""Objects lie at even coordinates in [-10, 8]² except the origin, where the ant starts. Walls are 11 away."""
CATCH, SIGHT, BINS = 1.0, 6.0, 10
UPRIGHT = (0.2, 1.0)


class AntGather(Ants):
    """N ants among apples and bombs. An apple within 1 of the torso gives +1, a bomb -1; both then vanish.

    An episode ends when all objects are collected, or when the ant falls, with the reward `dying_cost`. An observation
    is 15 positions, 14 velocities, the nearness (1 - distance / 6) of the nearest apple in each of ten directions
    around the ant, the same for bombs, and 0.001 t.
    """

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        apples: int = 8,
        bombs: int = 8,
        span: float = 2 * math.pi,
        dying_cost: float = -10.0,
        physics: Simulator = "mujoco",
    ) -> None:
        if apples < 1 or bombs < 0 or apples + bombs >= RANGE**2:
            raise ValueError(
                f"apples must be at least 1, and apples and bombs together at most {RANGE**2 - 1}, not {apples} and "
                f"{bombs}"
            )
        require_positive("span, the angle of view,", span)
        require_number("dying_cost", dying_cost)
        self.apples, self.count, self.span, self.dying_cost = apples, apples + bombs, span, dying_cost
        seen = spaces.Box(-np.inf, np.inf, (ANT_QPOS + ANT_QVEL + 2 * BINS + 1,), np.float32)
        super().__init__(num_envs, device, max_episode_steps, render_mode, seen, room(RANGE + 1.0), physics)
        even = torch.arange(-RANGE, RANGE, 2, dtype=self.physics.qpos.dtype, device=self.device)
        grid = torch.cartesian_prod(even, even)
        self.grid = grid[grid.square().sum(-1) > 0]
        self.objects = torch.zeros_like(grid[:1]).repeat(num_envs, self.count, 1)
        self.left = torch.zeros(num_envs, self.count, dtype=torch.bool, device=self.device)
        self.worth = torch.tensor([1.0] * apples + [-1.0] * bombs, device=self.device)

    def begin(self, where: Tensor) -> None:
        """Put the ant at the origin, and the objects at distinct random positions."""
        super().begin(where)
        place = self.uniform(self.num_envs, len(self.grid)).argsort(-1)[:, : self.count]
        self.objects.copy_(torch.where(where.view(-1, 1, 1), self.grid[place], self.objects))
        self.left.copy_(torch.where(where.view(-1, 1), True, self.left))

    def outcome(self) -> tuple[Tensor, Tensor, Tensor]:
        """The reward of caught objects, or of a fall."""
        height = self.torso[:, 2]
        fallen = (height < UPRIGHT[0]) | (height > UPRIGHT[1]) | ~height.isfinite()
        caught = self.left & (self._ways().norm(dim=-1) < CATCH) & ~fallen.unsqueeze(-1)
        self.left &= ~caught
        reward = (caught * self.worth).sum(-1)
        reward = torch.where(fallen, self.dying_cost, reward)
        ended = fallen | ~self.left.any(-1)
        success = ~self.left[:, : self.apples].any(-1)
        return reward, ended, success

    def _ways(self) -> Tensor:
        """[N, objects, 2] displacements from the torsos to the objects."""
        return self.objects - self.torso[:, None, :2]

    def readings(self) -> Tensor:
        """[N, 2, 10] nearness of the nearest apple and bomb, by direction relative to the ant's heading; 0 for none."""
        w, x, y, z = self.physics.qpos[:, 3:7].unbind(-1)
        heading = torch.atan2(2 * (x * y + w * z), w.square() + x.square() - y.square() - z.square())
        way = self._ways()
        angle = torch.atan2(way[..., 1], way[..., 0]) - heading.unsqueeze(-1)
        angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        number = ((angle / self.span + 0.5) * BINS).floor().long()
        distance = way.norm(dim=-1)
        shown = self.left & (distance <= SIGHT) & (number >= 0) & (number < BINS)
        nearness = torch.where(shown, 1.0 - distance / SIGHT, 0.0)
        slot = number.clamp(0, BINS - 1) + BINS * (self.worth < 0)
        seen = nearness.new_zeros(self.num_envs, 2 * BINS)
        return seen.scatter_reduce(1, slot, nearness, "amax").unflatten(-1, (2, BINS))

    def observe(self) -> Tensor:
        """Observations [N, 50]."""
        return self.sensed(self.readings().flatten(1))

    def outlines(self, index: int) -> list[Outline]:
        """The four walls, and the areas in which the remaining objects are caught."""
        far, near = RANGE + 1.5, RANGE + 0.5
        sides = ((-far, -far, 2 * far, 1.0), (-far, near, 2 * far, 1.0))
        walls = [Outline(*side, "wall") for x, y, w, h in sides for side in ((x, y, w, h), (y, x, h, w))]
        return walls + [
            Outline(x - CATCH, y - CATCH, 2 * CATCH, 2 * CATCH, "reward" if worth > 0 else "hazard")
            for (x, y), worth in self._remaining(index)
        ]

    def _remaining(self, index: int) -> list[tuple[list[float], float]]:
        """Position and worth of each object of one environment that is not caught."""
        left = self.left[index]
        return list(zip(self.objects[index, left].tolist(), self.worth[left].tolist(), strict=True))

    def picture(self, index: int) -> np.ndarray:
        """A picture from above [H, W, 3]: apples green, bombs red, the subgoal orange."""
        spheres: list[Any] = [
            ((*place, 0.5), GREEN if worth > 0 else RED, 0.5) for place, worth in self._remaining(index)
        ]
        if self.marks is not None:
            spheres.append(([*self.marks[index].tolist(), 0.5][:3], ORANGE, 0.4))
        return self.viewer.picture(self.physics.qpos[index], spheres, ((0.0, 0.0, 0.0), 30.0))


class AntGatherEnv(SingleEnv):
    """A single ant gather environment with numpy values."""

    task = AntGather
