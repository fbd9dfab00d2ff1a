"""Statistics across runs: interquartile mean with bootstrap intervals (Agarwal et al. 2021), and curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def interquartile_mean(values: Sequence[float] | np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half; with a fractional weight where a quarter falls within a value."""
    x = np.sort(np.asarray(values, dtype=float), axis=axis)
    n = x.shape[axis]
    edges = np.arange(n + 1) / n
    # Each sorted value covers [i/n, (i+1)/n]; its weight is how much of that lies in [1/4, 3/4].
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    return np.average(x, axis=axis, weights=weight)


def bootstrap_interval(values: Sequence[float], samples: int = 5000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the interquartile mean: runs drawn with replacement, percentiles."""
    x = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).choice(x, (samples, len(x)))
    low, high = np.percentile(interquartile_mean(drawn), [2.5, 97.5])
    return float(low), float(high)


@dataclass
class Curve:
    """One run's values over environment steps."""

    steps: np.ndarray
    values: np.ndarray

    @staticmethod
    def band(curves: Sequence["Curve"], points: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(steps, interquartile mean, least, most) over the range that all runs cover."""
        start, end = max(c.steps[0] for c in curves), min(c.steps[-1] for c in curves)
        x = np.linspace(start, max(start, end), points)
        y = np.stack([np.interp(x, c.steps, c.values) for c in curves])
        return x, interquartile_mean(y, axis=0), y.min(0), y.max(0)
