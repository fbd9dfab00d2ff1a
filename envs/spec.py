"""The data types of the bridge: observations, steps, and the specification of an environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
from torch import Tensor

from hrl.envs.spaces.actions import ActionMap


class Observation(NamedTuple):
    """N observations."""

    state: Tensor
    """[N, D] float32, flattened."""
    goal: Tensor
    """[N, G] the desired goal; G = 0 without goals."""
    mask: Tensor | None = None
    """[N, K] available choices (`info["action_mask"]`); None if the environment gives no mask."""


class Step(NamedTuple):
    """One step of N environments."""

    obs: Observation
    """The observation to act on next."""
    final: Observation
    """The true next observation of this transition, even if the episode ended."""
    reward: Tensor
    """[N]"""
    terminated: Tensor
    """[N] True where the task ended."""
    truncated: Tensor
    """[N] True where the episode was truncated before the task ended."""
    active: Tensor
    """[N] False where the environment only reset and made no transition."""
    success: Tensor
    """[N] success at this step according to info; False if info does not report it."""
    taken: int
    """Environment steps taken: the number of active environments."""
    info: Tensor
    """[N, K] the entries of info that hindsight needs (`--goal.info`)."""


@dataclass(frozen=True)
class Spec:
    """The properties of an environment that are known before the first step."""

    env_id: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    state_dim: int
    goal_dim: int
    achieved: tuple[int, ...]
    """State entries of the achieved goal."""
    state_low: Tensor
    state_high: Tensor
    action_low: Tensor
    """[A] lower bounds of an action vector; minus `action_limit` for entries without bounds."""
    action_high: Tensor
    task_reward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    """(achieved, desired) [..., G] -> (reward [...], whether it ends the episode [...])."""
    reward_range: tuple[float, float] | None
    """Minimum and maximum reward of a step; None if unknown."""
    max_episode_steps: int | None
    info: tuple[str, ...] = ()
    """Names of the entries of info that hindsight needs."""
    info_dim: int = 0
    """Total number of values in these entries."""
    left_out: tuple[str, ...] = ()
    """Entries of the observation that agents do not see, because no network supports them."""
    ignored_goals: str = ""
    """A sentence that says why the goals of the observation do not count as goals; empty if they do."""
    images: tuple[tuple[int, int, int], ...] = ()
    """(channels, height, width) of every image. Their pixels, from 0 to 255, are the last entries of the state."""
    frames: int = 1
    """Number of frames stacked in an image's channels, the newest last."""
    mask_dim: int = 0
    """K, the number of choices of an action mask (`info["action_mask"]`); 0 if the environment gives none."""

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors (Box)."""
        return isinstance(self.action_space, gym.spaces.Box)

    @property
    def pixels(self) -> int:
        """P, the number of pixels, which are the last entries of the state."""
        return sum(channels * height * width for channels, height, width in self.images)

    @property
    def actions(self) -> gym.Space[Any]:
        """The agents' action space: a Box of [-1, 1], or numbers from 0."""
        return ActionMap(self.action_space).agents_space()

    @property
    def action_dim(self) -> int:
        """Number of entries of an action vector; 0 for other action spaces."""
        return len(self.action_low)
