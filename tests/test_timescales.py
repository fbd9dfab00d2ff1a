"""Levels on tied timescales, and whether the fast one can track the slow one."""

import pytest
import torch
from conftest import roll

from hrl.level_config import LevelConfig
from hrl.timescale import Coupling
from hrl.training.tracking import PATIENCE, Tracking
from hrl.types import UserError


def test_a_ratio_ties_rates_and_schedules():
    low, high, top = (
        LevelConfig(lr=1e-3, actor_lr=2e-4, schedule="cosine", warmup=7), LevelConfig(lr=5.0), LevelConfig()
    )  # fmt: skip
    Coupling(0.1).tie([low, high, top])
    assert (high.lr, high.actor_lr) == pytest.approx((1e-4, 2e-5)) and (top.lr, top.actor_lr) == pytest.approx(
        (1e-5, 2e-6)
    )
    assert (high.schedule, high.warmup) == ("cosine", 7) and low.lr == 1e-3
    untouched = LevelConfig(lr=5.0)
    Coupling().tie([low, untouched])
    assert untouched == LevelConfig(lr=5.0)
    with pytest.raises(UserError, match=r"timescale\.ratio must be positive"):
        Coupling(0.0).tie([low, high])


def shaken(level, size: float) -> None:
    """Move a level's decisions everywhere, by about so much."""
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


@pytest.mark.parametrize(("slow", "word"), [(0.02, "too fast to be tracked"), (0.0, "stopped moving")])
def test_what_lasts_is_told_once(ledger, slow, word):
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


def test_a_level_that_never_comes_to_learn_is_told(ledger):
    agent, _ = ledger()
    low, high = agent.levels
    low.timescale.starts, low.timescale.every = 900, 99  # one update, after 999 steps
    high.timescale.starts, high.timescale.every = 900, 100
    (sentence,) = Tracking(agent.levels, 1000).warnings
    assert "high level learns nothing: its first update would come after 1,000 steps" in sentence


def test_a_slow_level_that_is_slow_is_nothing_to_tell(ledger):
    agent, env = ledger()
    roll(agent, env, 30)
    tracking = Tracking(agent.levels, 10**10)
    tracking.measure(0)
    for step in range(2 * PATIENCE):
        shaken(agent.levels[0], 0.02)
        shaken(agent.levels[1], 0.005)
        tracking.measure(step)
    assert not tracking.warnings
