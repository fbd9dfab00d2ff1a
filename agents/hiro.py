"""HIRO: data-efficient hierarchical reinforcement learning (Nachum, Gu, Lee, Levine 2018, arXiv:1805.08296).

Two levels. Every c steps the high level μ_hi proposes a subgoal, a displacement of the state; between, it moves
with the state, g' = s + g - s'. The low level μ_lo is paid for matching it. Both learn off-policy with TD3; old
subgoals are restated for today's low level before the high level learns from them.

The defaults are the paper's method, but for bootstrapped targets, which are clipped to what values can be
(low.clip_values, high.clip_values), and for the noise, which is as large at both levels. The authors' code also hides
from its ants' low level where they are (low.egocentric). Beyond the paper, each a switch that is off by default:
hindsight goals at both levels, hindsight subgoals, subgoal testing, random subgoals, a low level that is paid for
progress or for arriving, subgoals that end when reached, less pessimistic critics, a high level that waits.
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
from hrl.types import UserError


@dataclass
class Low(LevelConfig):
    """The low level: acts at every step, paid for reaching subgoals."""

    hidden: tuple[int, ...] = (300, 300)
    """Units of the hidden layers (published: 300, 300)."""
    actor_lr: float | None = 1e-4
    """The actor's learning rate (published: 1e-4, critic 1e-3)."""
    batch_size: int = 100
    """Transitions a gradient update."""
    huber: bool = True
    """Huber loss for the critic, as published."""
    replay: int = 200_000
    """Capacity of the replay, in environment steps."""
    reward: Literal["distance", "progress", "sparse", "learned"] = "distance"
    """Minus the distance to the subgoal (published); how much nearer to it each step came; -1 until it is reached and
    0 there; or the distance and a reward that is learned for the task's return."""
    reward_scale: float = 1.0
    """Factor on that reward: small ones drown in what fresh networks say."""
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    egocentric: bool = False
    """See the way, not the place: be blind to what relative subgoals are made of, beside low.blind."""


@dataclass
class High(LevelConfig):
    """The high level: decides on subgoals, paid by the task."""

    hidden: tuple[int, ...] = (300, 300)
    """Units of the hidden layers (published: 300, 300)."""
    actor_lr: float | None = 1e-4
    """The actor's learning rate (published: 1e-4, critic 1e-3)."""
    batch_size: int = 100
    """Transitions a gradient update."""
    huber: bool = True
    """Huber loss for the critic, as published."""
    replay: int = 200_000
    """Capacity of the replay, in decisions."""
    every: int = 10
    """Environment steps from one round of updates to the next (published: one update a decision)."""
    gamma: float = 0.999
    """Discount an environment step (published: .99 a decision of 10 steps)."""
    noise: tuple[float, ...] = (0.1,)
    """Exploration: deviation of Gaussian noise, in half-ranges (published: 1 on subgoals of +-10); one for all
    environments, or that of the first and that of the last."""
    period: int = 10
    """Environment steps between two subgoals (c in the paper)."""
    reward_scale: float = 0.1
    """Factor on the task's reward (published: .1)."""
    reward_offset: float = 0.0
    """Added to the task's reward of every step before scaling: -1 makes a sparse 0/1 reward count time."""
    correction: bool = True
    """Restate old subgoals for today's low level (off-policy correction, section 3.3)."""
    candidates: int = 10
    """Subgoals the correction chooses from."""
    hindsight_actions: float = 0.0
    """Share of a batch whose subgoal is replaced by what was reached (HAC)."""
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
    starts: int = 1000
    """Environment steps before the first update."""

    def build(self, setting: Setting) -> Hierarchy:
        """The agent for an environment. Raises UserError where they do not fit."""
        require_continuous(setting.spec, "HIRO")
        self.check()
        self.timescale.tie([self.low, self.high])
        spec, device = setting.spec, setting.device
        space = build_goal_space(self.goal, spec, self.high.period, setting.measure, device)
        self.goal = space.declare(self.goal)
        self.low.blind = self.unseen_below(space, spec.state_dim)
        task = Task.of(spec, self.goal, self.high.reward_scale, self.high.reward_offset, device)
        task.penalty = self.high.penalty if self.high.testing else 0.0
        learned = self.low.reward == "learned"
        reward = "distance" if self.low.reward == "learned" else self.low.reward
        subgoal = Subgoal(space, reward, self.low.reward_scale)
        low = Level(
            "low", self.low, subgoal, spec.action_dim, spec.state_dim, setting.num_envs, device,
            starts=self.starts, stores_reward=learned or "high.gamma" in self.tune,
        )  # fmt: skip
        counters = ("first", "tested") if self.high.testing else ("first",)
        high = Level(
            "high", self.high, task, space.dim, spec.state_dim, setting.num_envs, device,
            period=self.high.period, starts=self.starts, counters=counters,
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
            relabels.append(
                HindsightTask(task, high.replay, low.replay, c.hindsight, c.gamma, span, c.hindsight_strategy)
            )
        if c.hindsight_actions:
            relabels.append(HindsightActions(subgoal, c.hindsight_actions))
        if c.testing:
            relabels.append(SubgoalTesting(subgoal, high.replay, c.penalty))
        return relabels
