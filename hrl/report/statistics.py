"""Statistics across runs: means with intervals, and curves.

For few runs with simulated success rates, Student's 95 % interval of the mean has a coverage of .88 to .94. With three
runs, percentile bootstraps of the interquartile mean (Agarwal et al. 2021) have a coverage of .72 to .75
(`python benchmarks/intervals.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_RUNS = 3
"""Minimum number of runs for an interval."""
# Student's t at 97.5 % for 2 to 30 degrees of freedom, then that of the normal distribution.
STUDENT = (
    4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314,
    2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452,
    2.0423,
)  # fmt: skip


def interquartile_mean(values: Sequence[float] | np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the values, with fractional weights at the quartiles."""
    x = np.sort(np.asarray(values, dtype=float), axis=axis)
    n = x.shape[axis]
    edges = np.arange(n + 1) / n
    # Each sorted value covers [i/n, (i+1)/n]; its weight is the part of this interval within [1/4, 3/4].
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return np.average(x, axis=axis, weights=weight)


def student_interval(
    values: Sequence[float], limits: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float] | None:
    """95 % interval of the mean of runs, clipped to `limits`. None for fewer than three runs, and if all runs are
    equal, because their spread is unknown."""
    x = np.asarray(values, dtype=float)
    if len(x) < LEAST_RUNS or np.ptp(x) == 0:
        return None
    factor = STUDENT[len(x) - 3] if len(x) - 3 < len(STUDENT) else 1.96
    half = factor * x.std(ddof=1) / np.sqrt(len(x))
    return float(max(x.mean() - half, limits[0])), float(min(x.mean() + half, limits[1]))


def bootstrap_interval(values: Sequence[float], samples: int = 5000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the interquartile mean. It is too narrow for few runs."""
    x = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).choice(x, (samples, len(x)))
    low, high = np.percentile(interquartile_mean(drawn), [2.5, 97.5])
    return float(low), float(high)


RATE = (0.0, 1.0)
"""Limits of a success rate."""


@dataclass
class Curve:
    """One run's values over environment steps."""

    steps: np.ndarray
    values: np.ndarray


@dataclass
class Band:
    """The curves of several runs combined, over all steps that any of them covers."""

    steps: np.ndarray
    """[P] every step at which at least one run was evaluated."""
    middle: np.ndarray
    """[P] interquartile mean of the runs that cover the step."""
    low: np.ndarray
    """[P] minimum of these runs."""
    high: np.ndarray
    """[P] maximum of these runs."""
    complete: np.ndarray
    """[P] whether all runs cover the step."""

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> "Band":
        """Combine curves. Each curve is interpolated linearly between its ends."""
        steps = np.unique(np.concatenate([c.steps for c in curves]))
        values = np.stack([np.interp(steps, c.steps, c.values, np.nan, np.nan) for c in curves])
        there = ~np.isnan(values)
        columns = [values[there[:, i], i] for i in range(len(steps))]
        middle = np.array([float(interquartile_mean(c)) for c in columns])
        low, high = (np.array([f(c) for c in columns]) for f in (np.min, np.max))
        return cls(steps, middle, low, high, there.all(0))
