"""Every pair of high and low learners that the action spaces allow trains, and resumes bit for bit."""

from pathlib import Path

import pytest
from hrl_scripts import train
from runs import ROOT, run_of, same_state, trained

from hrl.cli import training

HIGH = {"td3": (), "sac": (), "ppo": (), "dqn": ("--goal.cells", "3"), "discrete-sac": ("--goal.cells", "3")}
REPLAY = ("train-freq", "8", "batch-size", "16")
OPTIONS = {
    "ppo": ("n-steps", "16", "n-epochs", "1"),
    "discrete-sac": REPLAY,
    "dqn": (*REPLAY, "exploration-fraction", "0"),
    **dict.fromkeys(("td3", "sac"), REPLAY),
}  # a schedule of random actions depends on the run's length
ENVIRONMENTS = {
    **dict.fromkeys(("td3", "sac"), "tasks:GoalLine-v0"),
    **dict.fromkeys(("dqn", "discrete-sac"), "CartPole-v1"),
}


def line(high: str, low: str, env: str, folder: Path, steps: int) -> list[str]:
    words = ["--env", env, "--num-envs", "2", "--threads", "1", "--progress", "False", "--log-dir", str(folder)]
    words += ["--total-steps", str(steps), "--eval-freq", "0", "--save-freq", "150", "--learning-starts", "50"]
    for level, learner in (("low", low), ("high", high)):
        options = OPTIONS[learner]
        names = [f"--{level}.learner", learner, f"--{level}.hidden", "8"]
        names += [f"--{level}.{x}" if i % 2 == 0 else x for i, x in enumerate(options)]
        words += names
    return ["hiro", *words, *HIGH[high], "--goal.indices", "0"]


@pytest.mark.parametrize("low", ["td3", "sac", "ppo", "dqn", "discrete-sac"])
@pytest.mark.parametrize("high", HIGH)
def test_a_pair_trains_and_resumes_exactly(high, low, tmp_path):
    env = ENVIRONMENTS.get(low, "tasks:GoalLine-v0")
    assert train.main(line(high, low, env, tmp_path / "whole", 300)) == 0
    assert train.main(line(high, low, env, tmp_path / "part", 150)) == 0
    part = run_of(tmp_path / "part")
    assert train.main(["--resume", str(part), "--total-steps", "300", "--progress", "False"]) == 0
    assert same_state(run_of(tmp_path / "whole"), part)


@pytest.mark.parametrize(("high", "low", "env", "sentence"), [
    ("td3", "dqn", "tasks:GoalLine-v0", "dqn supports only discrete actions, but those of the low level are vectors"),
    ("td3", "sac", "CartPole-v1", "sac supports only vectors (Box), but the actions of the low level are Discrete(2)"),
    ("dqn", "td3", "tasks:GoalLine-v0", "dqn supports only discrete actions, but those of the high level are vectors"),
])  # fmt: skip
def test_a_pair_that_does_not_fit_raises_a_clear_error(high, low, env, sentence, tmp_path, capsys):
    words = line(high, low, env, tmp_path, 300)
    words = [word for i, word in enumerate(words) if "cells" not in (word[7:], words[i - 1][7:])]
    assert train.main(words) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--low.learner", "sac", "--low.target-noise", "0.1"),
            "--low.target-noise is an option of td3, but --low.learner is sac",
        ),
        (("--low.ent-coef", "0.1"), "--low.ent-coef is an option of sac"),
        (("--high.learner", "reinforce"), "--high.learner must be one of discrete-sac, dqn, ppo, sac,"),
    ],
)
def test_another_learners_option_raises_an_error(words, sentence, tmp_path, capsys):
    assert train.main(["hiro", "--env", "tasks:GoalLine-v0", "--log-dir", str(tmp_path), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_level_below_a_grid_learns_from_random_subgoals(tmp_path):
    words = ["--env", "hrl/PointMaze_UMaze-v0", "--high.learner", "dqn", "--goal.cells", "3"]
    words += ["--low.hindsight-strategy", "random", "--low.hindsight", "1"]
    trained(tmp_path, *words, "--total-steps", "400")


def test_the_last_of_repeated_options_counts_everywhere():
    """tyro takes the last value, so the options that are read before tyro must take it, too."""
    preset = ["--preset", "debug", "--preset=none"]
    words = ["--env", "CartPole-v1", "--env=tasks:GoalLine-v0", "--low.learner", "dqn", "--low.learner", "sac", *preset]
    parts, values = training.resolved("hiro", words)
    assert parts.agent.low.learner.kind == "sac" and hasattr(parts.agent.low.learner, "ent_coef") and not values
    assert parts.env.env == "tasks:GoalLine-v0"


def test_integers_may_be_written_as_1e6():
    words = ["--env", "hrl/PointMaze_UMaze-v0", "--total-steps", "1e6", "--num-envs=2.56e2", "--low.hidden", "8", "1_6"]
    parts, _ = training.resolved("hiro", words)
    assert (parts.run.total_steps, parts.env.num_envs) == (1_000_000, 256)
    assert parts.agent.low.learner.hidden == (8, 16) and parts.agent.low.learner.batch_size == 1024  # it scales


@pytest.mark.parametrize("text", ["1.5", "inf", "nan", "many", "0x10", ""])
def test_other_texts_are_no_integers(text, capsys):
    with pytest.raises(SystemExit):
        training.resolved("hiro", ["--env", "CartPole-v1", "--total-steps", text])
    assert "is not a whole number" in " ".join(capsys.readouterr().err.split())


def test_a_learners_help_shows_its_own_options(capsys):
    with pytest.raises(SystemExit):
        train.main(["hiro", "--low.learner", "ppo", "--help"])
    out = capsys.readouterr().out
    assert "--low.gae-lambda" in out and "--LEVEL.target-noise" in out and "--LEVEL.gae-lambda" not in out
    with pytest.raises(SystemExit):
        train.main(["ppo", "--help"])
    assert "--gae-lambda" in (alone := capsys.readouterr().out) and "--target-noise" not in alone


@pytest.mark.parametrize("example", ["custom_agent:Mine", "dqn_over_td3:DQNOverTD3"])
def test_the_examples_of_custom_agents_train(example, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["--env", "PointMaze_UMaze-v3", "--num-envs", "2", "--total-steps", "300", "--learning-starts", "100"]
    words += ["--eval-freq", "0", "--low.hidden", "8", "--high.hidden", "8", "--progress", "False"]
    assert train.main([f"examples.{example}", *words, "--log-dir", str(tmp_path)]) == 0
    assert len((ROOT / "examples" / f"{example.split(':')[0]}.py").read_text().splitlines()) <= 60


def test_the_example_of_three_levels_learns(capsys):
    source = (ROOT / "examples" / "three_levels.py").read_text().replace("range(600)", "range(150)")
    exec(compile(source, "three_levels.py", "exec"), {"__name__": "__main__"})
    assert "2,400 steps" in capsys.readouterr().out


def test_a_presets_relabelling_goes_with_a_learner_that_has_no_replay(tmp_path, capsys):
    words = ["hiro", "--env", "PointMaze_UMaze-v3", "--low.learner", "ppo", "--high.learner", "ppo"]
    agent = training.resolved("hiro", words[1:])[0].agent
    assert agent.high.hindsight is None and agent.high.hindsight_actions is None and agent.low.hindsight is None
    assert agent.high.period == 20  # all else is the preset's
    assert train.main([*words, "--high.hindsight-actions", "0.5", "--log-dir", str(tmp_path)]) == 2
    assert "high.hindsight_actions, high.testing and high.count_bonus need a replay" in capsys.readouterr().err


def test_a_presets_features_of_subgoals_go_with_a_learner_that_has_no_critic_of_vectors(tmp_path, capsys):
    words = ["hiro", "--env", "hrl/AntFall-v0", "--high.learner", "dqn", "--goal.cells", "5"]
    agent = training.resolved("hiro", words[1:])[0].agent
    assert agent.high.subgoal_features is False and agent.high.count_bonus == 3.0
    assert train.main([*words, "--high.subgoal-features", "True", "--log-dir", str(tmp_path)]) == 2
    assert "a critic of vectors, which dqn does not have" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "hiro"])
def test_episodes_without_a_discount(algorithm, tmp_path):
    """The rewards of GoalLine have known bounds, but without a discount, returns have none."""
    words = {"hiro": ["--high.learner", "sac", "--high.gamma", "1"]}.get(algorithm, ["--gamma", "1"])
    run = trained(tmp_path, *words, "--eval-freq", "0", algorithm=algorithm)
    assert (run / "checkpoints").exists()
