"""The outer optimisation: estimates and checks the gradient, and updates the meta-parameters."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from hrl.nested.estimate import Estimate, Estimator, OuterLoss
from hrl.nested.trees import Tree, cosine, dot, leaves, norm, tree_map


@dataclass
class Guard:
    """Clips or skips bad outer gradients, and counts them.

    A gradient with a norm above `limit` is scaled down to `limit`. A gradient that is not finite, or has a norm of at
    least `explosion` times the limit, is skipped, and the inner optimisation returns to its previous state.
    """

    limit: float = 10.0
    explosion: float = 1e4
    clipped: int = 0
    skipped: int = 0

    def clip(self, gradient: Tree) -> Tree | None:
        """The gradient, clipped if necessary, or None to skip it. Waits for the device."""
        length = float(norm(gradient))
        if not length < self.limit * self.explosion:  # also true for NaN
            self.skipped += 1
            return None
        if length <= self.limit:
            return gradient
        self.clipped += 1
        return tree_map(lambda g: g * (self.limit / length), gradient)


@contextmanager
def keep_noise(estimator: Any) -> Iterator[None]:
    """A context that restores the random state of the estimator's noise on exit, if the estimator has noise."""
    noise = getattr(estimator, "noise", None)
    before = noise.state_dict() if noise is not None else None
    try:
        yield
    finally:
        if noise is not None:
            noise.load_state_dict(before)


class Check(Protocol):
    """An expensive check of an estimator, which runs occasionally."""

    def __call__(self, estimator: Estimator, outer: OuterLoss, state: Any, meta: Tree, estimate: Estimate) -> Tensor:
        """Returns one number [] to log."""


@dataclass
class Longer:
    """Cosine between the gradient and the gradient of another estimator, for example with twice the horizon."""

    other: Estimator

    def __call__(self, estimator: Estimator, outer: OuterLoss, state: Any, meta: Tree, estimate: Estimate) -> Tensor:
        return cosine(estimate.gradient, self.other(outer, state, meta).gradient)


@dataclass
class FiniteDifference:
    """Relative error of the gradient along a random direction, measured with central differences of `width`."""

    width: float = 1e-4
    seed: int = 0
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, estimator: Estimator, outer: OuterLoss, state: Any, meta: Tree, estimate: Estimate) -> Tensor:
        way = tree_map(lambda x: torch.randn(x.shape, generator=self._generator, dtype=x.dtype).to(x.device), meta)
        sides = [tree_map(lambda x, d, s=s: x + s * self.width * d, meta, way) for s in (1, -1)]
        with keep_noise(estimator):
            ahead, behind = (estimator(outer, state, side).loss for side in sides)
        measured, predicted = (ahead - behind) / (2 * self.width), dot(estimate.gradient, way)
        return (predicted - measured).abs() / measured.abs().clamp_min(1e-12)


def slope_error(loss: Callable[[Tree], Tensor], at: Tree, gradient: Tree, width: float) -> Tensor:
    """Relative error of a gradient along its own direction, measured with central differences of `width`."""
    length = norm(gradient).clamp_min(1e-30)
    ahead, behind = (loss(tree_map(lambda x, g, s=s: x + s * width * g / length, at, gradient)) for s in (1, -1))
    measured = (ahead - behind) / (2 * width)
    return (length - measured).abs() / measured.abs().clamp_min(1e-12)


class Outer:
    """Updates meta-parameters in place with a torch optimiser and an estimator's gradients.

    `checks` run every `check_every` steps (0: never) and are logged under their names. The metrics are the outer loss,
    the metrics of the estimator, the checks, and the counts `clipped` and `skipped`.
    """

    def __init__(
        self,
        estimator: Estimator,
        loss: OuterLoss,
        meta: Tree,
        optimiser: torch.optim.Optimizer,
        guard: Guard | None = None,
        checks: dict[str, Check] | None = None,
        check_every: int = 0,
    ) -> None:
        self.estimator, self.loss, self.meta, self.optimiser = estimator, loss, meta, optimiser
        self.guard = guard if guard is not None else Guard()
        self.checks, self.check_every = checks or {}, check_every
        self.steps = 0

    def step(self, state: Any) -> tuple[Any, dict[str, float]]:
        """Take one outer step from this inner state. Returns the next inner state and metrics."""
        meta = tree_map(torch.Tensor.detach, self.meta)
        estimate = self.estimator(self.loss, state, meta)
        metrics = {"outer_loss": estimate.loss, **estimate.metrics}
        if self.check_every and self.steps % self.check_every == 0:
            for name, check in self.checks.items():
                metrics[name] = check(self.estimator, self.loss, state, meta, estimate)
        self.steps += 1
        gradient = self.guard.clip(estimate.gradient)
        if gradient is not None:
            for parameter, g in zip(leaves(self.meta), leaves(gradient), strict=True):
                parameter.grad = g.detach()
            self.optimiser.step()
        values = {name: float(x) for name, x in metrics.items()}
        values |= {"clipped": float(self.guard.clipped), "skipped": float(self.guard.skipped)}
        return state if gradient is None else estimate.state, values

    def state_dict(self) -> dict[str, Any]:
        """Everything that later outer steps depend on, except the inner state, which the caller stores."""
        noise = getattr(self.estimator, "noise", None)
        return {
            "meta": [x.detach().clone() for x in leaves(self.meta)],
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "counts": (self.steps, self.guard.clipped, self.guard.skipped),
            "noise": None if noise is None else noise.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        for x, value in zip(leaves(self.meta), state["meta"], strict=True):
            x.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.guard.clipped, self.guard.skipped = state["counts"]
        if state["noise"] is not None:
            cast(Any, self.estimator).noise.load_state_dict(state["noise"])
