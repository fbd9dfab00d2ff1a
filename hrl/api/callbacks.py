"""Callbacks of stable-baselines3, for use in our runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from hrl.run.callbacks import Callback, Progress


def from_sb3(callback: BaseCallback, every: int = 1000) -> Callback:
    """Convert a callback of stable-baselines3 to a callback of this toolkit.

    The run calls its `on_step` every `every` environment steps; a result of False ends the run. Its `logger.record`
    writes to TensorBoard and progress.csv. In runs of stable-baselines3's algorithms, its `model` is their model. In
    other runs, the model has `predict`, `num_timesteps`, `logger` and `save`, and `training_env` has only `num_envs`.
    `locals` has `total_timesteps`, and `dones` with a one for each episode that ended between the last two logged
    rows.
    """
    episodes = [0.0]

    def begin(progress: Progress) -> None:
        model: Any = progress.agent if hasattr(progress.agent, "num_timesteps") else ModelView(progress)
        callback.init_callback(model)
        callback.on_training_start({"total_timesteps": progress.total_steps, "tb_log_name": progress.path.name}, {})
        episodes[0] = progress.scalars.get("rollout/episodes", 0.0)

    def step(progress: Progress) -> None:
        callback.num_timesteps = progress.steps
        ended = progress.scalars.get("rollout/episodes", episodes[0])
        callback.update_locals({"dones": np.ones(int(ended - episodes[0]))})
        episodes[0] = ended
        more = callback.on_step()
        callback.model.logger.dump(progress.steps)
        if not more:
            progress.stop()

    return Callback(step, every, begin, end=lambda progress: callback.on_training_end())


@dataclass
class EnvView:
    """The part of the training environments that stable-baselines3's callbacks read."""

    num_envs: int


class ModelView:
    """A run in training, with the part of the interface of stable-baselines3's models that callbacks use."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.logger = Logger(folder=str(progress.path), output_formats=[Scalars(progress)])

    @property
    def num_timesteps(self) -> int:
        """Environment steps so far."""
        return self.progress.steps

    def get_env(self) -> EnvView:
        """The number of training environments; they are batched tensors, not a VecEnv."""
        return EnvView(self.progress.num_envs)

    def get_vec_normalize_env(self) -> None:
        """None: no environment here normalises."""

    def dump_logs(self) -> None:
        """Write the recorded values to the run's log."""
        self.logger.dump(self.num_timesteps)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        """The current policy's actions and state."""
        policy: Any = self.progress.policy
        return policy.predict(observation, state, episode_start, deterministic)

    def save(self, path: Any) -> None:
        """Save a checkpoint in the run's folder; the path is ignored."""
        self.progress.save()


class Scalars(KVWriter):
    """Writes recorded numbers to the run's log."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Log every number."""
        for name, value in key_values.items():
            if isinstance(value, int | float) or getattr(value, "ndim", None) == 0:
                self.progress.log(name, float(value))

    def close(self) -> None:
        """Do nothing: the run closes its log."""
