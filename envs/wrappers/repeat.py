"""Repeated actions, also called frame skip."""

from typing import Any

import gymnasium as gym
import numpy as np

from hrl.envs.wrappers.guard import SUCCESS_KEYS


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats each action for `repeat` steps of the environment, or until the episode ends.

    Rewards add up. With `last_reward`, the last one is returned instead: for goal environments, whose reward hindsight
    recomputes from a single state. A step succeeds if one of its environment steps does.
    """

    def __init__(self, env: gym.Env[Any, Any], repeat: int, last_reward: bool = False) -> None:
        super().__init__(env)
        self.repeat, self.last_reward = repeat, last_reward

    def step(self, action: Any) -> Any:
        """Repeat the action. Returns the last observation and info, with the reward and success of all steps."""
        total = 0.0
        succeeded: dict[str, Any] = {}
        for _ in range(self.repeat):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total = float(reward) if self.last_reward else total + float(reward)
            succeeded |= {key: info[key] for key in SUCCESS_KEYS if np.any(info.get(key, False))}
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, {**info, **succeeded}
