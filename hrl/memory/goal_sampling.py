"""Samples goals from the trajectories of a dataset, as rows of the dataset (hindsight for offline learning)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.memory.dataset import Dataset


@dataclass(frozen=True)
class GoalShares:
    """Fractions of the goals for value learning. The remaining goals are later states of the same trajectory."""

    current: float = 0.2
    """Fraction of goals that are the current state, and therefore reached."""
    random: float = 0.3
    """Fraction of goals that are a random state of the dataset."""


def draw_transitions(data: Dataset, count: int, generator: torch.Generator) -> Tensor:
    """[B] rows of uniformly sampled transitions."""
    place = torch.randint(len(data.transitions), (count,), generator=generator, device=data.state.device)
    return data.transitions[place]


def value_goals(data: Dataset, rows: Tensor, shares: GoalShares, gamma: float, generator: torch.Generator) -> Tensor:
    """[B] rows of goals: the current state, a random state, or the state n steps later in the trajectory, at most its
    last state. n is geometric: P(n) = (1 - γ) γ^(n-1)."""
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
    """[B] the rows `steps` later, at most the rows `end` [B]."""
    return torch.minimum(rows + steps, end)
