"""Start whole runs from the command line, for tests."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from hrl_scripts import train
from safetensors.numpy import load_file

from hrl.run.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parent.parent
LINE = ["--env", "tasks:GoalLine-v0", "--preset", "debug", "--threads", "1", "--progress", "False"]
ENDLESS = ["--total-steps", "1000000", "--eval-freq", "0"]
started: "list[subprocess.Popen[str]]" = []


def run_of(folder: Path) -> Path:
    (config,) = folder.rglob("config.json")
    return config.parent


def trained(folder: Path, *arguments: str, algorithm: str = "hiro") -> Path:
    assert train.main([algorithm, *LINE, "--log-dir", str(folder), *arguments]) == 0
    return run_of(folder)


def start(
    *arguments: str, processes: int = 1, script: str = "train.py", path: Path = ROOT / "tests"
) -> "subprocess.Popen[str]":
    """Start a training (or another script) in parallel to the test. It is stopped when the test ends."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / script), *arguments]
    started.append(subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as in a terminal, also under nohup
    ))  # fmt: skip
    return started[-1]


def stop_all() -> None:
    """Stop every process that was started and still runs."""
    while started:
        process = started.pop()
        if process.poll() is None:
            process.terminate()  # torchrun takes its processes along
            process.wait(60)


def await_checkpoint(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Wait for the first checkpoint, which is complete as soon as it appears."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/*/*/checkpoints/step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def same_state(a: Path, b: Path) -> bool:
    one, other = (load_file(Checkpoints(x / "checkpoints").all()[-1] / "tensors.safetensors") for x in (a, b))
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)
