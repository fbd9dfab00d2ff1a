"""A custom agent: HIRO with another intrinsic reward, and SAC below TD3.

    python train.py examples.custom_agent:Mine --env PointMaze_UMaze-v3 --env-kwargs continuing_task=False

The agent has all options of HIRO: `python train.py examples.custom_agent:Mine --help`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hrl.agents.hiro import HIROConfig, Low, Middle
from hrl.hierarchy.commands.goals import GoalSpace
from hrl.hierarchy.commands.subgoal import Reward


@dataclass
class Mine(HIROConfig):
    """HIRO with a SAC low level. Its reward also includes the cosine between its step and the subgoal."""

    low: Low = field(default_factory=lambda: Low.of(learner="sac", tau=0.01, train_freq=2, learning_rate=1e-3))
    cosine: float = 0.2
    """Weight of the cosine."""

    def intrinsic_reward(self, goals: GoalSpace, config: Low | Middle) -> Reward:
        """-1 until the subgoal is reached, plus the weighted cosine between the step and the direction to the subgoal,
        minus 1."""

        def reward(state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
            here, there = goals.project(state), goals.project(next_state)
            reached = goals.distance(there, target) <= goals.threshold
            straight = torch.cosine_similarity(there - here, target - here, dim=-1)
            return reached.float() - 1 + self.cosine * torch.where(reached, 0.0, straight - 1)

        return reward
