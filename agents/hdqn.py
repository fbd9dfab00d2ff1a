"""h-DQN: hierarchical deep Q-learning over declared subgoals (Kulkarni, Narasimhan, Saeedi, Tenenbaum 2016,
arXiv:1604.06057).

The user declares K subgoals, each as a predicate of the state: "take the key", "open the door". The high level (the
paper's meta-controller) chooses a subgoal g that is not reached yet, and learns from the task's reward. The low level
(the controller) chooses actions. The internal critic gives it a reward of 1 for reaching g. The subgoal ends when it is
reached, after `high.period` steps, or with the episode. For a subgoal with a duration of k steps,

    Q2(s, g) = E[ r_1 + γ r_2 + ... + γ^(k-1) r_k + γ^k max_g' Q2(s_k, g') ]      over the subgoals g' available in s_k
    Q1(s, a; g) = E[ b + γ max_a' Q1(s', a'; g) ],      b = 1 and no bootstrapping where s' reaches g, else b = 0

Deviations from the paper: the high level discounts by γ^k (as options do), not once per subgoal. A subgoal has a time
limit. A fraction of each batch of the low level is relabelled with another subgoal (`low.hindsight`). This is exact,
because every transition is valid for every subgoal. The low level's exploration decreases over the run. With
`low.explore_by_success`, it decreases with the success of each subgoal, as published:
ε_g = ε + (1 - ε) (1 - success of g).
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from hrl.agents.base import HierarchyConfig
from hrl.hierarchy.clock import Transition
from hrl.hierarchy.commands import DeclaredSubgoals, Task
from hrl.hierarchy.commands.declared import load_predicates, near_points
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.exploration import SuccessRates
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Relabel
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.relabelling.hindsight import HindsightChoices, Strategy
from hrl.hierarchy.setting import Setting
from hrl.learners import Choice, DQNConfig, ReplayConfig
from hrl.state import Stateful
from hrl.types import Spec, UserError


@dataclass
class Low(LevelConfig):
    """The low level. It acts at every step, and is rewarded for reaching subgoals."""

    learner: Choice = field(default_factory=lambda: DQNConfig(random_actions=(0.02, 0.3)))
    gamma: float = 0.97
    """Discount per environment step."""
    reward: Literal["bonus", "sparse"] = "bonus"
    """bonus: 1 on reaching the subgoal, else 0 (published). sparse: -1 until the subgoal is reached, then 0."""
    reward_scale: float = 1.0
    """Factor of that reward."""
    explore_by_success: bool = False
    """The fraction of random actions under each subgoal decreases with its success rate, from 1 at a rate of 0 to
    `random_actions` at a rate of 1 (published: True), instead of over `exploration_fraction` of the run."""
    success_window: int = 100
    """Number of a subgoal's last executions over which its success rate is averaged."""
    hindsight: float | None = None
    """Fraction of a batch in which the subgoal is replaced by another one that was not reached yet (published: 0).
    Default: .5 if the learner has a replay."""
    hindsight_strategy: Strategy = "random"
    """The new subgoal. random: any. future: one that is reached at a random later step of the episode. final: one that
    is reached at its end."""


@dataclass
class High(LevelConfig):
    """The high level. It chooses subgoals, and learns from the task's reward."""

    learner: Choice = field(default_factory=lambda: DQNConfig(random_actions=(0.02, 0.1)))
    gamma: float = 0.99
    """Discount per environment step."""
    period: int = 50
    """Maximum number of environment steps of a subgoal (published: until the episode's end)."""
    reward_scale: float = 1.0
    """Factor of the task's reward."""
    reward_offset: float = 0.0
    """Added to the task's reward of every step before scaling: -1 turns a sparse 0/1 reward into a cost per step."""


class ExploresBySuccess(Level):
    """The low level, with a fraction of random actions that decreases with the success of each subgoal."""

    def __init__(self, *args: Any, window: int, **options: Any) -> None:
        """`window` is `success_window`. The other arguments are those of `Level`."""
        super().__init__(*args, **options)
        self.success = SuccessRates(self.command.dim, window, self.gamma.device)

    def explore(
        self, state: Tensor, target: Tensor, due: Tensor | None, generator: torch.Generator, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The action [N, A], random with a probability of ε + (1 - ε) (1 - the subgoal's success rate)."""
        action, notes = self.learner.act_and_note(self.inputs(state, target), generator, mask)
        return self.exploration(action, due, generator, mask, 1.0 - self.success.of(target)), notes

    def observe(self, outcome: Transition, over: Tensor) -> None:
        """Count the subgoals that ended."""
        super().observe(outcome, over)
        target, command = self.segment.target, self.command
        assert isinstance(command, DeclaredSubgoals)
        self.success.update(target, command.ended(outcome.state, target), over)

    def parts(self) -> dict[str, Stateful]:
        """Everything that the level's next decisions and updates depend on."""
        return {**super().parts(), "success": self.success}


@dataclass
class HDQNConfig(HierarchyConfig):
    """h-DQN: a DQN chooses among declared subgoals, and a DQN below learns to reach them (Kulkarni 2016)."""

    essential: ClassVar[tuple[str, ...]] = ("subgoals", "points", "high.period", "low.gamma", "high.gamma")
    subgoals: str | None = None
    """`module:NAME` of the subgoals: a dictionary of predicates by name, each mapping states [..., D] to bool [...], or
    a function that maps states to bool [..., K]."""
    points: tuple[float, ...] = ()
    """Subgoals that are positions, one after another (x1 y1 x2 y2 …) in the entries goal.indices of the observation,
    instead of predicates. One is reached within goal.threshold."""
    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    goal: GoalConfig = field(default_factory=GoalConfig)
    """Only indices, projection, distance and threshold apply to points, and periods to the task's goal."""
    learning_starts: int = 1000
    """Environment steps before the first update. Learners with a rollout start at its end."""

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent of a resolved configuration. Raises UserError if it does not fit the environment."""
        spec, low, high = setting.spec, self.low, self.high
        subgoals = self.declared(setting)
        task = Task.of(spec, self.goal, high.reward_scale, high.reward_offset, setting.device)
        walked = make_memory(low, subgoals, spec.actions, setting, bottom=True)
        decided = make_memory(high, task, subgoals.space, setting, high.period, ("first",))
        relabels: list[Relabel] = []
        if low.hindsight:
            strategy, horizon = low.hindsight_strategy, low.hindsight_horizon
            relabels.append(HindsightChoices(subgoals, walked, low.hindsight, strategy, horizon))
        starts = self.learning_starts
        controller = (
            ExploresBySuccess(
                "low", low, subgoals, spec.actions, walked, setting, learning_starts=starts, relabels=relabels,
                window=low.success_window,
            )
            if low.explore_by_success
            else Level("low", low, subgoals, spec.actions, walked, setting, learning_starts=starts, relabels=relabels)
        )  # fmt: skip
        meta_controller = Level(
            "high", high, task, subgoals.space, decided, setting, high.period, starts, issues=subgoals
        )
        return Hierarchy([controller, meta_controller], setting)

    def declared(self, setting: Setting) -> DeclaredSubgoals:
        """The command: one of the declared subgoals."""
        if self.subgoals is not None:
            names, reached = load_predicates(self.subgoals, setting.spec, setting.device)
        else:
            names, reached = near_points(self.points, self.goal, setting.spec, setting.device)
        return DeclaredSubgoals(names, reached, self.low.reward, self.low.reward_scale)

    def resolved(self, setting: Setting) -> Self:
        """A copy with the default fraction of hindsight resolved."""
        self.check()
        share = self.low.hindsight
        if share is None:
            share = 0.0 if self.low.learner.on_policy else 0.5
        learner = self.low.learner
        if self.low.explore_by_success and isinstance(learner, DQNConfig):
            learner = replace(learner, exploration_fraction=0.0)  # exploration must not decrease over the run, too
        low = replace(self.low, hindsight=share, learner=learner)
        return replace(self, low=low, high=replace(self.high, hindsight=0.0))

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        self.low.check("low.")
        self.high.check("high.")
        if (self.subgoals is None) == (not self.points):
            raise UserError(
                "h-DQN needs declared subgoals: give either --subgoals module:NAME, or --points (and --preset none, if "
                "the preset has subgoals)."
            )
        if self.high.period < 1:
            raise UserError(f"high.period must be at least 1 environment step, not {self.high.period}.")
        if self.low.explore_by_success and not isinstance(self.low.learner, ReplayConfig):
            raise UserError(
                f"low.explore_by_success sets the fraction of random actions, but {self.low.learner.kind} explores by "
                "sampling; set it to False."
            )
        if self.low.success_window < 1:
            raise UserError(f"low.success_window must be at least 1, not {self.low.success_window}.")
        if not self.low.reward_scale > 0:
            raise UserError(f"low.reward_scale must be positive, not {self.low.reward_scale}.")
        if self.high.hindsight:
            raise UserError("high.hindsight must be 0: the high level's choices are not relabelled.")
        if self.learning_starts < 0:
            raise UserError(f"--learning-starts must not be negative, but is {self.learning_starts}.")

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved levels."""
        low, high = self.low, self.high
        of = self.subgoals or f"{len(self.points)} numbers of positions"
        return [
            f"Subgoals: {of}; each ends when it is reached, or after {high.period} steps.",
            f"Low level: {low.learner.kind}, {low.reward} reward, hindsight {low.hindsight:g}. "
            f"High level: {high.learner.kind}.",
        ]
