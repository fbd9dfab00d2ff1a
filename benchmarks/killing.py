"""Exact resuming: runs are killed (`kill -9`) at random times and resumed until their end, then tensors are compared.

    python benchmarks/killing.py --kills 100

A killed run must end with the same tensors as an uninterrupted one. The kills are spread over all algorithms that can
be resumed, including several processes under torchrun.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from running import RESULTS, ROOT, processor, running
from safetensors.numpy import load_file

from hrl.run.checkpoint import Checkpoints

LINE = "--env tasks:GoalLine-v0"
CASES = {
    "hiro": LINE, "hrac": LINE, "td3": LINE, "sac": LINE, "hiro, workers": f"{LINE} --vectorization async --workers 2",
    "hiro, torchrun": LINE, "lirpg": "--env hrl/Track-v0 --num-envs 1", "maml": "--env hrl/Navigation-v0 --num-envs 1",
    "famp": "--env hrl/Taxi-v0 --num-envs 1", "modac": "--env hrl/Taxi-v0 --num-envs 1",
}  # fmt: skip
"""Names, which start with the algorithm, and their arguments in addition to the debug preset."""
STEPS = {"lirpg": 16_000, "maml": 64_000, "famp": 96_000, "modac": 64_000}
"""Total steps of algorithms that learn in rounds of thousands of steps; others make 2,000. There are eight
checkpoints."""


@dataclass
class Options:
    """Kill runs, resume them, and compare their tensors."""

    kills: int = 100
    """Total number of kills."""
    seed: int = 0
    """Seed of the random times."""


def main() -> None:
    """Print the number of kills and of differing final tensors by algorithm."""
    options = tyro.cli(Options)
    moments, results = random.Random(options.seed), {}
    each = -(-options.kills // len(CASES))
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            whole, seconds = run_to_end(name, Path(folder) / "whole")
            kills = compared = differing = 0
            while kills < each:
                made, run = killed_to_end(name, Path(folder) / f"killed-{kills}", seconds, moments, each - kills)
                kills += made
                one, other = tensors(whole), tensors(run)
                compared += len(one)
                differing += sum(
                    name not in other or not np.array_equal(x, other[name]) for name, x in one.items()
                ) + len(other.keys() - one.keys())
            results[name] = {"kills": kills, "tensors": compared, "differ": differing}
            print(f"{name:16} {kills:3} kills, {compared:4} tensors compared, {differing} differ", flush=True)
    total = {key: sum(r[key] for r in results.values()) for key in ("kills", "tensors", "differ")}
    print(f"in all           {total['kills']:3} kills, {total['tensors']:4} tensors compared, {total['differ']} differ")
    content = {"date": time.strftime("%Y-%m-%d"), "machine": processor(), "total": total, **results}
    (RESULTS / "killing.json").write_text(json.dumps(content, indent=1) + "\n")


def started(name: str, arguments: list[str]) -> "subprocess.Popen[Any]":
    """Start a run in one process, or in two with torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if "torchrun" in name else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / "train.py"), *arguments], env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    running.add(process)
    return process


def first_arguments(name: str, folder: Path) -> list[str]:
    """The arguments that start a new run."""
    algorithm = name.split(",")[0]
    steps = STEPS.get(algorithm, 2_000)
    common = "--preset debug --threads 1 --progress False --eval-freq 0"
    common += f" --total-steps {steps} --save-freq {steps // 8}"
    return [algorithm, *CASES[name].split(), *common.split(), "--log-dir", str(folder)]


def run_of(folder: Path) -> Path | None:
    """The run folder with the newest checkpoint; None if there is no run folder yet."""
    runs = sorted(
        (file.parent for file in folder.rglob("config.json")), key=lambda run: Checkpoints(run / "checkpoints").steps
    )
    return runs[-1] if runs else None


def run_to_end(name: str, folder: Path) -> tuple[Path, float]:
    """An uninterrupted run, and its duration in seconds."""
    began = time.monotonic()
    if code := started(name, first_arguments(name, folder)).wait():
        raise SystemExit(f"{name} ended with code {code}")
    run = run_of(folder)
    assert run is not None
    return run, time.monotonic() - began


def killed_to_end(name: str, folder: Path, seconds: float, moments: random.Random, most: int) -> tuple[int, Path]:
    """The number of kills, and a run that was killed and resumed this many times."""
    kills = 0
    while True:
        run = run_of(folder)
        resumable = run is not None and Checkpoints(run / "checkpoints").all()
        resume_arguments = ["--resume", str(run), "--trust", "--progress", "False"]
        process = started(name, resume_arguments if resumable else first_arguments(name, folder / str(kills)))
        try:
            code = process.wait(moments.uniform(0.3, 1.0) * seconds if kills < most else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        run = run_of(folder)
        if run is None or (code and not _finished(run)):
            raise SystemExit(f"{name} ended with code {code}")
        return max(kills, 1), run


def _finished(run: Path) -> bool:
    steps = json.loads((run / "config.json").read_text())["config"]["run"]["total_steps"]
    return Checkpoints(run / "checkpoints").steps >= steps


def tensors(run: Path) -> dict[str, np.ndarray]:
    """The tensors of the newest checkpoint."""
    return load_file(Checkpoints(run / "checkpoints").all()[-1] / "tensors.safetensors")


if __name__ == "__main__":
    main()
