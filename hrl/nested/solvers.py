"""Matrix-free solvers of A x = b, where A x is a function of x. Shapes are static, so the solvers run under `vmap`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

TINY = 1e-38
Matvec = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """A solution x and its quality."""

    x: Tensor
    residual: Tensor
    """‖A x - b‖ / ‖b‖"""
    curvature: Tensor
    """Minimum of p·Ap / p·p; inf if not measured. Unless positive, A is not positive definite and x is invalid."""
    asymmetry: Tensor
    """Relative |x·Ab - b·Ax|. If it is not near 0, A is not symmetric. 0 if not measured."""
    contraction: Tensor
    """Estimated spectral radius of I - A; inf if not measured."""


class Solver(Protocol):
    """Solves A x = b."""

    @property
    def symmetric(self) -> bool:
        """Whether the solver assumes a symmetric A."""

    @property
    def accept(self) -> float:
        """Maximum residual of a valid solution; inf if `contraction` determines validity."""

    def __call__(self, matvec: Matvec, b: Tensor) -> Solution: ...


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradients (Hestenes & Stiefel 1952), for at most `steps` steps or until the relative residual is below
    `tolerance`.

    A solution with a residual above `accept` is invalid: A is not symmetric, or there were too few steps.
    """

    steps: int = 20
    tolerance: float = 1e-10
    accept: float = 0.1
    symmetric = True

    def __call__(self, matvec: Matvec, b: Tensor) -> Solution:
        """Solve for a symmetric positive definite A."""
        x, r = torch.zeros_like(b), b
        p, rr, ab = r, r @ r, matvec(b)
        enough = self.tolerance**2 * rr
        curvature = torch.full_like(rr, torch.inf)
        for step in range(self.steps):
            ap = matvec(p) if step else ab
            pap, pp = p @ ap, p @ p
            going = rr > enough
            curvature = torch.where(going, torch.minimum(curvature, pap / pp), curvature)
            alpha = torch.where(going, rr / pap, 0.0)
            x, r = x + alpha * p, r - alpha * ap
            new = r @ r
            p = torch.where(going, r + new / rr * p, p)
            rr = torch.where(going, new, rr)
        ax = matvec(x)
        asymmetry = (x @ ab - b @ ax).abs() / (x.norm() * ab.norm()).clamp_min(torch.finfo(b.dtype).tiny)
        return Solution(x, _relative(ax - b, b), curvature, asymmetry, torch.full_like(rr, torch.inf))


@dataclass(frozen=True)
class Neumann:
    """Neumann's series x = Σ_{k<terms} (I - A)^k b. Its error is of order ρ^terms if I - A contracts with rate ρ."""

    terms: int = 20
    accept = float("inf")
    symmetric = False

    def __call__(self, matvec: Matvec, b: Tensor) -> Solution:
        """Solve for an A such that I - A contracts."""
        x = term = b
        for _ in range(self.terms - 1):
            term = term - matvec(term)
            x = x + term
        rest = term - matvec(term)
        # A term of exactly zero has contracted completely.
        contraction = torch.where(term.norm() == 0, 0.0, rest.norm() / term.norm().clamp_min(TINY))
        zero = torch.zeros_like(contraction)
        return Solution(x, _relative(rest, b), zero + torch.inf, zero, contraction)


def _relative(error: Tensor, b: Tensor) -> Tensor:
    return error.norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny)
