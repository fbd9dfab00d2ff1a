"""A point that follows a place which wanders: every step's action matters at once, so late rewards hide much."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.tasks.tensor import SingleEnv, TensorEnv

STRIDE, WANDER, EDGE = 0.2, 0.15, 1.5


class Track(TensorEnv):
    """N points p and places q, both uniform in [-1, 1]² at first and both observed.

    p moves by at most .2 along x and y, within [-1.5, 1.5]²; the reward is minus the distance that is left to q,
    which then moves by N(0, .15²) within [-1, 1]². Success is to be within .2.
    """

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        seen = spaces.Box(-EDGE, EDGE, (4,), np.float32)
        moved = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(num_envs, device, max_episode_steps, render_mode, seen, moved)
        self.point = torch.zeros(num_envs, 2, device=self.device)
        self.place = torch.zeros(num_envs, 2, device=self.device)

    def begin(self, where: Tensor) -> None:
        """Anywhere."""
        fresh = self.uniform(2, self.num_envs, 2) * 2 - 1
        for x, new in zip((self.point, self.place), fresh, strict=True):
            x.copy_(torch.where(where.unsqueeze(-1), new, x))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move the point, then the place."""
        self.point.copy_((self.point + STRIDE * actions.clamp(-1.0, 1.0)).clamp(-EDGE, EDGE))
        distance = torch.linalg.vector_norm(self.point - self.place, dim=-1)
        drift = torch.randn(self.num_envs, 2, generator=self.generator, device=self.device)
        self.place.copy_((self.place + WANDER * drift).clamp(-1.0, 1.0))
        return -distance, torch.zeros_like(distance, dtype=torch.bool), distance < STRIDE

    def observe(self) -> Tensor:
        """[N, 4] the point, and the place."""
        return torch.cat([self.point, self.place], -1)

    def picture(self, index: int) -> np.ndarray:
        """The plane from above [H, W, 3]: place red, point green."""
        size = 200
        image = np.full((size, size, 3), 245, np.uint8)
        for place, colour in ((self.place, (230, 120, 120)), (self.point, (40, 150, 70))):
            column, row = ((place[index].cpu().numpy() * (1, -1) / EDGE + 1) / 2 * size).clip(4, size - 5).astype(int)
            image[row - 4 : row + 5, column - 4 : column + 5] = colour
        return image


class TrackEnv(SingleEnv):
    """One of them, with numpy values."""

    task = Track
