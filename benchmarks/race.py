"""Row h of the speed table: wall-clock time to 90 % success, evaluated on the original MuJoCo task.

    python benchmarks/race.py --tasks UMaze Large

Ours trains on the batched maze, stable-baselines3's TD3 + HER on the original one with its usual setting (one update
per step); both run at the same time with one thread each. The time excludes evaluations (of 100 episodes) and includes
compiling and capturing. For a side that never reaches 90 %, its total time is a lower bound.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import tyro
from running import RESULTS, ROOT, processor

GOAL = 0.9
OURS = "hiro --env hrl/PointMaze_{0}-v0 --eval-env PointMaze_{0}-v3 --eval-freq {1} --save-freq 0"
PEER = "sb3-td3 --env PointMaze_{0}-v3 --eval-freq {2} --save-freq 0 --total-steps {1}"
EVERY = {"UMaze": 4000, "Large": 15000}
LOCK = Lock()
PEER_STEPS = {"UMaze": 60_000, "Large": 150_000}


@dataclass
class Options:
    """Run the race. Runs in the results file are not repeated."""

    tasks: tuple[str, ...] = ("Large", "UMaze")
    sides: tuple[str, ...] = ("ours", "peer")
    seeds: int = 3
    """Seeds of ours; the peer has one."""
    device: str = "cpu"
    """Device of ours."""


def main() -> None:
    """Run missing runs, both sides in parallel, and print the table."""
    options = tyro.cli(Options)
    file = RESULTS / f"race-{options.device}.json"
    with ThreadPoolExecutor(len(options.sides)) as pool:
        list(pool.map(lambda side: race(side, options, file), options.sides))
    for task in options.tasks:
        show(task, options, known(file))


def race(side: str, options: Options, file: Path) -> None:
    """Run one side's missing runs, one after another."""
    for task in options.tasks:
        for command in entrants(task, side, options):
            if command not in known(file):
                run(command, file)


def entrants(task: str, side: str, options: Options) -> Iterator[str]:
    """The commands of one side."""
    if side == "peer":
        yield f"{PEER.format(task, PEER_STEPS[task], PEER_STEPS[task] // 10)} --seed 0"
        return
    for seed in range(options.seeds):
        yield f"{OURS.format(task, EVERY[task])} --seed {seed} --device {options.device}"


def known(file: Path) -> dict[str, Any]:
    """Finished runs by command."""
    return json.loads(file.read_text()) if file.exists() else {}


def run(command: str, file: Path) -> None:
    """Train, and store the training seconds and steps until 90 % (or None), the total seconds and the curve."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*command.split(), "--eval-episodes", "100", "--threads", "1", "--progress", "False"]
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments, "--log-dir", folder], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{command} failed:\n{done.stdout}\n{done.stderr}")
        with next(Path(folder).rglob("progress.csv")).open(newline="") as progress:
            rows = [row for row in csv.DictReader(progress) if row["eval/success_rate"]]
    curve = [
        (float(r["eval/time_elapsed"]), int(float(r["time/total_timesteps"])), float(r["eval/success_rate"]))
        for r in rows
    ]
    reached = next((point for point in curve if point[2] >= GOAL), None)
    result = {"seconds": reached and reached[0], "steps": reached and reached[1], "whole": curve[-1][0]}
    result |= {"curve": curve, "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    print(f"{command}: {result['seconds'] or 'not'} s of {result['whole']:.0f}", flush=True)
    with LOCK:
        file.write_text(json.dumps(known(file) | {command: result}, indent=1) + "\n")


def show(task: str, options: Options, results: dict[str, Any]) -> None:
    """Print the median seed's time, the peer's time, and their ratio."""
    mine = [results[c] for c in entrants(task, "ours", options) if c in results]
    theirs = [results[c] for c in entrants(task, "peer", options) if c in results]
    text = f"| h | {task} |"
    if mine:
        times = sorted(r["seconds"] or float("inf") for r in mine)
        median = times[len(times) // 2]
        text += f" ours {median:.0f} s ({times[0]:.0f} to {times[-1]:.0f}, {len(times)} seeds) |"
    if theirs:
        peer, bound = theirs[0]["seconds"] or theirs[0]["whole"], not theirs[0]["seconds"]
        text += f" SB3 {'not within ' if bound else ''}{peer:.0f} s |"
        if mine:
            text += f" {'≤ ' if bound else ''}1/{peer / median:.1f} |"
    print(text, flush=True)


if __name__ == "__main__":
    main()
