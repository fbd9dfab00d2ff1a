"""What a learner is: an update rule on batches of transitions. It knows no hierarchy."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hrl.learners.adam import FlatAdam
from hrl.networks import TaskLinear

Metrics = dict[str, Tensor]
Constraint = Callable[[Tensor, Tensor], Tensor]
"""(inputs [B, I], action [B, A]) -> what an action costs beside its value [B], differentiable in it."""


class Batch(NamedTuple):
    """B transitions as a learner sees them; inputs are state and command encoded, actions are in [-1, 1]."""

    inputs: Tensor
    """[B, I]"""
    action: Tensor
    """[B, A]"""
    reward: Tensor
    """[B], the discounted sum over the transition's duration."""
    next_inputs: Tensor
    """[B, I]"""
    discount: Tensor
    """[B], γ^duration, or 0 where the task ended (semi-Markov decision process)."""

    def split(self, size: int) -> "list[Batch]":
        """Batches of `size` transitions each."""
        return [Batch(*part) for part in zip(*(x.split(size) for x in self), strict=True)]


@dataclass
class LearnerConfig:
    """Hyperparameters of an update rule."""

    lr: float = 1e-3
    """Learning rate of Adam."""
    actor_lr: float | None = None
    """The actor's own learning rate. Default: the same as lr."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers of every network."""
    layer_norm: bool = False
    """Normalise what each hidden layer gives, in actor and critics."""
    tasks: int = 1
    """Tasks that the actor is told apart, by biases of their own; with --…load, each run learns the next."""
    gamma: float = 0.99
    """Discount an environment step."""
    tau: float = 0.005
    """Share of the online network that enters the target network at each update (Polyak averaging)."""
    policy_delay: int = 2
    """Critic updates for each actor and target update (TD3)."""
    target_noise: float = 0.2
    """Standard deviation of the target policy's smoothing noise (TD3), in half-ranges of the action."""
    noise_clip: float = 0.5
    """Bound of that noise."""
    entropy: float | None = None
    """SAC's temperature. Default: learned, for a target entropy of minus the action dimension."""
    huber: bool = False
    """Huber loss for the critic, instead of squares."""
    action_l2: float = 0.0
    """Weight of the mean squared action in the actor's loss (TD3), against saturated actions."""
    pessimism: float = 1.0
    """What is bootstrapped of two critics, and SAC's actor climbs: 1 the lesser (published), 0 their mean, and between.
    The lesser is too low by some part of their disagreement δ, which adds up to δ/(1-γ): most where little was seen."""


def regression(q: Tensor, target: Tensor, huber: bool) -> Tensor:
    """Loss of twin values q [2, B] against target [B]: summed over the twins, averaged over the batch."""
    error = q - target
    loss = torch.nn.functional.smooth_l1_loss(q, target.expand_as(q), reduction="none") if huber else error.square()
    return loss.mean(-1).sum()


def combine_twin_q(q: Tensor, pessimism: float) -> Tensor:
    """One value [B] of twins q [2, B]: the lesser (clipped double Q learning, Fujimoto 2018), or nearer their mean."""
    return q.amin(0) if pessimism == 1 else torch.lerp(q.mean(0), q.amin(0), pessimism)


class Learner(nn.Module, ABC):
    """An update rule with its networks and optimisers. It knows no hierarchy."""

    cycle = 1
    """Updates after which the pattern of what is updated comes again."""
    formulas: tuple[str, ...] = ()
    """Methods that are pure, and may be compiled."""

    def __init__(self, config: LearnerConfig, value_range: tuple[float, float] | None) -> None:
        super().__init__()
        self.config = config
        self.value_range = value_range
        self.rate_factor = 1.0
        self.constraint: Constraint | None = None
        """Added to the actor's loss, where it is held to more than the critic says."""

    @abstractmethod
    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Actions [B, A] in [-1, 1]; sampled with a generator where the policy is stochastic, else its mode."""

    @abstractmethod
    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """One gradient step on each network that is due at the `number`-th update, counted from 0.

        Metrics are tensors, so that no device waits.
        """

    @abstractmethod
    def mode(self, inputs: Tensor) -> Tensor:
        """The likeliest action [B, A] in [-1, 1], differentiable."""

    def choose_task(self, task: int) -> None:
        """Act and learn with the biases of this task, of several."""
        for module in self.modules():
            if isinstance(module, TaskLinear):
                module.task.fill_(task)

    @property
    def task(self) -> int:
        """The one whose biases are in force. Waits for the device."""
        return next((int(m.task) for m in self.modules() if isinstance(m, TaskLinear)), 0)

    @abstractmethod
    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The actor as a normal distribution: mean and standard deviation [B, A], differentiable."""

    @abstractmethod
    def critic_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """What a critic step lessens, differentiable also in the batch's rewards and discounts. `noise` [B, A]."""

    @abstractmethod
    def actor_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """What an actor step lessens. `noise` [B, A]."""

    def constrained(self, loss: Tensor, inputs: Tensor, action: Tensor) -> Tensor:
        """The actor's loss [()] at these actions [B, A], and what the constraint adds to it."""
        return loss if self.constraint is None else loss + self.constraint(inputs, action).mean()

    def optimisers(self) -> dict[str, FlatAdam]:
        """By attribute name."""
        return {name: x for name, x in vars(self).items() if isinstance(x, FlatAdam)}

    def set_learning_rate(self, factor: float) -> None:
        """Scale every learning rate from its configured value."""
        if factor != self.rate_factor:
            self.rate_factor = factor
            for optimiser in self.optimisers().values():
                optimiser.lr.fill_(optimiser.initial_lr * factor)

    def bound(self, target: Tensor) -> Tensor:
        """Clip bootstrapped targets to what values can be (HAC: [-1/(1-γ), 0])."""
        return target if self.value_range is None else target.clamp(*self.value_range)
