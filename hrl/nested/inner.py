"""Inner optimisations: their state, and a step as a function of the meta-parameters."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hrl.nested.optimisers import SGD, Optimiser
from hrl.nested.trees import Tree, detached, tree_map
from hrl.types import UserError

InnerLoss = Callable[[Any, Any, int], Tensor]
"""(parameters, meta-parameters, step number) -> loss. It must be deterministic; the step number selects the batch."""

Map = Callable[[Any, Any, int], Any]
"""(parameters, meta-parameters, step number) -> parameters."""


class State(NamedTuple):
    """The state of an inner optimisation."""

    params: Tree
    memory: Tree
    """The state of the optimiser."""
    step: int
    """Number of steps taken."""

    def detached(self) -> "State":
        """A copy without autograd history."""
        return State(detached(self.params), detached(self.memory), self.step)


class Inner(Protocol):
    """The interface of an inner optimisation."""

    def begin(self, params: Tree) -> State:
        """The state before the first step."""

    def step(self, state: State, meta: Tree, first_order: bool = False) -> State:
        """Take one step, differentiable in the state and in the meta-parameters.

        With `first_order`, the step's direction is treated as independent of the parameters it starts from.
        """

    def fixed_point(self) -> "Map":
        """The map that has the optimum as its fixed point. Raises UserError if the fixed point does not determine the
        gradient."""


class Descent:
    """Steps of an optimiser along the gradient of a loss."""

    def __init__(self, loss: InnerLoss, optimiser: Optimiser | None = None) -> None:
        self.loss = loss
        self.optimiser: Optimiser = optimiser if optimiser is not None else SGD()

    def begin(self, params: Tree) -> State:
        """The state before the first step. Raises UserError for parameters that are not floating-point tensors."""
        require_real(params, "inner parameters")
        return State(params, self.optimiser.begin(params), 0)

    def step(self, state: State, meta: Tree, first_order: bool = False) -> State:
        """Take one step of the optimiser."""
        at = detached(state.params) if first_order else state.params
        gradient = torch.func.grad(self.loss)(at, meta, state.step)
        params, memory = self.optimiser.step(state.params, gradient, state.memory, meta)
        return State(params, memory, state.step + 1)

    def fixed_point(self) -> Map:
        """w - η ∇loss(w), for any optimiser, because all optimisers have the same fixed point.

        Raises UserError if the optimiser is tuned, or if its learning rate is not positive.
        """
        if self.optimiser.tuned:
            raise UserError(
                f"An implicit gradient cannot tune the inner optimiser's {', '.join(self.optimiser.tuned)}, "
                "because the minimum of the inner loss does not depend on it. Use Unrolled, or PES for many inner "
                "steps."
            )
        lr: Any = self.optimiser.rate
        if not bool(torch.as_tensor(lr).detach() > 0):
            raise UserError(
                f"An implicit gradient needs a positive inner learning rate, not {float(lr):g}: with a rate of 0, "
                "every point is a fixed point."
            )

        def descend(params: Tree, meta: Tree, step: int) -> Tree:
            gradient = torch.func.grad(self.loss)(params, meta, step)
            return tree_map(lambda w, g: w - lr * g, params, gradient)

        return descend


class Iteration:
    """Repeatedly applies a map, such as a Bellman backup: (values, meta-parameters, step) -> values."""

    def __init__(self, function: Map) -> None:
        self.function = function

    def begin(self, params: Tree) -> State:
        """The state before the first application. Raises UserError for values that are not floating-point tensors."""
        require_real(params, "inner values")
        return State(params, (), 0)

    def step(self, state: State, meta: Tree, first_order: bool = False) -> State:
        """Apply the map once."""
        at = detached(state.params) if first_order else state.params
        params = self.function(at, meta, state.step)
        if first_order:
            params = tree_map(lambda new, old, live: live + (new - old), params, at, state.params)
        return State(params, (), state.step + 1)

    def fixed_point(self) -> Map:
        """The map itself."""
        return self.function


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """A detached copy of a module's trainable parameters by name, for `torch.func.functional_call`.

    Excludes frozen parameters (`requires_grad=False`). Raises UserError for modules that are not functions of their
    parameters: modules with running statistics that each call changes, and modules with parameters that share memory.
    """
    require_functional(module)
    return {name: x.detach().clone() for name, x in module.named_parameters() if x.requires_grad}


def require_functional(module: nn.Module) -> None:
    """Raise UserError if a module is not a function of its parameters."""
    for name, part in module.named_modules():
        if part.training and getattr(part, "track_running_stats", False):
            raise UserError(
                f"{name or 'The module'} ({type(part).__name__}) keeps running statistics, which every call changes. "
                "Put it into evaluation mode with eval(), or use GroupNorm or LayerNorm."
            )
    # Parameters may be adjacent in one storage, as in a flat optimiser, but must not overlap.
    places = sorted((x.data_ptr(), x.data_ptr() + x.nbytes, name) for name, x in module.named_parameters() if x.nbytes)
    for (_, end, first), (begin, _, name) in pairwise(places):
        if begin < end:
            raise UserError(
                f"The parameters {first} and {name} share memory, but would be updated separately and differ "
                "afterwards. Use one nn.Parameter, or compute one from the other."
            )


def require_real(tree: Tree, name: str) -> None:
    """Raise UserError if a leaf is not a floating-point tensor."""
    for path, leaf in torch.utils._pytree.tree_flatten_with_path(tree)[0]:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            kind = str(leaf.dtype).removeprefix("torch.") if isinstance(leaf, Tensor) else type(leaf).__name__
            place = "".join(map(str, path))
            raise UserError(
                f"The {name}{place} must be floating-point tensors, which have gradients, not {kind}. Pass other "
                "values to the loss directly."
            )
