"""A point that follows a moving target. Every action affects the reward immediately; delayed rewards hide this."""

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.tasks.tensor import SingleEnv, TensorEnv

STRIDE, DRIFT, EDGE = 0.2, 0.15, 1.5


class Track(TensorEnv):
    """N points p and targets q, initially uniform in [-1, 1]². Both are observed.

    p moves by at most 0.2 along x and y, within [-1.5, 1.5]². The reward is minus the distance to q after this move. q
    then moves by N(0, 0.15²) within [-1, 1]². Success means a distance below 0.2.
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
        """Sample point and target at the mask `where` [N]."""
        fresh = self.uniform(2, self.num_envs, 2) * 2 - 1
        for x, new in zip((self.point, self.place), fresh, strict=True):
            x.copy_(torch.where(where.unsqueeze(-1), new, x))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move the point, then the target."""
        self.point.copy_((self.point + STRIDE * actions.clamp(-1.0, 1.0)).clamp(-EDGE, EDGE))
        distance = torch.linalg.vector_norm(self.point - self.place, dim=-1)
        drift = torch.randn(self.num_envs, 2, generator=self.generator, device=self.device)
        self.place.copy_((self.place + DRIFT * drift).clamp(-1.0, 1.0))
        return -distance, torch.zeros_like(distance, dtype=torch.bool), distance < STRIDE

    def observe(self) -> Tensor:
        """[N, 4] the point and the target."""
        return torch.cat([self.point, self.place], -1)

    def picture(self, index: int) -> np.ndarray:
        """The plane from above [H, W, 3]: target red, point green."""
        size = 200
        image = np.full((size, size, 3), 245, np.uint8)
        for place, colour in ((self.place, (230, 120, 120)), (self.point, (40, 150, 70))):
            column, row = ((place[index].cpu().numpy() * (1, -1) / EDGE + 1) / 2 * size).clip(4, size - 5).astype(int)
            image[row - 4 : row + 5, column - 4 : column + 5] = colour
        return image


class TrackEnv(SingleEnv):
    """A single track environment with numpy values."""

    task = Track
