"""Delayed rewards (as in LIRPG, Zheng 2018)."""

from typing import Any

import gymnasium as gym
import torch


class DelayedReward(gym.Wrapper[Any, Any, Any, Any]):
    """Gives the sum of rewards only every `delay` steps and at the episode's end."""

    def __init__(self, env: gym.Env[Any, Any], delay: int) -> None:
        super().__init__(env)
        self.delay, self.owed, self.steps = delay, 0.0, 0

    def reset(self, **kwargs: Any) -> Any:
        """Begin an episode, without an outstanding reward."""
        self.owed, self.steps = 0.0, 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:
        """Take one step. The reward is the outstanding sum if it is due, else 0."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.owed, self.steps = self.owed + float(reward), self.steps + 1
        due = terminated or truncated or self.steps % self.delay == 0
        paid, self.owed = (self.owed, 0.0) if due else (0.0, self.owed)
        return obs, paid, terminated, truncated, info


class DelayedRewards(gym.vector.VectorWrapper):
    """Delayed rewards for a vector environment of tensors whose episodes restart in the same step (SAME_STEP)."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], delay: int) -> None:
        super().__init__(env)
        self.delay, self.metadata = delay, env.metadata
        device = getattr(env.unwrapped, "device", "cpu")
        self.owed = torch.zeros(env.num_envs, device=device)
        self.steps = torch.zeros(env.num_envs, dtype=torch.int64, device=device)

    def reset(self, **kwargs: Any) -> Any:
        """Begin an episode in every environment, without outstanding rewards."""
        self.owed.zero_(), self.steps.zero_()
        return self.env.reset(**kwargs)

    def step(self, actions: Any) -> Any:
        """Take one step. Rewards are the outstanding sums where they are due, else 0."""
        obs, reward, terminated, truncated, info = self.env.step(actions)
        self.owed += torch.as_tensor(reward)
        self.steps += 1
        done = torch.as_tensor(terminated) | torch.as_tensor(truncated)
        due = done | (self.steps % self.delay == 0)
        paid = torch.where(due, self.owed, 0.0)
        self.owed.masked_fill_(due, 0.0)
        self.steps.masked_fill_(done, 0)
        return obs, paid, terminated, truncated, info
