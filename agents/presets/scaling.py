"""Rules by which a preset's values grow with the number of environments.

A preset is tuned for N₀ environments (its `num_envs`). If it says `scales: true`, its values for N > N₀ environments
are, with f = N / N₀:

    batch_size, train_freq                              × min(f, 4096 / batch_size)
    total_steps, learning_starts, eval_freq, save_freq  × √f

Every stored step is then replayed as often as before, in fewer and larger batches. The run has more steps, because each
environment would otherwise see only a few episodes.
"""

import math
from typing import Any

LARGEST_BATCH = 4096
"""Larger batches did not learn faster."""
LENGTHS = ("total_steps", "learning_starts", "eval_freq", "save_freq")
"""Options in environment steps, of all environments together."""


def scaled(values: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """The values of a preset for this number of environments; unchanged for at most the preset's own number."""
    factor = num_envs / values["num_envs"]
    return _scaled(values, factor) if factor > 1 else values


def _scaled(values: dict[str, Any], factor: float) -> dict[str, Any]:
    grown = {key: _scaled(value, factor) if isinstance(value, dict) else value for key, value in values.items()}
    grown |= {key: round(grown[key] * math.sqrt(factor)) for key in LENGTHS if key in grown}
    if "batch_size" in grown and "train_freq" in grown:
        replayed = max(1.0, min(factor, LARGEST_BATCH / grown["batch_size"]))
        grown |= {key: round(grown[key] * replayed) for key in ("batch_size", "train_freq")}
    return grown
