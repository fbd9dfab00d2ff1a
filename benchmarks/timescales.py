"""Sweeps the ratio of the high level's learning rates to the low level's, to find where learning fails.

    python benchmarks/timescales.py --seeds 3

HIRO with its preset on batched UMaze mazes: the success on the same task (100 episodes), and the drift of the high
level's decisions relative to the low level's (`drift_ratio`, median over the run's second half).
"""

import csv
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from running import RESULTS, command, completed, processor

ENV = "hrl/PointMaze_UMaze-v0"


@dataclass
class Options:
    """Run missing runs, and print the table."""

    ratios: tuple[float, ...] = (0.01, 0.03, 0.1, 1.0, 10.0, 100.0)
    """Ratios of learning rates, high over low."""
    seeds: int = 3
    """Seeds per ratio."""
    jobs: int = 2
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print and draw the table."""
    options = tyro.cli(Options)
    file = RESULTS / "timescales.json"
    requested = [(r, s) for r in options.ratios for s in range(options.seeds)]
    results = completed(file, requested, measure, options.jobs)
    print("| ratio | success: mean (each seed) | high level's drift over the low level's: median | warned |")
    print("|---|---|---|---|")
    for ratio in options.ratios:
        rows = [results[f"{ratio} {s}"] for s in range(options.seeds)]
        success = [r["success"] for r in rows]
        each, drift = " ".join(f"{s:.2f}" for s in success), statistics.median(r["drift_ratio"] for r in rows)
        warned = sum(r["warned"] for r in rows)
        print(f"| {ratio:g} | {statistics.mean(success):.2f} ({each}) | {drift:.2f} | {warned} of {len(rows)} |")
    draw(options, results)


def measure(ratio: float, seed: int) -> dict[str, Any]:
    """One run with the commands that a user would type."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["hiro", "--env", ENV, "--timescale.ratio", str(ratio), "--seed", str(seed), "--threads", "1"]
        words += ["--total-steps", "60000", "--eval-freq", "0", "--save-freq", "0", "--log-dir", folder]
        printed = command("train.py", *words)
        (run,) = (path.parent for path in Path(folder).rglob("config.json"))
        summary = json.loads(command("evaluate.py", str(run), "--episodes", "100", "--json"))
        with (run / "progress.csv").open(newline="") as progress:
            column = [r["train/high/drift_ratio"] for r in csv.DictReader(progress)]
    drift = [float(x) for x in column if x]
    return {
        "success": summary["success_rate_any"], "drift_ratio": statistics.median(drift[len(drift) // 2 :]),
        "warned": "warning:" in printed, "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def draw(options: Options, results: dict[str, Any]) -> None:
    """Write results/timescales.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left = figure.subplots()
    for seed in range(options.seeds):
        left.plot(options.ratios, [results[f"{r} {seed}"]["success"] for r in options.ratios], "o", color="tab:blue")
    means = [statistics.mean(results[f"{r} {s}"]["success"] for s in range(options.seeds)) for r in options.ratios]
    left.plot(options.ratios, means, color="tab:blue")
    left.set(xscale="log", xlabel="learning rates, high level over low level", ylabel="success", ylim=(-0.02, 1.02))
    figure.savefig(RESULTS / "timescales.png", dpi=120)


if __name__ == "__main__":
    main()
