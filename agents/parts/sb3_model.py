"""Trains and evaluates a model of stable-baselines3 as one of our algorithms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger as SB3Logger
from torch import Tensor

from hrl.report.episodes import EpisodeCounter, Finished
from hrl.run.checkpoint import Checkpoint
from hrl.run.session import Session
from hrl.run.trainer import Trainee
from hrl.types import BatchedEnv, Observation, Step, UserError

ROUND = 16
"""Steps of every environment in a round of an off-policy algorithm."""


class SB3Trainee(Trainee):
    """Trains a stable-baselines3 model; a round is one call of its `learn`."""

    def __init__(self, model: BaseAlgorithm, env: BatchedEnv, session: Session) -> None:
        super().__init__(env, session)
        self.model, self.policy = model, SB3Policy(model, env)
        self.watch = Watch(session.num_envs, session.device)
        model.set_logger(SB3Logger(folder=None, output_formats=[]))

    @property
    def learned(self) -> BaseAlgorithm:
        """The model."""
        return self.model

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.model.num_timesteps

    @property
    def reports_success(self) -> bool:
        """True after the environment has reported success, or the lack of it."""
        return self.watch.reports_success

    def begin(self) -> None:
        """Do nothing: the model continues its episodes, because its checkpoints do not end them."""

    def round(self, total_steps: int) -> Sequence[Finished]:
        """Run a few steps of an off-policy algorithm, or one rollout with its updates."""
        self.watch.ended.clear()
        self.watch.total_steps = total_steps
        steps = min(ROUND * self.session.num_envs, total_steps - self.steps)
        with self.session.stop.interruptible():
            self.model.learn(steps, callback=self.watch, reset_num_timesteps=False)
        return self.watch.ended

    def metrics(self) -> dict[str, float]:
        """The `train/` values of the model's logger."""
        values = self.model.logger.name_to_value.items()
        return {f"policy/{n.removeprefix('train/')}": float(v) for n, v in values if n.startswith("train/")}

    def truncate_episodes(self) -> None:
        """Do nothing: the episodes continue."""

    def networks(self) -> dict[str, Tensor]:
        """The policy's weights."""
        return dict(self.model.policy.state_dict())

    def state(self) -> Checkpoint:
        """The policy's weights."""
        return Checkpoint(self.networks(), {})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Raises NotImplementedError: runs of stable-baselines3 cannot be resumed exactly."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the environments."""
        environments: Any = self.model.env
        try:
            environments.close()
        finally:
            self.env.close()


class Watch(BaseCallback):
    """Counts the ended episodes in stable-baselines3's training loop."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        super().__init__()
        self.device, self.counter = device, EpisodeCounter(num_envs, device)
        self.ended: list[Finished] = []
        """The ended episodes of each step of this round."""
        self.reports_success = False
        self.total_steps = 0

    def _on_training_start(self) -> None:
        self.model._total_timesteps = self.total_steps  # schedules cover the complete run, not this round

    def _on_step(self) -> bool:
        observations, rewards = self.locals["new_obs"], self.locals["rewards"]
        for values in (*(observations.values() if isinstance(observations, dict) else [observations]), rewards):
            if not np.isfinite(values).all():
                raise UserError(
                    f"An observation or reward is NaN or infinite at environment step {self.num_timesteps}."
                )
        infos: list[dict[str, Any]] = self.locals["infos"]
        self.reports_success |= any("is_success" in i for i in infos)
        success = torch.tensor([bool(i.get("is_success", False)) for i in infos], device=self.device)
        done = torch.as_tensor(self.locals["dones"], dtype=torch.bool, device=self.device)
        reward = torch.as_tensor(rewards, dtype=torch.float32, device=self.device)
        self.ended.append(self.counter.add(reward, success, done, torch.ones_like(done)))
        return True


class SB3Policy:
    """A stable-baselines3 model as a policy for our evaluations."""

    def __init__(self, model: BaseAlgorithm, env: BatchedEnv) -> None:
        self.model, self.env, self.spec = model, env, env.spec
        assert model.env is not None
        single: Any = model.env.unwrapped
        self.plain = bool(single.envs[0].has_wrapper_attr("plain_actions"))

    def start(self, num_envs: int) -> None:
        """None: the policy has no memory."""

    def decide(self, obs: Observation, memory: None, deterministic: bool = True) -> tuple[Tensor, None, list[Tensor]]:
        """Deterministic or sampled actions: vectors in [-1, 1], or numbers for discrete actions."""
        actions, _ = self.predict(self._raw(obs), deterministic=deterministic)
        if not self.plain:  # otherwise, the model uses our agents' action space
            actions = self.env.from_action(actions)
        decided = torch.as_tensor(actions)
        return decided.float() if self.spec.continuous else decided, None, []

    def place(self, state: Tensor) -> Tensor | None:
        """The achieved goals [N, G] of a goal environment."""
        return state[:, list(self.spec.achieved)] if self.spec.achieved else None

    def after(self, memory: None, step: Step) -> tuple[None, dict[str, Tensor]]:
        """No memory and no metrics."""
        return None, {}

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """The result of the model's `predict`."""
        return self.model.predict(observation, state, episode_start, deterministic)

    def _raw(self, obs: Observation) -> np.ndarray | Mapping[str, np.ndarray]:
        state = obs.state.cpu().numpy()
        space = self.model.observation_space
        if not isinstance(space, spaces.Dict):
            return state
        achieved = list(self.spec.achieved)
        appended = state.shape[1] > spaces.flatdim(space["observation"])  # the achieved goal is not part of it
        parts = {
            "observation": np.delete(state, achieved, 1) if appended else state,
            "achieved_goal": state[:, achieved],
            "desired_goal": obs.goal.cpu().numpy(),
        }
        return {key: x.reshape(-1, *(space[key].shape or ())) for key, x in parts.items()}
