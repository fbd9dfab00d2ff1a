"""Tiny Gymnasium environments whose every transition can be told by hand. Importing registers them."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTHS = (3, 7, 5, 1)
"""Length of the k-th episode, over and over."""


class Ledger(gym.Env[np.ndarray, np.ndarray]):
    """Observes [episode, t]; the reward of step t is t + 1. Episodes of odd number terminate, even ones truncate.

    Seed s begins with episode s % 100, so that environments differ.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2.0, 4.0, (1,), np.float32)

    def __init__(self, fail_at: int = -1, fault: str = "") -> None:
        self.fail_at, self.fault, self.total, self.episode = fail_at, fault, 0, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode = self.episode + 1 if seed is None else seed % 100
        self.t = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.t, self.total = self.t + 1, self.total + 1
        over = self.t >= LENGTHS[self.episode % 4]
        terminated = over and self.episode % 2 == 1
        obs, reward = self._obs(), float(self.t)
        if self.total == self.fail_at:
            if self.fault == "raise":
                raise RuntimeError("the simulator fell over")
            obs = np.array([np.nan, 0], np.float32) if self.fault == "nan" else obs
            reward = float("inf") if self.fault == "inf" else reward
        return obs, reward, terminated, over and not terminated, {"success": terminated}

    def _obs(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)


class GoalLine(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """A point on a line moves by its action (at most .5) towards a goal; sparse 0/1, ends within .25 of it."""

    def __init__(self, apart: bool = False) -> None:
        goal = spaces.Box(-9.0, 9.0, (1,), np.float64)
        self.apart = apart
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-9.0, 9.0, (2,), np.float64), achieved_goal=goal, desired_goal=goal
        )
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1)
        self.goal = self.np_random.uniform(-3, 3, 1)
        self.t = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.t += 1
        self.x = np.clip(self.x + 0.5 * np.asarray(action, np.float64), -9, 9)
        reward = float(self.compute_reward(self.x, self.goal, {}))
        return self._obs(), reward, reward > 0, False, {"is_success": reward > 0}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return (np.linalg.norm(achieved - desired, axis=-1) <= 0.25).astype(np.float64)

    def compute_terminated(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> bool:
        return bool(self.compute_reward(achieved, desired, info))

    def _obs(self) -> dict[str, np.ndarray]:
        seen = np.array([self.t / 10, 2 * self.x[0] if self.apart else self.x[0]])
        return {"observation": seen, "achieved_goal": self.x.copy(), "desired_goal": self.goal.copy()}


class Mixed(gym.Env[Any, Any]):
    """A dictionary of a number and a vector; unbounded actions of shape [2, 1]."""

    observation_space = spaces.Dict(
        a=spaces.Discrete(3, start=1),
        b=spaces.Box(0.0, 1.0, (2, 2), np.float32),
        c=spaces.MultiDiscrete([2, 3]),
    )
    action_space = spaces.Box(-np.inf, np.inf, (2, 1), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.action = action
        return self._obs(), float(action.sum()), False, False, {}

    def _obs(self) -> Any:
        return {"a": 2, "b": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), "c": np.array([1, 2])}


class Pixels(Mixed):
    """Observes an image."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)  # type: ignore[assignment]


class Switches(Mixed):
    """Acts by several numbered switches."""

    action_space = spaces.MultiDiscrete([2, 3])  # type: ignore[assignment]


gym.register("Switches-v0", Switches, max_episode_steps=5)
gym.register("Ledger-v0", Ledger)
gym.register("GoalLine-v0", GoalLine, max_episode_steps=12)
gym.register("Mixed-v0", Mixed, max_episode_steps=5)
gym.register("Pixels-v0", Pixels)
