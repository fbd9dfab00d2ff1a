"""Stopping, crashing, and resuming from a checkpoint."""

import csv
import os
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from hrl_scripts import evaluate, train
from runs import ENDLESS, LINE, await_checkpoint, run_of, same_state, start, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrl.run.checkpoint import Checkpoints
from hrl.run.folder import RunFolder
from hrl.stopping import StopRequest


def test_a_run_that_is_resumed_equals_one_that_was_not_stopped(finished, tmp_path):
    first = trained(tmp_path, "--total-steps", "500")
    assert train.main(["--resume", str(first), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(first, finished)
    curves = [EventAccumulator(str(run)).Reload().Scalars("train/low/q_mean") for run in (first, finished)]
    assert [(e.step, e.value) for e in curves[0]] == [(e.step, e.value) for e in curves[1]]


def test_random_decisions_that_are_held_end_at_a_checkpoint(tmp_path):
    held = [f"--{level}.{word}" for level in ("low", "high") for word in ("random-actions", "random-hold")]
    held = [x for word in held for x in (word, *(("0.9", "0.9") if word.endswith("actions") else ("8",)))]
    whole, part = (trained(tmp_path / steps, *held, "--total-steps", steps) for steps in ("1000", "500"))
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(part, whole)


@pytest.mark.parametrize("wait", ["500", "700"])
def test_a_level_that_waits_does_so_across_a_checkpoint(tmp_path, wait):
    whole, part = (trained(tmp_path / n, "--high.random-warmup", wait, "--total-steps", n) for n in ("1000", "500"))
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(part, whole)


def test_a_run_continues_when_its_output_is_closed(tmp_path):
    """As under `| head`."""
    process = start("hiro", *LINE, "--log-dir", str(tmp_path))
    assert process.stdout is not None and process.stdout.readline().startswith("Preset: ")
    process.stdout.close()
    assert process.wait(60) == 0
    assert RunFolder(run_of(tmp_path)).finished


def test_a_folder_determines_the_run_to_resume(tmp_path):
    assert RunFolder.resumable(tmp_path) is None
    run = trained(tmp_path, "--total-steps", "500")
    found = RunFolder.resumable(tmp_path)
    assert found is not None and found.path == run and found.finished
    found.prolong(1000)
    assert not found.finished
    shutil.rmtree(found.checkpoints)
    assert RunFolder.resumable(tmp_path) is None


def test_a_run_killed_at_any_time_resumes_from_its_last_checkpoint(finished, tmp_path):
    process = start("hiro", *LINE, "--log-dir", str(tmp_path))
    await_checkpoint(process, tmp_path)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    run = run_of(tmp_path)
    assert not (run / "checkpoints" / "step-000000001000").exists()
    assert train.main(["--resume", str(run), "--progress", "False"]) == 0
    assert same_state(run, finished)
    with (run / "progress.csv").open() as file:
        steps = [int(row["time/total_timesteps"]) for row in csv.DictReader(file)]
    assert steps == sorted(steps) and steps[-1] == 1000


@pytest.mark.parametrize(
    ("algorithm", "env", "steps"),
    [
        ("lirpg", "hrl/Track-v0", 10_000), ("maml", "hrl/Navigation-v0", 24_000), ("famp", "hrl/Taxi-v0", 50_000),
        ("modac", "hrl/Taxi-v0", 36_000),
    ],
)  # fmt: skip
def test_a_killed_run_of_a_round_based_algorithm_resumes_exactly(algorithm, env, steps, tmp_path):
    words = ["--env", env, "--num-envs", "1", "--total-steps", str(steps), "--save-freq", str(steps // 6)]
    words += ["--eval-freq", "0"]
    whole = trained(tmp_path / "whole", *words, algorithm=algorithm)
    process = start(algorithm, *LINE, *words, "--log-dir", str(tmp_path / "killed"))
    await_checkpoint(process, tmp_path / "killed")
    process.kill()
    process.communicate()
    run = run_of(tmp_path / "killed")
    assert Checkpoints(run / "checkpoints").steps < steps
    assert train.main(["--resume", str(run), "--progress", "False"]) == 0
    assert same_state(run, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_leaves_with_a_message(number, tmp_path):
    process = start("hiro", *LINE, *ENDLESS, "--log-dir", str(tmp_path))
    await_checkpoint(process, tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in err
    run = run_of(tmp_path)
    assert f"--resume {run}" in out
    steps = Checkpoints(run / "checkpoints").last().steps
    assert steps >= 500
    more = ["--resume", str(run), "--total-steps", str(steps + 100), "--progress", "False"]
    assert train.main(more) == 0


def test_a_hangup_that_is_ignored_stays_so():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_full_disk_leaves_the_old_checkpoint_whole(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # no file may grow beyond 20 kB
    try:
        code = train.main(["--resume", str(run), "--total-steps", "1500", "--progress", "False"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert "cannot be written" in capsys.readouterr().err
    assert Checkpoints(run / "checkpoints").last().steps == 1000
    assert not list((run / "checkpoints").glob(".*"))


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    newest, older = (run / "checkpoints" / f"step-{s:012d}" / "tensors.safetensors" for s in (1000, 500))
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert Checkpoints(run / "checkpoints").last().steps == 500
    older.unlink()
    assert evaluate.main([str(run), "--episodes", "1"]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "algorithm"), [("raise", "hiro"), ("nan", "hiro"), ("raise", "sb3-sac"), ("nan", "sb3-sac")]
)
def test_a_fault_during_a_run_saves_the_state(fault, algorithm, tmp_path, capsys):
    arguments = [algorithm, "--env", "tasks:Ledger-v0", "--env-kwargs", f"fault={fault}", "fail_at=120"]
    arguments += ["--preset", "debug", "--num-envs", "2", "--eval-freq", "0", "--save-freq", "0"]
    arguments += ["--goal.low", "-1", "--goal.high", "1"] if algorithm == "hiro" else []
    assert train.main([*arguments, "--log-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    words = {"raise": "the simulator fell over", "nan": "NaN or infinite at environment step"}
    assert words[fault] in error and error.count("\n") == 1
    checkpoint = Checkpoints(run_of(tmp_path) / "checkpoints").last()
    assert checkpoint.steps in ((2 * 119,) if algorithm == "hiro" else (2 * 119, 2 * 120))
    assert all(np.isfinite(x.numpy()).all() for x in checkpoint.tensors.values() if x.is_floating_point())
