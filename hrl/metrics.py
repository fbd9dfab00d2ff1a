"""Running means of tensors. They stay on the device until they are logged."""

import torch
from torch import Tensor


class Means:
    """Sums tensors by name, in place; `pop` returns the means since the last call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._totals: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add scalars by name, each counted once."""
        for name, value in values.items():
            total, count = self._total(name)
            total.add_(value)
            count.add_(1)

    def add_where(self, name: str, values: Tensor, mask: Tensor, weights: Tensor | None = None) -> None:
        """Add the values [N] where mask [N] is true, with equal weights or these [N]."""
        total, count = self._total(name, mask.shape)
        total.add_(torch.where(mask, values if weights is None else values * weights, 0.0))
        count.add_(mask if weights is None else mask * weights)

    def _total(self, name: str, shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        if name not in self._totals:
            with torch.inference_mode(False):  # training and inference update it
                self._totals[name] = torch.zeros(shape, device=self.device), torch.zeros(shape, device=self.device)
        return self._totals[name]

    def pop(self) -> dict[str, float]:
        """Return the means of all names that have values, and reset. Waits for the device once."""
        if not self._totals:
            return {}
        totals = torch.stack([torch.stack([x.sum() for x in pair]) for pair in self._totals.values()])
        for total, count in self._totals.values():
            total.zero_(), count.zero_()
        pairs = zip(self._totals, totals.tolist(), strict=True)
        return {name: total / count for name, (total, count) in pairs if count}
