"""Adam (Kingma & Ba 2015), and plain gradient descent, over one flat vector.

The parameters become views of the vector. A step, a norm, an average over processes and a target update then need only
one operation each, regardless of the number of layers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from hrl.execution.processes import average_over_processes

ALIGNMENT = 16
"""Each parameter starts at a multiple of this number of entries (64 bytes), the alignment for matrix products."""


def flatten(parameters: Sequence[Tensor]) -> Tensor:
    """Copy all parameters into one vector; they become views of it. Call it after moving them to their device."""
    flat = parameters[0].new_zeros(sum(_padded(p.numel()) for p in parameters))
    for parameter, view in zip(parameters, views(flat, parameters), strict=True):
        view.copy_(parameter.data)
        parameter.data = view
    return flat


def views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of the parts of a flat vector, with the shapes of the tensors in `like`."""
    parts = flat.split([_padded(x.numel()) for x in like])
    return [part[: x.numel()].view_as(x) for part, x in zip(parts, like, strict=True)]


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class FlatAdam:
    """Adam on one flat vector. The learning rate is a tensor, so that changes take effect in captured graphs."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, max_norm: float | None = None, eps: float = 1e-8
    ) -> None:
        """Gradients with a norm above `max_norm` are scaled down to this norm."""
        self.parameters, self.initial_lr, self.max_norm, self.eps = list(parameters), lr, max_norm, eps
        self.flat = flatten(self.parameters)
        self.gradient = torch.zeros_like(self.flat)
        self.state = {"first": torch.zeros_like(self.flat), "second": torch.zeros_like(self.flat)}
        self.state["steps"] = self.flat.new_zeros(())
        self.lr = self.flat.new_tensor(lr)
        self.places = views(self.gradient, self.parameters)
        """The parts of `gradient` that belong to each parameter."""
        self.guard: Callable[[Tensor, Tensor], None] | None = None
        """A function (gradient, parameters) that changes the gradient of protected parameters in place (protection.py).
        """

    def minimise(self, loss: Tensor) -> Tensor:
        """Take one step on the loss, and compute no other gradients. Returns the gradient's norm."""
        gradients = torch.autograd.grad(loss, self.parameters)
        torch._foreach_copy_(self.places, list(gradients))
        return self.descend()

    def descend(self) -> Tensor:
        """Take one step with the gradient in `places`, averaged over the processes. Returns its norm."""
        average_over_processes(self.gradient)
        if self.guard is not None:
            with torch.no_grad():
                self.guard(self.gradient, self.flat)
        norm = torch.linalg.vector_norm(self.gradient)
        if self.max_norm is not None:
            self.gradient.mul_((self.max_norm / (norm + 1e-6)).clamp_max(1.0))
        self.step()
        return norm

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the current `gradient`."""
        adam(
            [self.flat], [self.gradient], [self.state["first"]], [self.state["second"]], [], [self.state["steps"]],
            fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=self.lr, weight_decay=0.0,
            eps=self.eps, maximize=False, capturable=self.flat.is_cuda,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """The moments and the number of steps."""
        return self.state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy the result of `state_dict`."""
        for name, mine in self.state.items():
            mine.copy_(state[name])


class FlatSGD(FlatAdam):
    """Gradient descent without momentum: θ ← θ - lr ∇L."""

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the current `gradient`."""
        self.flat.addcmul_(self.gradient, self.lr, value=-1)

    def state_dict(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
