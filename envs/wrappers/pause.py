"""A pause for single environments of a batch. An evaluation steps only those with an episode to finish."""

from typing import Any

import gymnasium as gym


class Pausable(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that repeats its last observation, with a reward of 0, while it is paused. A reset ends the
    pause."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.paused = False
        self._last: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and end the pause."""
        self.paused = False
        self._last, info = self.env.reset(**kwargs)
        return self._last, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment unless it is paused."""
        if self.paused:
            return self._last, 0.0, False, False, {}
        self._last, reward, terminated, truncated, info = self.env.step(action)
        return self._last, reward, terminated, truncated, info


def pausables(env: Any) -> list[Pausable]:
    """The pausable environments of a vector environment, in order; empty if they cannot pause."""
    return [found for single in getattr(env, "envs", None) or () if (found := _find(single)) is not None]


def _find(env: Any) -> Pausable | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Pausable):
            return env
        env = env.env
    return None
