"""Steps between positions, estimated from their distance in goal space and the speed of visited episodes.

This estimate needs no value. It ignores obstacles, so edges between landmarks must be confirmed by episodes.
"""

import torch
from torch import Tensor

from hrl.hierarchy.commands.goals import GoalSpace
from hrl.memory.ring import Rows
from hrl.planning.distance import PAIRS, Visited

FAST = 0.9
"""Quantile of the speeds of pieces of episodes that defines the speed. Slow pieces contain rests or turns."""


class TravelledDistance:
    """Steps from states to positions at the speed of visited episodes."""

    def __init__(self, goals: GoalSpace, threshold: float, device: torch.device, widest: float = 0.0) -> None:
        """A position counts as reached within `threshold` in the goal space; 0 if that is unknown. `widest` is the
        distance of the farthest goals that the policy was trained with; 0 if that is unknown."""
        self.goals, self.threshold, self.device, self.widest = goals, threshold, device, widest
        self.slowness = torch.zeros((), device=device)
        """Steps per unit of goal space."""

    def place(self, state: Tensor) -> Tensor:
        """The positions [..., G] of states [..., D] in goal space."""
        return self.goals.project(state)

    def apart(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [...] between two positions [..., G] in goal space."""
        return self.goals.distance(a, b)

    def __call__(self, state: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Environment steps [...] from states [..., D] until positions [..., G] count as reached, and the
        steps [...] to the exact positions."""
        apart = self.apart(self.place(state), place)
        return (apart - self.threshold).clamp_min(0.0) * self.slowness, apart * self.slowness

    def fit(self, replay: Visited, longest: float, generator: torch.Generator) -> None:
        """Measure the speed on pieces of episodes of half the longest hop."""
        rows, steps = replay.draw(PAIRS, generator), max(round(longest / 2), 1)
        later = rows.later(steps)
        whole = later.row <= replay.end(rows)
        ends = (self.place(replay.get(Rows(x.env[whole], x.row[whole]), "state")) for x in (rows, later))
        self.slowness.copy_(steps / self.apart(*ends).quantile(FAST).clamp_min(1e-6))

    def longest(self, default: float) -> float:
        """Environment steps to goals at half the distance of the farthest ones of training, at which policies arrive
        more reliably; `default` if these are unknown."""
        return self.widest / 2 * float(self.slowness) or default

    def measure_speed(self, state: Tensor, place: Tensor, apart: Tensor, longest: float) -> None:
        """Do nothing: the steps lead to the exact position."""

    def tensors(self) -> dict[str, Tensor]:
        """The measured speed."""
        return {"slowness": self.slowness}
