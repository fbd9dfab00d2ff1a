"""Row h of the speed table: wall-clock to 90 % success, judged on the real MuJoCo task.

    python benchmarks/race.py --tasks UMaze Large

Ours trains on the batched maze, stable-baselines3's TD3 + HER on the real one at its usual setting (one update a
step); both at the same time, one thread each. Evaluations of 100 episodes are not counted into the time, compiling
and capturing are. A side that never reaches 90 % is given its whole time as a lower bound.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from learning import RESULTS, ROOT, processor

GOAL = 0.9
OURS = "hiro --env hrl/PointMaze_{0}-v0 --eval-env PointMaze_{0}-v3 --eval-freq {1} --save-freq 0"
PEER = "sb3-td3 --env PointMaze_{0}-v3 --eval-freq {2} --save-freq 0 --total-steps {1}"
EVERY = {"UMaze": 4000, "Large": 15000}
PEER_STEPS = {"UMaze": 60_000, "Large": 150_000}


@dataclass
class Options:
    """Race."""

    tasks: tuple[str, ...] = ("UMaze", "Large")
    seeds: int = 3
    """Of ours; the peer runs one."""
    device: str = "cpu"
    """Of ours."""
    peer: bool = True
    """Race against stable-baselines3; else ours alone."""


def main() -> None:
    """Run both sides of each task, print and keep."""
    options = tyro.cli(Options)
    for task in options.tasks:
        ours = [f"{OURS.format(task, EVERY[task])} --seed {s} --device {options.device}" for s in range(options.seeds)]
        peer = f"{PEER.format(task, PEER_STEPS[task], PEER_STEPS[task] // 10)} --seed 0"
        with ThreadPoolExecutor(1) as pool:
            theirs = pool.submit(run, peer) if options.peer else None
            mine = [run(command) for command in ours]
            keep(task, options, mine, theirs.result() if theirs else None)


def run(command: str) -> dict[str, Any]:
    """Train; (seconds of training until 90 %, or None; seconds in all; steps then; the curve)."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*command.split(), "--eval-episodes", "100", "--threads", "1", "--progress", "False"]
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments, "--log-dir", folder], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{command} failed:\n{done.stdout}\n{done.stderr}")
        with next(Path(folder).rglob("progress.csv")).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["eval/success_rate"]]
    curve = [
        (float(r["eval/time_elapsed"]), int(float(r["time/total_timesteps"])), float(r["eval/success_rate"]))
        for r in rows
    ]
    reached = next((point for point in curve if point[2] >= GOAL), None)
    result = {"command": command, "seconds": reached and reached[0], "steps": reached and reached[1]}
    result |= {"whole": curve[-1][0], "curve": curve}
    print(f"{command}: {result['seconds'] or 'not'} s of {result['whole']:.0f}", flush=True)
    return result


def keep(task: str, options: Options, mine: list[dict[str, Any]], theirs: dict[str, Any] | None) -> None:
    """Print the ratio of the median seed, and add it to the file."""
    times = sorted(r["seconds"] or float("inf") for r in mine)
    median = times[len(times) // 2]
    result = {"ours": mine, "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    text = f"| h | {task} | ours {median:.0f} s ({times[0]:.0f} to {times[-1]:.0f}) |"
    if theirs:
        peer, bound = theirs["seconds"] or theirs["whole"], not theirs["seconds"]
        result |= {"peer": theirs, "ratio": median / peer, "bound": bound}
        text += f" SB3 {'> ' if bound else ''}{peer:.0f} s | ratio {'≤ ' if bound else ''}1/{peer / median:.0f} |"
    print(text, flush=True)
    file = RESULTS / f"race-{options.device}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(kept | {task: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
