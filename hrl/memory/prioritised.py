"""Prioritised replay (Schaul 2016): transitions are sampled by their last error, with importance weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hrl.memory.ring import Replay, Rows

LEAST = 1e-6
"""Added to every error, so that every transition has a positive probability."""


class PrioritisedReplay(Replay):
    """A replay with a priority |δ|^α for every transition. New transitions get the maximum priority so far."""

    def __init__(
        self,
        fields: Mapping[str, int],
        next_fields: tuple[str, ...],
        counters: tuple[str, ...],
        capacity: int,
        num_envs: int,
        device: torch.device,
        held: int = 0,
        pixels: int = 0,
        frames: int = 1,
        alpha: float = 0.6,
        beta: float = 0.4,
    ) -> None:
        rows = max(capacity, held)
        super().__init__(fields, next_fields, counters, rows, num_envs, device, pixels=pixels, frames=frames)
        self.alpha, self.first_beta = alpha, beta
        self.beta = torch.tensor(beta, device=device)
        self.largest = torch.ones((), device=device)
        self.priority = torch.zeros(self.length * num_envs, device=device)

    def write(
        self,
        row: Mapping[str, Tensor],
        following: Mapping[str, Tensor],
        counters: Mapping[str, Tensor],
        keep: Tensor,
        ended: Tensor,
        terminated: Tensor,
    ) -> None:
        """Like `Replay.write`. Overwritten, open and final rows get a priority of 0."""
        here = self._index(self._env, self.cursor)
        super().write(row, following, counters, keep, ended, terminated)
        self.priority.index_copy_(0, here, torch.where(keep, self.largest, 0.0))
        self.priority.index_fill_(0, (here + self.num_envs) % len(self.priority), 0.0)
        for ahead in range(2):  # the open row and its successor, which the next write replaces
            self.priority.index_fill_(0, self._index(self._env, self.cursor + ahead), 0.0)

    def draw(self, batch: int, generator: torch.Generator) -> Rows:
        """Sample `batch` transitions with probabilities proportional to their priorities."""
        ends = self.priority.cumsum(0, dtype=torch.float64)
        uniform = torch.rand(batch, generator=generator, device=self.device, dtype=torch.float64)
        place = torch.searchsorted(ends, uniform * ends[-1], right=True).clamp_max(len(ends) - 1)
        env, slot = place % self.num_envs, place // self.num_envs
        newest = self.cursor[env]
        return Rows(env, newest - (newest - slot) % self.length)

    def weights(self, rows: Rows) -> Tensor:
        """Importance weights [B] (n P)^-β, divided by the maximum of the batch."""
        probability = self.priority[self._index(rows.env, rows.row)] / self.priority.sum()
        weight = (probability.clamp_min(1e-12) * (self.priority > 0).sum()) ** -self.beta
        return weight / weight.max()

    def prioritise(self, rows: Rows, error: Tensor) -> None:
        """Set the priorities of these transitions from their absolute errors [B]."""
        priority = (error + LEAST) ** self.alpha
        self.priority.index_copy_(0, self._index(rows.env, rows.row), priority)
        torch.maximum(self.largest, priority.max(), out=self.largest)

    def anneal(self, progress: float) -> None:
        """Set β for the fraction `progress` of the run; β rises linearly to 1."""
        self.beta.fill_(self.first_beta + (1 - self.first_beta) * progress)

    def clear(self) -> None:
        """Remove all transitions."""
        super().clear()
        self.priority.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the replay, including the priorities."""
        return super().state_dict() | {"priority": self.priority, "largest": self.largest, "beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`, from a replay of the same length."""
        super().load_state_dict(state)
        for name in ("priority", "largest", "beta"):
            getattr(self, name).copy_(state[name])
