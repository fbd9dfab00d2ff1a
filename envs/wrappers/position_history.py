"""A history of positions in the observation, as a memory for tasks with hidden state."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from torch import Tensor


def history_space(space: gym.Space[Any], lags: Sequence[int]) -> spaces.Dict:
    """A goal environment's observation space, extended by the goals achieved `lags` steps ago.

    Raises ValueError if it is not a goal environment with a vector observation, or if a lag is below 1.
    """
    if any(lag < 1 for lag in lags):
        raise ValueError(f"--position-history takes numbers of steps of at least 1, not {list(lags)}")
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    seen, achieved = parts.get("observation"), parts.get("achieved_goal")
    if not isinstance(seen, spaces.Box) or not isinstance(achieved, spaces.Box) or len(seen.shape) != 1:
        raise ValueError("--position-history needs a goal environment with a vector observation")
    wide = deepcopy(space)
    assert isinstance(wide, spaces.Dict)
    low, high = (np.concatenate([getattr(seen, s), *[getattr(achieved, s)] * len(lags)]) for s in ("low", "high"))
    wide.spaces["observation"] = spaces.Box(low, high, dtype=seen.dtype.type)
    return wide


class PositionHistory(gym.Wrapper[Any, Any, Any, Any]):
    """Appends the goals achieved `lags` steps ago to the observation; early steps repeat the first goal."""

    def __init__(self, env: gym.Env[Any, Any], lags: Sequence[int]) -> None:
        super().__init__(env)
        self.lags = tuple(lags)
        self.observation_space = history_space(env.observation_space, lags)
        self._history: list[Any] = []

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode."""
        obs, info = self.env.reset(**kwargs)
        self._history = []
        return self._with_history(obs), info

    def step(self, action: Any) -> Any:
        """Take one step."""
        obs, *rest = self.env.step(action)
        return self._with_history(obs), *rest

    def _with_history(self, obs: dict[str, Any]) -> dict[str, Any]:
        self._history = [*self._history, np.array(obs["achieved_goal"])][-max(self.lags) - 1 :]
        then = [self._history[max(len(self._history) - 1 - lag, 0)] for lag in self.lags]
        seen = obs["observation"]
        return {**obs, "observation": np.concatenate([seen, *then]).astype(seen.dtype)}


class PositionHistoryBatch(gym.vector.VectorWrapper):
    """`PositionHistory` for a vector environment with tensors that resets in the same step (SAME_STEP)."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], lags: Sequence[int]) -> None:
        super().__init__(env)
        self.lags, self.metadata = tuple(lags), env.metadata
        self.single_observation_space = history_space(env.single_observation_space, lags)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._history = torch.empty(0)  # [L + 1, N, G] a ring of the last positions
        self._now = 0
        inner: Any = env
        for name in ("task_reward", "reward_range"):  # a wrapper hides these attributes
            if hasattr(env, name):
                setattr(self, name, getattr(env, name))
        if hasattr(env, "step_async"):  # the physics runs in parallel to learning
            self.step_async = inner.step_async
            self.step_wait = lambda: self._stepped(*inner.step_wait())

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode in every environment."""
        obs, info = self.env.reset(**kwargs)
        self._history = obs["achieved_goal"].repeat(max(self.lags) + 1, 1, 1)
        return self._with_history(obs), info

    def step(self, actions: Any) -> Any:
        """Take one step in every environment."""
        return self._stepped(*self.env.step(actions))

    def _stepped(self, obs: Any, reward: Any, terminated: Any, truncated: Any, info: dict[str, Any]) -> Any:
        final = info.get("final_obs")
        done = (torch.as_tensor(terminated) | torch.as_tensor(truncated)).unsqueeze(-1)
        self._now = (self._now + 1) % len(self._history)
        place = obs["achieved_goal"]
        self._history[self._now] = place if final is None else torch.where(done, final["achieved_goal"], place)
        if final is not None:
            info = {**info, "final_obs": self._with_history(final)}
            self._history = torch.where(done, obs["achieved_goal"], self._history)
        return self._with_history(obs), reward, terminated, truncated, info

    def _with_history(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        then = [self._history[(self._now - lag) % len(self._history)] for lag in self.lags]
        return {**obs, "observation": torch.cat([obs["observation"], *then], -1)}
