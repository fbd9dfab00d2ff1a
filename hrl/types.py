"""The types that the packages of the toolkit share. `hrl` uses environments only through these interfaces."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from hrl.errors import Diverged as Diverged
from hrl.errors import UserError as UserError

TaskReward = Callable[..., tuple[Tensor, Tensor]]
"""(achieved [..., G], desired [..., G]) -> (reward [...], whether it ends the episode [...]). If the environment's
`Spec.info` names entries of info, they are a third argument [..., K]."""


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
    """The properties of an environment that are known before the first step."""

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
        """(minimum, maximum) reward of a step, for example of sparse goal rewards; None if unknown."""

    @property
    def max_episode_steps(self) -> int | None:
        """Greatest number of steps of an episode; None if it is unknown."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Entries of the observation that agents do not see."""

    @property
    def ignored_goals(self) -> str:
        """A sentence that says why the goals of the observation do not count as goals; empty if they do."""

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
        """(channels, height, width) of every image. Their pixels, from 0 to 255, are the last entries of the state."""

    @property
    def frames(self) -> int:
        """Number of frames stacked in an image's channels, the newest last."""

    @property
    def pixels(self) -> int:
        """P, the number of pixels, which are the last entries of the state."""

    @property
    def mask_dim(self) -> int:
        """K, the number of choices of an action mask; 0 if the environment gives none."""


class Outline(Protocol):
    """A rectangle seen from above, for pictures: its lower left corner, size and kind. A reward or a hazard fills the
    ellipse within it."""

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
    def kind(self) -> Literal["wall", "gap", "block", "reward", "hazard"]:
        """A wall, a gap in the floor, a block that can be pushed, or an object with a positive or negative reward."""


class BatchedEnv(Protocol):
    """N environments that step together. Actions are in [-1, 1]; the environment rescales them to its bounds."""

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
    def reports_success(self) -> bool:
        """Whether any info so far reported success."""

    @property
    def restarts(self) -> bool:
        """Whether single environments can start a new episode at any time."""

    def truncate(self, step: Any, where: Tensor) -> Any:
        """The step with the episodes at the mask `where` [N] truncated; new ones start there if `restarts`."""

    def pause(self, where: np.ndarray) -> None:
        """Do not step the environments in `where` [N] bool until the next reset, if this is possible."""

    def send(self, actions: Tensor) -> None:
        """Send the actions [N, A] or [N]; environments in other processes start to step."""

    def receive(self) -> Step:
        """Wait for the step of the sent actions."""

    def step(self, actions: Tensor) -> Step:
        """Send the actions, and wait for the step."""

    def close(self) -> None:
        """Free the resources of the environments."""

    @property
    def is_family(self) -> bool:
        """Whether the environments are a family of tasks."""

    def verify(self) -> None:
        """Raise an error for invalid values that `step` does not check, because it never waits for a GPU."""

    def lasting(self) -> dict[str, Tensor]:
        """State that persists across episodes, by name. It changes in place; checkpoints contain it."""

    def outlines(self, index: int) -> Sequence[Outline]:
        """The current walls, gaps and blocks of one environment; empty without a map."""

    def render(self, marks: Tensor | None = None) -> Sequence[np.ndarray]:
        """One frame [H, W, 3] per environment, with positions [N, G] marked if possible."""

    def given(self, observation: Any, mask: Callable[[bool], Tensor | None]) -> tuple[Observation, bool]:
        """Convert an observation of one environment or of a batch to a batch of tensors; also returns whether it is a
        single one, on which `mask` may depend. Raises ValueError if it does not fit the space."""

    def observe(self, raw: Any, mask: Tensor | None = None) -> Observation:
        """Convert a batch of raw observations to tensors; `mask` [N, K] marks the available discrete actions."""

    def raw(self, obs: Observation) -> Any:
        """The inverse of `observe`: a batch of observations in the form of the environment."""

    def from_action(self, actions: np.ndarray) -> np.ndarray:
        """The inverse of `to_action`."""

    def to_action(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions [N, A] from [-1, 1] to the environment's bounds and shape."""
