"""TD3 and SAC as one-level hierarchies: the same parts, no controller. What a hierarchy is measured against.

With hindsight on a goal environment these are TD3 + HER and SAC + HER.
"""

from dataclasses import dataclass, field
from typing import Literal

from hrl.agents.base import HierarchyConfig, Setting, require_continuous
from hrl.commands import Task
from hrl.goals import GoalConfig
from hrl.hierarchy import Hierarchy
from hrl.level import Level
from hrl.level_config import LevelConfig
from hrl.nested.reward import IntrinsicConfig, LearnedReward
from hrl.nested.tuning import TuneConfig, tune
from hrl.replay.hindsight import HindsightTask
from hrl.types import UserError

HINDSIGHT = 0.8
"""Share of relabelled goals in a batch where none is given (Andrychowicz 2017: 4 of 5)."""


@dataclass
class FlatConfig(LevelConfig, HierarchyConfig):
    """One level that acts on the task's reward."""

    starts: int = 1000
    """Environment steps before the first update."""
    reward: Literal["task", "learned"] = "task"
    """The task's reward, or that and one that is learned for it (LIRPG)."""
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    reward_scale: float = 1.0
    """Factor on the task's reward."""
    reward_offset: float = 0.0
    """Added to the task's reward before scaling: -1 makes a sparse 0/1 reward count time."""
    tune: tuple[str, ...] = ()
    """Hyperparameters that adapt during the run, by meta-gradient: lr, gamma, entropy."""
    tuning: TuneConfig = field(default_factory=TuneConfig)
    goal: GoalConfig = field(default_factory=GoalConfig)
    """One level needs no subgoals; of the declaration it takes the position features."""

    def build(self, setting: Setting) -> Hierarchy:
        """The agent for an environment. Raises UserError where they do not fit."""
        spec, device = setting.spec, setting.device
        require_continuous(spec, self.learner.upper())
        self.check("")
        if self.starts < 0 or self.hindsight_horizon is not None:
            raise UserError("--starts must not be negative, and --hindsight-horizon is for levels with subgoals.")
        task = Task.of(spec, self.goal, self.reward_scale, self.reward_offset, device)
        level = Level(
            "policy",
            self,
            task,
            spec.action_dim,
            spec.state_dim,
            setting.num_envs,
            device,
            starts=self.starts,
            info_dim=spec.info_dim,
            acts_only=setting.total_steps == 0,
        )
        tune([level], self.tune, self.tuning)
        if self.reward == "learned":
            level.tuners.append(LearnedReward(level, self.intrinsic))
        if self.hindsight is None:
            self.hindsight = HINDSIGHT if spec.task_reward is not None else 0.0
        if self.hindsight and task.task_reward is not None:
            task.require_goals("hindsight")
            ring = level.replay
            told, strategy = spec.info_dim > 0, self.hindsight_strategy
            level.relabels = [HindsightTask(task, ring, ring, self.hindsight, self.gamma, 1, strategy, told)]
        return Hierarchy([level], setting.num_envs, device, setting.seed)


@dataclass
class FlatTD3(FlatConfig):
    """TD3, one level (Fujimoto 2018), with hindsight on goal environments."""


@dataclass
class FlatSAC(FlatConfig):
    """SAC, one level (Haarnoja 2018), with hindsight on goal environments."""

    learner: Literal["td3", "sac"] = "sac"
    """Update rule."""
    lr: float = 3e-4
    """Learning rate of Adam."""
    noise: tuple[float, ...] = (0.0,)
    """Exploration noise beyond the policy's own."""
