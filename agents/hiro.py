"""HIRO: data-efficient hierarchical reinforcement learning (Nachum, Gu, Lee, Levine 2018, arXiv:1805.08296).

Two levels. Every c steps the high level μ_hi proposes a subgoal, a displacement of the state; between, it moves
with the state, g' = s + g - s'. The low level μ_lo is paid for matching it. Both learn off-policy with TD3; old
subgoals are restated for today's low level before the high level learns from them.

The defaults are general good ones, found on mazes, arms and a task of states and velocities. Beyond the paper they have
hindsight at both levels, subgoals replaced by what was reached in place of the correction, a low level that is paid for
arriving, random subgoals, and bootstrapped targets clipped to what values can be. `--preset published` has the paper's
own settings, but for the noise, which is as large at both levels. The authors' code also hides from its ants' low level
where they are (low.egocentric). Further switches, off by default: subgoal testing, a low level that is paid for
progress, subgoals that end when reached, less pessimistic critics, a high level that waits.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeVar

from hrl.agents.base import HierarchyConfig
from hrl.hierarchy.commands import GridSubgoal, Subgoal, Task
from hrl.hierarchy.commands.subgoal import Reward
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.goals import GoalConfig, GoalSpace, build_goal_space
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Model, Relabel, Tuned
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.relabelling.correction import OffPolicyCorrection
from hrl.hierarchy.relabelling.hindsight import HindsightActions, HindsightGoals, HindsightTask, SubgoalTesting
from hrl.hierarchy.relabelling.rewards import StepRewards
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.timescale import Coupling
from hrl.learners import Choice, Constraint, TD3Config
from hrl.memory.ring import Replay
from hrl.nested.reward import IntrinsicConfig, learned_reward
from hrl.nested.tuning import TuneConfig, tuned_by_name
from hrl.types import Spec, UserError

T = TypeVar("T")
HINDSIGHT = 0.8
"""Share of relabelled goals in a batch where none is given (Andrychowicz 2017: 4 of 5)."""


@dataclass
class Low(LevelConfig):
    """The low level: acts at every step, paid for reaching subgoals.

    Published: gamma .99, train_freq 1, reward distance.
    """

    learner: Choice = field(default_factory=lambda: TD3Config(tau=0.01, train_freq=2, random_actions=(0.0, 0.2)))
    gamma: float = 0.95
    """Discount an environment step (published: .99)."""
    hindsight_horizon: int | None = None
    """Only moments within so many of the level's decisions. Default: the high level's period."""
    reward: Literal["distance", "progress", "sparse", "learned"] = "sparse"
    """-1 until the subgoal is reached and 0 there; minus the distance to it (published); how much nearer to it each
    step came; or the distance and a reward that is learned for the task's return."""
    reward_scale: float = 1.0
    """Factor on that reward: small ones drown in what fresh networks say."""
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    egocentric: bool = False
    """Show the way, not the place: mask the entries that relative subgoals consist of, beside low.masked_entries."""


@dataclass
class High(LevelConfig):
    """The high level: decides on subgoals, paid by the task.

    Published: buffer_size 200,000, train_freq 10 (one update a decision).
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(tau=0.01, buffer_size=100_000, train_freq=4, random_actions=(0.05, 0.5))
    )
    gamma: float = 0.999
    """Discount an environment step (published: .99 a decision of 10 steps)."""
    period: int = 10
    """Environment steps between two subgoals (c in the paper)."""
    reward_scale: float = 0.1
    """Factor on the task's reward (published: .1)."""
    reward_offset: float | None = None
    """Added to the task's reward of every step before scaling. Default: what makes the greatest reward 0 where a goal
    pays one of two rewards, so that every step until then costs; else 0 (published). Where an episode can end without
    the goal, as by a fall, give 0: an end would stop the costs."""
    correction: bool = False
    """Restate old subgoals for today's low level (published: True; off-policy correction, section 3.3)."""
    candidates: int = 10
    """Subgoals the correction chooses from."""
    hindsight_actions: float | None = None
    """Share of a batch whose subgoal is replaced by what was reached (HAC) (published: 0). Default: .25 where the
    learner has a replay."""
    testing: float = 0.0
    """Share of subgoals that are tested without exploration below, and punished if missed (HAC)."""
    early: bool = False
    """End a subgoal as soon as it is reached."""

    @property
    def penalty(self) -> float:
        """What a missed subgoal costs when it was tested: a period of the least reward (HAC: -H)."""
        return self.period * abs(self.reward_scale) if self.testing else 0.0


@dataclass
class HIROConfig(HierarchyConfig):
    """HIRO: a controller proposes subgoals every c steps, a worker learns to reach them (Nachum 2018)."""

    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    goal: GoalConfig = field(default_factory=GoalConfig)
    timescale: Coupling = field(default_factory=Coupling)
    tune: tuple[str, ...] = ()
    """Hyperparameters that adapt during the run, by meta-gradient: low.learning_rate, low.gamma, high.gamma, …"""
    tuning: TuneConfig = field(default_factory=TuneConfig)
    learning_starts: int = 2000
    """Environment steps before the first update. Learners with a rollout begin at its end."""

    def build(self, setting: Setting) -> Hierarchy:
        """The agent of a resolved configuration. Raises UserError where it does not fit the environment."""
        spec, high, low = setting.spec, self.high, self.low
        task = Task.of(spec, self.goal, high.reward_scale, high.reward_offset or 0.0, setting.device, high.penalty)
        subgoal = self.subgoal(build_goal_space(self.goal, spec, high.period, setting.measure, setting.device))
        walked = make_memory(
            low, subgoal, spec.actions, setting, held=self.steps_held(setting), bottom=True,
            rewards=low.reward == "learned" or "high.gamma" in self.tune,
        )  # fmt: skip
        counters = ("first", "tested") if high.testing else ("first",)
        decided = make_memory(high, task, subgoal.space, setting, high.period, counters)
        worker = Level(
            "low", low, subgoal, spec.actions, walked, setting, learning_starts=self.learning_starts,
            relabels=self.low_relabels(subgoal, walked), tuned=self.tuned("low"),
        )  # fmt: skip
        models, constraint = self.constraint(subgoal, walked, setting)
        controller = Level(
            "high", high, task, subgoal.space, decided, setting, high.period, self.learning_starts, walked,
            high.testing, self.high_relabels(subgoal, task, decided, worker, spec), self.tuned("high"), models,
            constraint,
        )  # fmt: skip
        return Hierarchy([worker, controller], setting)

    def intrinsic_reward(self, goals: GoalSpace) -> Reward:
        """What the low level is paid: the name of a reward, or a function of (state, next_state, target)."""
        return "distance" if self.low.reward == "learned" else self.low.reward

    def subgoal(self, goals: GoalSpace) -> Subgoal:
        """The command from the high level to the low one: a vector, or a cell of a grid."""
        reward, scale, early = self.intrinsic_reward(goals), self.low.reward_scale, self.high.early
        if self.goal.cells:
            return GridSubgoal(goals, self.goal.cells, reward, scale, early)
        return Subgoal(goals, reward, scale, early)

    def constraint(self, subgoal: Subgoal, walked: Replay, setting: Setting) -> tuple[list[Model], Constraint | None]:
        """What the high level's actor is held to beside its value, and the models that say so: nothing here."""
        return [], None

    def tuned(self, level: str) -> list[Tuned]:
        """What adapts while a level learns."""
        tuned = tuned_by_name(level, ("low", "high"), self.tune, self.tuning)
        if level == "low" and self.low.reward == "learned":
            tuned.append(learned_reward(self.low.intrinsic))
        return tuned

    def resolved(self, setting: Setting) -> Self:
        """With the goal space, hindsight, rewards and timescales settled for this environment."""
        self.check()
        spec = setting.spec
        low, high = self.timescale.tie([self.low, self.high])
        goals = build_goal_space(self.goal, spec, high.period, setting.measure, setting.device)
        rewards = spec.reward_range
        return replace(
            self,
            goal=goals.declare(self.goal),
            low=replace(
                low,
                hindsight=_default(low.hindsight, 0.0 if low.learner.on_policy else HINDSIGHT),
                hindsight_horizon=_default(low.hindsight_horizon, high.period),
                masked_entries=self.masked_below(goals, spec.state_dim),
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
        """Lines that say what was resolved: goal space and levels."""
        low, high = self.low, self.high
        old = "off-policy correction" if high.correction else f"hindsight subgoals {high.hindsight_actions:g}"
        return [
            f"Goal space: {self.goal.describe(spec)}",
            f"Low level: {low.learner.kind}, acts every step, {low.reward} reward, hindsight {low.hindsight:g}.",
            f"High level: {high.learner.kind}, a subgoal every {high.period} steps, learns on (reward "
            f"{high.reward_offset or 0:+g}) x {high.reward_scale:g}, hindsight {high.hindsight:g}, {old}.",
        ]

    def check(self) -> None:
        """Raise UserError where values are invalid."""
        self.low.check("low.")
        self.high.check("high.")
        if self.high.period < 1:
            raise UserError(f"high.period must be at least 1 environment step, not {self.high.period}.")
        if self.learning_starts < 0:
            raise UserError(f"--learning-starts must not be negative, but is {self.learning_starts}.")
        if self.high.hindsight_horizon is not None:
            raise UserError(
                "high.hindsight_horizon is for the low level: the task's goal is relabelled to the episode's end."
            )
        if not self.low.reward_scale > 0:
            raise UserError(f"low.reward_scale must be positive, not {self.low.reward_scale}.")
        if self.high.candidates < 3:
            raise UserError(f"high.candidates must be at least 3, not {self.high.candidates}.")
        for name in ("hindsight_actions", "testing"):
            if not 0 <= (getattr(self.high, name) or 0.0) <= 1:
                raise UserError(f"high.{name} must lie between 0 and 1, not at {getattr(self.high, name)}.")
        self._check_on_policy()

    def _check_on_policy(self) -> None:
        """Relabelling and tests need learners that learn from others' decisions."""
        low, high = self.low.learner, self.high.learner
        if high.on_policy and (self.high.correction or self.high.hindsight_actions or self.high.testing):
            raise UserError(
                f"high.correction, high.hindsight_actions and high.testing relabel a replay, but {high.kind} learns "
                "from its last rollout alone."
            )
        if low.on_policy and self.high.testing:
            raise UserError(f"high.testing has the low level act without exploration, which {low.kind} learns from.")

    def masked_below(self, goals: GoalSpace, state_dim: int) -> tuple[int, ...]:
        """What the low level is not shown. It must see where it is if subgoals are places, or if there is no more."""
        place = goals.entries(state_dim)
        if not (self.low.egocentric and goals.relative and len(place) < state_dim):
            return self.low.masked_entries
        return tuple(sorted({*self.low.masked_entries, *place}))

    def steps_held(self, setting: Setting) -> int:
        """Environment steps that the low level's memory must hold, so that every decision in the high level's can be
        corrected, and paid again: a period each. The low level itself learns from the last `buffer_size` of them, which
        are all of a run that is no longer."""
        low, high, total = self.low.learner, self.high, setting.total_steps
        if high.learner.on_policy or setting.acts_only:
            return 0
        if not low.on_policy and total is not None and total <= self.low.off_policy.buffer_size // 2:
            return 0  # ends of episodes take rows
        reads = high.correction or high.hindsight or "high.gamma" in self.tune
        decisions = max(high.off_policy.buffer_size // setting.num_envs, 16) + 2
        return decisions * high.period * setting.num_envs if reads else 0

    def low_relabels(self, subgoal: Subgoal, walked: Replay) -> list[Relabel]:
        """The low level's batches: hindsight on its subgoals."""
        c = self.low
        if not c.hindsight:
            return []
        return [HindsightGoals(subgoal, walked, c.hindsight, c.hindsight_strategy, c.hindsight_horizon)]

    def high_relabels(
        self, subgoal: Subgoal, task: Task, decided: Replay, worker: Level, spec: Spec
    ) -> list[Relabel]:
        """The high level's batches: off-policy correction, hindsight, tests."""
        c, walked = self.high, worker.memory
        span = min(c.period, spec.max_episode_steps or c.period)  # no segment is longer
        relabels: list[Relabel] = [StepRewards(task, walked, span)] if "high.gamma" in self.tune else []
        if c.correction:
            relabels.append(OffPolicyCorrection(subgoal, walked, worker.log_likelihood, span, c.candidates))
        if c.hindsight:
            task.require_goals("high.hindsight")
            info, strategy = "info" in walked.fields, c.hindsight_strategy
            relabels.append(HindsightTask(task, decided, walked, c.hindsight, c.gamma, span, strategy, info))
        if c.hindsight_actions:
            relabels.append(HindsightActions(subgoal, c.hindsight_actions))
        if c.testing:
            relabels.append(SubgoalTesting(subgoal, decided, c.penalty))
        return relabels


def _default(value: T | None, default: T) -> T:
    return default if value is None else value
