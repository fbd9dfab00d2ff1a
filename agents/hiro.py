"""HIRO: data-efficient hierarchical reinforcement learning (Nachum, Gu, Lee, Levine 2018, arXiv:1805.08296).

Every c steps, the high level μ_hi proposes a subgoal, a displacement of the state. Between decisions, the subgoal moves
with the state, g' = s + g - s'. The low level μ_lo is rewarded for reaching it. Both levels learn off-policy with TD3.
Old subgoals are relabelled for the current low level before the high level learns from them.

The defaults were chosen on mazes, robot arms and a task with velocities. In addition to the paper, they include
hindsight at both levels, hindsight subgoals instead of the correction, a sparse reward for the low level, random
subgoals, and bootstrapped targets clipped to the range of possible values. `--preset published` has the paper's
settings, except for the noise, which is equal at both levels. The authors' code also hides the ant's position from the
low level (low.egocentric). Further options, off by default, are subgoal testing, a progress reward for the low level,
subgoals that end when reached, a mean instead of the minimum of the critics, and a random warmup of the high level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self, TypeVar, cast

from hrl.agents.base import HierarchyConfig
from hrl.agents.parts.subgoal_levels import High, Low, Middle, count_bonus, subgoal_features
from hrl.hierarchy.clock import Period
from hrl.hierarchy.commands import Command, GridSubgoal, Subgoal, Task
from hrl.hierarchy.commands.building import build_goal_space
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace
from hrl.hierarchy.commands.subgoal import Reward
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Model, Relabel, Tuned
from hrl.hierarchy.memories import make_memory, steps_held
from hrl.hierarchy.relabelling.correction import OffPolicyCorrection
from hrl.hierarchy.relabelling.hindsight import HindsightActions, HindsightGoals, HindsightTask, SubgoalTesting
from hrl.hierarchy.relabelling.rewards import StepRewards
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.timescale import Coupling
from hrl.learners import Constraint
from hrl.memory.ring import Replay
from hrl.nested.levels.reward import learned_reward
from hrl.nested.levels.tuning import TuneConfig, tuned_by_name
from hrl.spaces import Space
from hrl.types import Spec, UserError

__all__ = ["HIROConfig", "High", "Low", "Middle"]

T = TypeVar("T")
HINDSIGHT = 0.8
"""Default fraction of relabelled goals in a batch (Andrychowicz 2017: 4 of 5)."""


@dataclass
class HIROConfig(HierarchyConfig):
    """HIRO: a high level proposes subgoals every c steps, and a low level learns to reach them (Nachum 2018)."""

    essential: ClassVar[tuple[str, ...]] = ("low.learner", "high.learner", "high.period", "goal.indices")
    levels: int = 2
    """Number of levels; those between the lowest and the highest share the options --middle.…"""
    low: Low = field(default_factory=Low)
    middle: Middle = field(default_factory=Middle)
    high: High = field(default_factory=High)
    goal: GoalConfig = field(default_factory=GoalConfig)
    encoder: Literal["shared", "separate"] = "separate"
    """Image encoder: a separate one for each level, or the low level's for all levels, trained only by its losses."""
    timescale: Coupling = field(default_factory=Coupling)
    tune: tuple[str, ...] = ()
    """Hyperparameters that are tuned during the run by meta-gradient: low.learning_rate, low.gamma, high.gamma, …"""
    tuning: TuneConfig = field(default_factory=TuneConfig)
    learning_starts: int = 2000
    """Environment steps before the first update. On-policy learners start at the end of a rollout."""

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent of a resolved configuration. Raises UserError if it does not fit the environment."""
        spec, configs, periods = setting.spec, self.stack(), self.periods()
        goals = build_goal_space(self.goal, spec, periods[1].greatest, setting.measure, setting.device)
        subgoals = [self.subgoal(goals, number) for number in range(len(configs) - 1)]
        task = self.task(setting)
        actions = [spec.actions, *(subgoal.space for subgoal in subgoals)]
        memories = self.memories([*subgoals, task], actions, setting)
        levels: list[Level] = []
        for number, (name, config) in enumerate(configs):
            subgoal = None if number == 0 else subgoals[number - 1]  # the command that this level issues
            relabels = self.hindsight_goals(subgoals[number], memories[number], config) if name != "high" else []
            models: list[Model] = []
            constraint: Constraint | None = None
            if subgoal is not None:
                relabels = self.relabels(number, subgoal, task, memories, levels, spec) + relabels
                models, constraint = self.constraint(subgoal, memories[0], setting)
            command = task if name == "high" else subgoals[number]
            level = self.make_level(number, levels, spec)(
                name, config, command, actions[number], memories[number], setting, periods[number],
                self.learning_starts, memories[0] if number else None, getattr(config, "testing", 0.0), relabels,
                self.tuned(name), models, constraint, subgoal,
                action_features=subgoal_features(name, config, subgoal, spec),
                bonus=count_bonus(config, subgoal, memories[number], setting, periods[number]),
            )  # fmt: skip
            levels.append(level)
            if self.encoder == "shared" and number == 0:
                setting = replace(setting, encoder=level.encoder)
        return Hierarchy(levels, setting)

    # -- the parts -------------------------------------------------------------------------------------------

    def stack(self) -> list[tuple[str, Low | Middle | High]]:
        """(name, configuration) of every level, lowest first."""
        names = ["middle"] if self.levels == 3 else [f"middle{k}" for k in range(1, self.levels - 1)]
        return [("low", self.low), *((name, self.middle) for name in names), ("high", self.high)]

    def periods(self) -> list[Period]:
        """Environment steps between two decisions of every level."""
        periods = [Period()]
        for _, config in self.stack()[1:]:
            periods.append(Period.of(config.period) * periods[-1])  # type: ignore[union-attr]
        return periods

    def task(self, setting: Setting) -> Task:
        """The command to the high level: the environment's task."""
        c = self.high
        # A missed, tested subgoal costs H = c.period decisions (HAC: -H), each with periods()[-1] minimum rewards.
        penalty = Period.of(c.period).mean * self.periods()[-1].mean * abs(c.reward_scale) if c.testing else 0.0
        return Task.of(setting.spec, self.goal, c.reward_scale, c.reward_offset or 0.0, setting.device, penalty)

    def intrinsic_reward(self, goals: GoalSpace, config: Low | Middle) -> Reward:
        """The reward of a level that obeys subgoals: the name of a reward, or a function of (state, next_state,
        target)."""
        return "distance" if config.reward == "learned" else config.reward

    def subgoal(self, goals: GoalSpace, number: int) -> Subgoal:
        """The command to the level of this number: a vector or a grid cell."""
        stack = self.stack()
        obeying, deciding = cast(Low | Middle, stack[number][1]), cast(Middle | High, stack[number + 1][1])
        for _, config in stack[2 : number + 2]:
            period = Period.of(config.period).mean  # type: ignore[union-attr]
            goals = goals.scaled(_default(config.subgoal_scale, period**0.5))  # type: ignore[union-attr]
        reward = self.intrinsic_reward(goals, obeying)
        options = obeying.reward_scale, deciding.early, obeying.termination_cost
        if self.goal.cells:
            return GridSubgoal(goals, self.goal.cells, reward, *options)
        return Subgoal(goals, reward, *options)

    def memories(self, commands: Sequence[Command], actions: Sequence[Space], setting: Setting) -> list[Replay]:
        """Every level's memory, lowest first."""
        memories = []
        for number, (_, config) in enumerate(self.stack()):
            counters = ("first",) * (number > 0) + ("below",) * (number > 1)
            counters += ("tested",) * (getattr(config, "testing", 0.0) > 0)
            held = 0 if number else self.steps_held(setting)
            rewards = not number and (self.low.reward == "learned" or "high.gamma" in self.tune)
            memories.append(
                make_memory(
                    config, commands[number], actions[number], setting, self.periods()[number], counters, rewards,
                    held, bottom=not number,
                )
            )  # fmt: skip
        return memories

    def make_level(self, number: int, below: Sequence[Level], spec: Spec) -> Callable[..., Level]:
        """The constructor of a level, called with the arguments of `Level`, over the finished levels `below`."""
        return Level

    def constraint(self, subgoal: Subgoal, walked: Replay, setting: Setting) -> tuple[list[Model], Constraint | None]:
        """The models of a level that sets subgoals, and their constraint on its actor; none here."""
        return [], None

    def tuned(self, level: str) -> list[Tuned]:
        """The tuners of a level's hyperparameters and reward."""
        tuned = tuned_by_name(level, tuple(name for name, _ in self.stack()), self.tune, self.tuning)
        if level == "low" and self.low.reward == "learned":
            tuned.append(learned_reward(self.low.intrinsic))
        return tuned

    def hindsight_goals(self, subgoal: Subgoal, memory: Replay, c: LevelConfig) -> list[Relabel]:
        """Hindsight: replaces the subgoals that a level obeys by goals that it reached."""
        if not c.hindsight:
            return []
        return [HindsightGoals(subgoal, memory, c.hindsight, c.hindsight_strategy, c.hindsight_horizon)]

    def relabels(
        self,
        number: int,
        subgoal: Subgoal,
        task: Task,
        memories: Sequence[Replay],
        levels: Sequence[Level],
        spec: Spec,
    ) -> list[Relabel]:
        """The relabelling of a level that sets subgoals: off-policy correction, hindsight and subgoal tests."""
        name, config = self.stack()[number]
        c, memory, walked = cast(Middle | High, config), memories[number], memories[0]
        longest, decided = self.periods()[number].greatest, Period.of(c.period)
        span = min(longest, spec.max_episode_steps or longest)  # no segment is longer
        relabels: list[Relabel] = []
        if "high.gamma" in self.tune and name == "high":
            relabels.append(StepRewards(task, walked, span))
        if c.correction:
            below = levels[number - 1]
            decisions = span if number == 1 else decided.greatest
            relabels.append(OffPolicyCorrection(subgoal, below.memory, below.log_likelihood, decisions, c.candidates))
        if name == "high" and c.hindsight:
            task.require_goals("high.hindsight")
            info, strategy = "info" in walked.fields, c.hindsight_strategy
            relabels.append(HindsightTask(task, memory, walked, c.hindsight, c.gamma, span, strategy, info))
        if c.hindsight_actions:
            relabels.append(HindsightActions(subgoal, c.hindsight_actions))
        if c.testing:
            cost = task.penalty if name == "high" else self.cost_of_a_miss(number)
            relabels.append(SubgoalTesting(subgoal, memory, cost, decided.least))
        return relabels

    def cost_of_a_miss(self, number: int) -> float:
        """The cost of a missed, tested subgoal of a middle level: H (HAC), its decisions for the subgoal it obeys."""
        above = cast(Middle | High, self.stack()[number + 1][1])
        return float(Period.of(above.period).mean)

    # -- resolving options -----------------------------------------------------------------------------------

    def resolved(self, setting: Setting) -> Self:
        """A copy with goal space, hindsight, rewards and timescales resolved for this environment."""
        self.check()
        spec, periods = setting.spec, self.periods()
        low, middle, high = self.timescale.tie([self.low, self.middle, self.high])
        goals = build_goal_space(self.goal, spec, periods[1].greatest, setting.measure, setting.device)
        rewards = spec.reward_range
        above = Period.of(self.stack()[1][1].period).greatest  # type: ignore[union-attr]
        return replace(
            self,
            goal=goals.declare(self.goal),
            low=replace(
                low,
                hindsight=_default(low.hindsight, 0.0 if low.learner.on_policy else HINDSIGHT),
                hindsight_horizon=_default(low.hindsight_horizon, above),
                masked_entries=self.masked_below(goals, spec.state_dim),
            ),
            middle=replace(
                middle,
                hindsight=_default(middle.hindsight, 0.0 if middle.learner.on_policy else HINDSIGHT),
                hindsight_horizon=_default(middle.hindsight_horizon, Period.of(high.period).greatest),
                hindsight_actions=_default(middle.hindsight_actions, 0.0 if middle.learner.on_policy else 0.25),
            ),
            high=replace(
                high,
                hindsight=_default(
                    high.hindsight, HINDSIGHT if spec.task_reward is not None and not high.learner.on_policy else 0.0
                ),
                hindsight_actions=_default(high.hindsight_actions, 0.0 if high.learner.on_policy else 0.25),
                reward_offset=_default(high.reward_offset, -max(rewards) if rewards is not None else 0.0),
            ),
        )

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved goal space and levels."""
        lines, high, low = [f"Goal space: {self.goal.describe(spec)}"], self.high, self.low
        lines.append(
            f"Low level: {low.learner.kind}, acts every step, {low.reward} reward, hindsight {low.hindsight:g}."
        )
        periods = self.periods()
        for (name, c), period in list(zip(self.stack(), periods, strict=True))[1:-1]:
            lines.append(f"Level {name}: {c.learner.kind}, a subgoal every {period} steps, hindsight {c.hindsight:g}.")
        old = "off-policy correction" if high.correction else f"hindsight subgoals {high.hindsight_actions:g}"
        lines.append(
            f"High level: {high.learner.kind}, a subgoal every {periods[-1]} steps, learns on (reward "
            f"{high.reward_offset or 0:+g}) x {high.reward_scale:g}, hindsight {high.hindsight:g}, {old}."
        )
        return lines

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        if not 2 <= self.levels <= 8:
            raise UserError(f"--levels must be at least 2 and at most 8, not {self.levels}.")
        if self.learning_starts < 0:
            raise UserError(f"--learning-starts must not be negative, but is {self.learning_starts}.")
        if self.high.hindsight_horizon is not None:
            raise UserError(
                "high.hindsight_horizon cannot be set, because hindsight relabels the task's goal up to the "
                "episode's end; set low.hindsight_horizon instead."
            )
        for name, config in (("low", self.low), ("middle", self.middle), ("high", self.high)):
            config.check(f"{name}.")
        if self.middle.reward == "learned":
            raise UserError("middle.reward cannot be learned: only the low level can learn its reward.")
        if self.low.learner.on_policy and any(getattr(c, "testing", 0.0) for _, c in self.stack()):
            raise UserError(
                f"testing makes the low level act without exploration, but {self.low.learner.kind} learns from "
                "its exploration: set testing to 0."
            )

    def masked_below(self, goals: GoalSpace, state_dim: int) -> tuple[int, ...]:
        """The state entries hidden from the low level. `egocentric` applies only if subgoals are relative and other
        entries remain visible."""
        place = goals.entries(state_dim)
        if not (self.low.egocentric and goals.relative and len(place) < state_dim):
            return self.low.masked_entries
        return tuple(sorted({*self.low.masked_entries, *place}))

    def steps_held(self, setting: Setting) -> int:
        """Environment steps that the low level's memory must hold, so that every decision in the high level's memory
        can be corrected and its reward recomputed. 0 if nothing reads them, or if the memory holds the complete run."""
        reads = self.high.correction or self.high.hindsight or "high.gamma" in self.tune
        return steps_held(self.low, self.high, self.periods()[-1], setting) if reads else 0


def _default(value: T | None, default: T) -> T:
    return default if value is None else value
