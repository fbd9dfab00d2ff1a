"""A check for parameters that became NaN or infinite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hrl.types import Diverged


def require_finite(parameters: Mapping[str, Tensor], where: str, saved_at: int | None) -> None:
    """Raise Diverged if a parameter is NaN or infinite. Waits for the device.

    `where` says how far the run is, and `saved_at` are the steps of its last checkpoint, for the message.
    """
    norms = list(torch._foreach_norm(list(parameters.values()))) if parameters else []
    if not norms or bool(torch.stack(norms).isfinite().all()):  # one wait for all parameters
        return
    wrong = next((name for name, x in parameters.items() if not bool(x.isfinite().all())), None)
    if wrong is not None:  # otherwise, only the norm of large values overflowed
        kept = f"The checkpoint at {saved_at:,} is intact." if saved_at else "No checkpoint was saved yet."
        raise Diverged(
            f"Training diverged: {wrong} is NaN or infinite at {where}. Lower the learning rate, or scale down the "
            f"rewards and observations. {kept}"
        )
