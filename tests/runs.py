"""Whole runs by the command lines, for tests of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from hrl_scripts import train
from safetensors.numpy import load_file

from hrl.training.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parent.parent
LINE = ["--env", "tasks:GoalLine-v0", "--preset", "debug", "--threads", "1", "--progress", "False"]


def run_of(folder: Path) -> Path:
    (config,) = folder.rglob("config.json")
    return config.parent


def trained(folder: Path, *arguments: str, algorithm: str = "hiro") -> Path:
    assert train.main([algorithm, *LINE, "--log-dir", str(folder), *arguments]) == 0
    return run_of(folder)


def start(*arguments: str, script: str = "train.py") -> "subprocess.Popen[str]":
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, str(ROOT / script), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as in a terminal, also under nohup
    )  # fmt: skip


def same_state(a: Path, b: Path) -> bool:
    one, other = (load_file(Checkpoints(x / "checkpoints").all()[-1] / "tensors.safetensors") for x in (a, b))
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)
