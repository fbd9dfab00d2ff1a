"""Contracts of the parts that a level is built from: relabelling, reward terms, models, bonuses and tuners."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.learners import Metrics
from hrl.memory.transitions import Transitions
from hrl.state import Stateful

Relabel = Callable[[Transitions, torch.Generator], Transitions]
RewardTerm = Callable[[Tensor, Tensor], Tensor]
"""(inputs [B, I], action [B, A]) -> a term that is added to the reward [B]."""


class Tuner(Stateful, Protocol):
    """Adapts a level's hyperparameters or reward while it learns (see hrl/nested/levels/tuning.py and reward.py)."""

    @property
    def intrinsic_reward(self) -> RewardTerm | None:
        """The term that is added to the level's reward; None if there is none."""

    def step(self, number: int, now: Transitions, following: Transitions, generator: torch.Generator) -> Metrics:
        """Adapt to improve the result of update `number`, on the batch `now`, as evaluated on the batch `following`."""


class Tuned(Protocol):
    """A factory of a level's tuner."""

    @property
    def tunes(self) -> tuple[str, ...]:
        """Names of the tuned quantities: learning_rate, gamma, ent_coef or reward."""

    def __call__(self, level: Any) -> Tuner:
        """Make the tuner. Raises UserError if the level's learner does not have the hyperparameter."""


class Model(Stateful, Protocol):
    """A model that a level trains in addition to its learner (see agents/parts/adjacency.py).

    It runs eagerly, outside compiled or captured functions. Tensors that updates read from it change in place.
    """

    def keep_up(
        self, level: Any, steps: int, generator: torch.Generator, in_haste: Callable[[], bool] = bool
    ) -> Metrics:
        """Called before a level's updates, after `steps` environment steps. Most calls do nothing."""


class Bonus(Model, Protocol):
    """A bonus that is added to a level's reward, for example for rarely visited states."""

    greatest: float
    """Maximum bonus of a decision. The minimum is 0."""

    def __call__(self, state: Tensor) -> Tensor:
        """The bonus [...] of decisions that end in these states [..., D]."""
