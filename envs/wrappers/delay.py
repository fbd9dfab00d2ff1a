"""Delayed rewards (as in LIRPG, Zheng 2018)."""

from typing import Any

import gymnasium as gym
import torch


class DelayedReward(gym.Wrapper[Any, Any, Any, Any]):
    """Returns the sum of rewards every `delay` steps and at the end of an episode, and 0 at other steps."""

    def __init__(self, env: gym.Env[Any, Any], delay: int) -> None:
        super().__init__(env)
        self.delay, self.pending, self.steps = delay, 0.0, 0

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode without pending rewards."""
        self.pending, self.steps = 0.0, 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:
        """Take one step. The reward is the pending sum every `delay` steps and at the end, else 0."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.pending, self.steps = self.pending + float(reward), self.steps + 1
        due = terminated or truncated or self.steps % self.delay == 0
        total, self.pending = (self.pending, 0.0) if due else (0.0, self.pending)
        return obs, total, terminated, truncated, info


class DelayedRewards(gym.vector.VectorWrapper):
    """`DelayedReward` for a vector environment with tensors that resets in the same step (SAME_STEP)."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], delay: int) -> None:
        super().__init__(env)
        self.delay, self.metadata = delay, env.metadata
        device = getattr(env.unwrapped, "device", "cpu")
        self.pending = torch.zeros(env.num_envs, device=device)
        self.steps = torch.zeros(env.num_envs, dtype=torch.int64, device=device)

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode in every environment, without pending rewards."""
        self.pending.zero_(), self.steps.zero_()
        return self.env.reset(**kwargs)

    def step(self, actions: Any) -> Any:
        """Take one step in every environment. Rewards [N] are the pending sums where they are due, else 0."""
        obs, reward, terminated, truncated, info = self.env.step(actions)
        self.pending += torch.as_tensor(reward)
        self.steps += 1
        done = torch.as_tensor(terminated) | torch.as_tensor(truncated)
        due = done | (self.steps % self.delay == 0)
        total = torch.where(due, self.pending, 0.0)
        self.pending.masked_fill_(due, 0.0)
        self.steps.masked_fill_(done, 0)
        return obs, total, terminated, truncated, info
