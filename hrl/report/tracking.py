"""Measures whether a fast level can track the slow level above it.

Coupled levels learn stably if the slower one is almost stationary for the faster one (two-timescale stochastic
approximation, Borkar 1997). The drift of a level is the mean change of its decisions on the same states between two
logs, in half-ranges. In theory, the drift of the slow level divided by that of the fast level should be well below 1.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hrl.hierarchy.level import Level

PROBES = 256
"""Number of states on which decisions are compared."""
PATIENCE = 5
"""Consecutive logs with a problem before a warning."""
STILL = 1e-3
"""Drift, in half-ranges, below which decisions count as stationary."""
TOO_FAST = 3.0
"""Ratio of drifts above which a slow level counts as too fast. Runs that solve PointMaze_UMaze-v3 have ratios between
1 and 3 in many consecutive logs."""


class Tracking:
    """Compares each level's decisions with those at the last log."""

    def __init__(self, levels: Sequence[Level], total_steps: int) -> None:
        self.levels = levels
        self._before: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._lasted: Counter[str] = Counter()
        self.warnings = [sentence for level in levels if (sentence := learns_nothing(level, total_steps))]
        """Warnings to print."""

    @torch.no_grad()
    def measure(self, steps: int) -> dict[str, float]:
        """`<level>/drift`, and `<level>/drift_ratio` relative to the level below. Waits for the device."""
        metrics: dict[str, float] = {}
        for level in self.levels:
            drift = self._drift(level, steps)
            if drift is not None:
                metrics[f"{level.name}/drift"] = drift
        for fast, slow in pairwise(self.levels):
            moved, below = metrics.get(f"{slow.name}/drift"), metrics.get(f"{fast.name}/drift")
            if moved is not None and below and fast.learns_at(steps):
                metrics[f"{slow.name}/drift_ratio"] = moved / below
                advice = f"lower --timescale.ratio or --{slow.name}.learning-rate"
                self._warn(
                    moved > TOO_FAST * below,
                    f"The {slow.name} level's decisions change too fast for the {fast.name} level to track them "
                    f"({moved / below:.1f} times as fast as its own): {advice}.",
                )
                self._warn(
                    moved < STILL and slow.learns_at(steps),
                    f"The {slow.name} level's decisions no longer change: the level has saturated because it learned "
                    f"too fast; {advice}.",
                )
        return metrics

    def _drift(self, level: Level, steps: int) -> float | None:
        if level.config.frozen:
            return None
        before = self._before.get(level.name)
        moved = None if before is None else float((level.decide(*before[:2]) - before[2]).abs().mean())
        if len(level.memory):
            generator = torch.Generator(level.memory.device).manual_seed(steps)  # leaves the run's generator unchanged
            seen = level.memory.read(level.memory.draw(PROBES, generator))
            self._before[level.name] = seen["state"], seen["target"], level.decide(seen["state"], seen["target"])
        return moved

    def _warn(self, now: bool, sentence: str) -> None:
        """Add a warning once, after PATIENCE consecutive logs with `now` true."""
        subject = sentence[:50]
        if self._lasted[subject] < PATIENCE:
            self._lasted[subject] = self._lasted[subject] + 1 if now else 0
            if self._lasted[subject] == PATIENCE:
                self.warnings.append(sentence)


def learns_nothing(level: Level, total_steps: int) -> str | None:
    """A warning if a level's first update would come after the end of its learning, else None."""
    first = level.timescale.starts + level.timescale.every
    end = min(total_steps, level.config.learning_stops or total_steps)
    if level.config.frozen or first < end:
        return None
    why = f"the run ends at {end:,}" if end == total_steps else f"{level.name}.learning_stops is {end:,}"
    return f"The {level.name} level learns nothing: its first update would come after {first:,} steps, and {why}."
