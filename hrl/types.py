"""The types that the packages of the toolkit share. `hrl` uses environments only through these interfaces."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from hrl.errors import UserError as UserError

TaskReward = Callable[..., tuple[Tensor, Tensor]]
"""(achieved [..., G], desired [..., G]) -> (reward [...], whether reaching it ends the episode [...]). If the
environment's `Spec.info` names entries of info, they are a third argument [..., K]."""


class Observation(Protocol):
    """N observations: `state` [N, D] float32, the task's desired `goal` [N, G] (G = 0 without goals), and the `mask`
    [N, K] of available choices, if the environment gives one."""

    @property
    def state(self) -> Tensor:
        """[N, D] float32 flattened observations."""

    @property
    def goal(self) -> Tensor:
        """[N, G] float32 desired goals; G = 0 without goals."""

    @property
    def mask(self) -> Tensor | None:
        """[N, K] available choices; None if the environment gives no mask."""


class Step(Protocol):
    """One step of N environments.

    `final` is the true next observation of this transition, even if the episode ended; `obs` is the observation to act
    on next (after an autoreset). Where `active` is False, the environment only reset and there is no transition.
    """

    @property
    def obs(self) -> Observation:
        """The observation to act on next."""

    @property
    def final(self) -> Observation:
        """The true next observation of this transition, even if the episode ended."""

    @property
    def reward(self) -> Tensor:
        """[N] rewards of the environment."""

    @property
    def terminated(self) -> Tensor:
        """[N] bool: True where the task ended."""

    @property
    def truncated(self) -> Tensor:
        """[N] bool: True where the episode was truncated before the task ended."""

    @property
    def active(self) -> Tensor:
        """[N] bool: False where the environment only reset, without a transition."""

    @property
    def success(self) -> Tensor:
        """[N] bool: success at this step according to info; False if info does not report it."""

    @property
    def taken(self) -> int:
        """Environment steps taken: the number of active environments."""

    @property
    def info(self) -> Tensor:
        """[N, K] entries of info that hindsight needs."""


class Spec(Protocol):
    """The properties of an environment that an agent knows before the first step."""

    @property
    def env_id(self) -> str:
        """The environment's Gymnasium id."""

    @property
    def state_dim(self) -> int:
        """D, the number of entries of a flattened observation."""

    @property
    def goal_dim(self) -> int:
        """G, the number of entries of a desired goal; 0 without goals."""

    @property
    def action_dim(self) -> int:
        """A, the number of entries of an action vector; 0 for other action spaces."""

    @property
    def achieved(self) -> tuple[int, ...]:
        """State entries of the achieved goal, for goal environments."""

    @property
    def state_low(self) -> Tensor:
        """[D] lower bounds of observations; -inf without bounds."""

    @property
    def state_high(self) -> Tensor:
        """[D] upper bounds of observations; inf without bounds."""

    @property
    def action_low(self) -> Tensor:
        """[A] lower bounds of an action vector in the environment's units."""

    @property
    def action_high(self) -> Tensor:
        """[A] upper bounds of an action vector in the environment's units."""

    @property
    def task_reward(self) -> TaskReward | None:
        """The goal environment's reward as a function of goals; None without goals."""

    @property
    def reward_range(self) -> tuple[float, float] | None:
        """(least, greatest) reward of a step if known, as for sparse goal rewards."""

    @property
    def max_episode_steps(self) -> int | None:
        """Greatest number of steps of an episode; None if it is unknown."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Entries of the observation that agents do not see."""

    @property
    def info_dim(self) -> int:
        """Number of entries of a step's info that hindsight needs."""

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors (Box)."""

    @property
    def action_space(self) -> Any:
        """The environment's own action space."""

    @property
    def actions(self) -> Any:
        """The agents' action space: a Box of [-1, 1], or numbers from 0 (hrl/spaces.py)."""

    @property
    def images(self) -> tuple[tuple[int, int, int], ...]:
        """(channels, height, width) of every image; their pixels are the last entries of the state, from 0 to 255."""

    @property
    def frames(self) -> int:
        """Number of frames stacked in an image's channels, the newest last."""

    @property
    def pixels(self) -> int:
        """P, the number of last entries of the state that are pixels."""

    @property
    def mask_dim(self) -> int:
        """K, the number of choices of an action mask; 0 if the environment gives none."""


class Outline(Protocol):
    """A rectangle seen from above, for pictures: its lower left corner, size and kind."""

    @property
    def x(self) -> float:
        """Left edge."""

    @property
    def y(self) -> float:
        """Lower edge."""

    @property
    def width(self) -> float:
        """Extent along x."""

    @property
    def height(self) -> float:
        """Extent along y."""

    @property
    def kind(self) -> Literal["wall", "gap", "block"]:
        """Whether it is a wall, a gap in the floor, or a block that can be pushed."""


class BatchedEnv(Protocol):
    """N environments that step together. Actions are in [-1, 1]; the environment rescales them to its own bounds."""

    @property
    def spec(self) -> Spec:
        """The properties of the environments."""

    @property
    def num_envs(self) -> int:
        """N, the number of environments."""

    @property
    def resets_within_step(self) -> bool:
        """Whether every step of every environment is a transition, so that no step only resets."""

    def reset(self, seed: int) -> Observation:
        """Begin an episode in every environment; the seed determines all following episodes."""

    @property
    def tells_success(self) -> bool:
        """Whether any info so far reported success."""

    @property
    def restarts(self) -> bool:
        """Whether single environments can begin a new episode at any time."""

    def truncate(self, step: Any, where: Tensor) -> Any:
        """The step with episodes truncated at the mask `where` [N]; new ones begin there if `restarts`."""

    def send(self, actions: Tensor) -> None:
        """Send every environment its action; environments in other processes begin to step."""

    def receive(self) -> Step:
        """Wait for the step of the sent actions."""

    def step(self, actions: Tensor) -> Step:
        """Send and receive."""

    def close(self) -> None:
        """Free the resources of the environments."""

    @property
    def is_family(self) -> bool:
        """Whether the environments are a family of tasks."""

    def verify(self) -> None:
        """Raise for faults that `step` does not check, since it would wait for the device."""

    def lasting(self) -> dict[str, Tensor]:
        """State that outlasts episodes, by name, which checkpoints contain; it changes in place."""

    def outlines(self, index: int) -> Sequence[Outline]:
        """The current walls, gaps and blocks of one environment; empty without a map."""

    def render(self, marks: Tensor | None = None) -> Sequence[np.ndarray]:
        """One frame [H, W, 3] per environment, with positions [N, G] marked if possible."""

    def is_single(self, raw: Any) -> bool:
        """Whether a raw observation is one environment's, not a batch."""

    def as_batch(self, raw: Any) -> Any:
        """One environment's raw observation as a batch of one."""

    def observe(self, raw: Any, mask: Tensor | None = None) -> Observation:
        """Convert a batch of raw observations to tensors; `mask` [N, K] says which numbered actions are available."""

    def raw(self, obs: Observation) -> Any:
        """The inverse of `observe`: a batch of observations in the environment's own form."""

    def from_action(self, actions: np.ndarray) -> np.ndarray:
        """The inverse of `to_action`."""

    def to_action(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions [N, A] from [-1, 1] to the environment's own bounds and shape."""
