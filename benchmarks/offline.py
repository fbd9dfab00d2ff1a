"""Offline learning: HIQL on our datasets, evaluated in gymnasium-robotics' mazes.

    python benchmarks/offline.py --kinds navigate stitch --seeds 3
    python benchmarks/offline.py --maze ant --kinds navigate

Every run uses the command that a user would type. Datasets are collected once, into runs/datasets: by a scripted expert
(datasets.py), or for the ant by the low level of the run of planning.py (ant_datasets.py). Runs are kept in
runs/offline. With `--planners graph`, runs are also evaluated with the graph planner over landmarks of their dataset.
Results are kept in results/offline.json and not repeated.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from datasets import Kind
from planning import CASES as PLANNED
from planning import trained as planned
from running import (
    RESULTS,
    ROOT,
    command,
    completed,
    evaluated,
    mean,
    processor,
    run_parallel,
    trained,
    training_seconds,
)

from hrl.run.folder import RunFolder

Maze = Literal["point", "ant"]
TRAINED: dict[Maze, str] = {"point": "hrl/PointMaze_Large-v0", "ant": "AntMaze_Medium-v4"}
EVALUATED: dict[Maze, str] = {"point": "PointMaze_Large-v3", "ant": "AntMaze_Medium-v4"}
PREFIX: dict[Maze, str] = {"point": "", "ant": "ant "}
TRANSITIONS, EPISODES = 500_000, 100
LINE = "hiql --eval-freq 0 --save-freq 0 --threads 1"
CASES: dict[str, str] = {"stitch": "--total-steps 5000 --ema 0.995"}
"""Options by dataset, in addition to those of the preset."""
PLANNERS = {"none": (), "graph": ("--planner", "graph")}
"""Options of the evaluation."""
FACTS = ("landmarks", "edges", "largest_component", "edge_steps", "hop_steps", "hop_success_rate",
         "disconnected_goals", "planning_seconds")  # fmt: skip


@dataclass
class Options:
    """Run missing runs, and print the table."""

    maze: Maze = "point"
    """Large for the point, Medium for the ant."""
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
    rows = [Row(options.maze, kind, planner) for kind in options.kinds for planner in options.planners]
    for kind in options.kinds:
        dataset(options.maze, kind)
    seeds, names = range(options.seeds), {row.name: row for row in rows}
    runs = [(kind, seed) for kind in options.kinds for seed in seeds]
    train = lambda run: {"path": learned(options.maze, *run).path}  # noqa: E731
    for (kind, seed), _ in run_parallel(train, runs, options.jobs):
        print(f"{kind}, seed {seed}: trained", flush=True)
    requested = [(name, seed) for name in names for seed in seeds]
    results = completed(
        RESULTS / "offline.json", requested, lambda name, seed: measure(names[name], seed), options.jobs
    )  # fmt: skip
    print("| dataset | gradient steps | success [95 %] | each seed | hops that succeed | seconds: median |")
    print("|---|---|---|---|---|---|")
    for name in names:
        found = [results[f"{name} {seed}"] for seed in seeds]
        success, seconds = [r["success_rate_any"] for r in found], sorted(r["train_seconds"] for r in found)
        each, middle = " ".join(f"{x:.2f}" for x in success), seconds[len(seconds) // 2]
        hops = " ".join(f"{r['hop_success_rate']:.2f}" for r in found if "hop_success_rate" in r)
        cells = f"{found[0]['steps']:,} | {mean(success, rate=True)} | {each} | {hops} | {middle:.0f}"
        print(f"| {EVALUATED[options.maze]}, {name} | {cells} |")


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    maze: Maze
    kind: Kind
    planner: str

    @property
    def name(self) -> str:
        """The row's name in results and tables."""
        planner = "" if self.planner == "none" else f", {self.planner} planner"
        return f"{PREFIX[self.maze]}{self.kind}{planner}"


def dataset(maze: Maze, kind: Kind) -> Path:
    """The file of a dataset. Collects it if it does not exist."""
    file = ROOT / "runs" / "datasets" / f"{kind}-{TRAINED[maze].rpartition('_')[2].partition('-')[0]}.npz"
    if maze == "ant":
        file = file.with_stem(f"ant-{file.stem}")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        words = [kind, "--transitions", str(TRANSITIONS), "--out", str(file)]
        if maze == "ant":
            command("benchmarks/ant_datasets.py", *words, "--run", str(planned(PLANNED["ant-once"], 0).path))
        else:
            command("benchmarks/datasets.py", *words, "--layout", "Large")
    return file


def line(maze: Maze, kind: Kind) -> str:
    """The options of a run."""
    return f"{LINE} --env {TRAINED[maze]} {CASES.get(PREFIX[maze] + kind, '')}".strip()


def learned(maze: Maze, kind: Kind, seed: int) -> RunFolder:
    """The run on a dataset. Trains it if it does not exist."""
    folder = ROOT / "runs" / "offline" / f"{PREFIX[maze]}{kind}".replace(" ", "-") / str(seed)
    return trained(folder, *line(maze, kind).split(), "--dataset", str(dataset(maze, kind)), "--seed", str(seed))


def measure(row: Row, seed: int) -> dict[str, Any]:
    """Evaluate one run."""
    run = learned(row.maze, row.kind, seed)
    judge = ("--env", EVALUATED[row.maze], "--episodes", str(EPISODES), *PLANNERS[row.planner])
    summary, seconds = evaluated(run, *judge), training_seconds(run)
    keep = ("steps", "episodes", "success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length", *FACTS)
    return {
        **{key: summary[key] for key in keep if key in summary}, "arguments": line(row.maze, row.kind),
        "evaluate": " ".join(judge), "transitions": TRANSITIONS, "train_seconds": seconds, "machine": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
