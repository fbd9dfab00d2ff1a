"""What the rooms of the toolkit pass to each other. `hrl` knows environments by these shapes only."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

TaskReward = Callable[..., tuple[Tensor, Tensor]]
"""(achieved [..., G], desired [..., G]) -> (reward [...], whether reaching it ends the episode [...]). Where the
environment's `Spec.info` names entries of info, these follow as a third argument [..., K]."""


class UserError(Exception):
    """Something the user can mend. Command lines print its one sentence and exit with code 2."""


class Observation(Protocol):
    """N observations: `state` [N, D] float32, the task's desired `goal` [N, G] (G = 0 without goals), and the `mask`
    [N, K] of available choices, where the environment gives one."""

    @property
    def state(self) -> Tensor: ...
    @property
    def goal(self) -> Tensor: ...
    @property
    def mask(self) -> Tensor | None: ...


class Step(Protocol):
    """One step of N environments.

    `final` is the true next observation of this transition, also where the episode ended; `obs` is what to
    act on next (after an autoreset). Where `active` is False the environment only reset: no transition.
    """

    @property
    def obs(self) -> Observation: ...
    @property
    def final(self) -> Observation: ...
    @property
    def reward(self) -> Tensor: ...
    @property
    def terminated(self) -> Tensor: ...
    @property
    def truncated(self) -> Tensor: ...
    @property
    def active(self) -> Tensor: ...
    @property
    def success(self) -> Tensor: ...
    @property
    def taken(self) -> int: ...
    @property
    def info(self) -> Tensor:
        """[N, K] entries of info that hindsight is to remember."""


class Spec(Protocol):
    """What an agent may know of an environment before the first step."""

    @property
    def env_id(self) -> str: ...
    @property
    def state_dim(self) -> int: ...
    @property
    def goal_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def achieved(self) -> tuple[int, ...]:
        """Where in the state the achieved goal stands, for goal environments."""

    @property
    def state_low(self) -> Tensor: ...
    @property
    def state_high(self) -> Tensor: ...
    @property
    def action_low(self) -> Tensor: ...
    @property
    def action_high(self) -> Tensor: ...
    @property
    def task_reward(self) -> TaskReward | None: ...
    @property
    def reward_range(self) -> tuple[float, float] | None:
        """(least, most) reward of a step where it is known, as for sparse goal rewards."""

    @property
    def max_episode_steps(self) -> int | None: ...
    @property
    def left_out(self) -> tuple[str, ...]:
        """Entries of the observation that agents do not see."""

    @property
    def info_dim(self) -> int:
        """Numbers of a step's info that hindsight is to remember."""

    @property
    def continuous(self) -> bool: ...
    @property
    def action_space(self) -> Any:
        """The environment's own."""

    @property
    def actions(self) -> Any:
        """What agents decide in: a Box of [-1, 1], or numbers from 0 (hrl/spaces.py)."""

    @property
    def images(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of every image; their pixels are the last entries of the state, from 0 to 255."""

    @property
    def frames(self) -> int:
        """Frames that are stacked in an image's channels, the newest last."""

    @property
    def pixels(self) -> int:
        """P, the last entries of the state that are pixels."""

    @property
    def mask_dim(self) -> int:
        """K, the choices of an action mask; 0 where the environment gives none."""


class Outline(Protocol):
    """A rectangle from above, for pictures: its lower left corner, its size, and what it is."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def width(self) -> float: ...
    @property
    def height(self) -> float: ...
    @property
    def kind(self) -> Literal["wall", "gap", "block"]: ...


class BatchedEnv(Protocol):
    """N environments stepped together. Actions are in [-1, 1]; the environment's own bounds are its affair."""

    @property
    def spec(self) -> Spec: ...
    @property
    def num_envs(self) -> int: ...
    @property
    def resets_within_step(self) -> bool:
        """Whether every step of every environment is a transition: none is spent on a reset."""

    def reset(self, seed: int) -> Observation: ...
    @property
    def tells_success(self) -> bool:
        """Whether any info so far said something of success."""

    @property
    def restarts(self) -> bool:
        """Whether single environments can begin a new episode at any time."""

    def truncate(self, step: Any, where: Tensor) -> Any:
        """The step with episodes truncated where [N]; new ones begin there if the environments can (`restarts`)."""

    def send(self, actions: Tensor) -> None:
        """Give every environment its action; those that step elsewhere begin to."""

    def receive(self) -> Step:
        """What came of the actions sent."""

    def step(self, actions: Tensor) -> Step:
        """Send and receive."""

    def close(self) -> None: ...
    @property
    def is_family(self) -> bool:
        """Whether the environments are a family of tasks."""

    def verify(self) -> None:
        """Raise for faults that `step` could not tell without waiting for the device."""

    def outlines(self, index: int) -> Sequence[Outline]:
        """Walls, gaps and blocks of one environment as they stand, where it has a map."""

    def render(self, marks: Tensor | None = None) -> Sequence[np.ndarray]:
        """One frame [H, W, 3] an environment, with places [N, G] marked where it can."""

    def is_single(self, raw: Any) -> bool:
        """Whether a raw observation is one environment's, not a batch."""

    def as_batch(self, raw: Any) -> Any:
        """One environment's raw observation as a batch of one."""

    def observe(self, raw: Any) -> Observation:
        """Batched raw observations, as the environment gives them, as tensors."""

    def from_action(self, actions: np.ndarray) -> np.ndarray:
        """The inverse of `to_action`."""

    def to_action(self, actions: np.ndarray) -> np.ndarray:
        """Actions [N, A] from [-1, 1] to the environment's own bounds and shape."""
