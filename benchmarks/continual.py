"""Continual learning: protection of earlier tasks in a repeated sequence of mazes (Continual World, Wołczyk 2021).

    python benchmarks/continual.py --seeds 3

HIRO with its preset on batched U mazes, turned by 0 to 2 quarters, twice: six tasks, each a run that starts from the
previous one (--low.init-from, --high.init-from). p_i(t) is the success on task i after t tasks in 100 episodes with
task i selected:

    performance    mean over i of p_i(6)
    forgetting     mean over i of p_i(i) - p_i(6), with p_i(i) at the end of the run on task i
    transfer       mean over i of (AUC_i - AUC_1) / (1 - AUC_1) of the learning curves, relative to the first task
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from running import RESULTS, completed, evaluated, processor, progress, trained

from hrl.run.folder import RunFolder

ENV, TURNS, ROUNDS = "hrl/PointMaze_UMaze-v0", 3, 2
TASKS = TURNS * ROUNDS
METHODS = {"nothing": "fine-tuning", "l2": "L2", "ewc": "EWC", "packnet": "PackNet"}
STRENGTH = {"l2": 0.3, "ewc": 1000.0}


@dataclass
class Options:
    """Run missing runs, and print the table."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Methods of protection."""
    seeds: int = 3
    """Seeds per method."""
    jobs: int = 2
    """Parallel sequences, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    file = RESULTS / "continual.json"
    requested = [(m, s) for s in range(options.seeds) for m in options.methods]
    results = completed(file, requested, sequence, options.jobs)
    print("| protection | average performance: mean (each seed) | forgetting | forward transfer |")
    print("|---|---|---|---|")
    for method in options.methods:
        rows = [results[f"{method} {s}"] for s in range(options.seeds)]
        figures = [measures(row) for row in rows]
        performance, forgetting, transfer = zip(*figures, strict=True)
        each, kept = " ".join(f"{x:.2f}" for x in performance), statistics.mean(performance)
        lost, gained = statistics.mean(forgetting), statistics.mean(transfer)
        print(f"| {METHODS[method]} | {kept:.3f} ({each}) | {lost:.3f} | {gained:.2f} |")


def sequence(method: str, seed: int, strength: float | None = None, tasks: int = TASKS) -> dict[str, Any]:
    """Train one sequence with the commands that a user would type, and evaluate the last run on every task."""
    strength = STRENGTH.get(method, 1.0) if strength is None else strength
    words = ["hiro", "--env", ENV, "--seed", str(seed), "--threads", "1"]
    words += ["--eval-episodes", "100", "--low.tasks", str(TASKS), "--high.tasks", str(TASKS)]
    curves: list[list[float]] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run: RunFolder | None = None
        for task in range(tasks):
            warm_start = [] if run is None else following(run.path, method, strength)
            run = trained(f"{folder}/{task}", *words, *warm_start, "--env-kwargs", f"turned={task % TURNS}")
            curves.append([float(r["eval/success_rate"]) for r in progress(run) if r["eval/success_rate"]])
        final = [success_on(run, task) for task in range(tasks)]
    return {
        "curves": curves, "final": final, "strength": strength, "seconds": time.perf_counter() - started,
        "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def following(run: Path, method: str, strength: float) -> list[str]:
    """The options of a run that starts from this one."""
    options = {"init-from": run, "protect.by": method, "protect.strength": strength}
    return [
        x for level in ("low", "high") for name, value in options.items() for x in (f"--{level}.{name}", str(value))
    ]


def success_on(run: RunFolder | None, task: int) -> float:
    """The run's success on a task, with this task selected."""
    assert run is not None
    summary = evaluated(run, "--task", str(task), "--env-kwargs", f"turned={task % TURNS}")
    return float(summary["success_rate_any"])


def measures(result: dict[str, Any]) -> tuple[float, float, float]:
    """(performance, forgetting, transfer) of a sequence."""
    ends = [curve[-1] for curve in result["curves"]]
    areas = [statistics.mean(curve) for curve in result["curves"]]
    transfer = [(area - areas[0]) / (1 - areas[0]) for area in areas[1:]]
    forgotten = [end - final for end, final in zip(ends, result["final"], strict=True)]
    return statistics.mean(result["final"]), statistics.mean(forgotten), statistics.mean(transfer)


if __name__ == "__main__":
    main()
