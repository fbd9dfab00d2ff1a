"""The options of levels that set subgoals and of levels that obey them. HIRO and its relatives share them."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from hrl.hierarchy.clock import Period, Periods
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.commands.goals import Select
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.relabelling.count_bonus import CountBonus
from hrl.hierarchy.setting import Setting
from hrl.learners import ActorCriticConfig, Choice, TD3Config
from hrl.memory.ring import Replay
from hrl.nested.levels.reward import IntrinsicConfig
from hrl.networks.layers import ActionFeatures
from hrl.types import Spec, UserError


@dataclass
class Obeys(LevelConfig):
    """The options of a level that is rewarded for reaching subgoals."""

    reward: Literal["distance", "progress", "sparse", "learned"] = "sparse"
    """sparse: -1 until the subgoal is reached, then 0. distance: minus the distance to it (published). progress: the
    decrease of the distance in each step. learned: distance plus a reward that is learned for the task's return."""
    reward_scale: float = 1.0
    """Factor of this reward. Rewards that are too small have no effect compared with the outputs of new networks."""
    termination_cost: float = 0.0
    """Cost of a step with which the task terminates; the level's return then ends there. For tasks that terminate only
    by a failure, such as a fall. 0: the end of the task costs nothing, and the level bootstraps there."""

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        if not self.reward_scale > 0:
            raise UserError(f"{prefix}reward_scale must be positive, not {self.reward_scale}.")
        if not 0 <= self.termination_cost < math.inf:
            raise UserError(f"{prefix}termination_cost must be at least 0 and finite, not {self.termination_cost}.")


@dataclass
class Decides(LevelConfig):
    """The options of a level that sets subgoals."""

    period: Periods = 10
    """Decisions of the level below between two subgoals (c in the paper); directly above the low level, environment
    steps. Two numbers are the bounds of a random period, sampled for each subgoal (HiPPO, Li 2019); evaluation uses
    their mean."""
    correction: bool = False
    """Relabel old subgoals for the current level below (published: True; off-policy correction, section 3.3)."""
    candidates: int = 10
    """Number of candidate subgoals of the correction."""
    hindsight_actions: float | None = None
    """Fraction of a batch in which the reached goal replaces the subgoal (HAC; published: 0). Default: .25 if the
    learner has a replay."""
    testing: float = 0.0
    """Fraction of subgoals that are tested without exploration below, and penalised if missed (HAC)."""
    early: bool = False
    """End a subgoal as soon as it is reached."""
    subgoal_scale: float | None = None
    """Bounds of this level's subgoals relative to those of the level below. Default: √period."""
    count_bonus: float = 0.0
    """β, the weight of a bonus β / √n for rarely visited positions (Bellemare 2016), in the unit of the level's scaled
    reward. n is the number of the level's decisions that began or ended in the same cell. 0 disables it."""
    count_cell: float = 2.0
    """Width of the cells in which the bonus counts positions, in units of the achieved goal (of the goal space, if the
    environment has no goal)."""
    subgoal_features: bool = False
    """The critic also receives the sine and cosine features (goal.periods) of the position to which a subgoal leads, so
    that it distinguishes near subgoals. For td3 and sac."""

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        Period.of(self.period).check(f"{prefix}period", "decision of the level below")
        if self.candidates < 3:
            raise UserError(f"{prefix}candidates must be at least 3, not {self.candidates}.")
        if self.subgoal_scale is not None and not self.subgoal_scale > 0:
            raise UserError(f"{prefix}subgoal_scale must be positive, not {self.subgoal_scale}.")
        for option in ("hindsight_actions", "testing"):
            if not 0 <= (getattr(self, option) or 0.0) <= 1:
                raise UserError(f"{prefix}{option} must be between 0 and 1, not {getattr(self, option)}.")
        if not self.count_bonus >= 0:
            raise UserError(f"{prefix}count_bonus must not be negative, but is {self.count_bonus}.")
        if not self.count_cell > 0:
            raise UserError(f"{prefix}count_cell must be positive, not {self.count_cell}.")
        if self.subgoal_features and not isinstance(self.learner, ActorCriticConfig):
            raise UserError(
                f"{prefix}subgoal_features are inputs of a critic of vectors, which {self.learner.kind} does not have: "
                "use td3 or sac."
            )
        if self.learner.on_policy and (self.correction or self.hindsight_actions or self.testing or self.count_bonus):
            raise UserError(
                f"{prefix}correction, {prefix}hindsight_actions, {prefix}testing and {prefix}count_bonus need a "
                f"replay, but {self.learner.kind} learns only from its last rollout: use td3 or sac."
            )


@dataclass
class Low(Obeys):
    """The low level, which acts at every step and is rewarded for reaching subgoals.

    Published: gamma .99, train_freq 1, reward distance.
    """

    learner: Choice = field(default_factory=lambda: TD3Config(tau=0.01, train_freq=2, random_actions=(0.0, 0.2)))
    gamma: float = 0.95
    """Discount per environment step (published: .99)."""
    hindsight_horizon: int | None = None
    """Maximum number of the level's decisions until the replacing goal. Default: the period of the level above."""
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    egocentric: bool = False
    """Hide the position, but not the displacement to the subgoal: mask the state entries of relative subgoals, in
    addition to low.masked_entries."""


@dataclass
class Middle(Decides, Obeys):
    """A level between low and high (--levels 3). It reaches its subgoals by setting nearer ones."""

    learner: Choice = field(
        default_factory=lambda: TD3Config(tau=0.01, buffer_size=200_000, train_freq=4, random_actions=(0.0, 0.3))
    )
    gamma: float = 0.99
    """Discount per environment step."""


@dataclass
class High(Decides):
    """The high level, which sets subgoals and learns from the task's reward.

    Published: buffer_size 200,000, train_freq 10 (one update per decision).
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(tau=0.01, buffer_size=100_000, train_freq=4, random_actions=(0.05, 0.5))
    )
    gamma: float = 0.999
    """Discount per environment step (published: .99 per decision of 10 steps)."""
    reward_scale: float = 0.1
    """Factor of the task's reward (published: .1)."""
    reward_offset: float | None = None
    """Added to the task's reward of every step before scaling. Default: the negative maximum reward if the goal reward
    has only two values, so that every step before the goal has a cost; otherwise 0 (published). Set 0 if an episode can
    end without reaching the goal, for example by a fall: ending it early would avoid the costs."""


def subgoal_features(name: str, config: LevelConfig, subgoal: Subgoal | None, spec: Spec) -> ActionFeatures | None:
    """Features of the position to which a level's subgoal leads, for its critic; None without the option. Raises
    UserError if the level does not observe its position."""
    if subgoal is None or not (isinstance(config, Decides) and config.subgoal_features):
        return None
    goals, width = subgoal.goals, spec.state_dim
    if not goals.periods:
        raise UserError(f"{name}.subgoal_features needs the periods of the features: set goal.periods.")
    if spec.images or config.normalize_observations or set(goals.entries(width)) & set(config.masked_entries):
        raise UserError(
            f"{name}.subgoal_features needs the position in its unit: it cannot be used with images, "
            f"{name}.normalize_observations, or {name}.masked_entries that subgoals depend on."
        )
    return ActionFeatures(
        goals.feature_dim, lambda inputs, action: goals.features(subgoal.issue(inputs[..., :width], action))
    )


def count_bonus(
    config: LevelConfig, subgoal: Subgoal | None, memory: Replay, setting: Setting, period: Period
) -> CountBonus | None:
    """The bonus for rarely visited positions of a level that decides every `period` environment steps; None without the
    option."""
    if subgoal is None or not (isinstance(config, Decides) and config.count_bonus):
        return None
    spec, device = setting.spec, setting.device
    project = Select(torch.tensor(spec.achieved, device=device)) if spec.goal_dim else subgoal.project
    processes = setting.processes.size
    pause = setting.num_envs * processes * period.greatest
    return CountBonus(project, memory, config.count_bonus, config.count_cell, pause, config.random_warmup, processes)
