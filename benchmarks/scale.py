"""Training time to 95 % success over the number of batched mazes, with the preset's rules for many environments.

    python benchmarks/scale.py --counts 64 1024 --seeds 1
    python benchmarks/scale.py --device cuda

The preset changes batches, updates and steps with the number of environments (hrl/agents/presets/scaling.py). Runs are
evaluated 20 times, with 100 episodes each. The time excludes evaluations, and includes compiling and capturing.
Finished runs are kept in results/scale-<device>.json and not repeated.
"""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from running import RESULTS, completed, processor, progress, trained

from hrl.agents.presets import preset

ENV, GOAL, EVALUATIONS = "hrl/PointMaze_Large-v0", 0.95, 20


@dataclass
class Options:
    """Train, and print the table."""

    counts: tuple[int, ...] = (64, 1024, 4096, 16384)
    """Numbers of environments."""
    seeds: int = 3
    """Seeds of each number."""
    device: str = "cpu"
    """cpu or cuda."""


def main() -> None:
    """Measure the missing runs, one after another, and print the table."""
    options = tyro.cli(Options)
    requested = [(count, seed) for count in options.counts for seed in range(options.seeds)]
    file = RESULTS / f"scale-{options.device}.json"
    results = completed(file, requested, lambda count, seed: measure(count, seed, options.device), jobs=1)
    print(f"| environments | batch | steps per low update | steps | last success | seconds to {GOAL} | all seconds |")
    print("|---|---|---|---|---|---|---|")
    for count in options.counts:
        runs = [results[f"{count} {seed}"] for seed in range(options.seeds)]
        low = preset("hiro", ENV, "auto", count)["low"]
        cells = (
            " ".join(f"{run['curve'][-1][2]:.2f}" for run in runs),
            " ".join("–" if run["seconds"] is None else f"{run['seconds']:.0f}" for run in runs),
            " ".join(f"{run['curve'][-1][0]:.0f}" for run in runs),
        )
        steps = runs[0]["curve"][-1][1]
        print(f"| {count:,} | {low['batch_size']:,} | {low['train_freq']:,} | {steps:,.0f} | {' | '.join(cells)} |")


def words(count: int, seed: int, device: str) -> list[str]:
    """The words of `train.py` for a run."""
    every = preset("hiro", ENV, "auto", count)["total_steps"] // EVALUATIONS
    line = f"hiro --env {ENV} --num-envs {count} --eval-freq {every} --eval-episodes 100 --save-freq 0 --threads 1"
    return f"{line} --seed {seed} --device {device} --progress False".split()


def measure(count: int, seed: int, device: str) -> dict[str, Any]:
    """Train a run. Returns its evaluations (training seconds, steps, success), and the seconds until the goal or
    None."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for row in progress(trained(folder, *words(count, seed, device))) if row["eval/success_rate"]]
    names = ("eval/time_elapsed", "time/total_timesteps", "eval/success_rate")
    curve = [[float(row[name]) for name in names] for row in rows]
    seconds = next((point[0] for point in curve if point[2] >= GOAL), None)
    machine = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {"seconds": seconds, "curve": curve, "machine": machine, "date": time.strftime("%Y-%m-%d")}


if __name__ == "__main__":
    main()
