"""Exploration: random decisions have the requested shares and lengths."""

import pytest
import torch
from conftest import setting, small_hiro

from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.exploration import Exploration, SuccessRates
from hrl.learners.base import Exploring
from hrl.spaces import unit_box

ALL = torch.ones(3, dtype=torch.bool)


def explored(steps: int, due=lambda t: ALL, **config) -> torch.Tensor:
    """[steps, 3, 2] The executed actions if the policy always returns 9."""
    exploration = Exploration(Exploring(noise=(0.0,), **config), 3, unit_box(2), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    return torch.stack([exploration(torch.full((3, 2), 9.0), due(t), generator) for t in range(steps)])


@pytest.mark.parametrize("hold", [1.0, 4.0])
def test_the_share_of_random_decisions_rises_over_the_environments_however_long_they_are_kept(hold):
    random = explored(6_000, random=(0.0, 0.5), hold=hold)[..., 0] != 9
    assert random.float().mean(0).tolist() == pytest.approx([0.0, 0.25, 0.5], abs=0.03)


def test_one_environment_alone_has_the_mean_share():
    exploration = Exploration(Exploring(random=(0.0, 0.5), hold=1.0), 1, unit_box(2), torch.device("cpu"))
    assert exploration.begins.tolist() == [[0.25]]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_random_decision_has_the_configured_mean_duration(share):
    action = explored(6_000, random=(share, share), hold=4.0)
    random = action[..., 0] != 9
    starts = random[1:] & (action[1:] != action[:-1]).any(-1)
    assert (random.sum(0) / starts.sum(0)).tolist() == pytest.approx([4.0] * 3, rel=0.1)
    assert action[random].abs().max() <= 1 and action[random].std() == pytest.approx(3**-0.5, rel=0.1)


def test_an_environment_that_is_not_due_keeps_its_decision():
    odd = torch.tensor([True, False, True])
    action = explored(400, lambda t: ALL if t % 2 == 0 else odd, random=(0.5, 0.5), hold=2.0)
    assert torch.equal(action[1::2, 1], action[::2, 1])
    assert not torch.equal(action[1::2, 0], action[::2, 0])


def test_random_decisions_end_at_a_restart():
    exploration = Exploration(Exploring(noise=(0.0,), random=(0.5, 0.5), hold=1e9), 3, unit_box(2), torch.device("cpu"))
    exploration.holding[:] = True
    decide = lambda: exploration(torch.full((3, 2), 9.0), ALL, torch.Generator().manual_seed(0))  # noqa: E731
    assert (decide() == 0).all()  # what is held
    exploration.restart()
    assert (decide() == 9).all()


def test_noise_has_its_deviation():
    exploration = Exploration(Exploring(noise=(0.2,)), 3, unit_box(2), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([exploration(torch.zeros(3, 2), ALL, generator) for _ in range(5000)])
    assert values.std() == pytest.approx(0.2, rel=0.05) and values.mean() == pytest.approx(0.0, abs=0.01)
    assert max(exploration(torch.full((3, 2), 0.95), ALL, generator).max() for _ in range(50)) == 1.0


def test_noise_rises_over_the_environments_and_the_first_may_have_none():
    exploration = Exploration(Exploring(noise=(0.0, 0.4)), 3, unit_box(2), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([exploration(torch.zeros(3, 2), ALL, generator) for _ in range(5000)])
    assert values.std((0, 2)).tolist() == pytest.approx([0.0, 0.2, 0.4], rel=0.05)
    policy = torch.stack([exploration.noisy(torch.zeros(1, 2), exploration.mean_noise, generator) for _ in range(5000)])
    assert policy.std() == pytest.approx(0.2, rel=0.05)  # of any environment: their mean


def test_a_warming_up_level_decides_at_random_and_neither_learns_nor_stores():
    env = make_env(EnvConfig("PointMaze_UMaze-v3", num_envs=2))
    config = small_hiro(period=1, random_warmup=40)
    config.low.learner.train_freq = config.high.learner.train_freq = 2
    agent = config.make(setting(env))
    low, high = agent.levels
    obs, own = env.reset(0), []
    for _ in range(40):  # two environments: 80 steps
        action = agent.act(obs)
        own.append(torch.isclose(high.segment.action, high.decide(obs.state, obs.goal), atol=1e-5).all(-1).tolist())
        step = env.step(action)
        agent.observe(step)
        agent.learn()
        obs = step.obs
    assert own == [[False, False]] * 20 + [[True, True]] * 20
    assert (low.timescale.done, high.timescale.done) == (39, 19)  # both need a step of each environment first
    assert (len(low.memory), len(high.memory)) == (80, 40)
    again = config.make(setting(env))
    assert again.levels[1].exploration.warming_up
    again.load_tensors(agent.tensors())
    assert not again.levels[1].exploration.warming_up


def test_exploration_that_is_left_raises_each_environments_share():
    """Of shares 0, .2 and .4, what is left is 1, 1/2 and 0 of the way to 1."""
    exploration = Exploration(Exploring(random=(0.0, 0.4), hold=2.0), 3, unit_box(2), torch.device("cpu"))
    generator, nine, left = torch.Generator().manual_seed(0), torch.full((3, 2), 9.0), torch.tensor([1.0, 0.5, 0.0])
    random = torch.stack([exploration(nine, ALL, generator, left=left)[:, 0] != 9 for _ in range(4000)])
    assert random.float().mean(0).tolist() == pytest.approx([1.0, 0.6, 0.4], abs=0.05)
    exploration = Exploration(Exploring(), 3, unit_box(2), torch.device("cpu"))  # even where there is no share at all
    assert (exploration(nine, ALL, generator, left=left)[0] != 9).all()


def test_success_rates_are_moving_averages_of_the_commands_that_are_over():
    rates = SuccessRates(3, 2.0, torch.device("cpu"))  # each result counts half of what is known
    first, second = torch.eye(3)[0], torch.eye(3)[1]
    yes, no = torch.tensor([True]), torch.tensor([False])
    for obeyed, over in ((yes, yes), (no, yes), (yes, no), (yes, yes)):
        rates.update(first.unsqueeze(0), obeyed, over)
    assert rates.rate.tolist() == [0.625, 0, 0]  # 1/2, 1/4, not over, 5/8
    rates.update(torch.stack([second, second, first]), torch.tensor([True, False, True]), torch.tensor([True] * 3))
    assert rates.rate.tolist() == [0.8125, 0.375, 0]  # two at once: 3/4 of their mean
    assert rates.of(torch.stack([first, second])).tolist() == [0.8125, 0.375]
