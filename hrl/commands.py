"""What a level is told from above, and the intrinsic reward that follows from it.

A command is one vector an environment, the *target*. The level below sees a *view* of it from its state.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from hrl.goals import GoalConfig, GoalSpace, Select
from hrl.types import Spec, TaskReward, UserError


class Command(Protocol):
    """The contract between a level and the one above it (for the top level, the task)."""

    dim: int
    """Entries of a target."""
    input_dim: int
    """Entries that `encode` gives a policy."""
    extrinsic: bool
    """The level learns on the environment's reward, and its replay stores it."""

    def shape(self, reward: Tensor) -> Tensor:
        """The environment's reward as it is learned on (where extrinsic)."""

    def encode(self, state: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """What the policy is shown of state [..., D] and target [..., G]; `seen` is the state where it is not blind."""

    def project(self, state: Tensor) -> Tensor:
        """The target [..., G] that being in this state fulfils."""

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """Intrinsic reward [...] for a step from state to next_state under target."""

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """Least and greatest discounted sum of rewards that can be, where known."""


class Subgoal:
    """A place in goal space to be reached. The target is absolute; a relative goal space shows the way to it.

    HIRO's goal transition h(s, g, s') = s + g - s' keeps the place s + g fixed, so storing the place and
    showing `target - φ(s)` is that transition, computed from the true state each time.
    """

    extrinsic = False

    def __init__(self, space: GoalSpace, reward: Literal["sparse", "distance", "progress"], scale: float = 1.0) -> None:
        self.space, self.scale = space, scale
        self.dim = space.dim
        self.input_dim = space.dim * (1 if space.relative else 2) + space.feature_dim
        self.kind = reward
        self._reward: Callable[[Tensor, Tensor, Tensor], Tensor] = {
            "sparse": self._sparse,
            "distance": self._negative_distance,
            "progress": self._progress,
        }[reward]

    def fits(self, other: object) -> bool:
        """Whether decisions and targets mean the same under another command."""
        return isinstance(other, Subgoal) and self.space.same(other.space)

    def issue(self, state: Tensor, raw: Tensor) -> Tensor:
        """The target [..., G] of a decision raw in [-1, 1]."""
        goal = self.space.scale(raw)
        return goal + self.space.project(state) if self.space.relative else goal

    def retrace(self, state: Tensor, target: Tensor) -> Tensor:
        """The decision in [-1, 1] that would have issued this target from this state, clipped."""
        return self.space.unscale(target - self.space.project(state) if self.space.relative else target)

    def encode(self, state: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """Way to the target (and the target itself where absolute), position features, scaled to order 1."""
        way = (target - self.space.project(state)) / self.space.half
        shown = [way] if self.space.relative else [way, (target - self.space.centre) / self.space.half]
        return torch.cat([*shown, self.space.features(self.space.project(seen))], -1)

    def shape(self, reward: Tensor) -> Tensor:
        """A subgoal does not pay the environment's reward."""
        return torch.zeros_like(reward)

    def project(self, state: Tensor) -> Tensor:
        """φ(s)."""
        return self.space.project(state)

    def distance(self, state: Tensor, target: Tensor) -> Tensor:
        """How far [...] the state is from the target."""
        return self.space.distance(self.space.project(state), target)

    def reached(self, state: Tensor, target: Tensor) -> Tensor:
        """Whether [...] the state fulfils the target."""
        return self.distance(state, target) <= self.space.threshold

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """HIRO eq. 3 (distance: -||s + g - s'||), HAC's sparse -1 / 0, or how much nearer the step came.

        Progress is the distance's reward times 1 - γ, shaped (Ng 1999) by the value of standing still for ever,
        -||s + g - s||: it makes the same policy best, and what values no longer carry is not to be learned. That
        holds also where the task ends, since both rewards count as if the agent stayed there (`Level.batch`).
        """
        return self._reward(state, next_state, target) * self.scale

    def _sparse(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        return self.reached(next_state, target).float() - 1.0

    def _negative_distance(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        return -self.distance(next_state, target)

    def _progress(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        return self.distance(state, target) - self.distance(next_state, target)

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """[-1/(1-γ), 0] times the scale for the sparse reward; a distance is bounded above, progress not at all."""
        return {"sparse": (-self.scale / (1.0 - gamma), 0.0), "distance": (-float("inf"), 0.0)}.get(self.kind)


class Task:
    """The environment's own command to the top level: its desired goal, if it has one, and its reward."""

    extrinsic = True

    def __init__(
        self,
        goal_dim: int,
        space: GoalSpace | None = None,
        task_reward: TaskReward | None = None,
        reward_range: tuple[float, float] | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        self.dim = goal_dim
        self.space = space
        self.task_reward = task_reward
        self.reward_range = reward_range
        self.scale, self.offset = scale, offset
        self.penalty = 0.0
        self.input_dim = goal_dim * 2 + 2 * space.feature_dim if space is not None else goal_dim

    @classmethod
    def of(cls, spec: Spec, goal: GoalConfig, scale: float, offset: float, device: torch.device) -> "Task":
        """The task of an environment; its goals get the position features that the goal space declares."""
        goal.check()
        if not spec.goal_dim:
            return cls(0, scale=scale, offset=offset)
        unit = torch.ones(spec.goal_dim, device=device)
        select = Select(torch.tensor(spec.achieved, device=device))
        space = GoalSpace(select, -unit, unit, relative=False, periods=goal.periods)
        return cls(spec.goal_dim, space, spec.task_reward, spec.reward_range, scale, offset)

    def require_goals(self, option: str) -> None:
        """Raise UserError where there is no goal to relabel."""
        if self.task_reward is None:
            raise UserError(
                f"{option} relabels the task's goal, but this environment has none "
                f"(no achieved_goal and desired_goal in its observation); set {option} 0."
            )
        if fault := getattr(self.task_reward, "fault", None):
            raise UserError(f"{fault} (--{option} 0)")

    def shape(self, reward: Tensor) -> Tensor:
        """The reward that is learned on: (r + offset) * scale, each environment step."""
        return (reward + self.offset) * self.scale

    def encode(self, state: Tensor, target: Tensor, seen: Tensor) -> Tensor:
        """The desired goal and the way to it, with the goal space's features of both ends."""
        if self.space is None:
            return target
        features = [self.space.features(self.space.project(seen)), self.space.features(target)]
        return torch.cat([target - self.space.project(state), target, *features], -1)

    def project(self, state: Tensor) -> Tensor:
        """The achieved goal of a goal environment."""
        assert self.space is not None
        return self.space.project(state)

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """The task's reward of one step, recomputed (goal environments)."""
        assert self.task_reward is not None
        return self.shape(self.task_reward(self.project(next_state), target)[0])

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """Bounds of the discounted return where the step reward's bounds are known; 0 is the value after the end."""
        if self.reward_range is None:
            return None
        low, high = sorted((r + self.offset) * self.scale for r in self.reward_range)
        return min(low / (1.0 - gamma), -self.penalty, 0.0), max(high / (1.0 - gamma), 0.0)
