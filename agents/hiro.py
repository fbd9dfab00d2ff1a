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

from dataclasses import dataclass, field
from typing import Literal

from hrl.agents.base import HierarchyConfig, Setting, require_continuous
from hrl.commands import Subgoal, Task
from hrl.goals import GoalConfig, GoalSpace, build_goal_space
from hrl.hierarchy import Hierarchy
from hrl.level import Level, Relabel
from hrl.level_config import LevelConfig
from hrl.nested.reward import IntrinsicConfig, LearnedReward
from hrl.nested.tuning import TuneConfig, tune
from hrl.replay.correction import OffPolicyCorrection
from hrl.replay.hindsight import HindsightActions, HindsightGoals, HindsightTask, SubgoalTesting
from hrl.replay.rewards import StepRewards
from hrl.timescale import Coupling
from hrl.types import Spec, UserError

HINDSIGHT = 0.8
"""Share of relabelled goals in a batch where none is given (Andrychowicz 2017: 4 of 5)."""


@dataclass
class Low(LevelConfig):
    """The low level: acts at every step, paid for reaching subgoals."""

    tau: float = 0.01
    """Share of the online network that enters the target network at each update (Polyak averaging)."""
    gamma: float = 0.95
    """Discount an environment step (published: .99)."""
    every: int = 2
    """Environment steps (of all environments together) from one round of updates to the next (published: 1)."""
    random: tuple[float, float] = (0.0, 0.2)
    """Exploration: share of decisions that are uniformly random, in the first environment and in the last;
    the others lie between, and one alone has their mean."""
    hindsight_horizon: int | None = None
    """Only moments within so many of the level's decisions. Default: the high level's period."""
    reward: Literal["distance", "progress", "sparse", "learned"] = "sparse"
    """-1 until the subgoal is reached and 0 there; minus the distance to it (published); how much nearer to it each
    step came; or the distance and a reward that is learned for the task's return."""
    reward_scale: float = 1.0
    """Factor on that reward: small ones drown in what fresh networks say."""
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    egocentric: bool = False
    """See the way, not the place: be blind to what relative subgoals are made of, beside low.blind."""


@dataclass
class High(LevelConfig):
    """The high level: decides on subgoals, paid by the task."""

    tau: float = 0.01
    """Share of the online network that enters the target network at each update (Polyak averaging)."""
    replay: int = 100_000
    """Capacity of the replay, in decisions (published: 200,000)."""
    every: int = 4
    """Environment steps from one round of updates to the next (published: 10, one update a decision)."""
    gamma: float = 0.999
    """Discount an environment step (published: .99 a decision of 10 steps)."""
    random: tuple[float, float] = (0.05, 0.5)
    """Exploration: share of decisions that are uniformly random, in the first environment and in the last;
    the others lie between, and one alone has their mean."""
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
    hindsight_actions: float = 0.25
    """Share of a batch whose subgoal is replaced by what was reached (HAC) (published: 0)."""
    testing: float = 0.0
    """Share of subgoals that are tested without exploration below, and punished if missed (HAC)."""
    early: bool = False
    """End a subgoal as soon as it is reached."""

    @property
    def penalty(self) -> float:
        """What a missed subgoal costs when it was tested: a period of the least reward (HAC: -H)."""
        return self.period * abs(self.reward_scale)


@dataclass
class HIROConfig(HierarchyConfig):
    """HIRO: a controller proposes subgoals every c steps, a worker learns to reach them (Nachum 2018)."""

    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    goal: GoalConfig = field(default_factory=GoalConfig)
    timescale: Coupling = field(default_factory=Coupling)
    tune: tuple[str, ...] = ()
    """Hyperparameters that adapt during the run, by meta-gradient: low.lr, low.gamma, high.gamma, …"""
    tuning: TuneConfig = field(default_factory=TuneConfig)
    starts: int = 2000
    """Environment steps before the first update."""

    def build(self, setting: Setting) -> Hierarchy:
        """The agent for an environment. Raises UserError where they do not fit."""
        require_continuous(setting.spec, "HIRO")
        self.check()
        self.resolve(setting.spec)
        self.timescale.tie([self.low, self.high])
        spec, device = setting.spec, setting.device
        space = build_goal_space(self.goal, spec, self.high.period, setting.measure, device)
        self.goal = space.declare(self.goal)
        self.low.blind = self.unseen_below(space, spec.state_dim)
        task = Task.of(spec, self.goal, self.high.reward_scale, self.high.reward_offset or 0.0, device)
        task.penalty = self.high.penalty if self.high.testing else 0.0
        learned = self.low.reward == "learned"
        reward = "distance" if self.low.reward == "learned" else self.low.reward
        subgoal = Subgoal(space, reward, self.low.reward_scale)
        low = Level(
            "low", self.low, subgoal, spec.action_dim, spec.state_dim, setting.num_envs, device,
            starts=self.starts, stores_reward=learned or "high.gamma" in self.tune, held=self.steps_held(setting),
            info_dim=spec.info_dim, acts_only=setting.total_steps == 0,
        )  # fmt: skip
        counters = ("first", "tested") if self.high.testing else ("first",)
        high = Level(
            "high", self.high, task, space.dim, spec.state_dim, setting.num_envs, device,
            period=self.high.period, starts=self.starts, counters=counters, steps=low.replay,
            acts_only=setting.total_steps == 0,
        )  # fmt: skip
        low.relabels = self.low_relabels(low, subgoal)
        span = min(self.high.period, spec.max_episode_steps or self.high.period)
        high.relabels = self.high_relabels(high, low, subgoal, task, span)
        tune([low, high], self.tune, self.tuning)
        if learned:
            low.tuners.append(LearnedReward(low, self.low.intrinsic))
        return Hierarchy(
            [low, high],
            setting.num_envs,
            device,
            setting.seed,
            testing=self.high.testing,
            early=self.high.early,
        )

    def resolve(self, spec: Spec) -> None:
        """Settle what depends on the environment."""
        if self.low.hindsight is None:
            self.low.hindsight = HINDSIGHT
        if self.low.hindsight_horizon is None:
            self.low.hindsight_horizon = self.high.period
        if self.high.hindsight is None:
            self.high.hindsight = HINDSIGHT if spec.task_reward is not None else 0.0
        if self.high.reward_offset is None:
            self.high.reward_offset = -max(spec.reward_range) if spec.reward_range is not None else 0.0

    def describe(self, spec: Spec) -> list[str]:
        """Lines that say what was resolved: goal space and levels."""
        low, high = self.low, self.high
        return [
            f"Goal space: {self.goal.describe(spec)}",
            f"Low level: {low.learner}, acts every step, {low.reward} reward, hindsight {low.hindsight:g}.",
            f"High level: {high.learner}, a subgoal every {high.period} steps, learns on (reward "
            f"{high.reward_offset or 0:+g}) x {high.reward_scale:g}, hindsight {high.hindsight:g}, "
            f"{'off-policy correction' if high.correction else f'hindsight subgoals {high.hindsight_actions:g}'}.",
        ]

    def check(self) -> None:
        """Raise UserError where values can't be meant."""
        self.low.check("low.")
        self.high.check("high.")
        if self.high.period < 1:
            raise UserError(f"high.period must be at least 1 environment step, not {self.high.period}.")
        if self.starts < 0:
            raise UserError(f"--starts must not be negative, but is {self.starts}.")
        if self.high.hindsight_horizon is not None:
            raise UserError(
                "high.hindsight_horizon is for the low level: the task's goal is relabelled to the episode's end."
            )
        if not self.low.reward_scale > 0:
            raise UserError(f"low.reward_scale must be positive, not {self.low.reward_scale}.")
        if self.high.candidates < 3:
            raise UserError(f"high.candidates must be at least 3, not {self.high.candidates}.")
        for name in ("hindsight_actions", "testing"):
            if not 0 <= getattr(self.high, name) <= 1:
                raise UserError(f"high.{name} must lie between 0 and 1, not at {getattr(self.high, name)}.")

    def unseen_below(self, space: GoalSpace, state_dim: int) -> tuple[int, ...]:
        """What the low level is not shown. It must see where it is if subgoals are places, or if there is no more."""
        place = space.entries(state_dim)
        if not (self.low.egocentric and space.relative and len(place) < state_dim):
            return self.low.blind
        return tuple(sorted({*self.low.blind, *place}))

    def steps_held(self, setting: Setting) -> int:
        """Environment steps that the low level's ring must hold, so that every decision in the high level's can be
        corrected, and paid again: a period each. The low level itself learns from the last `low.replay` of them, which
        are all of a run that is no longer."""
        read = self.high.correction or self.high.hindsight or "high.gamma" in self.tune
        if (
            setting.total_steps is not None and setting.total_steps <= self.low.replay // 2
        ):  # ends of episodes take rows
            return 0
        decisions = max(self.high.replay // setting.num_envs, 16) + 2
        return decisions * self.high.period * setting.num_envs if read else 0

    def low_relabels(self, low: Level, subgoal: Subgoal) -> list[Relabel]:
        """The low level's batches: hindsight on its subgoals."""
        c = self.low
        if not c.hindsight:
            return []
        return [HindsightGoals(subgoal, low.replay, c.hindsight, c.hindsight_strategy, c.hindsight_horizon)]

    def high_relabels(self, high: Level, low: Level, subgoal: Subgoal, task: Task, span: int) -> list[Relabel]:
        """The high level's batches: off-policy correction, hindsight, tests. No segment is longer than `span`."""
        c = self.high
        relabels: list[Relabel] = [StepRewards(task, low.replay, span)] if "high.gamma" in self.tune else []
        if c.correction:
            relabels.append(OffPolicyCorrection(subgoal, low.replay, low.decide, span, c.candidates))
        if c.hindsight:
            task.require_goals("high.hindsight")
            told, strategy = "info" in low.replay.fields, c.hindsight_strategy
            relabels.append(HindsightTask(task, high.replay, low.replay, c.hindsight, c.gamma, span, strategy, told))
        if c.hindsight_actions:
            relabels.append(HindsightActions(subgoal, c.hindsight_actions))
        if c.testing:
            relabels.append(SubgoalTesting(subgoal, high.replay, c.penalty))
        return relabels
