"""A run obeys a request to stop within two seconds at any point, and saves its state."""

import signal
import time
from pathlib import Path

import pytest
from hrl_scripts import evaluate, train
from runs import ENDLESS, LINE, run_of, start

from hrl.run.checkpoint import Checkpoints
from hrl.stopping import Interrupted, StopRequest, close_within

SECONDS = 2.0
LOADED = 2.0
"""Further seconds, for a machine that also runs other tests."""
STUCK = ["--env", "tasks:Stuck-v0", "--preset", "debug", "--threads", "1", "--progress", "False"]
LONG = ["--total-steps", "1000000", "--save-freq", "0", "--goal.low", "-1", "--goal.high", "1"]


def stopped(process, ready: "Path | None", number: int = signal.SIGTERM, after: float = 0.5) -> tuple[float, str, str]:
    """Send the signal once the file exists. Returns (seconds until the end, output)."""
    deadline = time.monotonic() + 60
    while ready is not None and not ready.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    time.sleep(after)
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return time.monotonic() - began, out, err


@pytest.mark.parametrize("algorithm", ["hiro", "sb3-sac"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_never_returns_is_interrupted_and_the_run_saved(algorithm, number, tmp_path):
    marker = tmp_path / "asleep"
    arguments = [*STUCK, "--env-kwargs", "where=step", "at=300", f"marker={marker}", "--eval-freq", "0"]
    extra = LONG if algorithm == "hiro" else LONG[:4]
    process = start(algorithm, *arguments, *extra, "--log-dir", str(tmp_path / "runs"))
    seconds, out, err = stopped(process, marker, number)
    assert seconds < SECONDS + LOADED and process.returncode == 128 + number and "Traceback" not in err
    assert "saved" in out
    assert Checkpoints(run_of(tmp_path / "runs") / "checkpoints").last().steps == 2 * 299


def test_an_endless_evaluation_is_interrupted(tmp_path):
    arguments = [*STUCK, *LONG, "--eval-freq", "400", "--eval-episodes", "300", "--eval-max-steps", "100000000"]
    process = start("hiro", *arguments, "--log-dir", str(tmp_path / "runs"))
    deadline = time.monotonic() + 60
    while "400" not in _progress(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    seconds, out, err = stopped(process, None, after=1.5)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "Traceback" not in err, (out, err)
    run = run_of(tmp_path / "runs")
    assert Checkpoints(run / "checkpoints").last().steps == 400


def _progress(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.glob("runs/*/*/*/progress.csv"))


@pytest.mark.parametrize("where", ["init", "reset"])
def test_before_the_first_step_there_is_nothing_to_save(where, tmp_path):
    marker = tmp_path / "asleep"
    arguments = [*STUCK, *LONG, "--env-kwargs", f"where={where}", f"marker={marker}"]
    process = start("hiro", *arguments, "--log-dir", str(tmp_path / "runs"))
    seconds, out, err = stopped(process, marker)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "Traceback" not in err
    assert "nothing to save" in err or "saved" in out


def test_measuring_bounds_is_interrupted(tmp_path):
    marker = tmp_path / "asleep"
    arguments = [*STUCK, *LONG[:4], "--env-kwargs", "where=step", "at=20", f"marker={marker}"]
    process = start("hiro", *arguments, "--log-dir", str(tmp_path / "runs"))
    seconds, _, err = stopped(process, marker)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "nothing to save" in err
    assert not (tmp_path / "runs").exists()


def test_an_environment_that_does_not_close_does_not_delay_the_stop(tmp_path):
    marker = tmp_path / "closing"
    arguments = [*STUCK, "--env-kwargs", "where=close", f"marker={marker}", "--eval-freq", "0", *LONG[4:]]
    process = start("hiro", *arguments, "--total-steps", "300", "--log-dir", str(tmp_path / "runs"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "could not be closed" in out and "Done." in out, (out, err)


def test_a_suspended_worker_does_not_delay_the_stop(tmp_path):
    marker = tmp_path / "asleep"
    arguments = [*STUCK, *LONG, "--env-kwargs", "where=step", "at=200", f"marker={marker}", "--eval-freq", "0"]
    process = start("hiro", *arguments, "--vectorization", "async", "--workers", "2", "--log-dir", str(tmp_path / "r"))
    seconds, _, err = stopped(process, marker)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "Traceback" not in err
    assert Checkpoints(run_of(tmp_path / "r") / "checkpoints").last().steps == 2 * 199


def test_a_worker_that_does_not_answer_ends_the_run_with_an_error_and_a_checkpoint(tmp_path, capsys):
    arguments = [*STUCK, *LONG, "--env-kwargs", "where=step", "at=200", f"marker={tmp_path / 'asleep'}"]
    arguments += ["--vectorization", "async", "--worker-timeout", "1", "--eval-freq", "0"]
    assert train.main(["hiro", *arguments, "--log-dir", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    sentence = "did not answer for 1 seconds. If its steps are slow, increase --worker-timeout"
    assert sentence in error and error.count("\n") == 1
    assert Checkpoints(run_of(tmp_path / "runs") / "checkpoints").last().steps == 2 * 199


@pytest.mark.parametrize("algorithm", ["lirpg", "maml"])
def test_an_interrupted_round_is_undone(algorithm, tmp_path):
    env = {"lirpg": "hrl/Track-v0", "maml": "hrl/Navigation-v0"}[algorithm]
    arguments = ["--env", env, "--preset", "debug", "--num-envs", "1", "--total-steps", "100000000"]
    arguments += ["--eval-freq", "0", "--progress", "False", "--log-dir", str(tmp_path)]
    process = start(algorithm, *arguments)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*/*/*/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    seconds, out, err = stopped(process, None)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "saved" in out, (out, err)
    run = run_of(tmp_path)
    steps = Checkpoints(run / "checkpoints").last().steps
    assert train.main(["--resume", str(run), "--total-steps", str(steps + 1), "--progress", "False"]) == 0


def test_an_interrupted_evaluation_is_repeated_on_resume(tmp_path):
    arguments = [*STUCK, *LONG, "--eval-freq", "400", "--eval-episodes", "50", "--eval-max-steps", "1000000"]
    process = start("hiro", *arguments, "--log-dir", str(tmp_path / "runs"))
    deadline = time.monotonic() + 60
    while "400" not in _progress(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped(process, None, after=1.0)
    numbers = Checkpoints(run_of(tmp_path / "runs") / "checkpoints").last().numbers
    assert numbers["steps"] == 400 and numbers["reporter"]["evaluations"] == 0


def test_an_interrupted_video_contains_the_frames_so_far(tmp_path):
    run = _trained(tmp_path)
    process = start_evaluation(
        str(run), "--video", str(tmp_path / "long.mp4"), "--max-steps", "20000", "--episodes", "1", "--trust"
    )
    seconds, _, err = stopped(process, tmp_path / "long.mp4", after=1.0)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "Traceback" not in err
    assert (tmp_path / "long.mp4").stat().st_size > 0


def test_a_second_request_ends_immediately(tmp_path):
    """It also does so if the first cannot be obeyed, because an environment swallows every exception."""
    script = tmp_path / "deaf.py"
    script.write_text(
        "import time\nfrom hrl.stopping import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        try:\n            with stop.interruptible(): time.sleep(1000)\n"
        "        except BaseException: pass\n"
    )
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == -signal.SIGTERM


def test_a_region_with_grace_may_end_by_itself():
    with StopRequest() as stop:
        with stop.interruptible(1.0):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert stop and stop.signal == signal.SIGTERM
        with pytest.raises(Interrupted), stop.interruptible():
            pass


def test_environments_that_do_not_close_in_time_are_reported():
    assert "did not end" in (close_within(lambda: time.sleep(60), 0.1) or "")
    assert close_within(lambda: None) is None

    def fails() -> None:
        raise RuntimeError("no")

    assert close_within(fails) == "RuntimeError: no"


def _trained(folder: Path) -> Path:
    assert train.main(["hiro", *STUCK, *LONG[4:], "--eval-freq", "0", "--log-dir", str(folder / "runs")]) == 0
    return run_of(folder / "runs")


def start_evaluation(*arguments: str):
    return start(*arguments, script="evaluate.py")


def test_evaluation_episodes_are_truncated_at_the_limit_and_this_is_reported(tmp_path, capsys):
    run = _trained(tmp_path)
    capsys.readouterr()
    assert evaluate.main([str(run), "--episodes", "3", "--max-steps", "7"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 episodes were truncated after 7 steps" in out and "reports no success" in out and "7.000" in out


def test_a_second_interrupt_stops_an_environment_that_swallows_the_first():
    swallowed = []

    def deaf() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            swallowed.append(1)
        time.sleep(30)

    began = time.monotonic()
    with StopRequest() as stop, pytest.raises(Interrupted), stop.interruptible():
        deaf()
    assert swallowed and time.monotonic() - began < SECONDS + LOADED


def test_a_request_while_an_environment_closes_is_no_time_out():
    with StopRequest() as stop, pytest.raises(Interrupted), stop.interruptible():
        close_within(lambda: signal.raise_signal(signal.SIGTERM), 5.0)
    assert stop.signal == signal.SIGTERM


def test_an_evaluation_environment_that_is_never_made_is_interrupted(tmp_path):
    marker = tmp_path / "asleep"
    (tmp_path / "slow.py").write_text(
        "import time, pathlib, gymnasium as gym\nfrom tasks import GoalLine\n"
        f"class Slow(GoalLine):\n    def __init__(self):\n        pathlib.Path({str(marker)!r}).touch()\n"
        "        time.sleep(1000)\ngym.register('Slow-v0', Slow)\n"
    )
    arguments = [*LINE, "--eval-env", "slow:Slow-v0", "--log-dir", str(tmp_path / "runs")]
    process = start("hiro", *arguments, path=tmp_path)
    seconds, _, err = stopped(process, marker)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "nothing to save" in err
    assert not (tmp_path / "runs").exists()


def test_a_reward_that_never_returns_is_interrupted(tmp_path):
    """Hindsight asks the environment's own code in the middle of learning."""
    marker = tmp_path / "asleep"
    (tmp_path / "slow.py").write_text(
        "import time, pathlib, gymnasium as gym\nfrom tasks import GoalLine\n"
        "class Slow(GoalLine):\n    asked = 0\n    def compute_reward(self, achieved, desired, info):\n"
        "        Slow.asked += len(achieved) > 10\n"
        f"        if Slow.asked > 20:\n            pathlib.Path({str(marker)!r}).touch()\n"
        "            time.sleep(1000)\n"
        "        return super().compute_reward(achieved, desired, info)\n"
        "gym.register('Slow-v0', Slow, max_episode_steps=12)\n"
    )
    arguments = ["--env", "slow:Slow-v0", *LINE[2:], *ENDLESS, "--log-dir", str(tmp_path / "runs")]
    process = start("td3", *arguments, path=tmp_path)
    seconds, out, err = stopped(process, marker)
    assert seconds < SECONDS + LOADED and process.returncode == 143 and "saved" in out and "Traceback" not in err
    assert Checkpoints(run_of(tmp_path / "runs") / "checkpoints").last().steps > 200
