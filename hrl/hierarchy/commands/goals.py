"""The goal space. It is declared once, and used by every algorithm and by the pictures."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from hrl.spaces import action_width, from_uniform
from hrl.stopping import close_within
from hrl.types import BatchedEnv, Spec, UserError


@dataclass(frozen=True)
class GoalConfig:
    """The options of a goal space. A goal environment needs none."""

    indices: tuple[int, ...] = ()
    """State entries that form a goal. Default: the achieved goal of a goal environment, otherwise the entries that
    random steps change (all entries, if bounds are given)."""
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

    def describe(self, spec: Spec) -> str:
        """A sentence that describes the goal space, once its bounds are resolved."""
        entries = f"{'entry' if len(self.indices) == 1 else 'entries'} {', '.join(map(str, self.indices))}"
        of = f"{self.projection or entries} of the observation"
        if not self.projection and self.indices == spec.achieved:
            of = f"achieved_goal ({of})"
        pairs = list(zip(self.low, self.high, strict=True))
        bounds = ", ".join(f"±{high:.3g}" if low == -high else f"{low:.3g} to {high:.3g}" for low, high in pairs)
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
        alike = self.relative == other.relative and self.threshold == other.threshold and self.kind == other.kind
        bounds = torch.equal(self.low, other.low) and torch.equal(self.high, other.high)
        return alike and bounds and torch.equal(self.frequencies, other.frequencies)

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
LEAST_MOVE = 1e-3
"""Minimum half-range of a measured dimension."""


@dataclass
class _Bounds:
    low: Tensor = field(default_factory=lambda: torch.empty(0))
    high: Tensor = field(default_factory=lambda: torch.empty(0))


def build_goal_space(
    config: GoalConfig, spec: Spec, period: int, measure: Callable[[], BatchedEnv], device: torch.device
) -> GoalSpace:
    """Build the goal space of an environment. `measure` makes environments for measured bounds.

    If nothing is declared and the environment has no goals, goals are the entries of the observation that random steps
    move. Raises UserError if the declaration does not fit the environment.
    """
    config.check()
    if not (config.indices or config.projection or config.low or config.high or spec.achieved):
        config = _moving(config, spec, period, measure, device)
    project = build_projection(config, spec, device)
    dim = project(torch.zeros(1, spec.state_dim, device=device)).shape[-1]
    bounds = _given(config, dim, device)
    if bounds is None and (config.bounds == "space" or not config.relative):
        bounds = _from_space(config, spec, project, device)
    if bounds is None:
        bounds = measure_bounds(measure(), project, period, config.relative)
    if not bool((bounds.low < bounds.high).all()):
        raise UserError(
            f"Every goal.low must be below goal.high, but they are {bounds.low.tolist()} and {bounds.high.tolist()}."
        )
    return GoalSpace(
        project, bounds.low, bounds.high, config.relative, config.threshold, config.distance, config.periods
    )


def _moving(
    config: GoalConfig, spec: Spec, period: int, measure: Callable[[], BatchedEnv], device: torch.device
) -> GoalConfig:
    """The configuration, with the entries of the observation that change within `period` random steps as indices."""
    entries = spec.state_dim - spec.pixels
    if not entries:
        raise UserError(
            f"{spec.env_id} observes only an image, so no goal space can be found automatically: declare it with "
            "--goal.projection module:function, --goal.low and --goal.high."
        )
    everything = Select(torch.arange(entries, device=device))
    moves = measure_bounds(measure(), everything, period, relative=True)
    indices = (moves.high > 1.5 * LEAST_MOVE).nonzero().flatten().tolist()
    if not indices:
        raise UserError(
            f"Random steps do not change the observations of {spec.env_id}, so no goal space can be found "
            "automatically: declare it with --goal.indices, --goal.low and --goal.high."
        )
    return replace(config, indices=tuple(indices))


def build_projection(config: GoalConfig, spec: Spec, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The declared map from states [..., D] to goals [..., G]. Raises UserError if it does not fit the environment."""
    if config.projection is not None:
        if config.indices:
            raise UserError(
                f"goal.indices and goal.projection {config.projection} are alternatives: use --goal.projection None "
                "for the indices."
            )
        return load_projection(config.projection, spec, device)
    indices = config.indices or spec.achieved or tuple(range(spec.state_dim))
    outside = [i for i in indices if not 0 <= i < spec.state_dim]
    if outside:
        raise UserError(
            f"goal.indices {outside} lie outside the observation of {spec.env_id}, "
            f"which has {spec.state_dim} entries (0 to {spec.state_dim - 1})."
        )
    return Select(torch.tensor(indices, device=device))


def load_projection(path: str, spec: Spec, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Import `module:function` and call it once. Raises UserError if it does not map states to goals."""
    module, _, name = path.partition(":")
    try:
        project = getattr(importlib.import_module(module), name)
        goal = project(torch.zeros(2, spec.state_dim, device=device))
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(
            f"goal.projection {path!r} cannot be used ({type(error).__name__}: {error}); it must have the form "
            "module:function, and map states [..., D] to goals [..., G]."
        ) from error
    if not isinstance(goal, Tensor) or goal.dim() != 2 or len(goal) != 2:
        raise UserError(f"goal.projection {path!r} must map states [..., D] to a tensor of goals [..., G].")
    return project


def _given(config: GoalConfig, dim: int, device: torch.device) -> _Bounds | None:
    if config.bounds not in ("auto", "given"):
        return None
    if not config.low and not config.high and config.bounds == "auto":
        return None
    for name in ("low", "high"):
        if len(getattr(config, name)) not in (1, dim):
            raise UserError(
                f"goal.{name} needs 1 or {dim} numbers for this goal space, but has {len(getattr(config, name))}."
            )
    low, high = (torch.tensor(b, device=device).expand(dim).clone() for b in (config.low, config.high))
    return _Bounds(low, high)


def _from_space(
    config: GoalConfig, spec: Spec, project: Callable[[Tensor], Tensor], device: torch.device
) -> _Bounds | None:
    if config.bounds == "measured":
        return None
    low, high = project(spec.state_low.to(device)), project(spec.state_high.to(device))
    # Bounds at the largest float count as unbounded.
    bounded = (low.abs() < UNBOUNDED) & (high.abs() < UNBOUNDED) & (low < high)
    if not bool(bounded.all()) or config.projection is not None:
        if config.bounds == "space":
            raise UserError(
                f"goal.bounds space: the observation space of {spec.env_id} has no bounds for these goals; "
                "give goal.low and goal.high, or use goal.bounds measured."
            )
        return None
    if config.relative:
        half = (high - low) / 2
        return _Bounds(-half, half)
    return _Bounds(low, high)


@torch.no_grad()
def measure_bounds(
    env: BatchedEnv, project: Callable[[Tensor], Tensor], period: int, relative: bool, steps: int = 200
) -> _Bounds:
    """Bounds of all goals visited in `steps` random steps of every environment, widened by one tenth.

    Relative bounds are symmetric and contain all displacements within `period` steps of one episode.
    """
    generator = torch.Generator().manual_seed(0)
    obs = env.reset(seed=0)
    start = project(obs.state)
    low = torch.zeros_like(start[0]) if relative else start.amin(0)
    high = torch.zeros_like(start[0]) if relative else start.amax(0)
    action = torch.zeros(env.num_envs, action_width(env.spec.actions))
    for t in range(steps):
        # A random action is repeated for 5 steps, so that it moves the agent.
        if t % 5 == 0:
            action = from_uniform(env.spec.actions, torch.rand(action.shape, generator=generator))
        step = env.step(action.to(start.device))
        at = torch.where(step.active.unsqueeze(-1), project(step.final.state), start)
        seen = at - start if relative else at
        low, high = torch.minimum(low, seen.amin(0)), torch.maximum(high, seen.amax(0))
        restart = (step.terminated | step.truncated | ~step.active).unsqueeze(-1) | ((t + 1) % period == 0)
        start = torch.where(restart, project(step.obs.state), start)
    close_within(env.close)
    if relative:
        half = torch.maximum(high, -low).clamp_min(LEAST_MOVE) * 1.1
        return _Bounds(-half, half)
    margin = (high - low).clamp_min(1e-3) * 0.05
    return _Bounds(low - margin, high + margin)
