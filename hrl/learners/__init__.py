"""Update rules by name. A new one is one new file here and one new entry."""

from collections.abc import Callable

from hrl.learners.base import Batch, Constraint, Learner, LearnerConfig, Metrics
from hrl.learners.sac import SAC
from hrl.learners.td3 import TD3

LEARNERS: dict[str, Callable[..., Learner]] = {"td3": TD3, "sac": SAC}

__all__ = ["LEARNERS", "SAC", "TD3", "Batch", "Constraint", "Learner", "LearnerConfig", "Metrics"]
