"""The state of many parts as one dictionary of tensors, for checkpoints. Each part has torch's `state_dict` and
`load_state_dict`; numbers of the host are tensors too.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Stateful(Protocol):
    """What has a state that a checkpoint keeps."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors and numbers by name."""

    def load_state_dict(self, state: Any) -> Any:
        """Take over what `state_dict` gave."""


def gather(parts: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """`<part>.<name>` -> tensor."""
    return {
        f"{part}.{name}": x if isinstance(x, Tensor) else torch.tensor(x)
        for part, owner in parts.items()
        for name, x in owner.state_dict().items()
    }


def restore(parts: Mapping[str, Stateful], tensors: Mapping[str, Tensor]) -> None:
    """Give each part what `gather` took from it. Raises RuntimeError, ValueError or KeyError where it does not fit."""
    for part, owner in parts.items():
        owner.load_state_dict(under(f"{part}.", tensors))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins with the prefix, named without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
