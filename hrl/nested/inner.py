"""The inner optimisation: what it moves, and one step of it as a function of the meta-parameters."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hrl.nested.optimisers import SGD, Optimiser
from hrl.nested.trees import Tree, detached, tree_map
from hrl.types import UserError

InnerLoss = Callable[[Any, Any, int], Tensor]
"""(parameters, meta-parameters, number of the step) -> loss. The number picks the batch; nothing else is chance."""

Map = Callable[[Any, Any, int], Any]
"""(parameters, meta-parameters, number of the step) -> parameters."""


class State(NamedTuple):
    """Where an inner optimisation stands."""

    params: Tree
    memory: Tree
    """Of its optimiser."""
    step: int
    """Steps taken."""

    def detached(self) -> "State":
        """Without history."""
        return State(detached(self.params), detached(self.memory), self.step)


class Inner(Protocol):
    """An inner optimisation."""

    def begin(self, params: Tree) -> State:
        """Before the first step."""

    def step(self, state: State, meta: Tree, first_order: bool = False) -> State:
        """One step, differentiable in the state and in the meta-parameters.

        First-order: as if the step's direction did not depend on the parameters it starts from.
        """

    def fixed_point(self) -> "Map":
        """The map whose fixed point the optimisation seeks. Raises UserError where that does not say the gradient."""


class Descent:
    """Steps of an optimiser along the gradient of a loss."""

    def __init__(self, loss: InnerLoss, optimiser: Optimiser | None = None) -> None:
        self.loss = loss
        self.optimiser: Optimiser = optimiser if optimiser is not None else SGD()

    def begin(self, params: Tree) -> State:
        """Before the first step. Raises UserError for parameters that no gradient can move."""
        require_real(params, "inner parameters")
        return State(params, self.optimiser.begin(params), 0)

    def step(self, state: State, meta: Tree, first_order: bool = False) -> State:
        """One step of the optimiser."""
        at = detached(state.params) if first_order else state.params
        gradient = torch.func.grad(self.loss)(at, meta, state.step)
        params, memory = self.optimiser.step(state.params, gradient, state.memory, meta)
        return State(params, memory, state.step + 1)

    def fixed_point(self) -> Map:
        """w - η ∇loss(w), whatever the optimiser: it rests where the loss does."""
        if self.optimiser.tuned:
            raise UserError(
                f"An implicit gradient cannot tune the inner optimiser's {', '.join(self.optimiser.tuned)}: where the "
                "inner loss is least does not depend on it. Use Unrolled, or PES where many steps are needed."
            )
        lr: Any = self.optimiser.rate
        if not bool(torch.as_tensor(lr).detach() > 0):
            raise UserError(
                f"An implicit gradient needs an inner learning rate above 0, not {float(lr):g}: under a rate of 0 "
                "every point is a fixed point."
            )

        def descend(params: Tree, meta: Tree, step: int) -> Tree:
            gradient = torch.func.grad(self.loss)(params, meta, step)
            return tree_map(lambda w, g: w - lr * g, params, gradient)

        return descend


class Iteration:
    """Repeated application of a map, such as a Bellman backup: (values, meta-parameters, step) -> values."""

    def __init__(self, function: Map) -> None:
        self.function = function

    def begin(self, params: Tree) -> State:
        """Before the first application. Raises UserError for values that no gradient can move."""
        require_real(params, "inner values")
        return State(params, (), 0)

    def step(self, state: State, meta: Tree, first_order: bool = False) -> State:
        """Apply the map."""
        at = detached(state.params) if first_order else state.params
        params = self.function(at, meta, state.step)
        if first_order:
            params = tree_map(lambda new, old, live: live + (new - old), params, at, state.params)
        return State(params, (), state.step + 1)

    def fixed_point(self) -> Map:
        """The map itself."""
        return self.function


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """A module's trainable parameters by name, without history: what `torch.func.functional_call` takes.

    Frozen ones (`requires_grad=False`) stay the module's own. Raises UserError for modules that are no function of
    their parameters: with running statistics that each call changes, or with parameters that share memory.
    """
    require_functional(module)
    return {name: x.detach().clone() for name, x in module.named_parameters() if x.requires_grad}


def require_functional(module: nn.Module) -> None:
    """Raise UserError where calling a module under other parameters would not do what it says."""
    for name, part in module.named_modules():
        if part.training and getattr(part, "track_running_stats", False):
            raise UserError(
                f"{name or 'The module'} ({type(part).__name__}) keeps running statistics, which every call changes: "
                "put it into evaluation mode with eval(), or use GroupNorm or LayerNorm."
            )
    # Parameters may be neighbours in one storage, as a flat optimiser has them, but must not overlap.
    places = sorted((x.data_ptr(), x.data_ptr() + x.nbytes, name) for name, x in module.named_parameters() if x.nbytes)
    for (_, end, first), (begin, _, name) in pairwise(places):
        if begin < end:
            raise UserError(
                f"The parameters {first} and {name} share memory, and would drift apart when they are moved one by "
                "one: make them one nn.Parameter, or compute one from the other."
            )


def require_real(tree: Tree, name: str) -> None:
    """Raise UserError where a leaf is no tensor of floating-point numbers."""
    for path, leaf in torch.utils._pytree.tree_flatten_with_path(tree)[0]:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            kind = str(leaf.dtype).removeprefix("torch.") if isinstance(leaf, Tensor) else type(leaf).__name__
            place = "".join(map(str, path))
            raise UserError(
                f"The {name}{place} must be floating-point tensors, which have gradients, not {kind}; keep other "
                "values outside."
            )
