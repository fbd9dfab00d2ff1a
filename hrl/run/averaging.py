"""An exponential moving average of the networks, for evaluations. It fluctuates less than the networks."""

from collections.abc import Iterator, Mapping
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

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        """The parameters must change in place."""
        self.decay = decay
        self.parameters = dict(parameters) if decay else {}
        self.average = {name: x.detach().clone() for name, x in self.parameters.items()}
        self.rounds = 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the current parameters to the average."""
        if self.decay:
            self.rounds += 1
            share = max(1 - self.decay, 1 / self.rounds)
            torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the parameters have their averages as values."""
        current = {name: x.detach().clone() for name, x in self.parameters.items()}
        if self.rounds:
            self._set(self.average)
        try:
            yield
        finally:
            self._set(current)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, x in self.parameters.items():
            x.copy_(values[name])

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


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors by the names that its run gave them, with each parameter replaced by its average if there
    is one."""
    own = {name: x for name, x in tensors.items() if name != COUNT and not name.startswith(PREFIX)}
    return own | under(PREFIX, tensors)


def check_decay(decay: float) -> None:
    """Raise UserError if the option --ema is invalid."""
    if not 0 <= decay < 1:
        raise UserError(f"--ema must be at least 0 and less than 1, not {decay}.")
