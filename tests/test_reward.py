"""A learned intrinsic reward: its meta-gradient, which transitions receive it, and exact resume."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import roll, setting
from hrl_scripts import train
from runs import run_of, same_state, trained

from hrl.agents.flat import FlatTD3
from hrl.agents.hiro import High, HIROConfig, Low
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.nested.levels.reward import IntrinsicConfig
from hrl.types import UserError


def learned(config):
    env = make_env(EnvConfig("tasks:GoalLine-v0", num_envs=4))
    config.reward, config.learner.hidden, config.learner.batch_size = "learned", (16,), 16
    config.learning_starts, config.hindsight, config.learner.train_freq = 0, 0.0, 10**9
    agent = config.make(setting(env))
    roll(agent, env, 100)
    (level,) = agent.levels
    return agent, level, level.tuners[0]


def shifted(params, way, size):
    return {name: x + size * way[name] for name, x in params.items()}


def test_the_meta_gradient_is_the_slope_of_the_trial():
    agent, level, learner = learned(FlatTD3.of(learning_rate=1e-2))
    for _ in range(30):  # past the first steps, where Adam's direction is a sign
        level.learning.update(1, 0.0, agent.generator)
    now, following = level.transitions(32, agent.generator).split(16)
    noise = torch.randn(2, 16, 1)
    learner.trial.through_scale = True
    params = {name: x.detach() for name, x in learner.net.named_parameters()}
    with torch.no_grad():
        gradient = torch.func.grad(learner._outer)(params, now, following, noise)
        length = torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt()
        way = {name: g / length for name, g in gradient.items()}
        ahead, behind = (float(learner._outer(shifted(params, way, s), now, following, noise)) for s in (0.03, -0.03))
    assert float(length) > 0
    assert (ahead - behind) / 0.06 == pytest.approx(float(length), rel=0.05)


def test_the_meta_gradient_is_checked_at_every_second_update():
    agent, level, learner = learned(FlatTD3())
    learner.config.check_every = 2
    checked = []
    for number in range(5):
        now, following = level.transitions(32, agent.generator).split(16)
        metrics = learner.step(number, now, following, agent.generator)
        checked.append("intrinsic_slope_error" in metrics)
    assert checked == [True, False, True, False, True]


def test_the_level_gets_the_learned_reward_but_the_outer_critic_does_not():
    agent, level, learner = learned(FlatTD3())
    t = level.transitions(16, agent.generator)
    assert torch.equal(level.batch(t).reward, t.reward)  # 0 at first
    learner.net.net[-1].bias.data.fill_(0.5)
    paid = level.batch(t).reward - t.reward
    torch.testing.assert_close(paid, torch.full((16,), float(torch.tensor(0.5).tanh())))
    assert torch.equal(learner.outer_critic.batch(t).reward, t.reward)


def test_a_low_level_stores_the_task_reward_and_learns_from_it():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    low = Low.of(hidden=(8,), reward="learned", action_noise=(0.0,), train_freq=10**9, batch_size=16, buffer_size=4000)
    high = High.of(hidden=(8,), train_freq=10**9, period=3, buffer_size=4000)
    config = HIROConfig(low=low, high=high, goal=GoalConfig(low=(-1.0,), high=(1.0,)), learning_starts=0)
    agent = config.make(setting(env))
    roll(agent, env, 60)
    t = agent.levels[0].transitions(64, agent.generator)
    assert torch.equal(t.reward, t.state[:, 1] + 1)  # the Ledger's reward is t + 1
    outer = agent.levels[0].tuners[0].outer_critic.batch(t)
    assert torch.equal(outer.reward, t.reward) and bool((agent.levels[0].batch(t).reward <= 0).all())
    before = agent.levels[0].tuners[0].state_dict()["reward.net.4.weight"].clone()
    agent.levels[0].learning.update(3, 0.0, agent.generator)
    assert not torch.equal(before, agent.levels[0].tuners[0].state_dict()["reward.net.4.weight"])
    assert {"low/learned_reward", "low/intrinsic_gradient"} <= agent.pop_metrics().keys()


def test_a_run_with_a_learned_reward_resumes_exactly(tmp_path):
    line = ["--reward", "learned", "--eval-freq", "0", "--train-freq", "8"]
    whole = trained(tmp_path / "whole", *line, algorithm="td3")
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm="td3")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part) and run_of(tmp_path / "part") == part


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_delayed_rewards_are_given_as_sums(vectorization):
    config = EnvConfig("tasks:Ledger-v0", num_envs=1, vectorization=vectorization, reward_delay=3)
    env = make_env(config)
    env.reset(0)
    paid = [float(env.step(torch.zeros(1, 1)).reward) for _ in range(3 + 7 + 5 + 1)]
    env.close()
    # Episodes of 3, 7, 5 and 1 steps with rewards t + 1.
    assert paid == [0, 0, 6, 0, 0, 6, 0, 0, 15, 7, 0, 0, 6, 0, 9, 1]
    assert np.sum(paid) == sum(n * (n + 1) / 2 for n in (3, 7, 5, 1))


def test_invalid_options_raise_a_clear_error():
    config = FlatTD3.of(intrinsic=IntrinsicConfig(gamma=1.0))
    with pytest.raises(UserError, match=r"intrinsic\.gamma"):
        learned(config)


def test_the_outer_critic_sums_delayed_rewards_until_the_end_of_the_episode():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = FlatTD3.of(
        hidden=(8,),
        batch_size=256,
        learning_starts=0,
        hindsight=0.0,
        train_freq=10**9,
        reward="learned",
        intrinsic=IntrinsicConfig(horizon=3, gamma=0.5),
    )
    agent = config.make(setting(env))
    roll(agent, env, 60)
    critic = agent.levels[0].tuners[0].outer_critic
    batch = critic._long(256, agent.generator)
    lengths = (3, 7, 5, 1)
    cut = 0
    for inputs, reward, after, discount in zip(
        batch.inputs, batch.reward, batch.next_inputs, batch.discount, strict=True
    ):
        episode, t = int(inputs[0]), int(inputs[1])
        whole, steps = min(3, lengths[episode % 4] - t), int(after[1]) - t
        assert 1 <= steps <= whole
        cut += steps < whole
        assert float(reward) == sum(0.5**i * (t + i + 1) for i in range(steps))  # the Ledger's reward is t + 1
        ended = t + steps == lengths[episode % 4] and episode % 2 == 1  # odd episodes terminate, even ones are cut
        assert float(discount) == (0.0 if ended else 0.5**steps)
    assert cut < 0.1 * 256  # the last rows of the episodes that still run


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_outer_critic_learns_from_rewards_up_to_its_horizon(horizon):
    """With discounts of 0, the critic's first step depends only on the rewards: those of `horizon` steps."""
    config = FlatTD3.of(reward="learned", intrinsic=IntrinsicConfig(horizon=horizon, gamma=1e-6))
    agent, level, learner = learned(config)
    critic, ours, theirs = learner.outer_critic, *(torch.Generator().manual_seed(3) for _ in range(2))
    t = level.transitions(16, agent.generator)
    expected = deepcopy(critic.value)
    batch = critic.batch(t) if horizon == 1 else critic._long(16, theirs)
    optimiser = torch.optim.Adam(expected.parameters(), level.learner.config.learning_rate)
    (expected(batch.inputs, batch.action) - batch.reward).square().mean(-1).sum().backward()
    optimiser.step()
    critic.learn(t, ours)
    for mine, theirs_ in zip(critic.value.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs_, rtol=1e-4, atol=1e-5)
