"""An exponential moving average of the networks, for evaluations. It fluctuates less than the networks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from hrl.state import under
from hrl.types import UserError

PREFIX, COUNT = "ema.", "averaged_rounds"
"""Names in checkpoints: the prefix of averages, and the number of rounds."""


class Averaging:
    """The average θ̄ ← β θ̄ + (1 - β) θ of parameters θ, once per round. While 1 / n is larger than 1 - β, round n has
    the weight 1 / n, so the initial parameters do not count. Without a decay β, nothing is averaged."""

    def __init__(self, parameters: Callable[[], Mapping[str, Tensor]], decay: float) -> None:
        """`parameters` returns the current parameters; their names do not change."""
        self.decay, self.parameters = decay, parameters
        self.average = {name: x.detach().clone() for name, x in parameters().items()} if decay else {}
        self.rounds = 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the current parameters to the average."""
        if self.decay:
            self.rounds += 1
            share = max(1 - self.decay, 1 / self.rounds)
            current = self.parameters()
            torch._foreach_lerp_(list(self.average.values()), [current[name] for name in self.average], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the parameters have their averages as values."""
        if not self.rounds:
            yield
            return
        parameters = self.parameters()
        current = {name: parameters[name].detach().clone() for name in self.average}
        _set(parameters, self.average)
        try:
            yield
        finally:
            _set(parameters, current)

    def tensors(self) -> dict[str, Tensor]:
        """The averages and the number of rounds, for checkpoints; empty without a decay."""
        if not self.decay:
            return {}
        return {f"{PREFIX}{name}": x for name, x in self.average.items()} | {COUNT: torch.tensor(self.rounds)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of `tensors` from a checkpoint. Raises KeyError or RuntimeError if it does not fit."""
        if self.decay:
            for name, x in self.average.items():
                x.copy_(tensors[f"{PREFIX}{name}"])
            self.rounds = int(tensors[COUNT])


@torch.no_grad()
def _set(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors by the names that its run gave them, with each parameter replaced by its average if there
    is one."""
    own = {name: x for name, x in tensors.items() if name != COUNT and not name.startswith(PREFIX)}
    return own | under(PREFIX, tensors)


def check_decay(decay: float) -> None:
    """Raise UserError if the option --ema is invalid."""
    if not 0 <= decay < 1:
        raise UserError(f"--ema must be at least 0 and less than 1, not {decay}.")
