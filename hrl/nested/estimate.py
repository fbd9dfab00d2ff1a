"""The interface of estimators of an outer gradient."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.nested.trees import Tree
from hrl.types import UserError

OuterLoss = Callable[[Any, Any], Tensor]
"""(inner parameters, meta-parameters) -> loss that the outer level minimises."""


@dataclass
class Estimate:
    """An outer gradient, and the state of the inner optimisation after it."""

    loss: Tensor
    """The outer loss at the final inner parameters."""
    gradient: Tree
    """Gradient of the outer loss with respect to the meta-parameters."""
    initial: Tree
    """Gradient of the outer loss with respect to the initial inner parameters (used by MAML). None if the estimator
    does not compute it."""
    params: Tree
    """The final inner parameters, detached."""
    state: Any
    """The inner state to continue from."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Metrics of the reliability of the estimate."""


class Estimator(Protocol):
    """Estimates the gradient of an outer loss through an inner optimisation."""

    def begin(self, params: Tree) -> Any:
        """The initial state for these inner parameters."""

    def __call__(self, outer: OuterLoss, state: Any, meta: Tree) -> Estimate:
        """Continue the inner optimisation from `state` with the meta-parameters, and estimate the gradient."""


def refuse(where: Tensor, gradient: Tree, sentence: str) -> Tree:
    """Raise UserError if `where` is true. Code under `vmap` cannot raise, so there the gradients of these tasks become
    NaN."""
    if not torch._C._functorch.is_batchedtensor(where):
        if bool(where):
            raise UserError(sentence)
        return gradient
    return torch.utils._pytree.tree_map(lambda g: torch.where(where, torch.nan, g), gradient)
