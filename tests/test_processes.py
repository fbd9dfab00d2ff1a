"""One run in several processes, as torchrun starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import ENDLESS, LINE, ROOT, await_checkpoint, run_of, same_state, start

from hrl.run.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of 1,000 steps in two processes with checkpoints at 500 and 1,000, and what it printed."""
    folder = tmp_path_factory.mktemp("together")
    process = start("hiro", *LINE, "--log-dir", str(folder), processes=2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return run_of(folder), out


def test_networks_stay_equal_and_replays_are_each_processes_own(together):
    run, out = together
    assert out.count("Run folder:") == 1 and out.count("Done.") == 1 and out.count("evaluation:") == 2
    checkpoint = Checkpoints(run / "checkpoints").last()
    one, other = checkpoint.numbers["fingerprints"]
    assert one == other
    assert checkpoint.numbers["processes"] == 2 and checkpoint.steps == 1000
    tensors = checkpoint.tensors
    for level in ("low", "high"):
        mine, theirs = tensors[f"{level}.memory.values"], tensors[f"rank1.{level}.memory.values"]
        assert theirs.abs().sum() > 0 and not np.array_equal(mine[: len(theirs)], theirs[: len(mine)])
    assert not any(name.startswith("rank1.low.net") for name in tensors)


def test_a_run_that_continues_equals_one_that_did_not_stop(together, tmp_path):
    first = start("hiro", *LINE, "--log-dir", str(tmp_path), "--total-steps", "500", processes=2)
    assert first.wait(120) == 0, first.communicate()
    run = run_of(tmp_path)
    alone = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--resume", str(run), "--total-steps", "1000", "--trust"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )  # fmt: skip
    assert alone.returncode == 2 and "was started with 2 processes, not 1" in alone.stderr
    onward = start("--resume", str(run), "--total-steps", "1000", "--trust", processes=2)
    _, err = onward.communicate(timeout=120)
    assert onward.returncode == 0, err
    assert same_state(run, together[0])


def test_outer_levels_learn_the_same_in_all_processes(tmp_path):
    arguments = [
        "--tune",
        "low.learning_rate",
        "high.learning_rate",
        "--low.reward",
        "learned",
        "--low.train-freq",
        "16",
    ]
    arguments += ["--eval-freq", "0", "--log-dir", str(tmp_path), "--total-steps", "500", "--high.count-bonus", "1"]
    process = start("hiro", *LINE, *arguments, processes=2)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    checkpoint = Checkpoints(run_of(tmp_path) / "checkpoints").last()
    mine, theirs = (checkpoint.tensors[f"{rank}high.model0.counts"] for rank in ("", "rank1."))
    assert np.array_equal(mine, theirs) and mine.sum() > 0  # visits of both processes
    one, other = checkpoint.numbers["fingerprints"]
    assert one == other  # of the networks, which learning rates that drift apart would set apart


def test_a_process_that_dies_ends_the_run_and_leaves_a_whole_checkpoint(tmp_path):
    process = start("hiro", *LINE, *ENDLESS, "--log-dir", str(tmp_path), processes=2)
    await_checkpoint(process, tmp_path)
    os.kill(second_of(process.pid), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "error: A process of this run died" in err and "from its checkpoint at" in err
    assert Checkpoints(run_of(tmp_path) / "checkpoints").last().steps >= 500  # read, and its checksums hold


def test_a_failed_run_reports_its_error_despite_the_launchers_stop_request():
    code = (
        "import os, signal\n"
        "from hrl.stopping import StopRequest\n"
        "with StopRequest() as stop:\n    stop.outlast()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nprint('told')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "told\n", done.stderr


def second_of(launcher: int) -> int:
    """The process of rank 1 among the launcher's children."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"\0RANK=1\0" in (folder / "environ").read_bytes():
                return int(folder.name)
        except (OSError, ValueError, IndexError):
            continue
    raise AssertionError("no process of rank 1")
