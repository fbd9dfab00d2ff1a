"""Levels on tied timescales, and whether the fast one can track the slow one."""

from dataclasses import replace

import pytest
import torch
from conftest import roll, setting, small_hiro

from hrl.agents.base import learning_periods
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.timescale import Coupling
from hrl.report.tracking import PATIENCE, Tracking
from hrl.types import UserError
from hrl.variants import flat


def test_a_ratio_ties_rates_and_schedules():
    low, high, top = (
        LevelConfig.of(learning_rate=1e-3, actor_learning_rate=2e-4, schedule="cosine", warmup=7),
        LevelConfig.of(learning_rate=5.0),
        LevelConfig(),
    )
    tied = Coupling(0.1).tie([low, high, top])
    rates = [(level.learner.learning_rate, level.learner.actor_learning_rate) for level in tied]
    assert rates == [pytest.approx(pair) for pair in ((1e-3, 2e-4), (1e-4, 2e-5), (1e-5, 2e-6))]
    assert (tied[1].schedule, tied[1].warmup) == ("cosine", 7) and high.learner.learning_rate == 5.0
    assert Coupling().tie([low, high]) == [low, high]
    for ratio in (0.0, -1.0):
        with pytest.raises(UserError, match=r"timescale\.ratio must be positive"):
            Coupling(ratio).tie([low, high])


def test_a_level_learns_between_its_warmup_and_its_stop():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = small_hiro(period=1)
    config.low = flat(config.low, {"train_freq": 2, "learning_stops": 40, "schedule": "linear"})
    config.high = flat(config.high, {"train_freq": 2, "random_warmup": 40, "schedule": "linear", "warmup": 0})
    agent = config.make(setting(env))
    low, high = agent.levels
    rates, obs = [], env.reset(0)
    for _ in range(40):  # two environments: 80 steps
        step = env.step(agent.act(obs))
        agent.observe(step)
        agent.learn(80)
        obs = step.obs
        rates.append(
            [
                level.learner.optimisers()["critic_optimiser"].lr.item() / level.config.learner.learning_rate
                for level in (low, high)
            ]
        )
        if agent.steps == 40:
            walks = [p.clone() for p in low.learner.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(low.learner.parameters(), walks, strict=True))
    assert (low.timescale.done, high.timescale.done) == (19, 19)
    assert rates[9] == pytest.approx([0.5, 1.0]) and rates[29] == pytest.approx([0.0, 0.5])  # after 20 and 60 steps
    assert [low.learns_at(40), low.learns_at(42), high.learns_at(38), high.learns_at(40)] == [True, False, False, True]
    assert rates[-1] == pytest.approx([0.0, 0.0])


def test_a_learning_time_that_ends_before_it_starts_raises_an_error():
    with pytest.raises(
        UserError, match=r"low\.learning_stops must be greater than low\.random_warmup \(100\), not 100\."
    ):
        LevelConfig.of(random_warmup=100, learning_stops=100).check("low.")


def shaken(level, size: float) -> None:
    """Change a level's decisions in all states by about this amount."""
    with torch.no_grad():
        level.learner.actor[-1].bias.add_(size)


def test_drift_is_how_far_decisions_move(ledger):
    agent, env = ledger()
    roll(agent, env, 30)
    low, high = agent.levels
    for level in agent.levels:
        level.learner.actor[-1].weight.data.zero_()
        level.learner.actor[-1].bias.data.zero_()
    before = agent.generator.get_state()
    tracking = Tracking(agent.levels, 10**10)
    assert tracking.measure(0) == {}
    shaken(low, 0.1), shaken(high, 0.2)
    metrics = tracking.measure(1)
    assert metrics["low/drift"] == pytest.approx(torch.tensor(0.1).tanh().item(), rel=1e-5)
    assert metrics["high/drift_ratio"] == pytest.approx(0.19738 / 0.09967, rel=1e-3)
    assert torch.equal(agent.generator.get_state(), before)  # the run's own chances are not touched


@pytest.mark.parametrize(("slow", "word"), [(0.02, "too fast for the low level to track"), (0.0, "no longer change")])
def test_a_persistent_problem_is_reported_once(ledger, slow, word):
    agent, env = ledger()
    roll(agent, env, 30)
    tracking = Tracking(agent.levels, 10**10)
    tracking.measure(0)
    for step in range(2 * PATIENCE):
        shaken(agent.levels[0], 0.005)
        shaken(agent.levels[1], slow)
        tracking.measure(step)
        assert len(tracking.warnings) == (step + 1 >= PATIENCE)
    assert word in tracking.warnings[0] and "--timescale.ratio" in tracking.warnings[0]


def test_a_warming_up_level_causes_no_warning(ledger):
    agent, env = ledger()
    roll(agent, env, 30)
    agent.levels[1].config = replace(agent.levels[1].config, random_warmup=10**6)
    tracking = Tracking(agent.levels, 10**10)
    for step in range(2 * PATIENCE):
        shaken(agent.levels[0], 0.005)
        tracking.measure(step)
    assert tracking.warnings == []


def test_the_drift_of_a_level_with_a_cleared_memory_is_not_measured(ledger):
    agent, env = ledger()
    roll(agent, env, 30)
    agent.levels[1].memory.clear()
    tracking = Tracking(agent.levels, 1000)
    assert [set(tracking.measure(step)) for step in range(2)] == [set(), {"low/drift"}]


def test_levels_that_do_not_learn_during_the_whole_run_are_listed(ledger):
    agent, _ = ledger()
    low, high = agent.levels
    assert learning_periods(agent, 2000) == []
    low.config = replace(low.config, learning_stops=1000)
    high.config = replace(high.config, random_warmup=1000)
    waits = "The high level decides at random until step 1,000, and learns from then on."
    assert learning_periods(agent, 2000) == ["The low level stops learning at step 1,000.", waits]
    assert learning_periods(agent, 1000) == [waits]
    low.config = replace(low.config, frozen=True)
    assert learning_periods(agent, 2000) == ["The low level does not learn.", waits]


def test_a_level_that_never_learns_is_reported(ledger):
    agent, _ = ledger()
    low, high = agent.levels
    low.timescale.starts, low.timescale.every = 900, 99  # one update, after 999 steps
    high.timescale.starts, high.timescale.every = 900, 100
    (sentence,) = Tracking(agent.levels, 1000).warnings
    assert "high level learns nothing: its first update would come after 1,000 steps, and the run ends" in sentence
    low.config = replace(low.config, learning_stops=999)
    assert (
        "low level learns nothing: its first update would come after 999 steps, and low.learning_stops is"
        in Tracking(agent.levels, 1001).warnings.pop()
    )


@pytest.mark.parametrize("slow", [0.005, 0.04])
def test_a_high_level_that_is_not_much_faster_causes_no_warning(ledger, slow):
    agent, env = ledger()
    roll(agent, env, 30)
    tracking = Tracking(agent.levels, 10**10)
    tracking.measure(0)
    for step in range(2 * PATIENCE):
        shaken(agent.levels[0], 0.02)
        shaken(agent.levels[1], slow)
        tracking.measure(step)
    assert not tracking.warnings
