"""Protection of earlier tasks: penalties and weight shares by hand, and runs that start from earlier runs."""

from pathlib import Path

import pytest
import torch
from conftest import made
from hrl_scripts import evaluate, train
from runs import LINE, run_of, same_state, trained
from test_learners import batch

import hrl
from hrl.envs.spec import Observation
from hrl.learners import SAC, TD3
from hrl.learners.adam import views
from hrl.learners.protection import EWC, Anchored, Material, PackNet, ProtectConfig, fisher
from hrl.networks.layers import TaskLinear


def learner_of(kind: type = TD3, tasks: int = 1):
    torch.manual_seed(0)
    return made(kind, 3, 2, hidden=(8,), count=tasks, learning_rate=0.01)


def learned(learner, updates: int) -> None:
    generator = torch.Generator().manual_seed(2)
    for number in range(updates):
        learner.update(batch(), number, generator)


def material(learner) -> Material:
    return Material(lambda n: batch(n).inputs, lambda n: learned(learner, n))


def test_biases_for_each_task():
    torch.manual_seed(0)
    layer = TaskLinear(3, 4, 2)
    x = torch.randn(5, 4)
    layer.task.fill_(2)
    out = layer(x)
    assert torch.allclose(out, x @ layer.weight.T + layer.bias[2])
    out.sum().backward()
    assert (layer.bias.grad[:2] == 0).all() and torch.equal(layer.bias.grad[2], torch.full((2,), 5.0))


def test_the_pull_is_the_slope_of_its_penalty():
    learner = learner_of()
    protection = Anchored(learner, ProtectConfig("l2", strength=3.0))
    flat = learner.actor_optimiser.flat
    gradient = torch.zeros_like(flat)
    protection.guard(gradient, flat)
    assert not gradient.any()  # nothing is behind it yet
    protection.seal(material(learner))
    protection.seal(material(learner))  # importances of two tasks add up
    protection.guard(gradient, flat + 0.5)
    assert torch.allclose(gradient, torch.full_like(flat, 3.0 * 2 * 0.5)) and int(protection.sealed) == 2


def test_the_fisher_information_of_the_last_layer_matches_calculated_values():
    learner = learner_of()
    inputs = torch.randn(100, 3)
    places = views(fisher(learner, learner.actor_optimiser, inputs), learner.actor_optimiser.parameters)
    hidden = learner.actor[:-1](inputs)
    slope = 1 - learner.mode(inputs) ** 2  # of tanh
    expected = torch.einsum("ba,bh->ah", slope**2, hidden**2) / 100
    assert torch.allclose(places[2], expected, rtol=1e-4) and torch.allclose(places[3], (slope**2).mean(0), rtol=1e-4)


def test_the_fisher_information_of_a_normal_distribution():
    learner = learner_of(SAC)
    inputs = torch.randn(100, 3)
    bias = views(fisher(learner, learner.actor_optimiser, inputs), learner.actor_optimiser.parameters)[3]
    _, std = learner.gaussian(inputs)
    assert torch.allclose(bias[:2], (std**-2).mean(0), rtol=1e-4)  # of the means: 1 / σ²
    assert torch.allclose(bias[2:], torch.full((2,), 2.0), rtol=1e-4)  # of log σ: 2


def test_ewc_protects_important_parameters_only():
    learner = learner_of()
    protection = EWC(learner, ProtectConfig("ewc", samples=64, strength=1.0))
    protection.seal(material(learner))
    before = learner.actor_optimiser.flat.clone()
    learned(learner, 200)
    moved = (learner.actor_optimiser.flat - before).abs()
    order = protection.importance.argsort(descending=True)
    order = order[moved[order] > 0]
    assert moved[order[:12]].mean() < 0.7 * moved[order[-12:]].mean()


def test_packnet_shares_weights_out_and_never_touches_those_of_an_earlier_task():
    learner = learner_of(tasks=3)
    protection = PackNet(learner, ProtectConfig("packnet", updates=10))
    inputs = batch().inputs
    learned(learner, 20)
    protection.seal(material(learner))
    weight, owner = (
        views(x, learner.actor_optimiser.parameters)[0] for x in (learner.actor_optimiser.flat, protection.owner)
    )
    assert int((owner == 0).sum()) == 8 and (weight[owner == 1] == 0).all()  # a third of 24, the rest is free
    first = learner.mode(inputs)
    drawn = {name: x.clone() for name, x in learner_of(tasks=3).state_dict().items()}
    learner.choose_task(1)
    protection.begin(drawn)
    assert (weight[owner == 1] != 0).all()
    learned(learner, 20)
    protection.seal(material(learner))
    assert int((owner == 1).sum()) == 8 and int((owner == 2).sum()) == 8
    second = learner.mode(inputs)
    learner.choose_task(2)
    protection.begin(drawn)
    learned(learner, 20)
    for task, known in ((1, second), (0, first)):
        learner.choose_task(task)
        protection.select_task(task)
        assert torch.equal(learner.mode(inputs), known)


def test_biases_of_tasks_to_come_are_not_pulled():
    learner = learner_of(tasks=3)
    protection = Anchored(learner, ProtectConfig("l2"))
    protection.seal(material(learner))
    learner.choose_task(1)
    protection.seal(material(learner))
    weight, bias, *_ = views(protection.importance, learner.actor_optimiser.parameters)
    assert bool((weight == 2).all()) and bias.mean(1).tolist() == [1, 1, 0]


# -- runs ----------------------------------------------------------------------------------------------------

TASKS = ["--low.tasks", "3", "--high.tasks", "3", "--eval-freq", "0"]


def after(run: Path, by: str) -> list[str]:
    words = [
        f"--{level}.{name}" for level in ("low", "high") for name in ("init-from", "protect.by", "protect.updates")
    ]
    return [x for word, value in zip(words, (run, by, 8) * 2, strict=True) for x in (word, str(value))]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("first"), *TASKS)


@pytest.mark.parametrize("by", ["ewc", "packnet"])
def test_runs_that_begin_with_runs(first, tmp_path, by):
    second = trained(tmp_path / "second", *TASKS, *after(first, by))
    third = trained(tmp_path / "third", *TASKS, *after(second, by))
    once, twice = hrl.load(second).policy("last"), hrl.load(third).policy("last")
    low, high = twice.agent.levels
    assert low.learner.task == high.learner.task == 2 and int(low.protection.sealed) == 2
    obs = Observation(torch.randn(6, low.memory.fields["state"].stop), torch.randn(6, 1))
    actions = [policy.decide(obs, policy.start(6))[0] for policy in (once, twice)]
    assert not torch.equal(*actions)
    for policy in (once, twice):
        policy.select_task(0)
    actions = [policy.decide(obs, policy.start(6))[0] for policy in (once, twice)]
    assert torch.equal(*actions) == (by == "packnet")
    assert evaluate.main([str(third), "--task", "1", "--episodes", "2", "--json"]) == 0


def test_a_run_that_began_with_another_resumes_exactly(first, tmp_path):
    whole = trained(tmp_path / "whole", *TASKS, *after(first, "packnet"))
    part = trained(tmp_path / "part", *TASKS, *after(first, "packnet"), "--total-steps", "500")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(part, whole)


def test_a_fixed_temperature_is_not_loaded(tmp_path):
    line = ["--eval-freq", "0", "--total-steps", "500"]
    first = trained(tmp_path / "first", *line, algorithm="sac")
    second = trained(tmp_path / "second", *line, "--init-from", str(first), "--ent-coef", "0.5", algorithm="sac")
    (level,) = hrl.load(second).policy("last").agent.levels
    assert float(level.learner.log_alpha.detach().exp()) == pytest.approx(0.5)


@pytest.mark.parametrize("by", ["nothing", "packnet"])
def test_a_frozen_level_does_not_change(first, tmp_path, by):
    run = trained(tmp_path, *TASKS, "--low.init-from", str(first), "--low.frozen", "True", "--low.protect.by", by)
    before, now = (hrl.load(path).policy("last").agent.levels[0].learner.state_dict() for path in (first, run))
    assert all(torch.equal(before[name], now[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--low.init-from", "nowhere"], "nowhere is not a run folder"),
        (["--low.init-from", "{first}", "--low.hidden", "9"], "networks of other sizes"),
        (["--low.init-from", "{first}", "--low.masked-entries", "0"], "masked-entries to (none)"),
        (["--low.init-from", "{first}", "--goal.periods", "3"], "uses another goal space"),
        (["--low.init-from", "{first}", "--low.protect.by", "packnet", "--low.tasks", "1"], "to the number of tasks"),
        (["--low.init-from", "{first}", "--low.protect.strength", "-1"], "must be positive"),
        (["--low.init-from", "{second}", "--low.protect.by", "l2"], "protected by ewc, not by l2"),
        (["--low.init-from", "{third}"], "has learned all its 3 tasks"),
        (
            ["--low.init-from", "{bare}", "--low.protect.by", "packnet"],
            "the low level of the run in {bare} has learned 2 tasks without it",
        ),
        (["--high.init-from", "{first}", "--goal.low", "-5", "--goal.high", "5"], "uses another goal space"),
        (
            ["--low.init-from", "{first}", "--low.protect.by", "l2", "--tune", "low.learning_rate"],
            "cannot be combined with protection",
        ),
    ],
)
def test_runs_that_do_not_fit_are_reported(first, chain, tmp_path, capsys, arguments, told):
    names = {"first": first, "second": chain[0], "third": chain[1], "bare": chain[2]}
    words = [a.format(**names) for a in arguments]
    assert train.main(["hiro", *LINE, "--log-dir", str(tmp_path), *TASKS, *words]) == 2
    assert told.format(**names) in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.json"))  # no run was started


def test_an_unknown_task_is_reported(first, finished_alone, capsys):
    assert evaluate.main([str(first), "--task", "1"]) == 2
    assert "has learned the tasks 0 to 0, but not 1" in capsys.readouterr().err
    assert evaluate.main([str(finished_alone), "--task", "0"]) == 2
    assert "a single task" in capsys.readouterr().err


@pytest.fixture(scope="module")
def chain(first, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The second and third of three runs with ewc, and a second run without protection."""
    folder = tmp_path_factory.mktemp("chain")
    second = trained(folder / "2", *TASKS, *after(first, "ewc"), "--total-steps", "500")
    third = trained(folder / "3", *TASKS, *after(second, "ewc"), "--total-steps", "500")
    return second, third, trained(folder / "b", *TASKS, *after(first, "nothing"), "--total-steps", "500")


@pytest.fixture(scope="module")
def finished_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("alone"), "--eval-freq", "0", "--total-steps", "500")


def test_a_levels_run_of_another_algorithm_is_reported(tmp_path, capsys):
    words = ["sb3-td3", "--env", "Pendulum-v1", "--total-steps", "200", "--eval-freq", "0", "--progress", "False"]
    assert train.main([*words, "--log-dir", str(tmp_path / "flat")]) == 0
    run = run_of(tmp_path / "flat")
    assert train.main(["hiro", *LINE, "--log-dir", str(tmp_path), "--low.init-from", str(run)]) == 2
    assert "has no levels" in capsys.readouterr().err


def test_one_level_begins_with_an_earlier_run_too(tmp_path):
    line = ["--eval-freq", "0", "--total-steps", "500", "--tasks", "2"]
    first = trained(tmp_path / "first", *line, algorithm="td3")
    second = trained(
        tmp_path / "second",
        *line,
        "--init-from",
        str(first),
        "--protect.by",
        "l2",
        "--buffer-size",
        "5000",
        algorithm="td3",
    )
    policy = hrl.load(second).policy("last")
    assert int(policy.agent.levels[0].protection.sealed) == 1
    assert evaluate.main([str(second), "--task", "0", "--episodes", "2", "--json"]) == 0
