"""Calls a module's methods with other parameters."""

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call(module: nn.Module, method: str, params: dict[str, Tensor], *arguments: Any) -> Any:
    """Call a method of a module with these parameters. Parameters that are not given keep the module's values."""
    return functional_call(_Method(module, method), {f"module.{name}": x for name, x in params.items()}, arguments)


class _Method(nn.Module):
    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.module, self.method)(*arguments)
