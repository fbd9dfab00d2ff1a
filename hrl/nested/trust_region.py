"""A trust-region step (Schulman 2015): along the natural gradient, up to a maximum divergence."""

from collections.abc import Callable

import torch
from torch import Tensor

from hrl.nested.solvers import ConjugateGradient
from hrl.nested.trees import Ravel, Tree, pullback

Objective = Callable[[Tree], tuple[Tensor, Tensor]]
"""Parameters -> (loss, mean divergence from the initial parameters)."""
DAMPING = 1e-5


def trust_region_step(
    params: Tree, objective: Objective, limit: float = 0.01, solver: ConjugateGradient | None = None, halvings: int = 15
) -> tuple[Tree, dict[str, Tensor]]:
    """Returns new parameters with a lower loss and a divergence of at most `limit` (the old parameters if the line
    search fails), and metrics: the loss, its decrease (`gain`) and the divergence."""
    solver = solver if solver is not None else ConjugateGradient(10)
    ravel = Ravel(params)
    start = ravel.vector(params)

    def divergence_of(params: Tree) -> Tensor:
        return objective(params)[1]

    gradient, loss = torch.func.grad_and_value(lambda p: objective(p)[0])(params)
    _, pull = pullback(torch.func.grad(divergence_of), params)

    def curvature(v: Tensor) -> Tensor:
        return ravel.vector(pull(ravel.tree(v), retain_graph=True)[0]) + DAMPING * v

    way = solver(curvature, ravel.vector(gradient)).x
    way = way * (2 * limit / (way @ curvature(way)).clamp_min(1e-12)).sqrt()
    with torch.no_grad():
        for tried in range(halvings):
            moved = ravel.tree(start - way * 0.8**tried)
            after, divergence = objective(moved)
            if bool((after < loss) & (divergence <= limit)):
                return moved, {"loss": loss, "gain": loss - after, "divergence": divergence}
    zero = torch.zeros_like(loss)
    return params, {"loss": loss, "gain": zero, "divergence": zero}
