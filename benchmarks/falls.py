"""Episodes that end early without success, such as falls, and the return of the others.

    python benchmarks/falls.py RUN...

The evaluation is deterministic, of the last checkpoint. The last column is the mean length of training episodes in each
quarter of the run, from progress.csv.
"""

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import tyro

import hrl
from hrl.errors import UserError


@dataclass
class Options:
    """Evaluate runs, and print the table."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    episodes: int = 100


def main() -> None:
    """Print one line per run."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    print("| run | episodes | falls | return | without falls | steps of training episodes, by quarter |")
    print("|---|---|---|---|---|---|")
    for path in options.runs:
        episodes = hrl.load(path).evaluate(options.episodes).episodes
        limit = max(episode.length for episode in episodes)
        others = [episode for episode in episodes if episode.length == limit or episode.success_final]
        everyone, rest = (mean([episode.reward for episode in chosen]) for chosen in (episodes, others))
        lengths = " ".join(f"{length:.1f}" for length in training_lengths(path))
        fell = len(episodes) - len(others)
        print(f"| {path.name} | {len(episodes)} | {fell} | {everyone:.2f} | {rest:.2f} | {lengths} |", flush=True)


def training_lengths(path: Path) -> list[float]:
    """The mean length of recent training episodes, averaged over each quarter of a run; nan without any."""
    with (path / "progress.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("rollout/ep_len_mean")]
    steps, lengths = "time/total_timesteps", "rollout/ep_len_mean"
    last = max((float(row[steps]) for row in rows), default=math.nan)
    quarters = [[float(row[lengths]) for row in rows if q < 4 * float(row[steps]) / last <= q + 1] for q in range(4)]
    return [mean(quarter) for quarter in quarters]


def mean(values: list[float]) -> float:
    """The mean; nan without values."""
    return fmean(values) if values else math.nan


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(str(error))
