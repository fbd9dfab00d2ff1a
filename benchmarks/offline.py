"""Offline learning: HIQL on our datasets (benchmarks/datasets.py), evaluated in gymnasium-robotics' maze.

    python benchmarks/offline.py --kinds navigate stitch --seeds 3

Every run uses the command that a user would type. Datasets are collected once, into runs/datasets. Runs are kept in
runs/offline. With `--planners graph`, runs are also evaluated with the graph planner over landmarks of their dataset.
Results are kept in results/offline.json and not repeated.
"""

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from datasets import Kind
from running import RESULTS, ROOT, command, completed, mean, processor, run_parallel

from hrl.run.folder import RunFolder

TRAIN_ENV, EVAL_ENV = "hrl/PointMaze_Large-v0", "PointMaze_Large-v3"
LAYOUT, TRANSITIONS, EPISODES = "Large", 500_000, 100
LINE = f"hiql --env {TRAIN_ENV} --eval-freq 0 --save-freq 0 --threads 1"
CASES: dict[str, str] = {"navigate": "", "stitch": "--total-steps 5000 --ema 0.995", "explore": ""}
"""Options by kind of dataset, in addition to those of the preset."""
PLANNERS = {"none": (), "graph": ("--planner", "graph")}
"""Options of the evaluation."""
FACTS = ("landmarks", "edges", "largest_component", "edge_steps", "hop_steps", "hop_success_rate",
         "disconnected_goals", "planning_seconds")  # fmt: skip


@dataclass
class Options:
    """Run missing runs, and print the table."""

    kinds: tuple[Kind, ...] = ("navigate", "stitch")
    """Kinds of datasets."""
    planners: tuple[Literal["none", "graph"], ...] = ("none",)
    """Evaluate each run without a planner, with the graph planner, or both."""
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
    seeds, rows = range(options.seeds), [(kind, planner) for kind in options.kinds for planner in options.planners]
    names = {name(*row): row for row in rows}
    wanted = [(row, seed) for row in names for seed in seeds]
    runs = dict.fromkeys((names[row][0], seed) for row, seed in wanted)
    for (kind, seed), _ in run_parallel(lambda run: {"path": trained(*run).path}, runs, options.jobs):
        print(f"{kind}, seed {seed}: trained", flush=True)
    results = completed(
        RESULTS / "offline.json", wanted, lambda row, seed: measure(*names[row], seed), options.jobs
    )  # fmt: skip
    print("| dataset | gradient steps | success [95 %] | each seed | hops that succeed | seconds: median |")
    print("|---|---|---|---|---|---|")
    for row in names:
        found = [results[f"{row} {seed}"] for seed in seeds]
        success, seconds = [r["success_rate_any"] for r in found], sorted(r["train_seconds"] for r in found)
        each, middle = " ".join(f"{x:.2f}" for x in success), seconds[len(seconds) // 2]
        hops = " ".join(f"{r['hop_success_rate']:.2f}" for r in found if "hop_success_rate" in r)
        cells = f"{found[0]['steps']:,} | {mean(success, rate=True)} | {each} | {hops} | {middle:.0f}"
        print(f"| {LAYOUT}, {row} | {cells} |")


def name(kind: Kind, planner: str) -> str:
    """The name of a row in results and tables."""
    return kind if planner == "none" else f"{kind}, {planner} planner"


def dataset(kind: Kind) -> Path:
    """The file of a dataset. Collects it if it does not exist."""
    file = ROOT / "runs" / "datasets" / f"{kind}-{LAYOUT}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        words = [kind, "--layout", LAYOUT, "--transitions", str(TRANSITIONS), "--out", str(file)]
        command("benchmarks/datasets.py", *words)
    return file


def trained(kind: Kind, seed: int) -> RunFolder:
    """The run on a dataset. Trains it if it does not exist."""
    folder = ROOT / "runs" / "offline" / kind / str(seed)
    run = RunFolder.begun(folder)
    if run is None:
        words = [*LINE.split(), *CASES[kind].split(), "--dataset", str(dataset(kind)), "--seed", str(seed)]
        command("train.py", *words, "--log-dir", str(folder))
        run = RunFolder.begun(folder)
    assert run is not None
    return run


def measure(kind: Kind, planner: str, seed: int) -> dict[str, Any]:
    """Evaluate one run."""
    run = trained(kind, seed)
    judge = ("--env", EVAL_ENV, "--episodes", str(EPISODES), *PLANNERS[planner], "--json")
    summary = json.loads(command("evaluate.py", str(run.path), *judge).splitlines()[-1])
    with (run.path / "progress.csv").open(newline="") as progress:
        seconds = max(float(row["time/time_elapsed"] or 0) for row in csv.DictReader(progress))
    keep = ("steps", "episodes", "success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length", *FACTS)
    return {
        **{key: summary[key] for key in keep if key in summary}, "arguments": f"{LINE} {CASES[kind]}".strip(),
        "evaluate": " ".join(judge), "transitions": TRANSITIONS, "train_seconds": seconds, "machine": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
