"""A DQN chooses grid cells as subgoals, and a TD3 below it learns to reach them.

python train.py examples.dqn_over_td3:DQNOverTD3 --env PointMaze_UMaze-v3 --env-kwargs continuing_task=False
"""

from dataclasses import dataclass, field

from hrl.agents.hiro import High, HIROConfig
from hrl.hierarchy.commands.goals import GoalConfig


@dataclass
class DQNOverTD3(HIROConfig):
    """HIRO with a discrete high level: 5 x 5 subgoals, displacements of at most 1."""

    goal: GoalConfig = field(default_factory=lambda: GoalConfig(cells=5, low=(-1.0,), high=(1.0,), threshold=0.5))
    high: High = field(
        default_factory=lambda: High.of(learner="dqn", period=20, random_actions=(0.05, 0.5), exploration_fraction=0.0)
    )
