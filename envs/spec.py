"""What the bridge gives: observations, steps, and what is known of an environment before the first one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
from torch import Tensor

from hrl.envs.actions import ActionMap


class Observation(NamedTuple):
    """N observations."""

    state: Tensor
    """[N, D] float32, flattened."""
    goal: Tensor
    """[N, G] the desired goal; G = 0 where the environment has none."""
    mask: Tensor | None = None
    """[N, K] choices that are available now (`info["action_mask"]`), where the environment gives them."""


class Step(NamedTuple):
    """One step of N environments."""

    obs: Observation
    """What to act on next."""
    final: Observation
    """The true next observation of this transition, also where the episode ended."""
    reward: Tensor
    """[N]"""
    terminated: Tensor
    """[N] the task ended."""
    truncated: Tensor
    """[N] the episode was cut, the task did not end."""
    active: Tensor
    """[N] False where the environment only reset: no transition."""
    success: Tensor
    """[N] what info says of success at this step; False where it says nothing."""
    taken: int
    """Environment steps taken: the number of active environments."""
    info: Tensor
    """[N, K] the entries of info that hindsight is to remember (`--goal.info`)."""


@dataclass(frozen=True)
class Spec:
    """What is known of an environment before the first step."""

    env_id: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    state_dim: int
    goal_dim: int
    achieved: tuple[int, ...]
    """Where in the state the achieved goal stands."""
    state_low: Tensor
    state_high: Tensor
    action_low: Tensor
    """[A] bounds of an action vector; the chosen limit where the environment has none."""
    action_high: Tensor
    task_reward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    """(achieved, desired) [..., G] -> (reward [...], whether that ends the episode [...])."""
    reward_range: tuple[float, float] | None
    """Least and most reward of a step, where they are known."""
    max_episode_steps: int | None
    info: tuple[str, ...] = ()
    """Entries of info that hindsight is to remember."""
    info_dim: int = 0
    """Numbers in them."""
    left_out: tuple[str, ...] = ()
    """Entries of the observation that agents do not see, since no network here can use them."""
    images: tuple[tuple[int, int, int], ...] = ()
    """(channels, height, width) of every image; their pixels are the last entries of the state, from 0 to 255."""
    frames: int = 1
    """Frames that are stacked in an image's channels, the newest last."""
    mask_dim: int = 0
    """K, the choices of an action mask (`info["action_mask"]`); 0 where the environment gives none."""

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors (Box)."""
        return isinstance(self.action_space, gym.spaces.Box)

    @property
    def pixels(self) -> int:
        """P, the last entries of the state that are pixels."""
        return sum(channels * height * width for channels, height, width in self.images)

    @property
    def actions(self) -> gym.Space[Any]:
        """What agents decide in: a Box of [-1, 1], or numbers from 0."""
        return ActionMap(self.action_space).agents_space()

    @property
    def action_dim(self) -> int:
        """Entries of an action vector; 0 for other action spaces."""
        return len(self.action_low)
