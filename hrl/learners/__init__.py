"""Update rules by name. A new update rule needs one file in this folder and one import below."""

from hrl.learners.actor_critic import ActorCriticConfig
from hrl.learners.base import (
    Batch,
    Build,
    Choice,
    Constraint,
    Learner,
    LearnerConfig,
    Metrics,
    Reads,
    ReplayConfig,
    Terminating,
)
from hrl.learners.discrete_sac import DiscreteSAC, DiscreteSACConfig
from hrl.learners.dqn import DQN, DQNConfig
from hrl.learners.on_policy import Decisions, OnPolicyConfig, OnPolicyLearner
from hrl.learners.ppo import PPO, PPOConfig
from hrl.learners.sac import SAC, SACConfig
from hrl.learners.td3 import TD3, TD3Config

__all__ = [
    "DQN",
    "PPO",
    "SAC",
    "TD3",
    "ActorCriticConfig",
    "Batch",
    "Build",
    "Choice",
    "Constraint",
    "DQNConfig",
    "Decisions",
    "DiscreteSAC",
    "DiscreteSACConfig",
    "Learner",
    "LearnerConfig",
    "Metrics",
    "OnPolicyConfig",
    "OnPolicyLearner",
    "PPOConfig",
    "Reads",
    "ReplayConfig",
    "SACConfig",
    "TD3Config",
    "Terminating",
]
