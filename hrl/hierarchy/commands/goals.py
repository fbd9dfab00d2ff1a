"""The goal space. It is declared once, and used by every algorithm and by the pictures."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from hrl.types import Spec, UserError


@dataclass(frozen=True)
class GoalConfig:
    """The options of a goal space. A goal environment needs none."""

    indices: tuple[int, ...] = ()
    """State entries that form a goal. Default: the achieved goal of a goal environment, otherwise the entries that
    random steps change, without clocks (all entries, if bounds are given)."""
    projection: str | None = None
    """`module:function` mapping states [..., D] to goals [..., G], instead of indices."""
    low: tuple[float, ...] = ()
    """Lower bound of a subgoal (of its displacement, if relative). One number applies to all dimensions."""
    high: tuple[float, ...] = ()
    """Upper bound of a subgoal (of its displacement, if relative). One number applies to all dimensions."""
    bounds: Literal["given", "space", "measured", "auto"] = "auto"
    """Source of the bounds: low and high, the observation space, or random steps before training. auto uses low and
    high if they are given. Otherwise, it measures displacements, and uses the observation space's bounds for
    positions."""
    relative: bool = True
    """A subgoal is a displacement from the state of the decision (HIRO), not a position."""
    distance: Literal["l2", "linf", "scaled"] = "l2"
    """Distance between two goals: Euclidean, or the maximum difference of the entries, in their units (linf) or in
    half-ranges of the bounds (scaled)."""
    threshold: float | None = None
    """A subgoal counts as reached within this distance. Default: a tenth of the half-diagonal, or .1 if scaled."""
    info: tuple[str, ...] = ()
    """Entries of info that the task's compute_reward reads; hindsight stores them with every step."""
    cells: int = 0
    """Number of grid cells along each dimension, for a high level with discrete actions: a subgoal is one cell.
    Default: subgoals are vectors."""
    periods: tuple[float, ...] = ()
    """Periods of sine and cosine features of positions in goal space, which every network receives."""

    @property
    def order(self) -> float:
        """The distance's order of the vector norm: 2 or infinity."""
        return 2.0 if self.distance == "l2" else math.inf

    @property
    def source(self) -> str:
        """The entries of the observation that form a goal, or the projection, in words."""
        entries = f"{'entry' if len(self.indices) == 1 else 'entries'} {_ranges(self.indices)}"
        return f"{self.projection or entries} of the observation"

    def describe(self, spec: Spec) -> str:
        """A sentence that describes the goal space, once its bounds are resolved."""
        of = f"achieved_goal ({self.source})" if not self.projection and self.indices == spec.achieved else self.source
        pairs = zip(self.low, self.high, strict=True)
        bounds = _bounds([f"±{high:.3g}" if low == -high else f"{low:.3g} to {high:.3g}" for low, high in pairs])
        kind = "displacements" if self.relative else "places"
        near = f"{self.threshold or 0:.3g}{' half-ranges' if self.distance == 'scaled' else ''}"
        return f"{of}; subgoals are {kind} within {bounds}; a subgoal counts as reached within {near}."

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        if self.threshold is not None and not self.threshold > 0:
            raise UserError(f"goal.threshold must be positive, not {self.threshold}.")
        if not all(p > 0 for p in self.periods):
            raise UserError(f"goal.periods must be positive, not {self.periods}.")
        if self.cells < 0 or self.cells == 1:
            raise UserError(f"goal.cells must be 0 (vectors) or at least 2, not {self.cells}.")
        if self.bounds in ("space", "measured") and (self.low or self.high):
            raise UserError(f"goal.low and goal.high cannot be given with goal.bounds {self.bounds}.")


def _ranges(numbers: tuple[int, ...]) -> str:
    """Numbers in words: three or more consecutive ones as a range."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _bounds(entries: list[str], longest: int = 12) -> str:
    """The bounds of every entry in words, or their number if there are too many different ones."""
    runs = [(text, len(list(run))) for text, run in groupby(entries)]
    if len(runs) > longest:
        return f"{len(runs)} different bounds"
    return ", ".join(f"{text} ({n} entries)" if n > 2 else ", ".join([text] * n) for text, n in runs)


class GoalSpace:
    """Projection, bounds, distance and features of goals. Tensors are [..., G]."""

    def __init__(
        self,
        project: Callable[[Tensor], Tensor],
        low: Tensor,
        high: Tensor,
        relative: bool,
        threshold: float | None = None,
        distance: str = "l2",
        periods: tuple[float, ...] = (),
    ) -> None:
        self.project = project
        self.low, self.high = low, high
        self.centre, self.half = (high + low) / 2, (high - low) / 2
        self.relative, self.periods = relative, periods
        self.kind, self.order = distance, 2.0 if distance == "l2" else math.inf
        tenth = 0.1 if distance == "scaled" else float(0.1 * self.half.norm())
        self.threshold = tenth if threshold is None else threshold
        self.frequencies = torch.tensor([2 * math.pi / p for p in periods], device=low.device)

    def declare(self, config: GoalConfig) -> GoalConfig:
        """The configuration with the resolved indices, bounds and threshold."""
        low, high = (tuple(float(x) for x in b) for b in (self.low, self.high))
        indices = config.indices or (self.project.indices.tolist() if isinstance(self.project, Select) else ())
        return replace(config, indices=tuple(indices), low=low, high=high, bounds="given", threshold=self.threshold)

    def scaled(self, factor: float) -> "GoalSpace":
        """The same space with wider bounds, for displacements over a longer time. Absolute goals keep their bounds."""
        if not self.relative:
            return self
        low, high = self.centre - factor * self.half, self.centre + factor * self.half
        return GoalSpace(self.project, low, high, True, self.threshold, self.kind, self.periods)

    def same(self, other: "GoalSpace") -> bool:
        """Whether goals have the same meaning in another space: equal bounds, threshold, distance and features."""
        same_kind = self.relative == other.relative and self.threshold == other.threshold and self.kind == other.kind
        bounds = torch.equal(self.low, other.low) and torch.equal(self.high, other.high)
        return same_kind and bounds and torch.equal(self.frequencies, other.frequencies)

    @property
    def dim(self) -> int:
        """G, the number of goal dimensions."""
        return self.low.shape[-1]

    def entries(self, state_dim: int) -> tuple[int, ...]:
        """Indices of the state entries that goals depend on, found by setting each entry to NaN in turn."""
        unknown = torch.zeros(state_dim, state_dim, device=self.low.device).fill_diagonal_(math.nan)
        return tuple(self.project(unknown).isnan().any(-1).nonzero().flatten().tolist())

    def scale(self, raw: Tensor) -> Tensor:
        """Scale a policy's output from [-1, 1] to the goal space's bounds."""
        return self.centre + self.half * raw

    def unscale(self, goal: Tensor) -> Tensor:
        """Scale goals from the goal space's bounds to [-1, 1], clipped."""
        return ((goal - self.centre) / self.half).clamp(-1.0, 1.0)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [...] of goals a and b."""
        apart = (a - b) / self.half if self.kind == "scaled" else a - b
        return torch.linalg.vector_norm(apart, ord=self.order, dim=-1)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [..., M, L] of goals a [..., M, G] from goals b [L, G]."""
        flat = a.reshape(-1, a.shape[-1])
        apart = torch.cdist(flat, b, p=self.order, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.view(*a.shape[:-1], len(b))

    def features(self, goal: Tensor) -> Tensor:
        """Sines and cosines [..., 2 G P] of goals at the declared P periods."""
        return sinusoids(goal, self.frequencies)

    @property
    def feature_dim(self) -> int:
        """2 G P, the width of `features`."""
        return 2 * self.dim * len(self.frequencies)


def sinusoids(x: Tensor, frequencies: Tensor) -> Tensor:
    """Sine and cosine [..., 2 G P] of every entry of x [..., G] at every frequency."""
    angles = (x.unsqueeze(-1) * frequencies).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


@dataclass(frozen=True)
class Select:
    """The projection that selects state entries."""

    indices: Tensor

    def __call__(self, state: Tensor) -> Tensor:
        return state.index_select(-1, self.indices)


UNBOUNDED = 1e6
"""Bounds of this size or more count as none."""
