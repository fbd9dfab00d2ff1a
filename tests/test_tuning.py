"""Hyperparameters that adapt during a run: the meta-gradient, its effect, and exact resume."""

import pytest
import torch
from conftest import CPU, everything, roll, setting, small_hiro
from hrl_scripts import train
from runs import run_of, same_state, trained

from hrl.agents.flat import FlatConfig, FlatSAC, FlatTD3
from hrl.agents.hiro import HIROConfig
from hrl.envs import EnvConfig, make_env
from hrl.nested.levels.trial import follow, trust
from hrl.nested.levels.tuning import TuneConfig
from hrl.types import UserError


def tuned(config: FlatConfig, *names: str, **options: object):
    """An agent on the tiny goal line that has seen some steps, and its tuner."""
    env = make_env(EnvConfig("tasks:GoalLine-v0", num_envs=4))
    config.tune, config.tuning, config.learner.hidden, config.learner.batch_size = (
        names,
        TuneConfig(**options),
        (16,),
        16,
    )
    config.learning_starts, config.hindsight, config.learner.train_freq = 0, 0.0, 10**9
    agent = config.make(setting(env))
    roll(agent, env, 100)
    (level,) = agent.levels
    return agent, level, level.tuners[0]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (FlatTD3.of(learning_rate=1e-2), ("learning_rate", "gamma")),
        (FlatSAC.of(learning_rate=1e-2, ent_coef=0.2), ("learning_rate", "gamma", "ent_coef")),
    ],
)
def test_the_meta_gradient_is_the_slope_of_the_trial(config, names):
    agent, level, tuner = tuned(config, *names)
    for _ in range(20):  # past the first steps, where Adam's direction is a sign
        level.learning.update(1, 0.0, agent.generator)
    now, following = level.transitions(32, agent.generator).split(16)
    noise = torch.randn(2, 16, 1)
    tuner.trial.through_scale = True
    raw = {name: x.detach() for name, x in zip(names, tuner.raw, strict=True)}
    with torch.no_grad():
        gradient = torch.func.grad(tuner._outer)(raw, now, following, noise)
    for name in names:
        ahead, behind = (
            float(tuner._outer({**raw, name: raw[name] + s}, now, following, noise).detach()) for s in (0.1, -0.1)
        )
        slope = (ahead - behind) / 0.2
        # The loss is of order 1 in float32, so that the slope is known to some 1e-7 / 0.2.
        assert float(gradient[name]) == pytest.approx(slope, rel=0.05, abs=1e-6)


def test_tuned_values_take_effect():
    agent, level, tuner = tuned(
        FlatSAC.of(ent_coef=0.2, learning_rate=1e-3, actor_learning_rate=5e-4), "learning_rate", "gamma", "ent_coef"
    )
    before = tuner.values()
    level.learning.update(4, 0.0, agent.generator)
    after = tuner.values()
    assert all(float(before[name]) != float(after[name]) for name in before)
    learner = level.learner
    assert float(learner.critic_optimiser.lr) == pytest.approx(float(after["learning_rate"]))
    assert float(learner.actor_optimiser.lr) == pytest.approx(float(after["learning_rate"]) / 2)
    assert float(level.gamma) == float(after["gamma"]) < 1
    assert float(learner.log_alpha.detach().exp()) == pytest.approx(float(after["ent_coef"]))
    metrics = agent.pop_metrics()
    assert {
        "policy/tuned_learning_rate",
        "policy/tuned_gamma",
        "policy/tuned_ent_coef",
        "policy/tuning_loss",
    } <= metrics.keys()


def test_a_rate_far_too_small_rises():
    agent, level, tuner = tuned(FlatTD3.of(learning_rate=1e-5), "learning_rate", learning_rate=0.02)
    level.learning.update(60, 0.0, agent.generator)
    assert float(tuner.values()["learning_rate"]) > 1.5e-5


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted():
    _, _, tuner = tuned(FlatTD3(), "learning_rate", "gamma")
    before = tuner.values()
    follow(tuner.optimiser, [torch.tensor(1.0), torch.tensor(1.0)], limit=1.0)  # so that there is momentum
    before, steps = tuner.values(), float(tuner.optimiser.state["steps"])
    assert not follow(tuner.optimiser, [torch.tensor(float("nan")), torch.tensor(1.0)], limit=1.0)
    assert tuner.values() == before and float(tuner.optimiser.state["steps"]) == steps
    assert follow(tuner.optimiser, [torch.tensor(3.0), torch.tensor(4.0)], limit=1.0)
    assert tuner.optimiser.gradient.norm() == pytest.approx(1.0)


def test_no_hyperparameter_runs_away():
    _, level, tuner = tuned(FlatTD3.of(gamma=0.9), "learning_rate", "gamma", learning_rate=50.0)
    for sign in (1.0, -1.0):
        for _ in range(10):
            follow(tuner.optimiser, [torch.tensor(sign), torch.tensor(sign)], limit=10.0)
            tuner._apply()
        assert 0 < float(level.gamma) < 1 and 0.9e-6 <= float(tuner.values()["learning_rate"]) <= 1.1


def test_tuning_the_high_discount_keeps_the_outer_critic_of_the_low_level():
    env = make_env(EnvConfig("tasks:Ledger-v0", num_envs=1))
    for names in (("low.learning_rate",), ("low.learning_rate", "high.gamma")):
        config = small_hiro(period=2)
        config.tune = names
        agent = config.make(setting(env))
        roll(agent, env, 12)
        low = agent.levels[0]
        t = low.transitions(16, agent.generator)
        assert torch.equal(
            low.tuners[0].outer_critic.batch(t).reward, low.batch(t).reward
        )  # for subgoals, not the task's


def test_the_reference_discount_of_a_tuned_discount_is_99_percent_per_decision():
    config = small_hiro(period=3)
    config.tune = ("high.gamma",)
    (tuner,) = config.make(setting(make_env(EnvConfig("tasks:Ledger-v0", num_envs=1)))).levels[1].tuners
    assert float(tuner.outer_critic.gamma) ** 3 == pytest.approx(0.99, abs=1e-5)


def test_checks_run_at_the_configured_frequency():
    agent, level, tuner = tuned(FlatTD3(), "learning_rate", every=3)
    seen = []
    for _ in range(7):
        level.learning.update(1, 0.0, agent.generator)
        seen.append(float(tuner.values()["learning_rate"]))
    assert len(set(seen)) == 3 and seen[0] == seen[2] != seen[3] == seen[5] != seen[6]


def test_the_reliability_is_measured_at_every_fourth_adaptation():
    agent, level, tuner = tuned(FlatTD3(), "learning_rate", every=2)
    tuner.config.check_every = 4
    measured = []
    for number in range(11):
        level.learning.update(1, 0.0, agent.generator)
        if "policy/tuning_slope_error" in agent.pop_metrics():
            measured.append(number)
    assert measured == [0, 8]


def test_a_high_levels_rewards_are_added_up_by_the_discount_in_force():
    """The tiny ledger's reward is t + 1 at step t, its first episodes last 3 and 7 steps; a decision lasts 2."""
    env = make_env(EnvConfig("tasks:Ledger-v0", num_envs=1))
    config = small_hiro(period=2, huber=False)
    config.tune, config.tuning = ("high.gamma",), TuneConfig(learning_rate=0.1)
    agent = config.make(setting(env))
    roll(agent, env, 12)
    high = agent.levels[1]
    stored = everything(agent, 1)
    t = high.relabels[0](stored, agent.generator)
    assert torch.allclose(t.total(torch.tensor(0.9)), stored.reward)  # as they were stored, by the discount then
    whole = t.length == 2
    assert torch.allclose(t.total(torch.tensor(0.5))[whole], t.rewards[whole] @ torch.tensor([1.0, 0.5]))
    assert torch.equal(t.rewards[whole][:, 1], t.rewards[whole][:, 0] + 1) and bool(
        (t.rewards[~whole][:, 1] == 0).all()
    )
    before = float(high.gamma)
    high.learning.update(8, 0.0, agent.generator)
    assert float(high.gamma) != before


@pytest.mark.parametrize("algorithm", ["sac", "hiro"])
def test_a_tuned_run_resumes_exactly(tmp_path, algorithm):
    names = {"sac": ["learning_rate", "ent_coef"], "hiro": ["low.gamma", "high.learning_rate", "high.gamma"]}[algorithm]
    line = ["--tune", *names, "--tuning.every", "10", "--eval-freq", "0"]
    whole = trained(tmp_path / "whole", *line, algorithm=algorithm)
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm=algorithm)
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(run_of(tmp_path / "whole"), part) and whole


@pytest.mark.parametrize(
    ("config", "names", "word"),
    [
        (HIROConfig(), ("learning_rate",), "low.learning_rate, low.gamma"),
        (HIROConfig(), ("low.speed",), "is not a tunable hyperparameter"),
        (HIROConfig(), ("high.ent_coef",), "only SAC has a temperature"),
        (FlatTD3.of(schedule="linear"), ("learning_rate",), "cannot be combined with a schedule"),
        (FlatTD3.of(gamma=1.0, clip_values=False), ("gamma",), "needs an initial value between 0 and 1"),
        (FlatTD3.of(tuning=TuneConfig(gamma=1.0)), ("learning_rate",), "between 0 and 1"),
    ],
)
def test_options_that_cannot_be_tuned_are_reported(config, names, word):
    env = make_env(EnvConfig("tasks:GoalLine-v0"), CPU)
    config.tune = names
    with pytest.raises(UserError, match=word):
        config.make(setting(env))


def test_the_reliability_of_the_meta_gradient_is_measured():
    agent, level, tuner = tuned(FlatTD3.of(learning_rate=1e-2), "learning_rate", "gamma")
    tuner.config.check_every = 4
    tuner.trial.through_scale = True
    for _ in range(21):  # past the first steps, where Adam's direction is a sign
        level.learning.update(1, 0.0, agent.generator)
    for name, bound in (
        ("policy/tuning_slope_error", (0.0, 0.2)),
        ("policy/tuning_horizon_cosine", (0.5, 1.0 + 1e-6)),
    ):
        level.metrics.pop()
        level.learning.update(4, 0.0, agent.generator)
        assert bound[0] <= agent.pop_metrics()[name] <= bound[1]


def test_a_wrong_gradient_is_detected():
    outer = lambda p, steps: (p["x"] ** 2).sum() * steps + (p["x"][0] - 1) ** 3 * (steps - 1)  # noqa: E731
    params = {"x": torch.tensor([1.0, 2.0])}
    right = trust(outer, params, {"x": torch.tensor([2.0, 4.0])})
    assert right["slope_error"] < 1e-3 and right["horizon_cosine"] == pytest.approx(1.0)
    wrong = trust(outer, params, {"x": torch.tensor([2.0, -4.0])})  # slope -12/√20 along it, length √20
    assert wrong["slope_error"] == pytest.approx(1 + 20 / 12, rel=1e-3)
    assert wrong["horizon_cosine"] == pytest.approx(-12 / 20)
