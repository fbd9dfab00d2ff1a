"""The bridge from any Gymnasium environment to batched tensors, and our own tasks."""

import hrl.envs.registration  # noqa: F401  (registers our ids)
from hrl.envs.bridge import Bridge, EnvironmentFault
from hrl.envs.config import EnvConfig
from hrl.envs.ids import EnvError
from hrl.envs.make import make_env
from hrl.envs.spec import Observation, Spec, Step

__all__ = ["Bridge", "EnvConfig", "EnvError", "EnvironmentFault", "Observation", "Spec", "Step", "make_env"]
