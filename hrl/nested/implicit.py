"""The gradient of an inner optimum by the implicit function theorem, without a graph of the inner steps."""

import torch

from hrl.nested.estimate import Estimate, OuterLoss, refuse
from hrl.nested.inner import Inner, State, require_real
from hrl.nested.solvers import ConjugateGradient, Solver
from hrl.nested.trees import Ravel, Tree, norm, pullback, tree_map
from hrl.nested.unrolled import detached_walk
from hrl.types import UserError

ASYMMETRY = 1e-2
"""Maximum relative asymmetry of a Hessian; rounding causes about 1e-6 in float32."""


class Implicit:
    """At a fixed point w = T(w, λ) of the inner map, dJ/dλ = ∂J/∂λ + (∂T/∂λ)ᵀ (I - ∂T/∂w)⁻ᵀ ∂J/∂w.

    Runs `steps` inner steps without a graph, then solves the linear system with matrix-vector products. `steps` may be
    0 if the state is already at the optimum. The gradient is accurate only near the inner optimum; `inner_residual`
    (‖T(w) - w‖ / ‖w‖) measures the distance to it.
    """

    def __init__(self, inner: Inner, steps: int, solver: Solver | None = None) -> None:
        if steps < 0:
            raise UserError(f"Implicit needs steps >= 0, not {steps}.")
        self.inner, self.steps, self.map = inner, steps, inner.fixed_point()
        self.solver: Solver = solver if solver is not None else ConjugateGradient()

    def begin(self, params: Tree) -> State:
        """The inner optimisation's initial state."""
        return self.inner.begin(params)

    def __call__(self, outer: OuterLoss, state: State, meta: Tree) -> Estimate:
        """Estimate the gradient. Raises UserError if the theorem or the solver does not apply."""
        require_real(meta, "meta-parameters")
        end = detached_walk(self.inner, state.detached(), meta, self.steps)
        (behind, direct), loss = torch.func.grad_and_value(outer, argnums=(0, 1))(end.params, meta)
        ravel = Ravel(end.params)

        # One graph of one application of T serves every product with its Jacobian.
        after, pull = pullback(lambda w, m: self.map(w, m, end.step), end.params, meta)
        solution = self.solver(
            lambda v: v - ravel.vector(pull(ravel.tree(v), retain_graph=True)[0]), ravel.vector(behind)
        )
        gradient = tree_map(torch.add, direct, pull(ravel.tree(solution.x), retain_graph=True)[1])
        moved = tree_map(torch.sub, after, end.params)
        metrics = {
            "outer_gradient": norm(gradient),
            "inner_residual": (norm(moved) / norm(end.params).clamp_min(1e-30)).detach(),
            "solver_residual": solution.residual,
        }
        if self.solver.symmetric:
            metrics["curvature"] = solution.curvature
            gradient = refuse(
                ~(solution.residual <= self.solver.accept) & (solution.curvature > 0),
                gradient,
                f"Conjugate gradients did not solve for the implicit gradient: more than {self.solver.accept:g} "
                "of the residual remains. Use more steps of ConjugateGradient. If the inner map contracts but is not "
                "a gradient step, use Implicit with Neumann.",
            )
            gradient = refuse(
                ~(solution.curvature > 0) | (solution.asymmetry > ASYMMETRY),
                gradient,
                "Conjugate gradients need an inner map that is a gradient step, and an inner loss with positive "
                "curvature where the inner optimisation stopped. At least one condition is not met. Use more inner "
                "steps or Unrolled; for a map that contracts, such as a Bellman backup, use Implicit with "
                "Neumann.",
            )
        else:
            metrics["contraction"] = solution.contraction
            gradient = refuse(
                ~(solution.contraction < 1),
                gradient,
                "The inner map does not contract where the inner optimisation stopped, so Neumann's series "
                "diverges. Use smaller inner steps, Unrolled, or conjugate gradients.",
            )
        return Estimate(loss.detach(), gradient, None, end.params, end, metrics)
