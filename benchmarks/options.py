"""Discovered options: how fast a new manager learns a held-out task with them, compared with other options.

    python benchmarks/options.py --seeds 3

hrl/Taxi-v0 with 48 tasks for discovery and 12 held-out tasks, and 10 exploring episodes per step of the manager. Each
run uses the command that a user would type, and is evaluated with `evaluate.py RUN --episodes 12`. Finished runs are
kept in results/options.json and not repeated.
"""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import tyro
from running import RESULTS, completed, evaluated, mean, processor, trained

CASES = {
    "learned": ("MODAC: options with learned rewards", "--reward learned"),
    "born": ("options as they were born", "--reward none --total-steps 1"),
    "primitives": ("primitive actions alone", "--options 0 --total-steps 1"),
    "task": ("options that learn on the tasks' return", "--reward task"),
}
"""The options that managers choose from: description and arguments."""
TASKS, STEPS, SHOWN = 12, 10, (0, 1, 2, 3, 5, 10)


@dataclass
class Options:
    """Run missing runs, and print the table."""

    cases: tuple[str, ...] = tuple(CASES)
    """Rows of the table."""
    seeds: int = 3
    """Seeds per case."""
    jobs: int = 1
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    file = RESULTS / "options.json"
    requested = [(c, s) for s in range(options.seeds) for c in options.cases]
    results = completed(file, requested, measure, options.jobs)
    print("| manager over | " + " | ".join(f"after {k}" for k in SHOWN) + " | seconds |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for case in options.cases:
        rows = [results[f"{case} {s}"] for s in range(options.seeds)]
        cells = " | ".join(mean([r["returns"][k] for r in rows]) for k in SHOWN)
        print(f"| {CASES[case][0]} | {cells} | {max(r['seconds'] for r in rows):.0f} |")


def measure(case: str, seed: int) -> dict[str, Any]:
    """Discover options with the command that a user would type, then train new managers on held-out tasks."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = ["modac", "--env", "hrl/Taxi-v0", *CASES[case][1].split(), "--eval-steps", str(STEPS), "--threads", "1"]
        run = trained(folder, *words, "--seed", str(seed))
        seconds = time.perf_counter() - started
        summary = evaluated(run, "--episodes", str(TASKS))
    return {
        "returns": [summary[f"return_after_{k}"] for k in range(STEPS + 1)], "steps": summary["steps"],
        "seconds": seconds, "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
