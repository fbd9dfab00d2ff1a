"""The gradient by backpropagation through the steps of an inner optimisation."""

from typing import Any

import torch
from torch import Tensor

from hrl.nested.estimate import Estimate, OuterLoss
from hrl.nested.inner import Inner, State, require_real
from hrl.nested.trees import Tree, detached, norm, pullback, tree_map
from hrl.types import UserError


class Unrolled:
    """Backpropagation through `steps` inner steps.

    `last` limits backpropagation to the last steps (truncated backpropagation, Shaban 2019), which saves memory but
    biases the gradient. `recompute` stores the parameters after each step instead of its graph, and repeats each step
    in the backward pass: the gradient is the same, with the memory of one step's graph. `first_order` ignores the
    dependence of a step's direction on its initial parameters (first-order MAML, Finn 2017). Raises UserError unless
    steps >= last >= 1.
    """

    def __init__(
        self, inner: Inner, steps: int, last: int | None = None, recompute: bool = False, first_order: bool = False
    ) -> None:
        last = steps if last is None else last
        if not 1 <= last <= steps:
            raise UserError(f"Unrolled needs steps >= last >= 1, not steps {steps} and last {last}.")
        self.inner, self.steps, self.first_order = inner, steps, first_order
        self.last = last
        self._through = self._recomputed if recompute else self._graph

    def begin(self, params: Tree) -> State:
        """The inner optimisation's initial state."""
        return self.inner.begin(params)

    def __call__(self, outer: OuterLoss, state: State, meta: Tree) -> Estimate:
        """Estimate the gradient. It is exact for `steps` steps from `state`, unless `last` or `first_order` is set."""
        require_real(meta, "meta-parameters")
        start_state = detached_walk(self.inner, state.detached(), meta, self.steps - self.last)
        loss, gradient, initial, end = self._through(outer, start_state, meta)
        full = self.last == self.steps
        metrics = {"outer_gradient": norm(gradient)}
        return Estimate(loss.detach(), gradient, initial if full else None, end.params, end, metrics)

    def _graph(self, outer: OuterLoss, start_state: State, meta: Tree) -> tuple[Tensor, Tree, Tree, State]:
        def run(start: tuple[Tree, Tree], meta: Tree) -> tuple[Tensor, Any]:
            state = State(*start, start_state.step)
            for _ in range(self.last):
                state = self.inner.step(state, meta, self.first_order)
            loss = outer(state.params, meta)
            return loss, (loss, detached((state.params, state.memory)))

        start = (start_state.params, start_state.memory)
        ((initial, _), gradient), (loss, end) = torch.func.grad(run, argnums=(0, 1), has_aux=True)(start, meta)
        return loss, gradient, initial, State(end[0], end[1], start_state.step + self.last)

    def _recomputed(self, outer: OuterLoss, start_state: State, meta: Tree) -> tuple[Tensor, Tree, Tree, State]:
        way = [start_state]
        for _ in range(self.last):
            way.append(self.inner.step(way[-1], meta, self.first_order).detached())
        end = way.pop()
        (behind, gradient), loss = torch.func.grad_and_value(outer, argnums=(0, 1))(end.params, meta)
        back = (behind, tree_map(torch.zeros_like, end.memory))
        for state in reversed(way):

            def again(start: tuple[Tree, Tree], meta: Tree, step: int = state.step) -> tuple[Tree, Tree]:
                after = self.inner.step(State(*start, step), meta, self.first_order)
                return after.params, after.memory

            _, pull = pullback(again, (state.params, state.memory), meta)
            back, more = pull(back)
            gradient = tree_map(torch.add, gradient, more)
        return loss, gradient, back[0], end


def detached_walk(inner: Inner, state: State, meta: Tree, steps: int) -> State:
    """Take `steps` inner steps without an autograd graph."""
    meta = detached(meta)
    for _ in range(steps):
        state = inner.step(state, meta).detached()
    return state
