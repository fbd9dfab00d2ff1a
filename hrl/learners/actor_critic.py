"""The options, losses and interface that learners with an actor and critics share."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Build, Exploring, ReplayConfig
from hrl.networks.layers import Critics
from hrl.spaces import action_width
from hrl.types import UserError


@dataclass
class ActorCriticConfig(ReplayConfig):
    """The options that TD3 and SAC share."""

    actor_learning_rate: float | None = None
    """The actor's step size. Default: the same as the critic's."""
    n_critics: int = 2
    """Number of critics."""
    min_q_weight: float = 1.0
    """Bootstrapped value of the critics: 1 uses their minimum (published), 0 their mean; other values interpolate. The
    minimum underestimates by a part of their difference δ, which adds up to δ/(1-γ)."""
    action_noise: tuple[float, ...] = (0.1,)
    """Exploration: standard deviation of Gaussian noise, in half-ranges of the action; one number for all environments,
    or two for the first and the last."""

    @property
    def exploring(self) -> Exploring:
        """The configured noise and random decisions."""
        return super().exploring._replace(noise=self.action_noise)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("actor_learning_rate",), lambda x: x > 0, "must be positive, not")
        self._require(prefix, ("n_critics",), lambda x: x >= 1, "must be at least 1, not")
        self._require(prefix, ("min_q_weight",), lambda x: 0 <= x <= 1, "must be between 0 and 1, not")
        if len(self.action_noise) not in (1, 2) or min(self.action_noise) < 0:
            raise UserError(
                f"{prefix}action_noise must be one or two numbers that are not negative, not {self.action_noise}."
            )


def regression(q: Tensor, target: Tensor, huber: bool) -> Tensor:
    """Loss of the critics' values q [C, B] for target [B], summed over critics and averaged over the batch."""
    error = q - target
    loss = torch.nn.functional.smooth_l1_loss(q, target.expand_as(q), reduction="none") if huber else error.square()
    return loss.mean(-1).sum()


def combine_q(q: Tensor, min_weight: float) -> Tensor:
    """lerp(mean, min, `min_weight`) [B] of the critics' values q [C, B]; 1 is clipped double Q learning (Fujimoto
    2018)."""
    return q.amin(0) if min_weight == 1 else torch.lerp(q.mean(0), q.amin(0), min_weight)


def new_critics(build: Build, config: ActorCriticConfig) -> Critics:
    """New critics for continuous actions."""
    width, features = action_width(build.actions), build.action_features
    return Critics(build.inputs, width, config.hidden, config.layer_norm, build.encoder, features, config.n_critics)


@runtime_checkable
class DifferentiableActorCritic(Protocol):
    """The additional interface of a learner for tuning, learned rewards and protection."""

    actor_optimiser: FlatAdam
    critic_optimiser: FlatAdam

    def mode(self, inputs: Tensor) -> Tensor:
        """The most likely action [B, A] in [-1, 1], differentiable."""

    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The actor as a normal distribution: mean and standard deviation [B, A], differentiable."""

    def critic_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """The critic's loss, also differentiable in the batch's rewards and discounts. `noise` [B, A]."""

    def actor_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """The actor's loss. `noise` [B, A]."""
