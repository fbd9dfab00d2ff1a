"""What every estimator of an outer gradient is asked, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.nested.trees import Tree
from hrl.types import UserError

OuterLoss = Callable[[Any, Any], Tensor]
"""(inner parameters, meta-parameters) -> what the outer level wants small."""


@dataclass
class Estimate:
    """An outer gradient, and where the inner optimisation stands after it."""

    loss: Tensor
    """The outer loss at the inner parameters that were reached."""
    gradient: Tree
    """Of the outer loss, like the meta-parameters."""
    initial: Tree
    """Of the outer loss with respect to the parameters that the inner optimisation began from: what MAML learns by.
    None where the estimator does not follow the way back there."""
    params: Tree
    """The inner parameters that were reached, without history."""
    state: Any
    """To go on from."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """How far the estimate can be trusted."""


class Estimator(Protocol):
    """One way to the gradient of an outer loss through an inner optimisation."""

    def begin(self, params: Tree) -> Any:
        """The state to begin from."""

    def __call__(self, outer: OuterLoss, state: Any, meta: Tree) -> Estimate:
        """Run the inner optimisation on from `state` under the meta-parameters, and estimate."""


def refuse(where: Tensor, gradient: Tree, sentence: str) -> Tree:
    """Raise UserError where true. In a batch of tasks (`vmap`) one cannot raise: their gradients become NaN."""
    if not torch._C._functorch.is_batchedtensor(where):
        if bool(where):
            raise UserError(sentence)
        return gradient
    return torch.utils._pytree.tree_map(lambda g: torch.where(where, torch.nan, g), gradient)
