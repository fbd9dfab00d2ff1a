"""The outer optimisation: estimates, judges what it got, and moves the meta-parameters."""

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
    """Lets no outer gradient through that is invalid, and counts.

    One longer than `limit` is cut to that length; one that is not finite, or `explosion` times longer than the limit,
    is skipped, and the inner optimisation goes back to where it was.
    """

    limit: float = 10.0
    explosion: float = 1e4
    clipped: int = 0
    skipped: int = 0

    def judge(self, gradient: Tree) -> Tree | None:
        """The gradient to follow, or None. Waits for the device."""
        length = float(norm(gradient))
        if not length < self.limit * self.explosion:  # not a number is not less
            self.skipped += 1
            return None
        if length <= self.limit:
            return gradient
        self.clipped += 1
        return tree_map(lambda g: g * (self.limit / length), gradient)


@contextmanager
def undisturbed(estimator: Any) -> Iterator[None]:
    """What is asked meanwhile does not move the noise of an estimator that has some."""
    noise = getattr(estimator, "noise", None)
    before = noise.state_dict() if noise is not None else None
    try:
        yield
    finally:
        if noise is not None:
            noise.load_state_dict(before)


class Check(Protocol):
    """An occasional, dearer look at an estimator."""

    def __call__(self, estimator: Estimator, outer: OuterLoss, state: Any, meta: Tree, estimate: Estimate) -> Tensor:
        """One number to log."""


@dataclass
class Longer:
    """Cosine between the gradient and that of another estimator, with twice the horizon say: 1 where they agree."""

    other: Estimator

    def __call__(self, estimator: Estimator, outer: OuterLoss, state: Any, meta: Tree, estimate: Estimate) -> Tensor:
        return cosine(estimate.gradient, self.other(outer, state, meta).gradient)


@dataclass
class FiniteDifference:
    """Relative error of the gradient along a random direction, against the loss's change over `width` there."""

    width: float = 1e-4
    seed: int = 0
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, estimator: Estimator, outer: OuterLoss, state: Any, meta: Tree, estimate: Estimate) -> Tensor:
        way = tree_map(lambda x: torch.randn(x.shape, generator=self._generator, dtype=x.dtype).to(x.device), meta)
        sides = [tree_map(lambda x, d, s=s: x + s * self.width * d, meta, way) for s in (1, -1)]
        with undisturbed(estimator):
            ahead, behind = (estimator(outer, state, side).loss for side in sides)
        measured, predicted = (ahead - behind) / (2 * self.width), dot(estimate.gradient, way)
        return (predicted - measured).abs() / measured.abs().clamp_min(1e-12)


def slope_error(loss: Callable[[Tree], Tensor], at: Tree, gradient: Tree, width: float) -> Tensor:
    """Relative error of a gradient along its own direction, against the loss's change over `width` to both sides."""
    length = norm(gradient).clamp_min(1e-30)
    ahead, behind = (loss(tree_map(lambda x, g, s=s: x + s * width * g / length, at, gradient)) for s in (1, -1))
    measured = (ahead - behind) / (2 * width)
    return (length - measured).abs() / measured.abs().clamp_min(1e-12)


class Outer:
    """Moves meta-parameters in place with a torch optimiser, by an estimator's gradients.

    `checks` are made every `check_every` steps (0: never) and logged under their names. Metrics: the outer loss, the
    estimator's own, the checks', `clipped` and `skipped` so far.
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
        """One outer step from this inner state; the inner state to go on from, and metrics."""
        meta = tree_map(torch.Tensor.detach, self.meta)
        estimate = self.estimator(self.loss, state, meta)
        metrics = {"outer_loss": estimate.loss, **estimate.metrics}
        if self.check_every and self.steps % self.check_every == 0:
            for name, check in self.checks.items():
                metrics[name] = check(self.estimator, self.loss, state, meta, estimate)
        self.steps += 1
        gradient = self.guard.judge(estimate.gradient)
        if gradient is not None:
            for parameter, g in zip(leaves(self.meta), leaves(gradient), strict=True):
                parameter.grad = g.detach()
            self.optimiser.step()
        values = {name: float(x) for name, x in metrics.items()}
        values |= {"clipped": float(self.guard.clipped), "skipped": float(self.guard.skipped)}
        return state if gradient is None else estimate.state, values

    def state_dict(self) -> dict[str, Any]:
        """All that the outer steps to come depend on, but the inner state: that is the caller's."""
        noise = getattr(self.estimator, "noise", None)
        return {
            "meta": [x.detach().clone() for x in leaves(self.meta)],
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "counts": (self.steps, self.guard.clipped, self.guard.skipped),
            "noise": None if noise is None else noise.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for x, value in zip(leaves(self.meta), state["meta"], strict=True):
            x.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.guard.clipped, self.guard.skipped = state["counts"]
        if state["noise"] is not None:
            cast(Any, self.estimator).noise.load_state_dict(state["noise"])
