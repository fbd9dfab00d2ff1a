"""Running means of tensors that stay on the device until the logger asks."""

from torch import Tensor


class Means:
    """Adds tensors up by name; `pop` gives the means since the last one."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor | float] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Scalars, each counted once."""
        for name, value in values.items():
            self._accumulate(name, value, 1.0)

    def add_where(self, name: str, values: Tensor, mask: Tensor) -> None:
        """The values [N] where mask [N] is true."""
        weight = mask.to(values.dtype)
        self._accumulate(name, (values * weight).sum(), weight.sum())

    def _accumulate(self, name: str, value: Tensor, count: Tensor | float) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts[name] + count if name in self._counts else count

    def pop(self) -> dict[str, float]:
        """Means by name, and start anew. Names without a value are left out. Waits for the device."""
        means = {
            name: float(total) / float(self._counts[name])
            for name, total in self._sums.items()
            if float(self._counts[name])
        }
        self._sums, self._counts = {}, {}
        return means
