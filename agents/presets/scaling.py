"""Rules by which a preset's values grow with the number of environments.

A preset is tuned for N₀ environments (its `num_envs`). If it says `scales: true`, its values for N > N₀ environments
are, with f = N / N₀:

    batch_size, train_freq                              × min(f, 1024 / batch_size)
    total_steps, learning_starts, eval_freq, save_freq  × √f

Every stored step is then replayed as often as before, in fewer and larger batches. The run has more steps, because each
environment would otherwise see only a few episodes.
"""

import math
from typing import Any

from hrl.types import UserError

LARGEST_BATCH = 1024
"""With 4,096, a run of the same length learned less (docs/scale.md)."""
LENGTHS = ("total_steps", "learning_starts", "eval_freq", "save_freq")
"""Options in environment steps, of all environments together."""


def scaled(values: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """The values of a preset for this number of environments; unchanged for at most the preset's own number. Raises
    UserError if the preset has no such number."""
    own = values.get("num_envs")
    if type(own) is not int or own < 1:
        raise UserError(f"A preset with scales: true must give num_envs, a positive whole number, not {own!r}.")
    return _scaled(values, num_envs / own) if num_envs > own else values


def _scaled(values: dict[str, Any], factor: float) -> dict[str, Any]:
    grown: dict[str, Any] = dict(values)
    for key, value in values.items():
        if isinstance(value, dict):
            grown[key] = _scaled(value, factor)
        elif key in LENGTHS and type(value) is int:
            grown[key] = round(value * math.sqrt(factor))
    if all(type(values.get(key)) is int and values[key] > 0 for key in ("batch_size", "train_freq")):
        replayed = max(1.0, min(factor, LARGEST_BATCH / values["batch_size"]))
        grown |= {key: round(values[key] * replayed) for key in ("batch_size", "train_freq")}
    return grown
