"""The interface of on-policy learners, which learn from rollouts of their current policy."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hrl.learners.base import Batch, Learner, LearnerConfig, Metrics


@dataclass
class OnPolicyConfig(LearnerConfig):
    """The options of update rules that learn from rollouts."""

    on_policy: ClassVar[bool] = True
    remembers: ClassVar[tuple[str, ...]] = ()
    """Names of numbers stored with each decision for learning."""
    n_steps: int = 2048
    """Decisions per environment in a rollout; environment steps if decisions have no fixed duration."""
    batch_size: int = 64
    """Decisions per gradient step, over all processes."""
    normalize_reward: bool = False
    """Divide rewards by the running standard deviation of discounted returns."""

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("n_steps", "batch_size"), lambda x: x > 0, "must be positive, not")


class Decisions(NamedTuple):
    """The decisions of N environments since the last update, in order, in T rows. Not every row is a decision."""

    batch: Batch
    """[T * N, ...]"""
    noted: dict[str, Tensor]
    """[T * N] the values that the learner `remembers`, by name."""
    follows: Tensor
    """[T, N] whether the next row is the next decision of the same episode under the same command."""
    places: Tensor
    """[B] indices of the decisions among the T * N rows."""


class Rollout(NamedTuple):
    """B decisions of the last rollout's policy."""

    inputs: Tensor
    """[B, I]"""
    action: Tensor
    """[B, A]"""
    log_prob: Tensor
    """[B] log π_old(a|s), at the decision."""
    value: Tensor
    """[B] V(s), before the update."""
    advantage: Tensor
    """[B]"""
    returns: Tensor
    """[B] advantage + V(s), the target of the value function."""
    mask: Tensor | None = None
    """[B, K] choices available at the decision; None for all."""
    next_inputs: Tensor | None = None
    """[B, I] at the decision's end; if the learner needs them."""
    discount: Tensor | None = None
    """[B] γ^duration, or 0 where the task ended; if the learner needs it."""

    def at(self, index: Tensor) -> "Rollout":
        """The decisions with these indices [K]."""
        return Rollout(*(None if x is None else x.index_select(0, index) for x in self))  # type: ignore[arg-type]

    def split(self, size: int) -> "list[Rollout]":
        """Parts of `size` decisions, in order."""
        count = -(-len(self.action) // size)
        columns = ([None] * count if x is None else x.split(size) for x in self)
        return [Rollout(*part) for part in zip(*columns, strict=True)]


class OnPolicyLearner(Learner):
    """A learner that learns from the decisions since its last update, and then drops them."""

    @abstractmethod
    def rollout(self, decisions: Decisions) -> Any:
        """The data to `learn` from, with an attribute `action` [B, A]."""

    @abstractmethod
    def learn(self, rollout: Any, size: int, progress: float, generator: torch.Generator) -> Metrics:
        """Learn from a rollout in minibatches of `size`, at the fraction `progress` of the run. Returns mean
        metrics."""

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Raises NotImplementedError: the learner learns only from rollouts (`learn`)."""
        raise NotImplementedError


def mean_metrics(noted: list[Metrics]) -> Metrics:
    """The mean of every metric over gradient steps."""
    return {name: torch.stack([metrics[name] for metrics in noted]).mean() for name in noted[0]}
