"""Parameters that become NaN or infinite end a run with a sentence that names them, and leave good checkpoints."""

import math

import pytest
import torch
import yaml
from hrl_scripts import evaluate, train
from runs import LINE, run_of

from hrl.run.divergence import require_finite
from hrl.types import Diverged

HUGE = "1e20"
REPLAY = ("--learning-rate", HUGE, "--learning-starts", "300", "--hidden", "8", "--batch-size", "8")
CASES = {
    "td3": ("Pendulum-v1", *REPLAY),  # the environment would return NaN for actions that are NaN
    "dqn": ("CartPole-v1", *REPLAY),  # a greedy action exists even for values that are NaN
    "sb3-td3": ("Pendulum-v1", "--learning-rate", HUGE, "--learning-starts", "300"),
    "hippo": ("CartPole-v1", "--learning-rate", HUGE, "--n-steps", "4"),
}


def test_large_values_are_no_divergence_but_nan_and_infinity_are():
    fine = {"a": torch.full((3,), 3e38), "b": torch.zeros(0), "c": torch.ones(2, dtype=torch.float64)}
    require_finite(fine, "1 step", None)
    require_finite({}, "1 step", None)
    for wrong in (math.nan, math.inf):
        with pytest.raises(Diverged, match=r"d is NaN or infinite at 9 steps.*The checkpoint at 1,234 is intact"):
            require_finite({**fine, "d": torch.tensor([1.0, wrong])}, "9 steps", 1234)


@pytest.mark.parametrize("algorithm", CASES)
def test_a_run_that_diverges_names_its_parameters(algorithm, tmp_path, capsys):
    env, *words = CASES[algorithm]
    common = ["--preset", "none", "--num-envs", "2", "--total-steps", "1000", "--eval-freq", "0", "--log-freq", "100"]
    common += ["--progress", "False", "--log-dir", str(tmp_path)]
    assert train.main([algorithm, "--env", env, *common, *words]) == 2
    error = capsys.readouterr().err
    assert "Training diverged: " in error and "is NaN or infinite at" in error
    assert "No checkpoint was saved yet." in error
    assert not list(run_of(tmp_path).glob("checkpoints/*/*"))


def test_checkpoints_before_the_divergence_stay(tmp_path, capsys):
    words = ["--low.learning-rate", HUGE, "--learning-starts", "300", "--save-freq", "200", "--eval-freq", "100"]
    assert train.main(["hiro", *LINE, "--log-dir", str(tmp_path), "--total-steps", "1000", *words]) == 2
    assert "The checkpoint at 200 is intact." in capsys.readouterr().err
    run = run_of(tmp_path)
    for which in ("last", "best"):
        assert evaluate.main([str(run), "--episodes", "1", "--checkpoint", which, "--trust"]) == 0


def test_a_sweep_continues_after_a_trial_that_diverges(tmp_path, capsys):
    file = tmp_path / "rates.yaml"
    rates = {"low.learning_rate": {"choices": [float(HUGE), 1e-3]}}
    file.write_text(yaml.safe_dump({"trials": 6, "metric": "eval/mean_reward", "parameters": rates}))
    words = ["--total-steps", "400", "--eval-freq", "200", "--learning-starts", "100", "--log-dir", str(tmp_path)]
    assert train.main(["hiro", *LINE, *words, "--sweep", str(file)]) == 0
    out = capsys.readouterr().out
    assert ": diverged; low.learning_rate 1e+20" in out and "Done. Best: --preset" in out
    best = yaml.safe_load((tmp_path / "sweeps" / "rates" / "preset.yaml").read_text())
    assert best["GoalLine-v0"]["low"]["learning_rate"] == 1e-3
