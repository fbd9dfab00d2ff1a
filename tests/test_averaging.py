"""Averages of networks for evaluations: by hand, exact resume, and what a checkpoint's policy is."""

import pytest
import torch
from hrl_scripts import train
from runs import LINE, run_of, same_state, trained

import hrl
from hrl.run.averaging import Averaging, averaged
from hrl.run.checkpoint import Checkpoints


def test_the_average_by_hand():
    x = torch.tensor([1.0, 3.0])
    average = Averaging(lambda: {"x": x}, 0.75)
    seen = []
    for value in (1.0, 3.0, 5.0, 7.0, 7.0):  # a plain mean of four, then a quarter of the new one
        x.fill_(value)
        average.update()
        seen.append(float(average.average["x"][0]))
    assert seen == pytest.approx([1, 2, 3, 4, 4.75])
    with average.applied():
        assert x.tolist() == pytest.approx([4.75, 4.75])
    assert x.tolist() == [7, 7]
    again = Averaging(lambda: {"x": x}, 0.75)
    again.load(average.tensors())
    x.fill_(0.75)
    again.update()
    assert again.average["x"].tolist() == pytest.approx([3.75, 3.75])
    assert averaged({"x": x, **average.tensors()})["x"].tolist() == pytest.approx([4.75, 4.75])


def test_without_a_decay_nothing_is_averaged():
    x = torch.ones(2)
    average = Averaging(lambda: {"x": x}, 0.0)
    average.update()
    with average.applied():
        assert x.tolist() == [1, 1]
    assert average.tensors() == {}


def test_a_run_with_averages_resumes_exactly_and_acts_by_them(tmp_path):
    line = ["--ema", "0.9", "--eval-freq", "100", "--save-freq", "100", "--total-steps"]
    whole, part = trained(tmp_path / "whole", *line, "400"), trained(tmp_path / "part", *line, "200")
    assert train.main(["--resume", str(part), "--total-steps", "400", "--progress", "False", "--trust"]) == 0
    assert same_state(part, whole)
    plain = trained(tmp_path / "plain", *line[2:], "400")
    stored, without = (Checkpoints(run / "checkpoints").last().tensors for run in (whole, plain))
    assert all(torch.equal(x, stored[name]) for name, x in without.items())  # learning is the same
    policy = hrl.load(whole, trust=True).policy("last")
    name, weight = next((n, x) for n, x in policy.agent.network_parameters().items() if x.dim() > 1)
    assert torch.equal(weight, stored[f"ema.{name}"]) and not torch.equal(weight, stored[name])


def test_a_strict_loader_gets_exactly_the_names_that_the_run_saved(tmp_path):
    """stable-baselines3 refuses unknown names, such as those of averages."""
    words = ["--env", "Pendulum-v1", "--n-steps", "16", "--batch-size", "16", "--total-steps", "64", "--num-envs", "1"]
    words += ["--eval-freq", "0", "--progress", "False", "--log-dir", str(tmp_path)]
    assert train.main(["sb3-ppo", *words, "--ema", "0.9"]) == 0
    run = hrl.load(run_of(tmp_path))
    policy = run.policy("last").model.policy
    stored = Checkpoints(run.path / "checkpoints").last().tensors
    name, weight = next((n, x) for n, x in policy.named_parameters() if x.dim() > 1)
    assert torch.equal(weight, stored[f"ema.{name}"]) and not torch.equal(weight, stored[name])


@pytest.mark.parametrize(("algorithm", "env"), [("lirpg", "hrl/Track-v0"), ("modac", "hrl/Taxi-v0")])
def test_parameters_that_are_replaced_in_every_round_are_averaged_too(algorithm, env, tmp_path):
    """A decay of almost 0 makes the average equal to the last parameters."""
    seen = []
    callback = hrl.Callback(lambda progress: seen.append(progress.evaluate(1)), every=300)
    options = {"preset": "debug", "total_steps": 900, "eval_freq": 0, "log_dir": tmp_path, "progress": False}
    run = hrl.train(algorithm, env, ema=1e-6, callbacks=callback, **options)
    stored = run.checkpoint().tensors
    names = [name.removeprefix("ema.") for name in stored if name.startswith("ema.")]
    assert seen and any(name.startswith("policy.") for name in names)
    for name in names:
        assert torch.allclose(stored[f"ema.{name}"], stored[name], atol=1e-4), name


def test_a_decay_out_of_range_is_refused(tmp_path, capsys):
    assert train.main(["hiro", *LINE, "--ema", "1", "--log-dir", str(tmp_path)]) == 2
    assert "--ema must be at least 0 and less than 1, not 1.0" in capsys.readouterr().err
