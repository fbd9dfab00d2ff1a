"""`--num-envs auto`: the number of environments by measurement."""

import json

import pytest
from hrl_scripts import train
from runs import LINE, run_of, trained

import hrl
from hrl.agents.presets import preset
from hrl.agents.presets.scaling import scaled
from hrl.api import scaling
from hrl.api.scaling import fastest_enough
from hrl.api.sessions import Parts
from hrl.cli.options import peek, with_value
from hrl.execution.processes import Processes
from hrl.types import UserError


def test_the_smallest_number_that_is_nearly_the_fastest_is_chosen():
    assert fastest_enough({1: 100.0, 2: 190.0, 4: 350.0, 8: 400.0, 16: 420.0}) == 4  # .83 of the highest speed
    assert fastest_enough({1: 100.0, 2: 90.0}) == 1


def test_numbers_are_doubled_until_collecting_is_not_faster(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "SECONDS", 0.05)
    run = trained(tmp_path, "--num-envs", "auto", "--eval-freq", "0")
    measured = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("--num-envs auto: "))
    numbers = [int(part.split(": ")[0]) for part in measured.partition("learning: ")[2].split(", ")]
    assert numbers == [2**i for i in range(len(numbers))] and len(numbers) > 1
    chosen = json.loads((run / "config.json").read_text())["config"]["env"]["num_envs"]
    assert chosen in numbers and measured.startswith(f"--num-envs auto: {chosen} environments")


def test_a_program_measures_too(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SECONDS", 0.05)
    monkeypatch.setattr(scaling, "PATIENCE", 0.0)
    options = {"preset": "debug", "total_steps": 200, "eval_freq": 0, "threads": 1, "log_dir": str(tmp_path)}
    run = hrl.train("hiro", "tasks:GoalLine-v0", num_envs="auto", **options)
    assert run.parts.env.num_envs == 1  # without patience, only one number is measured


def test_algorithms_and_processes_that_determine_the_number_get_one_sentence(tmp_path, capsys):
    assert train.main(["sb3-td3", *LINE, "--num-envs", "auto", "--log-dir", str(tmp_path)]) == 2
    assert "--num-envs auto does not support sb3-td3: give a number" in capsys.readouterr().err
    parts = Parts.stored(hrl.load(trained(tmp_path, "--total-steps", "200", "--eval-freq", "0")).folder)
    auto = parts._replace(env=type(parts.env)(parts.env.env, num_envs="auto"))
    with pytest.raises(UserError, match="measures in one process"):
        scaling.with_measured_envs(auto, lambda _: parts, Processes(0, 2, 0))
    assert run_of(tmp_path).exists()


def test_a_preset_that_scales_replays_as_often_with_more_environments():
    tuned = {"num_envs": 64, "total_steps": 250_000, "eval_freq": 0, "low": {"batch_size": 256, "train_freq": 24}}
    assert scaled(tuned, 256) == {  # f = 4, √f = 2
        "num_envs": 64, "total_steps": 500_000, "eval_freq": 0, "low": {"batch_size": 1024, "train_freq": 96},
    }  # fmt: skip
    assert scaled(tuned, 6400)["low"] == {"batch_size": 1024, "train_freq": 96}  # 1024 = 4 × 256, not 100 ×
    assert scaled(tuned, 6400)["total_steps"] == 2_500_000
    assert scaled(tuned, 64) == scaled(tuned, 32) == tuned


@pytest.mark.parametrize("number", ["num_envs: many, ", "num_envs: 0, "])
def test_a_preset_that_scales_must_give_its_number(tmp_path, capsys, number):
    own = tmp_path / "own.yaml"
    own.write_text(f'"*": {{scales: true, {number}low: {{batch_size: x, train_freq: 4}}}}')
    words = ["hiro", "--env", "tasks:GoalLine-v0", "--preset", str(own), "--num-envs", "8", "--log-dir", str(tmp_path)]
    assert train.main(words) == 2
    assert "must give num_envs, a positive whole number" in capsys.readouterr().err


def test_options_that_are_given_do_not_scale(tmp_path, capsys):
    own = tmp_path / "own.yaml"
    own.write_text('"*": {scales: true, num_envs: 2, total_steps: 400, eval_freq: 0, low: {batch_size: 8, '
                   'train_freq: 4}}')  # fmt: skip
    values = ["--preset", str(own), "--num-envs", "8", "--low.train-freq", "5", "--threads", "1"]
    assert train.main(["hiro", "--env", "tasks:GoalLine-v0", *values, "--log-dir", str(tmp_path)]) == 0
    assert "total_steps 800" in capsys.readouterr().out
    config = json.loads((run_of(tmp_path) / "config.json").read_text())["config"]
    assert config["run"]["total_steps"] == 800
    assert config["agent"]["low"]["batch_size"] == 32 and config["agent"]["low"]["train_freq"] == 5


def test_a_measured_number_scales_too(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "SECONDS", 0.02)
    monkeypatch.setattr(scaling, "fastest_enough", lambda speeds: 8)
    own = tmp_path / "own.yaml"
    own.write_text('"*": {scales: true, num_envs: 2, total_steps: 400, eval_freq: 0, low: {batch_size: 8, '
                   'train_freq: 4}}')  # fmt: skip
    run = hrl.train("hiro", "tasks:GoalLine-v0", preset=str(own), num_envs="auto", log_dir=str(tmp_path))
    assert run.parts.env.num_envs == 8 and run.parts.run.total_steps == 800


def test_the_debug_preset_does_not_scale():
    assert preset("hiro", "hrl/PointMaze_UMaze-v0", "debug", 64) == preset("hiro", "hrl/PointMaze_UMaze-v0", "debug")
    assert preset("hiro", "hrl/PointMaze_UMaze-v0", "auto", 256)["low"]["batch_size"] == 1024


@pytest.mark.parametrize("given", [["--num_envs", "auto"], ["--num-envs=auto"], []])
def test_another_value_replaces_every_spelling_of_an_option(given):
    assert with_value(["hiro", *given, "--seed", "1"], "--num-envs", "8") == ["hiro", "--seed", "1", "--num-envs", "8"]
    assert peek(["--num_envs", "4"], "--num-envs") == "4"
