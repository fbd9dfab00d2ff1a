"""HAC: Hierarchical Actor-Critic (Levy, Konidaris, Platt, Saenko 2019, arXiv:1712.00948).

There is any number of similar levels. Each obeys a goal, with a reward of -1 for every decision until the goal is
reached,

    r_i = 0 if the goal is reached, else -1,    y = r_i + γ Q_i(s', g, π_i(s', g)), clipped to [-H, 0],

and γ = 0 where it is reached. The lowest level acts in the environment. The decision of every other level is a subgoal,
a state that the level below should reach within H decisions; a subgoal ends when it is reached. The top level's goal is
that of the task. All levels learn at the same time, because with three kinds of transitions, each level learns as if
the level below were already optimal:

1. Hindsight action transitions replace the subgoal by the reached state.
2. Hindsight goal transitions also replace the goal, by a state that was reached later.
3. Subgoal testing transitions: a fraction λ of the subgoals is tested, while the levels below act without exploration.
   A tested subgoal that is missed after H decisions has a reward of -H and γ = 0.

The learner is TD3 instead of DDPG, and clips targets instead of bounding the critic's output. Unlike in the paper, the
default subgoals are displacements within measured bounds, and half of each batch keeps the issued subgoals (the paper
penalises or replaces all of them). `--preset published` is closer to the paper: absolute subgoals within the bounds of
the observation, its noise, and no target network.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from hrl.agents.base import HierarchyConfig
from hrl.hierarchy.commands import Subgoal, Task
from hrl.hierarchy.commands.building import build_goal_space
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Relabel
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.relabelling.hindsight import HindsightActions, HindsightGoals, chosen, missed_tests
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.timescale import Coupling
from hrl.learners import Choice, TD3Config
from hrl.memory.ring import Replay
from hrl.memory.transitions import Transitions
from hrl.types import Spec, UserError


class BoundedSubgoal(Subgoal):
    """A subgoal for at most H decisions of the level below, with a reward of -1 for each. It ends when it is
    reached."""

    def __init__(self, goals: GoalSpace, horizon: int) -> None:
        super().__init__(goals, "sparse", ends_early=True)
        self.horizon = horizon

    def value_range(self, gamma: float) -> tuple[float, float]:
        """[-H, 0]"""
        return (-float(self.horizon), 0.0)


class EndGoal(Task):
    """The task's goal, with a reward of -1 for each decision of the top level until it is reached."""

    extrinsic, ends_early, termination_cost = False, True, 0.0

    def __init__(self, spec: Spec, config: GoalConfig, horizon: int, device: torch.device) -> None:
        """Raises UserError if the environment has no goal, or a reward that does not show whether it is reached."""
        task = Task.of(spec, config, 1.0, 0.0, device)
        super().__init__(task.dim, task.goals, task.task_reward, task.reward_range)
        if task.task_reward is None or task.reward_range is None or task.reward_range[0] == task.reward_range[1]:
            raise UserError(
                f"HAC needs a goal environment with a two-valued reward that shows whether the goal is reached, but "
                f"{spec.env_id} is none: use hiro."
            )
        if fault := getattr(task.task_reward, "fault", None):
            raise UserError(f"{fault} HAC cannot learn without hindsight: use hiro with hindsight 0.")
        self.horizon, self.best = horizon, max(task.reward_range)

    @property
    def requires_host(self) -> bool:
        """Whether the task's reward calls the host."""
        return getattr(self.task_reward, "requires_host", False)

    def reached(self, state: Tensor, target: Tensor) -> Tensor:
        """Whether [...] the environment's reward for this state equals that of a reached goal."""
        assert self.task_reward is not None
        return self.task_reward(self.project(state), target)[0] >= self.best

    ended = reached

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """[...] 0 if the goal is reached, else -1."""
        return self.reached(next_state, target).float() - 1.0

    def value_range(self, gamma: float) -> tuple[float, float]:
        """[-H, 0]"""
        return (-float(self.horizon), 0.0)


@dataclass
class SubgoalTests:
    """The third kind of transition: a missed, tested subgoal as it was issued, with a cost of H and γ = 0.

    A subgoal is missed if the level below used all its decisions. A subgoal that ended early, with the episode or with
    the decision of a level above, is not missed.

    In the paper, every decision enters the replay once with the reached subgoal and k times with other goals (k / (1 +
    k) of these are `LevelConfig.hindsight`). A missed test adds another transition. `share` is the fraction of such a
    decision's transitions that it makes up, 1 / (2 + k). A missed test that no relabelling replaced is always
    penalised."""

    command: BoundedSubgoal
    """The subgoals that the level issues."""
    replay: Replay
    cost: int
    """H of this level."""
    share: float

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        action, target = self.replay.get(t.rows, "action"), self.replay.get(t.rows, "target")
        missed = missed_tests(self.command, self.replay, t, self.command.horizon)
        as_issued = (t.action == action).all(-1)
        penalised = missed & (as_issued | chosen(len(missed), self.share, generator, missed.device))
        wide = penalised.unsqueeze(-1)
        return t.changed(
            action=torch.where(wide, action, t.action),
            target=torch.where(wide, target, t.target),
            penalty=torch.where(penalised, float(self.cost), 0.0),
        )


def per_decision(t: Transitions, generator: torch.Generator) -> Transitions:
    """Count every decision as one step, so that γ discounts decisions regardless of their duration."""
    return t.changed(length=torch.ones_like(t.length))


@dataclass
class HACLevel(LevelConfig):
    """One level, which learns in rounds, as in the paper after each episode.

    Published: batch_size 1024, hidden 64 64 64, action_noise .2, random_actions .3 .3, tau 1.
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(
            hidden=(64, 64), tau=0.02, random_actions=(0.2, 0.2), train_freq=64, gradient_steps=16
        )
    )
    gamma: float = 0.98
    """Discount per decision of the level."""
    hindsight: float | None = 0.75
    """Fraction of a batch in which a goal that was reached later replaces the goal."""
    hindsight_horizon: int | None = None
    """Maximum number of the level's decisions until the replacing goal. Default: the level's period H; at the top
    level, until the end of the episode."""


@dataclass
class HACConfig(HierarchyConfig):
    """HAC: levels that learn at the same time, as if the levels below were already optimal (Levy 2019)."""

    essential: ClassVar[tuple[str, ...]] = ("levels", "period", "goal.threshold", "goal.low", "goal.high")
    levels: int = 2
    """Number of levels; those between the lowest and the highest share the options --middle.…"""
    period: tuple[int, ...] = (10,)
    """H, the maximum number of decisions of the level below within one subgoal: one number for all levels, or one for
    each upper level, lowest first."""
    low: HACLevel = field(default_factory=HACLevel)
    middle: HACLevel = field(default_factory=HACLevel)
    high: HACLevel = field(default_factory=HACLevel)
    testing: float = 0.3
    """λ, the fraction of subgoals that are tested without exploration below, and penalised if missed."""
    hindsight_actions: float = 0.5
    """Fraction of a batch in which the reached goal replaces the subgoal (published: 1)."""
    subgoal_scale: float | None = None
    """Bounds of a level's relative subgoals divided by those of the level below. Default: √period."""
    goal: GoalConfig = field(default_factory=lambda: GoalConfig(distance="scaled", threshold=0.2))
    timescale: Coupling = field(default_factory=Coupling)
    learning_starts: int = 1000
    """Environment steps before the first update."""

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent of a resolved configuration. Raises UserError if it does not fit the environment."""
        spec, stack, horizons = setting.spec, self.stack(), self.horizons()
        goals = build_goal_space(self.goal, spec, horizons[0], setting.measure, setting.device)
        subgoals = [BoundedSubgoal(self.scaled(goals, number), h) for number, h in enumerate(horizons)]
        task = EndGoal(spec, self.goal, self.most_decisions(spec), setting.device)
        commands: list[BoundedSubgoal | EndGoal] = [*subgoals, task]
        actions = [spec.actions, *(subgoal.space for subgoal in subgoals)]
        levels: list[Level] = []
        period = 1
        for number, (name, config) in enumerate(stack):
            period *= horizons[number - 1] if number else 1
            counters = ((), ("first", "tested"), ("first", "below", "tested"))[min(number, 2)]
            command, issued = commands[number], subgoals[number - 1] if number else None
            memory = make_memory(config, command, actions[number], setting, period, counters, bottom=not number)
            relabels = self.relabels(command, issued, memory, config)
            steps, testing = (levels[0].memory, self.testing) if levels else (None, 0.0)
            levels.append(
                Level(
                    name, config, command, actions[number], memory, setting, period, self.learning_starts,
                    steps, testing, relabels, issues=issued,
                )
            )  # fmt: skip
        return Hierarchy(levels, setting)

    def relabels(
        self, obeyed: BoundedSubgoal | EndGoal, issued: BoundedSubgoal | None, memory: Replay, c: HACLevel
    ) -> list[Relabel]:
        """The three kinds of transition of a level that obeys `obeyed` and issues `issued`."""
        goals = c.hindsight or 0.0
        relabels: list[Relabel] = []
        if issued is not None:
            relabels.append(HindsightActions(issued, self.hindsight_actions))
        if goals:
            relabels.append(HindsightGoals(obeyed, memory, goals, c.hindsight_strategy, c.hindsight_horizon))
        if issued is not None and self.testing:
            relabels.append(SubgoalTests(issued, memory, obeyed.horizon, (1 - goals) / (2 - goals)))
        return [*relabels, per_decision]

    # -- resolving options -----------------------------------------------------------------------------------

    def stack(self) -> list[tuple[str, HACLevel]]:
        """(name, configuration) of every level, lowest first."""
        names = ["middle"] if self.levels == 3 else [f"middle{k}" for k in range(1, self.levels - 1)]
        return [("low", self.low), *((name, self.middle) for name in names), ("high", self.high)]

    def horizons(self) -> list[int]:
        """H of every upper level, lowest first."""
        upper = self.levels - 1
        return list(self.period) if len(self.period) > 1 else [self.period[0]] * upper

    def most_decisions(self, spec: Spec) -> int:
        """H of the top level: the number of decisions of an episode, if that is more. In the paper, an episode has
        H."""
        horizons = self.horizons()
        return max(horizons[-1], math.ceil((spec.max_episode_steps or 0) / math.prod(horizons)))

    def scaled(self, goals: GoalSpace, number: int) -> GoalSpace:
        """The space of the subgoals that the level of this number obeys."""
        for period in self.horizons()[1 : number + 1]:
            goals = goals.scaled(period**0.5 if self.subgoal_scale is None else self.subgoal_scale)
        return goals

    def resolved(self, setting: Setting) -> Self:
        """A copy with goal space and hindsight resolved for this environment."""
        self.check()
        horizons = self.horizons()
        goals = build_goal_space(self.goal, setting.spec, horizons[0], setting.measure, setting.device)
        low, middle, high = self.timescale.tie([self.low, self.middle, self.high])
        within = lambda c, h: replace(c, hindsight_horizon=c.hindsight_horizon or h)  # noqa: E731
        low, middle = within(low, horizons[0]), within(middle, horizons[-1])
        return replace(self, goal=goals.declare(self.goal), low=low, middle=middle, high=high)

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved goal space and levels."""
        lines = [f"Goal space: {self.goal.describe(spec)}"]
        for number, (name, c) in enumerate(self.stack()):
            decides = f"a subgoal for at most {self.horizons()[number - 1]} decisions below" if number else "acts"
            lines.append(f"Level {name}: {c.learner.kind}, {decides}, hindsight {c.hindsight or 0:g}.")
        return [*lines, f"{self.testing:.0%} of subgoals are tested; hindsight subgoals {self.hindsight_actions:g}."]

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        if not 2 <= self.levels <= 8:
            raise UserError(f"--levels must be at least 2 and at most 8, not {self.levels}.")
        if len(self.period) not in (1, self.levels - 1) or min(self.period) < 1:
            raise UserError(
                f"--period must be one positive number, or one for each of {self.levels - 1} upper levels, "
                f"not {' '.join(map(str, self.period))}."
            )
        if self.learning_starts < 0:
            raise UserError(f"--learning-starts must not be negative, but is {self.learning_starts}.")
        for option in ("testing", "hindsight_actions"):
            if not 0 <= getattr(self, option) <= 1:
                raise UserError(f"--{option.replace('_', '-')} must be between 0 and 1, not {getattr(self, option)}.")
        if self.subgoal_scale is not None and not self.subgoal_scale > 0:
            raise UserError(f"--subgoal-scale must be positive, not {self.subgoal_scale}.")
        if self.goal.cells:
            raise UserError("HAC's subgoals are vectors: set --goal.cells 0, or use hiro.")
        for name, config in (("low", self.low), ("middle", self.middle), ("high", self.high)):
            config.check(f"{name}.")
            if config.learner.on_policy:
                raise UserError(
                    f"HAC relabels a replay, but {name}.learner {config.learner.kind} has none: use td3 or sac."
                )
        if self.high.hindsight_strategy == "random":
            raise UserError("high.hindsight_strategy cannot be random: use future or final.")
