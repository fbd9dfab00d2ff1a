"""Differentiable optimisers: SGD with momentum, Adam and RMSprop. Their steps equal those of torch.optim."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.nested.trees import Tree, leaves, tree_map, zeros

Hyper = float | Tensor | Callable[[Any], Tensor]
"""A number, or a function of the meta-parameters that returns it: `lr=lambda meta: meta["log_lr"].exp()`."""


class Optimiser(Protocol):
    """An update rule without side effects."""

    def begin(self, params: Tree) -> Tree:
        """The initial memory, such as moments."""

    def step(self, params: Tree, gradient: Tree, memory: Tree, meta: Tree) -> tuple[Tree, Tree]:
        """Parameters and memory after one step."""

    @property
    def rate(self) -> Hyper:
        """The learning rate."""

    @property
    def tuned(self) -> tuple[str, ...]:
        """Names of the hyperparameters that are functions of the meta-parameters."""


def value(hyper: Hyper, meta: Tree) -> Any:
    """The value of a hyperparameter for these meta-parameters."""
    return hyper(meta) if callable(hyper) and not isinstance(hyper, Tensor) else hyper


@dataclass(frozen=True)
class _Base:
    lr: Hyper

    @property
    def rate(self) -> Hyper:
        return self.lr

    @property
    def tuned(self) -> tuple[str, ...]:
        return tuple(name for name, x in vars(self).items() if callable(x) and not isinstance(x, Tensor))


@dataclass(frozen=True)
class SGD(_Base):
    """w ← w - η b with b ← μ b + g."""

    lr: Hyper = 0.1
    momentum: Hyper = 0.0

    def begin(self, params: Tree) -> Tree:
        """Zero momentum; () without momentum."""
        return () if self.momentum == 0.0 else zeros(params)

    def step(self, params: Tree, gradient: Tree, memory: Tree, meta: Tree) -> tuple[Tree, Tree]:
        """One step."""
        lr, momentum = value(self.lr, meta), value(self.momentum, meta)
        if self.momentum != 0.0:
            gradient = memory = tree_map(lambda b, g: momentum * b + g, memory, gradient)
        return tree_map(lambda w, g: w - lr * g, params, gradient), memory


@dataclass(frozen=True)
class RMSprop(_Base):
    """w ← w - η g / (√v + ε) with v ← α v + (1 - α) g²."""

    lr: Hyper = 0.01
    alpha: Hyper = 0.99
    eps: float = 1e-8

    def begin(self, params: Tree) -> Tree:
        """Zero second moment."""
        return zeros(params)

    def step(self, params: Tree, gradient: Tree, memory: Tree, meta: Tree) -> tuple[Tree, Tree]:
        """One step."""
        lr, alpha = value(self.lr, meta), value(self.alpha, meta)
        memory = tree_map(lambda v, g: alpha * v + (1 - alpha) * g.square(), memory, gradient)
        return tree_map(lambda w, g, v: w - lr * g / (_root(v) + self.eps), params, gradient, memory), memory


@dataclass(frozen=True)
class FunctionalAdam(_Base):
    """w ← w - η m̂ / (√v̂ + ε), Kingma & Ba 2015. Without `through_scale`, √v̂ is a constant (as in LIRPG)."""

    lr: Hyper = 1e-3
    beta1: Hyper = 0.9
    beta2: Hyper = 0.999
    eps: float = 1e-8
    through_scale: bool = True

    def begin(self, params: Tree) -> Tree:
        """Zero moments, and a step count of 0."""
        return {"mean": zeros(params), "square": zeros(params), "count": leaves(params)[0].new_zeros(())}

    def step(self, params: Tree, gradient: Tree, memory: Tree, meta: Tree) -> tuple[Tree, Tree]:
        """One step."""
        lr, beta1, beta2 = (value(x, meta) for x in (self.lr, self.beta1, self.beta2))
        count = memory["count"] + 1
        mean = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, memory["mean"], gradient)
        square = tree_map(lambda v, g: beta2 * v + (1 - beta2) * g.square(), memory["square"], gradient)
        first, second = 1 - beta1**count, 1 - beta2**count

        def move(w: Tensor, m: Tensor, v: Tensor) -> Tensor:
            scale = _root(v / second) + self.eps
            return w - lr * (m / first) / (scale if self.through_scale else scale.detach())

        return tree_map(move, params, mean, square), {"mean": mean, "square": square, "count": count}


def _root(x: Tensor) -> Tensor:
    """√x with a derivative of 0 at 0 instead of infinity, for gradient entries that have been 0 so far."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)
