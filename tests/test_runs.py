"""Whole runs from the command line: training, stopping, resuming, evaluating, and messages to the user."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hrl_scripts import evaluate, train
from runs import ROOT, run_of, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrl.agents import AGENTS
from hrl.run.checkpoint import Checkpoints


def still(observation):
    """A skill for Pendulum-v1 that does nothing."""
    return np.zeros((len(observation), 1), np.float32)


@pytest.mark.parametrize("algorithm", AGENTS)
def test_every_algorithm_has_a_debug_preset_that_runs_in_seconds(tmp_path, algorithm):
    env = {"maml": "hrl/Navigation-v0", "famp": "hrl/Taxi-v0", "modac": "hrl/Taxi-v0", "lirpg": "hrl/Track-v0"}
    env |= dict.fromkeys(("sb3-dqn", "dqn", "discrete-sac", "option-critic"), "CartPole-v1")
    env |= {
        "hdqn": "hrl/KeyDoor-v0",
        "hac": "hrl/PendulumGoal-v0",
        "hiql": "tasks:GoalLine-v0",
        "landmarks": "hrl/PointMaze_UMaze-v0",
    }
    line = ["--env", env.get(algorithm, "Pendulum-v1"), "--preset", "debug", "--threads", "1", "--progress", "False"]
    needs = {"hiql": ["--dataset", str(short_dataset(tmp_path))], "skills": ["--skill", "test_runs:still"]}
    line += needs.get(algorithm, [])
    assert train.main([algorithm, *line, "--log-dir", str(tmp_path)]) == 0


def short_dataset(folder: Path) -> Path:
    """A file with one trajectory of GoalLine, for algorithms that learn from a dataset."""
    x = np.arange(5)[:, None] / 10
    np.savez(folder / "short.npz", observations=np.hstack([x, 5 * x]), actions=np.ones((5, 1)), terminals=x[:, 0] > 0.3)
    return folder / "short.npz"


# -- what a run leaves behind ------------------------------------------------------------------------------


def test_the_run_folder_contains_the_settings(finished):
    assert finished.parent.name == "hiro" and finished.parent.parent.name == "tasks-GoalLine-v0"
    content = json.loads((finished / "config.json").read_text())
    assert content["algorithm"] == "hiro" and content["config"]["run"]["total_steps"] == 1000
    assert -5.5 <= content["config"]["agent"]["goal"]["low"][0] < 0  # as measured
    assert content["config"]["agent"]["high"]["reward_offset"] == -1  # as resolved
    assert {"torch", "gymnasium", "stable-baselines3"} <= set(content["versions"]) and "command" in content
    assert [p.name for p in Checkpoints(finished / "checkpoints").all()] == [
        "step-000000000500",
        "step-000000001000",
    ]


def test_tensorboard_and_the_table_contain_the_same_scalars(finished):
    events = EventAccumulator(str(finished)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "rollout/success_rate",
        "time/fps",
        "eval/mean_reward",
        "eval/success_rate",
        "train/low/critic_loss",
        "train/low/subgoal_reach_rate",
        "train/low/subgoal_distance",
        "train/low/intrinsic_reward",
        "train/high/critic_loss",
        "train/high/actor_loss",
        "train/high/q_mean",
        "train/high/critic_learning_rate",
        "train/high/critic_grad_norm",
        "train/high/memory_size",
    } <= tags
    with (finished / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    for tag in tags:
        logged = [(e.step, e.value) for e in events.Scalars(tag)]
        table = [(int(r["time/total_timesteps"]), float(r[tag])) for r in rows if r[tag]]
        assert [s for s, _ in logged] == [s for s, _ in table]
        assert [v for _, v in logged] == pytest.approx([v for _, v in table], rel=1e-5)
    hparams = [t for t in events.summary_metadata if t.startswith("_hparams_")]
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(hparams)


@pytest.mark.parametrize("algorithm", ["hiro", "hrac", "td3", "sac", "sb3-td3", "sb3-sac"])
def test_agents_with_continuous_actions_run_on_ants(tmp_path, algorithm):
    few = ["--preset", "debug", "--threads", "1", "--progress", "False", "--total-steps", "300", "--eval-freq", "0"]
    assert train.main([algorithm, "--env", "hrl/AntPush-v0", *few, "--log-dir", str(tmp_path)]) == 0
    assert evaluate.main([str(run_of(tmp_path)), "--episodes", "1", "--json"]) == 0


# -- evaluating --------------------------------------------------------------------------------------------


def test_evaluation_prints_one_json_object(finished, capsys):
    assert evaluate.main([str(finished), "--episodes", "7", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == 7 and result["steps"] == 1000
    for name in ("success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length"):
        low, high = result[f"{name}_interval"]
        assert low <= result[name] <= high
    assert 0 <= result["subgoal_reach_rate"] <= 1
    assert evaluate.main([str(finished), "--episodes", "7", "--json", "--checkpoint", "best"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == "best"


def test_several_runs_are_compared(finished, tmp_path, capsys):
    flat = trained(tmp_path, algorithm="td3")
    assert evaluate.main([str(finished), str(flat), "--episodes", "3", "--plot", str(tmp_path / "curves.png")]) == 0
    out = capsys.readouterr().out
    assert "hiro" in out and "td3" in out and "Student's t" in out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [("sb3-td3", "tasks:GoalLine-v0"), ("sb3-sac", "tasks:GoalLine-v0"), ("sb3-ppo", "tasks:Ledger-v0"),
     ("sb3-dqn", "CartPole-v1"), ("sac", "Pendulum-v1"), ("hiro", "Pendulum-v1")],
)  # fmt: skip
def test_every_algorithm_trains_and_is_evaluated(algorithm, env, tmp_path, capsys):
    run = trained(tmp_path, "--env", env, "--total-steps", "500", algorithm=algorithm)
    tags = set(EventAccumulator(str(run)).Reload().Tags()["scalars"])
    assert {"time/fps", "eval/mean_reward"} <= tags
    assert ("eval/success_rate" in tags) == env.startswith("tasks:")  # the others report no success
    assert ("rollout/ep_rew_mean" in tags) == (env != "CartPole-v1")  # no episode may take longer than 250 steps
    capsys.readouterr()
    assert evaluate.main([str(run), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2


# -- messages to the user ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("hirro --env PointMaze_UMaze-v3", "Did you mean hiro?"),
        ("Discrete_SAC --env CartPole-v1", "Did you mean discrete-sac?"),
        ("dqn --env cartpole-V1", "Did you mean CartPole-v1"),
        ("hiro --env PointMaze_Umaze-v3", "Did you mean PointMaze_UMaze-v3"),
        ("hiro --env CartPole-v1", "td3 supports only vectors"),
        ("hiro --env tasks:Picture-v0", "observes only an image"),
        ("hiro --env tasks:GoalLine-v0 --high.period 0", "high.period must be at least 1"),
        ("hiro --env tasks:GoalLine-v0 --low.learning-rate -1", "low.learning_rate must be positive"),
        ("hiro --env tasks:GoalLine-v0 --goal.indices 0 9", "outside the observation"),
        ("hiro --env tasks:GoalLine-v0 --num-envs 0", "at least 1"),
        ("hiro --env tasks:GoalLine-v0 --total-steps 0", "--total-steps must be at least 1"),
        ("hiro --env tasks:GoalLine-v0 --preset nonsense", "no preset 'nonsense'"),
        ("hiro --env tasks:GoalLine-v0 --device cuda", "CUDA"),
        ("hiro --env tasks:Ledger-v0 --high.hindsight 0.5 --goal.low -1 --goal.high 1", "high.hindsight"),
        ("sb3-td3 --env CartPole-v1", "needs Box actions"),
        ("tasks:nothing --env X", "cannot be imported"),
        ("hiro --env tasks:GoalLine-v0 --eval-env Nope-v0", "no environment 'Nope-v0'"),
        (
            "hiro --env tasks:GoalLine-v0 --eval-env Pendulum-v1",
            "has other observations, goals or actions than tasks:GoalLine-v0",
        ),
        (
            "hiro --env tasks:GoalLine-v0 --low.buffer-size 100000000000000",
            "A memory of 100,000,000,000,000 transitions is too large",
        ),
        ("hiro --env tasks:GoalLine-v0 --seed 100000000000", "--seed must be below"),
        ("hiro --env tasks:GoalLine-v0 --low.learning-rate nan", "--low.learning-rate must be a finite number"),
        ("hiro --env tasks:GoalLine-v0 --goal.projection math:pi", "not callable"),
        ("hiro --env tasks:GoalLine-v0 --high.random-actions 2 3", "high.random_actions must be two fractions"),
        ("hiro --env tasks:GoalLine-v0 --low.action-noise 0 0.1 0.2", "low.action_noise must be one or two numbers"),
        ("hiro --env tasks:GoalLine-v0 --low.reward-scale 0", "low.reward_scale must be positive"),
        ("hiro --env tasks:GoalLine-v0 --low.hidden 0", "low.hidden must be"),
        ("hiro --env tasks:GoalLine-v0 --low.gamma 1.5", "low.gamma must be between 0 and 1"),
        ("hiro --env tasks:GoalLine-v0 --action-limit -1", "--action-limit must be positive"),
        ("td3 --env tasks:GoalLine-v0 --goal.periods 0", "goal.periods must be positive"),
        ("td3 --env tasks:GoalLine-v0 --learning-rate 0", "error: learning_rate must be positive"),
        ("sb3-sac --env tasks:GoalLine-v0 --batch-size 0", "--batch-size must be positive"),
        ("hiro --env .a:b-v0", "cannot be imported"),
        ("tasks:Ledger --env X", "is not an algorithm"),
        ("--resume nowhere", "is not a run folder"),
        ("--resume nowhere --low.learning-rate 1", "--low.learning-rate cannot be given with --resume"),
    ],
)
def test_bad_input_raises_a_clear_error_and_creates_no_files(arguments, words, tmp_path, capsys, monkeypatch):
    if "cuda" in arguments and __import__("torch").cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.chdir(tmp_path)
    assert train.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", ["hiro --env X --high.perod 3", "hiro", "hiro --env X --env-kwargs foo"])
def test_the_command_line_reports_bad_options(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(arguments.split())
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err + told.out


def test_a_finished_run_or_another_environment_is_reported(finished, tmp_path, capsys):
    assert train.main(["--resume", str(finished)]) == 2
    assert "set --total-steps above this number" in capsys.readouterr().err
    assert evaluate.main([str(finished), "--env", "Pendulum-v1"]) == 2
    assert "does not fit Pendulum-v1" in capsys.readouterr().err
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "config.json").write_text("{")
    assert evaluate.main([str(run)]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_run_that_was_prolonged_remembers_its_length(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    more = ["--resume", str(run), "--progress", "False"]
    assert train.main([*more, "--total-steps", "1100"]) == 0
    content = json.loads((run / "config.json").read_text())
    assert content["config"]["run"]["total_steps"] == 1100 and len(content["resumed"]) == 1
    assert content["command"] == json.loads((finished / "config.json").read_text())["command"]


def test_a_changed_configuration_is_reported(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    content = json.loads((run / "config.json").read_text())
    content["config"]["agent"]["low"]["hidden"] = [7]
    (run / "config.json").write_text(json.dumps(content))
    assert train.main(["--resume", str(run), "--total-steps", "2000"]) == 2
    assert "was changed after the run started" in capsys.readouterr().err
    assert train.main(["--resume", str(run), "--total-steps", "2000", "--allow-edited"]) == 2
    assert "does not fit the configuration" in capsys.readouterr().err
    (run / "config.json").write_text('{"algorithm": "hiro", "config": {}}')
    assert train.main(["--resume", str(run), "--total-steps", "2000"]) == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["nowhere/x.png", "x.xyz"])
def test_a_picture_that_cannot_be_written_is_reported_before_the_evaluation(
    file, finished, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(finished), "--plot", file]) == 2
    told = capsys.readouterr()
    assert "must end in" in told.err and not told.out


def test_the_picture_of_a_trained_agent_is_logged_and_drawn(tmp_path):
    run = trained(tmp_path, "--env", "PointMaze_UMaze-v3", "--total-steps", "400", "--eval-freq", "400")
    assert "eval/trajectories" in EventAccumulator(str(run)).Reload().Tags()["images"]
    assert evaluate.main([str(run), "--episodes", "2", "--plot", str(tmp_path / "paths.png")]) == 0
    assert (tmp_path / "paths.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_environment_is_trained_and_evaluated(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}
    goal = ["--goal.indices", "0", "1", "--goal.low", "-2", "--goal.high", "2", "--preset", "debug"]
    for command in (
        [str(ROOT / "examples" / "custom_env.py")],
        [str(ROOT / "train.py"), "hiro", "--env", "custom_env:River-v0", *goal, "--log-dir", str(tmp_path)],
    ):
        done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert json.loads((run_of(tmp_path) / "config.json").read_text())["config"]["agent"]["goal"]["indices"] == [0, 1]


def test_the_transfer_example_runs(tmp_path):
    few = ["--preset", "debug", "--eval-episodes", "1", "--goal.low", "-3", "--goal.high", "3", "--num-envs", "2"]
    ant = ["hiro", "--env", "hrl/AntMaze-v0", *few, "--total-steps", "200", "--progress", "False"]
    assert train.main([*ant, "--log-dir", str(tmp_path / "first")]) == 0
    out = tmp_path / "out"
    words = ["--run", str(run_of(tmp_path / "first")), "--transfer-steps", "200", "--out", str(out), "--episodes", "2"]
    example = [sys.executable, str(ROOT / "examples" / "ant_transfer.py"), *words, f"--options={' '.join(few)}"]
    for _ in range(2):  # what is there is not trained again
        done = subprocess.run(example, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(list(out.rglob("config.json"))) == 2
    assert {"curves.png", "subgoals.png"} <= {file.name for file in out.iterdir()}


def test_help_explains_every_option(capsys):
    assert train.main(["--help"]) == 0
    with pytest.raises(SystemExit, match="0"):
        train.main(["hiro", "--help"])
    text = capsys.readouterr().out
    for word in [
        "sb3-td3",
        "--high.period",
        "--LEVEL.learning-rate FLOAT",
        "--goal.indices",
        "--env-kwargs",
        "--device",
        "--seed",
    ]:
        assert word in text
    assert text.index("The most important options") < text.index("--high.period") < text.index("--env-kwargs")
    assert "Discount per environment step (published: .99). (default: 0.95)" in " ".join(text.split())
