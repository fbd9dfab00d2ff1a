"""Builds goal spaces: the projection, and bounds that are declared, given by the observation space, or measured."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hrl.hierarchy.commands.goals import UNBOUNDED, GoalConfig, GoalSpace, Select
from hrl.spaces import action_width, from_uniform
from hrl.stopping import close_within
from hrl.types import BatchedEnv, Spec, Step, UserError

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
    move, without clocks. Raises UserError if the declaration does not fit the environment.
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
    """The configuration, with the entries of the observation that change within `period` random steps as indices.

    A clock, such as the time, is not among them unless nothing else changes: no action controls it.
    """
    entries = spec.state_dim - spec.pixels
    if not entries:
        raise UserError(
            f"{spec.env_id} observes only an image, so no goal space can be found automatically: declare it with "
            "--goal.projection module:function, --goal.low and --goal.high."
        )
    everything = Select(torch.arange(entries, device=device))
    moves = measure_bounds(measure(), everything, period, relative=True)
    moving = moves.high > 1.5 * LEAST_MOVE
    controlled = moving & ~find_clocks(measure(), everything)
    indices = (controlled if bool(controlled.any()) else moving).nonzero().flatten().tolist()
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
    start = low = high = torch.empty(0)
    for t, (state, step) in enumerate(random_steps(env, steps)):
        if t == 0:
            start = project(state)
            low = torch.zeros_like(start[0]) if relative else start.amin(0)
            high = torch.zeros_like(start[0]) if relative else start.amax(0)
        at = torch.where(step.active.unsqueeze(-1), project(step.final.state), start)
        seen = at - start if relative else at
        low, high = torch.minimum(low, seen.amin(0)), torch.maximum(high, seen.amax(0))
        restart = (step.terminated | step.truncated | ~step.active).unsqueeze(-1) | ((t + 1) % period == 0)
        start = torch.where(restart, project(step.obs.state), start)
    if relative:
        half = torch.maximum(high, -low).clamp_min(LEAST_MOVE) * 1.1
        return _Bounds(-half, half)
    margin = (high - low).clamp_min(1e-3) * 0.05
    return _Bounds(low - margin, high + margin)


@torch.no_grad()
def find_clocks(env: BatchedEnv, project: Callable[[Tensor], Tensor], steps: int = 200) -> Tensor:
    """A mask [G] of the entries that change by the same amount in every one of `steps` random steps of every
    environment, such as the time."""
    least, most = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    for state, step in random_steps(env, steps):
        change = (project(step.final.state) - project(state))[step.active]
        if len(change):
            least = torch.minimum(least.to(change), change.amin(0))
            most = torch.maximum(most.to(change), change.amax(0))
    return (most - least <= 1e-3 * most.abs()) & (most != 0)


def random_steps(env: BatchedEnv, steps: int) -> Iterator[tuple[Tensor, Step]]:
    """The states [N, D] before each of `steps` random steps, and the steps. Closes the environments at the end. Every
    random action is repeated for 5 steps, so that it moves the agent."""
    generator = torch.Generator().manual_seed(0)
    state = env.reset(seed=0).state
    action = torch.zeros(env.num_envs, action_width(env.spec.actions))
    for t in range(steps):
        if t % 5 == 0:
            action = from_uniform(env.spec.actions, torch.rand(action.shape, generator=generator))
        step = env.step(action.to(state.device))
        yield state, step
        state = step.obs.state
    close_within(env.close)
