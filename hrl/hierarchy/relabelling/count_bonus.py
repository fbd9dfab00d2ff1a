"""A bonus for rarely visited positions, from counts of visits to grid cells (Bellemare et al. 2016, arXiv:1606.01868; a
hash of cells as in Tang et al. 2017, arXiv:1611.04717):

    r + β / √n(c),   c = ⌊φ(s') / width⌋,

where n(c) is the number of the level's decisions that began or ended in cell c. The bonus is computed from the current
counts whenever a transition is sampled, so it falls for old transitions, too.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from hrl.execution.processes import average_over_processes
from hrl.learners import Metrics
from hrl.memory.ring import Replay, Rows

BITS = 16
"""The table has 2^16 counts. Cells with the same hash share one."""


def hash_factors(count: int) -> Tensor:
    """Odd random factors [count] of a multiply-shift hash of `count` coordinates (Dietzfelbinger 1996), int64. They are
    always the same."""
    factors = np.random.SeedSequence(0).generate_state(count, np.uint64) | np.uint64(1)
    return torch.from_numpy(factors.view(np.int64))


class CountBonus:
    """Counts the positions in a level's replay, and computes the bonus of states."""

    def __init__(
        self,
        project: Callable[[Tensor], Tensor],
        memory: Replay,
        weight: float,
        width: float,
        pause: int,
        starts: int = 0,
        processes: int = 1,
    ) -> None:
        """`project` maps states [..., D] to positions [..., G]. New positions are counted every `pause` environment
        steps after the first `starts`, over all `processes`."""
        self.project, self.memory, self.greatest, self.width = project, memory, weight, width
        self.pause, self.starts, self.processes = pause, starts, processes
        dim = project(torch.zeros(memory.width("state"), device=memory.device)).shape[-1]
        self.factors = hash_factors(dim).to(memory.device)
        self.counts = torch.zeros(2**BITS, device=memory.device)
        self.read = torch.zeros_like(memory.cursor)
        self.at = 0

    def __call__(self, state: Tensor) -> Tensor:
        """The bonus [...] of states [..., D]; β in a cell that was not visited."""
        return self.greatest * self.counts[self.entry(state)].clamp_min(1.0).rsqrt()

    def entry(self, state: Tensor) -> Tensor:
        """The table entry [...] of the cell of states [..., D], int64."""
        cell = (self.project(state) / self.width).floor().long()
        hashed = (cell * self.factors).sum(-1)  # modulo 2^64
        return hashed >> (64 - BITS) & (2**BITS - 1)

    def keep_up(
        self, level: object, steps: int, generator: torch.Generator, in_haste: Callable[[], bool] = bool
    ) -> Metrics:
        """Count the positions since the last call, every `pause` environment steps. This waits for the device."""
        if steps - self.at < self.pause:
            return {}
        self.at, ring = steps, self.memory
        if steps >= self.starts:
            self.count(min(int((ring.cursor - self.read).max()), ring.length - 2))
        self.read.copy_(ring.cursor)
        visited = self.counts > 0
        return {"visited_cells": visited.sum().float()}

    def count(self, newest: int) -> None:
        """Count the `newest` positions of every environment that were not counted before."""
        ring = self.memory
        row = ring.cursor - torch.arange(newest, device=ring.device).unsqueeze(-1)
        rows = Rows(torch.arange(ring.num_envs, device=ring.device).expand_as(row), row)
        visits = torch.zeros_like(self.counts)
        visits.index_add_(0, self.entry(ring.get(rows, "state")).flatten(), (row > self.read).flatten().float())
        average_over_processes(visits)
        self.counts += visits * self.processes

    # -- checkpoint ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """The counts, and the rows and steps up to which they were counted."""
        return {"counts": self.counts, "read": self.read, "at": torch.tensor(self.at)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.counts.copy_(state["counts"])
        self.read.copy_(state["read"])
        self.at = int(state["at"])
