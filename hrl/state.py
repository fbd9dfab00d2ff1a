"""The state of many parts as one dictionary of tensors, for checkpoints. Each part has `state_dict` and
`load_state_dict` as in torch; host numbers become tensors too.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Stateful(Protocol):
    """The interface of objects that checkpoints save."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors and numbers by name."""

    def load_state_dict(self, state: Any) -> Any:
        """Load the result of `state_dict`."""


def gather(parts: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """All tensors of all parts, named `<part>.<name>`."""
    return {
        f"{part}.{name}": x if isinstance(x, Tensor) else torch.tensor(x)
        for part, owner in parts.items()
        for name, x in owner.state_dict().items()
    }


def restore(parts: Mapping[str, Stateful], tensors: Mapping[str, Tensor]) -> None:
    """Load the result of `gather` into the parts. Raises RuntimeError, ValueError or KeyError if it does not fit."""
    for part, owner in parts.items():
        owner.load_state_dict(under(f"{part}.", tensors))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with names that start with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
