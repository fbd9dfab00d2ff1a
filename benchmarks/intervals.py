"""Coverage of 95 % intervals over runs: Student's of the mean, and the bootstrap of the interquartile mean.

    python benchmarks/intervals.py

Each simulated run has its own success rate, drawn from a beta distribution, and is measured with 100 episodes. An
interval should contain the true value (the mean or interquartile mean over all possible runs) in 95 % of cases.
"""

import json
import time

import numpy as np
from running import RESULTS

from hrl.report.statistics import bootstrap_interval, interquartile_mean, student_interval

SIMULATIONS, EPISODES = 2000, 100
AGENTS = {"even: beta(8, 2)": (8, 2), "good: beta(30, 1)": (30, 1), "two kinds: beta(.5, .5)": (0.5, 0.5)}


def main() -> None:
    """Print the fraction of intervals that contain the true value, by kind of agent and number of runs."""
    rng = np.random.default_rng(0)
    shares: dict[str, dict[str, dict[str, float]]] = {}
    print("| agents | runs | Student's | bootstrap |\n|---|---|---|---|")
    for name, (a, b) in AGENTS.items():
        many = rng.binomial(EPISODES, rng.beta(a, b, 400_000)) / EPISODES
        mean, middle = many.mean(), float(interquartile_mean(many))
        for runs in (3, 5, 10):
            covered = np.array([_covered(rng, a, b, runs, mean, middle) for _ in range(SIMULATIONS)]).mean(0)
            shares.setdefault(name, {})[str(runs)] = {"student": covered[0], "bootstrap": covered[1]}
            print(f"| {name} | {runs} | {covered[0]:.2f} | {covered[1]:.2f} |")
    (RESULTS / "intervals.json").write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), **shares}, indent=1) + "\n")


def _covered(rng: np.random.Generator, a: float, b: float, runs: int, mean: float, middle: float) -> tuple[bool, bool]:
    rates = rng.binomial(EPISODES, rng.beta(a, b, runs)) / EPISODES
    student, bootstrap = (
        student_interval(rates),
        bootstrap_interval(rates, samples=400, seed=int(rng.integers(1 << 30))),
    )
    assert student is not None
    return student[0] <= mean <= student[1], bootstrap[0] <= middle <= bootstrap[1]


if __name__ == "__main__":
    main()
