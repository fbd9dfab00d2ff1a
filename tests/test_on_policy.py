"""Rollouts and PPO: advantages of decisions of different lengths, and which decisions of a rollout are learned from."""

from typing import Any

import pytest
import torch
from conftest import all_rows, everything, roll, setting, small_hiro
from gymnasium import spaces
from hrl_scripts import train
from runs import same_state, trained
from tasks import LENGTHS

from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.learning import FromRollout
from hrl.learners import PPO, Build, PPOConfig
from hrl.learners.on_policy import Rollout
from hrl.memory.rollout import RolloutMemory, advantages
from hrl.networks.normaliser import RewardScale, RunningNorm
from hrl.spaces import unit_box
from hrl.types import UserError
from hrl.variants import flat

PPO_OPTIONS = {"learner": "ppo", "n_steps": 40, "hidden": (8,), "batch_size": 32, "n_epochs": 1, "hindsight": 0.0}


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(-1)


def test_advantages_match_calculated_values():
    """γ = .5, λ = .8; decisions of 2, 1 and 3 steps, then an episode's only one, which the task ends."""
    reward, value, after = column(1, 2, 3, 5), column(0.1, 0.2, 0.3, 0.4), column(0.2, 0.3, 0.9, 7.0)
    discount, follows = column(0.25, 0.5, 0.125, 0.0), column(1, 1, 0, 0).bool()
    third = 3 + 0.125 * 0.9 - 0.3
    second = 2 + 0.5 * 0.3 - 0.2 + 0.5 * 0.8 * third
    first = 1 + 0.25 * 0.2 - 0.1 + 0.25 * 0.8 * second
    found = advantages(reward, discount, value, after, follows, 0.8).squeeze(-1)
    assert found.tolist() == pytest.approx([first, second, third, 5 - 0.4])


def on_policy_hiro(num_envs: int = 2, period: int = 3, **env: Any):
    bridge = make_env(EnvConfig("Ledger-v0", num_envs=num_envs), **env)
    config = small_hiro(period=period, correction=False)
    config.low = flat(config.low, PPO_OPTIONS)
    config.high = flat(config.high, PPO_OPTIONS)
    return config.make(setting(bridge)), bridge


def test_a_rollout_contains_exactly_the_decisions_since_the_last_one():
    agent, env = on_policy_hiro()
    roll(agent, env, 30)
    for level in agent.levels:
        assert isinstance(level.memory, RolloutMemory) and isinstance(level.learning, FromRollout)
        rows, there = level.memory.unread()
        expected = {(int(e), int(r)) for e, r in zip(*vars(all_rows(level.memory)).values(), strict=True)}
        found = {(int(e), int(r)) for e, r in zip(rows.env[there], rows.row[there], strict=True)}
        # Episodes of 3, 7, 5, 1, 3, 7 and 4 steps of 5: 12 whole segments; from the second one on, 13.
        assert found == expected and len(found) == (60 if level.name == "low" else 12 + 13)
        level.memory.finish()
        assert not level.memory.unread()[1].any()
    roll(agent, env, 1)
    assert int(agent.levels[0].memory.unread()[1].sum()) == 2


def test_the_high_levels_advantages_are_those_of_whole_segments():
    """Values of 0 and λ = 1 make an advantage the discounted sum of later rewards, t + 1 in the ledger."""
    agent, env = on_policy_hiro(num_envs=1)
    high = agent.levels[1]
    for parameter in high.learner.critic.parameters():
        parameter.data.zero_()
    high.learner.config.gae_lambda = 1.0
    roll(agent, env, 2 * sum(LENGTHS))
    t, rollout = everything(agent, 1), high.learning.rollout(agent.generator)
    gamma = high.config.gamma
    for state, advantage in zip(t.state, rollout.advantage, strict=True):
        episode, start = (int(x) for x in state)
        rest = range(start, LENGTHS[episode % 4])
        assert float(advantage) == pytest.approx(sum(gamma ** (k - start) * (k + 1) for k in rest), rel=1e-4)


def test_the_low_levels_advantages_end_with_their_subgoal():
    agent, env = on_policy_hiro(num_envs=1)
    low = agent.levels[0]
    for parameter in low.learner.critic.parameters():
        parameter.data.zero_()
    low.learner.config.gae_lambda = 1.0
    roll(agent, env, 40)
    t, rollout = everything(agent, 0), low.learning.rollout(agent.generator)
    reward, gamma = low.batch(t).reward, low.config.gamma
    following = [
        i + 1 < len(reward) and bool((t.target[i] == t.target[i + 1]).all() and t.next_state[i, 0] == t.state[i + 1, 0]
                                     and t.next_state[i, 1] == t.state[i + 1, 1])
        for i in range(len(reward))
    ]  # fmt: skip
    expected = reward.clone()
    for i in range(len(reward) - 2, -1, -1):
        expected[i] += gamma * expected[i + 1] * following[i]
    assert 0.5 < sum(following) / len(following) < 0.9
    torch.testing.assert_close(rollout.advantage, expected)


def test_values_at_the_decision_are_stored():
    agent, env = on_policy_hiro()
    roll(agent, env, 12)
    for level in agent.levels:
        rollout = level.learning.rollout(agent.generator)
        again = level.learner.distribution.log_prob(level.learner.actor(rollout.inputs), rollout.action, None)
        torch.testing.assert_close(rollout.log_prob, again)
        torch.testing.assert_close(rollout.value, level.learner.value(rollout.inputs))
        torch.testing.assert_close(rollout.returns, rollout.advantage + rollout.value)
        assert float(rollout.action.abs().max()) > 1  # as drawn, not as clipped for the environment


def test_ppos_loss_matches_a_calculated_value():
    torch.manual_seed(0)
    config = PPOConfig(hidden=(4,), normalize_advantage=False, clip_range_vf=0.1, vf_coef=0.5)
    learner = PPO(Build(3, unit_box(2)), config)
    inputs, action = torch.randn(5, 3), torch.randn(5, 2)
    mean, std = learner.actor(inputs), learner.distribution.log_std.exp()
    log_prob = torch.distributions.Normal(mean, std).log_prob(action).sum(-1)
    old, advantage = log_prob.detach() + torch.tensor([0.5, -0.5, 0.05, 0.5, -0.5]), torch.tensor([1.0, 1, 2, -1, -1])
    value = learner.critic(inputs).squeeze(-1)
    returns, before = value.detach() + 3, value.detach() + torch.tensor([0.05, 0.0, 0.5, -0.5, 0.0])
    loss, metrics = learner.loss(Rollout(inputs, action, old, before, advantage, returns), 0.1)
    ratio = (log_prob - old).exp()
    surrogate = torch.stack([ratio[0], torch.tensor(1.2), 2 * ratio[2], torch.tensor(-0.8), -ratio[4]])
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    clipped = before + (value - before).clamp(-0.1, 0.1)
    entropy = torch.distributions.Normal(mean, std.expand_as(mean)).entropy().sum(-1)
    by_hand = -surrogate.mean() + 0.5 * (clipped - returns).square().mean() - 0.1 * entropy.mean()
    torch.testing.assert_close(loss, by_hand)
    parameters = list(learner.parameters())
    gradients = (torch.autograd.grad(x, parameters, retain_graph=True) for x in (loss, by_hand))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
    summary = learner.summary([metrics])
    assert float(summary["clip_fraction"]) == pytest.approx(0.8)
    assert float(summary["kl"]) == pytest.approx(float((ratio - 1 - (log_prob - old)).mean().detach()), abs=1e-6)
    assert float(summary["value_mean"]) == pytest.approx(float(clipped.mean().detach()), abs=1e-6)


@pytest.mark.parametrize("actions", [unit_box(2), spaces.Discrete(3), spaces.MultiDiscrete([2, 4])], ids=str)
@pytest.mark.parametrize("clip_range_vf", [None, 0.1])
def test_the_gradient_that_is_written_out_is_that_of_the_loss(actions, clip_range_vf):
    torch.manual_seed(0)
    config = PPOConfig(hidden=(4, 5), clip_range_vf=clip_range_vf, policy_gain=1.0, max_grad_norm=1e9)
    learner = PPO(Build(3, actions), config)
    inputs = torch.randn(40, 3)
    head = learner.actor(inputs).detach()
    mask = None
    if isinstance(actions, spaces.Discrete):
        mask = torch.ones(40, 3)
        mask[::2, 1] = 0.0
    action = learner.distribution.sample(head, torch.Generator().manual_seed(0), mask).detach()
    old = learner.distribution.log_prob(head, action, mask).detach() + 0.3 * torch.randn(40)
    before = learner.value(inputs) + 0.1 * torch.randn(40)
    batch = Rollout(inputs, action, old, before, torch.randn(40), torch.randn(40), mask)
    loss, metrics = learner.loss(batch, 0.1)
    expected = torch.autograd.grad(loss, learner.policy_optimiser.parameters)
    assert learner.slopes is not None
    found = learner.slopes(batch, learner.weights(batch), 0.1)
    assert 0.1 < float(learner.summary([dict(metrics)])["clip_fraction"]) < 0.9
    for mine, theirs in zip(learner.policy_optimiser.places, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert found.keys() == metrics.keys()
    for name, value in metrics.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_networks_that_are_no_plain_perceptrons_are_differentiated_automatically():
    plain = Build(3, unit_box(2))
    assert PPO(plain, PPOConfig()).slopes is not None
    assert PPO(plain, PPOConfig(layer_norm=True)).slopes is None
    assert PPO(plain._replace(tasks=2), PPOConfig()).slopes is None


def test_a_divergence_that_is_too_large_ends_the_passes():
    agent, env = on_policy_hiro()
    roll(agent, env, 30)
    low = agent.levels[0]
    rollout, steps = low.learning.rollout(agent.generator), []
    asked, low.learner.config.n_epochs = low.learner.step, 50
    low.learner.step = lambda *given: (steps.append(1), asked(*given))[1]
    low.learner.config.target_kl = 1e-9
    low.learner.learn(rollout, 16, 0.0, agent.generator)
    assert 0 < len(steps) < 20


@pytest.mark.parametrize("algorithm", ["ppo", "hiro"])
def test_an_on_policy_run_resumes_exactly(algorithm, tmp_path):
    both = [x for level in ("low", "high") for x in (f"--{level}.learner", "ppo", f"--{level}.n-steps", "30")]
    line = ["--n-steps", "60"] if algorithm == "ppo" else [*both, "--high.period", "4"]
    whole = trained(tmp_path / "whole", *line, algorithm=algorithm)
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm=algorithm)
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"hindsight": 0.5}, "needs a replay"),
])  # fmt: skip
def test_options_that_need_a_replay_raise_an_error(options, sentence):
    config = small_hiro()
    config.low = flat(config.low, PPO_OPTIONS | options)
    with pytest.raises(UserError, match=sentence):
        config.check()


def test_observations_are_normalised_with_statistics_of_training():
    env = make_env(EnvConfig("Ledger-v0", num_envs=3))
    config = small_hiro()
    config.low = flat(config.low, {"normalize_observations": True, "masked_entries": (1,)})
    agent = config.make(setting(env))
    roll(agent, env, 50)
    low, high = agent.levels
    assert high.normaliser is None and low.normaliser is not None
    seen = everything(agent, 0).next_state
    torch.testing.assert_close(low.normaliser.mean, seen.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(low.normaliser.variance, seen.var(0, correction=0), rtol=1e-2, atol=1e-3)
    target = torch.zeros(len(seen), 2)
    shown = low.inputs(seen, target)
    assert float(shown[:, 0].mean()) == pytest.approx(0, abs=1e-3) and (shown[:, 1] == 0).all()
    raw = high.inputs(seen, torch.zeros(len(seen), 0))
    assert torch.equal(raw[:, :2], seen)
    before = {name: x.clone() for name, x in agent.network_tensors().items()}
    agent.decide(env.reset(5), agent.initial_state(3), "greedy")
    assert "low.normaliser.mean" in before
    assert all(torch.equal(x, before[name]) for name, x in agent.network_tensors().items())


def test_a_normalised_run_resumes_exactly(tmp_path):
    line = ["--normalize-observations", "True", "--normalize-reward", "True", "--n-steps", "60"]
    whole = trained(tmp_path / "whole", *line, algorithm="ppo")
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm="ppo")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)


def test_rewards_are_divided_by_the_deviation_of_returns():
    scale = RewardScale(2)
    reward, there = torch.tensor([[1.0, 4.0], [2.0, 9.0], [3.0, 0.0]]), torch.ones(3, 2, dtype=torch.bool)
    there[1, 1] = False  # no decision: it counts nowhere
    discount = torch.tensor([[0.5, 0.0], [0.5, 0.5], [0.5, 0.5]])
    returns = torch.tensor([1.0, 2 + 0.5, 3 + 1.25, 4.0, 0.0])  # the second environment's episode ended
    found = scale.scaled(reward, discount, there)
    deviation = float(returns.var(correction=0).sqrt())
    assert found[:, 0].tolist() == pytest.approx([x / deviation for x in (1, 2, 3)], rel=1e-2)


def test_a_reset_is_no_observation_to_normalise_by():
    norm = RunningNorm(2, pixels=1)
    state = torch.tensor([[1.0, 200.0], [100.0, 0.0], [3.0, 50.0]])
    norm.update(state, torch.tensor([True, False, True]))
    assert float(norm.mean) == pytest.approx(2.0, abs=1e-3) and float(norm.variance) == pytest.approx(1.0, abs=1e-2)
    torch.testing.assert_close(norm(state)[:, 1], state[:, 1])  # pixels stay
