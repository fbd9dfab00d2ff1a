"""Goals drawn from the trajectories of a dataset, as rows of it (hindsight for offline learning)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.memory.dataset import Dataset


@dataclass(frozen=True)
class GoalShares:
    """Shares of the goals of values; the remaining goals are later states of the same trajectory."""

    current: float = 0.2
    """Share of goals that are the current state, and so are reached."""
    random: float = 0.3
    """Share of goals that are a random state of the dataset."""


def draw_transitions(data: Dataset, count: int, generator: torch.Generator) -> Tensor:
    """[B] rows of uniformly drawn transitions."""
    place = torch.randint(len(data.transitions), (count,), generator=generator, device=data.state.device)
    return data.transitions[place]


def value_goals(data: Dataset, rows: Tensor, shares: GoalShares, gamma: float, generator: torch.Generator) -> Tensor:
    """[B] rows of goals: the current state, a random one, or one n steps later in the trajectory. n is geometric with
    P(n) = (1 - γ) γ^(n-1), and ends at the trajectory's last state."""
    device, count = rows.device, len(rows)
    uniform = torch.rand(2, count, generator=generator, device=device, dtype=torch.float64)
    later = 1 + ((1 - uniform[0]).log() / math.log(gamma)).floor().long()
    along = torch.minimum(rows + later, data.final[rows])
    anywhere = torch.randint(len(data.state), (count,), generator=generator, device=device)
    kind = uniform[1]
    goals = torch.where(kind < shares.current + shares.random, anywhere, along)
    return torch.where(kind < shares.current, rows, goals)


def trajectory_goals(data: Dataset, rows: Tensor, generator: torch.Generator) -> Tensor:
    """[B] rows of goals, uniform among the later states of each row's trajectory."""
    uniform = torch.rand(len(rows), generator=generator, device=rows.device, dtype=torch.float64)
    left = data.final[rows] - rows
    return rows + 1 + (uniform * left).long().clamp_max(left - 1)


def steps_ahead(rows: Tensor, steps: int, end: Tensor) -> Tensor:
    """[B] the rows `steps` later, but none beyond the rows `end` [B]."""
    return torch.minimum(rows + steps, end)
