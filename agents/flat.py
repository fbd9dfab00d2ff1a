"""TD3, SAC, DQN and PPO as one-level hierarchies: the baselines for the hierarchical algorithms.

With hindsight on a goal environment, the off-policy algorithms are TD3 + HER, SAC + HER and DQN + HER.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from hrl.agents.base import HierarchyConfig
from hrl.hierarchy.commands import Task
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Relabel, Tuned
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.relabelling.hindsight import HindsightTask
from hrl.hierarchy.setting import Setting
from hrl.learners import Choice, DiscreteSACConfig, DQNConfig, PPOConfig, SACConfig
from hrl.memory.ring import Replay
from hrl.nested.levels.reward import IntrinsicConfig, learned_reward
from hrl.nested.levels.tuning import TuneConfig, tuned_by_name
from hrl.types import UserError

HINDSIGHT = 0.8
"""Default fraction of relabelled goals in a batch (Andrychowicz 2017: 4 of 5)."""


@dataclass
class FlatConfig(LevelConfig, HierarchyConfig):
    """The options of one level that learns from the task's reward."""

    essential: ClassVar[tuple[str, ...]] = ("learning_rate", "batch_size", "hidden", "gamma")
    learning_starts: int = 1000
    """Environment steps before the first update. On-policy learners start at the end of a rollout."""
    reward: Literal["task", "learned"] = "task"
    """The task's reward, or its sum with a learned reward (LIRPG)."""
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    reward_scale: float = 1.0
    """Factor of the task's reward."""
    reward_offset: float = 0.0
    """Added to the task's reward before scaling: -1 turns a sparse 0/1 reward into a cost per step."""
    tune: tuple[str, ...] = ()
    """Hyperparameters that are tuned during the run by meta-gradient: learning_rate, gamma, ent_coef."""
    tuning: TuneConfig = field(default_factory=TuneConfig)
    goal: GoalConfig = field(default_factory=GoalConfig)
    """One level has no subgoals; it uses only the position features of the goal space."""

    def resolved(self, setting: Setting) -> Self:
        """A copy with the fraction of hindsight resolved."""
        self.check("")
        if self.learning_starts < 0 or self.hindsight_horizon is not None:
            raise UserError("--learning-starts must not be negative, and --hindsight-horizon applies only to subgoals.")
        relabels = setting.spec.task_reward is not None and not self.learner.on_policy
        return replace(self, hindsight=(HINDSIGHT if relabels else 0.0) if self.hindsight is None else self.hindsight)

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent. Raises UserError if it does not fit the environment."""
        spec = setting.spec
        task = Task.of(spec, self.goal, self.reward_scale, self.reward_offset, setting.device)
        memory = make_memory(self, task, spec.actions, setting, bottom=True)
        tuned: list[Tuned] = tuned_by_name("policy", ("policy",), self.tune, self.tuning)
        if self.reward == "learned":
            tuned.append(learned_reward(self.intrinsic))
        level = Level(
            "policy", self, task, spec.actions, memory, setting, learning_starts=self.learning_starts,
            relabels=self.relabels(task, memory, setting), tuned=tuned,
        )  # fmt: skip
        return Hierarchy([level], setting)

    def relabels(self, task: Task, memory: Replay, setting: Setting) -> list[Relabel]:
        """Hindsight on the task's goals, if it has any."""
        if not self.hindsight or task.task_reward is None:
            return []
        task.require_goals("hindsight")
        info, strategy = setting.spec.info_dim > 0, self.hindsight_strategy
        return [HindsightTask(task, memory, memory, self.hindsight, self.gamma, 1, strategy, info)]


@dataclass
class FlatTD3(FlatConfig):
    """TD3, one level (Fujimoto 2018), with hindsight on goal environments."""


@dataclass
class FlatSAC(FlatConfig):
    """SAC, one level (Haarnoja 2018), with hindsight on goal environments."""

    learner: Choice = field(default_factory=SACConfig)


@dataclass
class FlatDiscreteSAC(FlatConfig):
    """Discrete SAC, one level (Christodoulou 2019), for discrete actions."""

    learner: Choice = field(default_factory=DiscreteSACConfig)


@dataclass
class FlatDQN(FlatConfig):
    """DQN, one level (Mnih 2015), with double, dueling, n-step and prioritised as options."""

    learner: Choice = field(default_factory=DQNConfig)


@dataclass
class FlatPPO(FlatConfig):
    """PPO, one level (Schulman 2017), for any action space."""

    learner: Choice = field(default_factory=PPOConfig)
