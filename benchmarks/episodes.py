"""Counts the episodes in which Hierarchical Actor-Critic solves two classic goal tasks.

    python benchmarks/episodes.py --seeds 10

Each run is evaluated every 4,000 environment steps, in 20 greedy episodes. The task is solved at the first evaluation
with a success rate of at least .9. A run counts if at most 200 training episodes, of all environments together, ended
before. A run is stopped when the task is solved.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from running import RESULTS, ROOT, completed, processor, running

from hrl.report.logger import STEPS, read_columns

SOLVED, EPISODES, LIMIT = 0.9, 200, 60_000
"""Success rate of a solved task, maximum number of episodes, and maximum number of environment steps."""
ROWS = {
    "HAC, 2 levels": ("hac", "hrl/MountainCarGoal-v0"),
    "HAC, 2 levels, pendulum": ("hac", "hrl/PendulumGoal-v0"),
}


@dataclass
class Options:
    """Run missing runs, and print the table."""

    rows: tuple[str, ...] = tuple(ROWS)
    """Rows to run."""
    seeds: int = 10
    """Seeds per row."""
    jobs: int = 2
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    requested = [(row, seed) for seed in range(options.seeds) for row in options.rows]
    results = completed(RESULTS / "episodes.json", requested, measure, options.jobs)
    print("| task | agent | solved within 200 episodes | episodes of each seed | steps: median |")
    print("|---|---|---|---|---|")
    for row in options.rows:
        runs = [results[f"{row} {seed}"] for seed in range(options.seeds)]
        solved = [r["episodes"] is not None and r["episodes"] <= EPISODES for r in runs]
        each = " ".join("–" if r["episodes"] is None else f"{r['episodes']:.0f}" for r in runs)
        steps = np.median([r["steps"] for r in runs])
        print(f"| {ROWS[row][1]} | {row} | {sum(solved)} of {len(runs)} | {each} | {steps:,.0f} |")


def measure(row: str, seed: int) -> dict[str, Any]:
    """Train until the task is solved, or until more than EPISODES episodes or LIMIT steps are over."""
    agent, env = ROWS[row]
    with tempfile.TemporaryDirectory() as folder:
        words = [agent, "--env", env, "--seed", str(seed), "--threads", "1", "--total-steps", str(LIMIT)]
        words += ["--eval-freq", "4000", "--eval-episodes", "20", "--log-freq", "1000", "--save-freq", "0"]
        line = [sys.executable, str(ROOT / "train.py"), *words, "--progress", "False", "--log-dir", folder]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.add(process)
        while True:
            over = process.poll() is not None
            steps, episodes, success = last_evaluation(Path(folder))
            if over or success >= SOLVED or episodes > EPISODES:
                break
            time.sleep(0.5)
        process.terminate()  # saves its state
        process.wait()
        running.discard(process)
    if over and process.returncode:
        raise SystemExit(f"{' '.join(line)} failed with {process.returncode}.")
    host = {"machine": processor(), "date": time.strftime("%Y-%m-%d")}
    return {"steps": steps, "episodes": episodes if success >= SOLVED else None, "success": success, **host}


def last_evaluation(folder: Path) -> tuple[float, float, float]:
    """Steps, training episodes and success of the first evaluation that solves the task, else of the last one. Zeros
    before the first evaluation."""
    last = (0.0, 0.0, 0.0)
    for last in evaluations(folder):
        if last[2] >= SOLVED:
            break
    return last


def evaluations(folder: Path) -> Iterator[tuple[float, float, float]]:
    """(steps, training episodes, success) of every evaluation."""
    for file in folder.rglob("progress.csv"):
        columns = read_columns(file)
        if {"eval/success_rate", "rollout/episodes"} <= columns.keys():
            done = 0.0
            for steps, ended, success in zip(
                columns[STEPS], columns["rollout/episodes"], columns["eval/success_rate"], strict=True
            ):
                done = done if np.isnan(ended) else ended
                if not np.isnan(success):
                    yield float(steps), float(done), float(success)


if __name__ == "__main__":
    main()
