"""A point that is rewarded for moving in one direction: a task for training skills.

    python train.py ppo --env examples.directions:Direction-v0 --env-kwargs angle=0 --total-steps 20000

The policy observes only the velocity of the point, so it works at every position in every maze. `benchmarks/skills.py`
trains four such skills, two of them with stable-baselines3, and then a controller over them in a maze.
"""

import math
from typing import Any

import gymnasium as gym
import gymnasium_robotics
import numpy as np
from gymnasium import spaces

gym.register_envs(gymnasium_robotics)


class Direction(gym.Wrapper[np.ndarray, np.ndarray, Any, np.ndarray]):
    """PointMaze without inner walls. The reward is the velocity along `angle` (at most 2), minus the speed across
    it."""

    def __init__(self, angle: float = 0.0) -> None:
        """`angle` in degrees: 0 is to the right (x), 90 is up (y)."""
        super().__init__(gym.make("PointMaze_Open-v3", max_episode_steps=50))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        radians = math.radians(angle)
        self.along = np.array([math.cos(radians), math.sin(radians)])
        self.across = np.array([-self.along[1], self.along[0]])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return obs["observation"][2:], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Take a step. The reward depends on the direction of the movement."""
        obs, _, _, truncated, _ = self.env.step(action)
        velocity = obs["observation"][2:]
        reward = min(float(velocity @ self.along), 2.0) - abs(float(velocity @ self.across))
        return velocity, reward, False, truncated, {}


gym.register("Direction-v0", Direction)
