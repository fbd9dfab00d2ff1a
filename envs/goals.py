"""What a goal environment says of itself: where the achieved goal stands in the observation, and its reward."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

GOAL_KEYS = {"observation", "achieved_goal", "desired_goal"}


def is_goal_space(space: gym.Space[Any]) -> bool:
    """Whether observations are dictionaries of vectors with an achieved and a desired goal."""
    if not isinstance(space, spaces.Dict) or set(space.spaces) != GOAL_KEYS:
        return False
    return all(isinstance(part, spaces.Box) for part in space.spaces.values())


def observation_part(space: gym.Space[Any]) -> gym.Space[Any]:
    """A goal environment's space without the goals; any other as it is."""
    return space["observation"] if isinstance(space, spaces.Dict) and is_goal_space(space) else space


@dataclass
class Probe:
    """Observations [P, ·] of a few random steps."""

    observation: np.ndarray
    achieved: np.ndarray


def probe(env: gym.Env[Any, Any], episodes: int = 4, steps: int = 8) -> Probe:
    """Take a few random steps in an environment of its own."""
    env.action_space.seed(0)
    seen: list[dict[str, np.ndarray]] = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        seen.append(obs)
        for _ in range(steps):
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append(obs)
            if terminated or truncated:
                break
    observation = np.stack([np.asarray(o["observation"], dtype=np.float64).ravel() for o in seen])
    return Probe(observation, np.stack([np.asarray(o["achieved_goal"], dtype=np.float64).ravel() for o in seen]))


def find_achieved(seen: Probe) -> tuple[int, ...] | None:
    """The observation entries that are the achieved goal, where each is there exactly once and moves; else None."""
    indices = []
    for column in seen.achieved.T:
        same = np.flatnonzero((seen.observation == column[:, None]).all(0))
        if len(same) != 1 or np.ptp(column) == 0:
            return None
        indices.append(int(same[0]))
    return tuple(indices)


class GoalReward:
    """The environment's own `compute_reward`, on tensors, with whether that reward ends the episode.

    An episode is taken to end on reaching the goal where the environment's `compute_terminated` says so of a
    goal that is achieved exactly, and where the reward is sparse, so that reaching can be read from it.
    """

    asks_host = True
    """It is the host that computes it."""

    def __init__(self, env: gym.Env[Any, Any], seen: Probe) -> None:
        self.env = env.unwrapped
        self.batched = self._takes_batches(seen)
        goal = seen.achieved[:1]
        scales = np.logspace(-3, 2, 24)[:, None, None]
        noise = np.random.default_rng(0).standard_normal((24, *seen.achieved.shape))
        rewards = self._rewards(np.broadcast_to(seen.achieved, noise.shape), seen.achieved + scales * noise)
        self.hit = float(self._rewards(goal, goal)[0])
        values = {self.hit, *np.unique(rewards).tolist()}
        self.range = (min(values), max(values)) if len(values) <= 2 else None
        terminates = getattr(self.env, "compute_terminated", None)
        self.ends = self.range is not None and bool(terminates and np.all(terminates(goal[0], goal[0], {})))

    def _takes_batches(self, seen: Probe) -> bool:
        """Whether `compute_reward` takes many goals at once, as hindsight wants it to; else it is called for each."""
        try:
            rewards = self.env.compute_reward(seen.achieved, seen.achieved, {})  # type: ignore[attr-defined]
        except Exception:
            return False
        return np.shape(rewards) == (len(seen.achieved),)

    def _rewards(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        compute: Any = self.env.compute_reward  # type: ignore[attr-defined]
        if self.batched:
            return np.asarray(compute(achieved, desired, {}), dtype=np.float64)
        shape = achieved.shape[:-1]
        pairs = zip(achieved.reshape(-1, achieved.shape[-1]), desired.reshape(-1, desired.shape[-1]), strict=True)
        return np.array([float(compute(a, d, {})) for a, d in pairs]).reshape(shape)

    def __call__(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """(achieved, desired) [..., G] -> (reward [...] float32, ends the episode [...])."""
        flat = [x.reshape(-1, x.shape[-1]).double().cpu().numpy() for x in (achieved, desired)]
        reward = torch.as_tensor(self._rewards(*flat)).reshape(achieved.shape[:-1]).to(achieved.device)
        return reward.float(), (reward == self.hit) & self.ends
