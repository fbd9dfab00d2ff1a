"""Offline learning: HIQL on our datasets (benchmarks/datasets.py), evaluated in gymnasium-robotics' maze.

    python benchmarks/offline.py --kinds navigate stitch --seeds 3

Every run uses the command that a user would type. Datasets are collected once, into runs/datasets. Finished runs are
kept in results/offline.json and not repeated.
"""

import csv
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from datasets import Kind
from running import RESULTS, ROOT, command, completed, mean, processor

TRAIN_ENV, EVAL_ENV = "hrl/PointMaze_Large-v0", "PointMaze_Large-v3"
LAYOUT, TRANSITIONS, EPISODES = "Large", 500_000, 100
LINE = f"hiql --env {TRAIN_ENV} --eval-freq 0 --save-freq 0 --threads 1"
CASES: dict[str, str] = {"navigate": "", "stitch": "", "explore": ""}
"""Options by kind of dataset, in addition to those of the preset."""


@dataclass
class Options:
    """Run missing runs, and print the table."""

    kinds: tuple[Kind, ...] = ("navigate", "stitch")
    """Kinds of datasets."""
    seeds: int = 3
    """Seeds per dataset."""
    jobs: int = 2
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    for kind in options.kinds:
        dataset(kind)
    wanted = [(kind, seed) for kind in options.kinds for seed in range(options.seeds)]
    results = completed(RESULTS / "offline.json", wanted, measure, options.jobs)
    print("| dataset | gradient steps | success [95 %] | each seed | seconds: median |")
    print("|---|---|---|---|---|")
    for kind in options.kinds:
        rows = [results[f"{kind} {seed}"] for seed in range(options.seeds)]
        success, seconds = [r["success_rate_any"] for r in rows], sorted(r["train_seconds"] for r in rows)
        each = " ".join(f"{x:.2f}" for x in success)
        steps, middle = rows[0]["steps"], seconds[len(seconds) // 2]
        print(f"| {LAYOUT}, {kind} | {steps:,} | {mean(success, rate=True)} | {each} | {middle:.0f} |")


def dataset(kind: Kind) -> Path:
    """The file of a dataset, collected if it is not there."""
    file = ROOT / "runs" / "datasets" / f"{kind}-{LAYOUT}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        words = [kind, "--layout", LAYOUT, "--transitions", str(TRANSITIONS), "--out", str(file)]
        command("benchmarks/datasets.py", *words)
    return file


def measure(kind: Kind, seed: int) -> dict[str, Any]:
    """Train and evaluate one run."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*LINE.split(), *CASES[kind].split(), "--dataset", str(dataset(kind)), "--seed", str(seed)]
        command("train.py", *words, "--log-dir", folder)
        (run,) = (path.parent for path in Path(folder).rglob("config.json"))
        judge = ("--env", EVAL_ENV, "--episodes", str(EPISODES), "--json")
        summary = json.loads(command("evaluate.py", str(run), *judge).splitlines()[-1])
        with (run / "progress.csv").open(newline="") as progress:
            seconds = max(float(row["time/time_elapsed"] or 0) for row in csv.DictReader(progress))
    keep = ("steps", "episodes", "success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length")
    return {
        **{name: summary[name] for name in keep}, "arguments": f"{LINE} {CASES[kind]}".strip(),
        "transitions": TRANSITIONS, "train_seconds": seconds, "machine": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
