"""Random periods, and HiPPO: one PPO over a manager and the sub-policies that it chooses for them."""

import numpy as np
import pytest
import torch
from conftest import CPU, everything, roll, setting, small_hiro
from hrl_scripts import train
from runs import LINE, same_state, trained
from tasks import LENGTHS

from hrl.agents.options.hippo import HiPPOConfig
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.clock import ActiveCommand, Period
from hrl.learners import PPOConfig
from hrl.run.config import coerced
from hrl.training.policy import HierarchyPolicy
from hrl.types import UserError

QUIET = {"hidden": (8,), "n_steps": 10**6, "batch_size": 32, "n_epochs": 1, "gamma": 0.9}


def hippo(num_envs: int = 2, **options: object):
    env = make_env(EnvConfig("Ledger-v0", num_envs=num_envs))
    return HiPPOConfig.of(**{**QUIET, "n_steps": 40, **options}).make(setting(env)), env


# -- random periods ------------------------------------------------------------------------------------------


def test_a_random_period_has_every_length_between_its_bounds_and_a_constant_one_uses_no_random_numbers():
    generator = torch.Generator().manual_seed(0)
    like, before = torch.zeros(6000, dtype=torch.bool), generator.get_state()
    assert set(Period.of(7).draw(like, generator).tolist()) == {7}
    assert set(Period.of((5, 15)).draw(like, None).tolist()) == {10}
    assert torch.equal(generator.get_state(), before)
    number, count = Period.of((5, 15)).draw(like, generator).unique(return_counts=True)
    assert number.tolist() == list(range(5, 16)) and 450 < int(count.min()) <= int(count.max()) < 640  # 545 each
    assert Period.of((2, 3)) * Period.of(4) == Period(8, 12) and str(Period(8, 12)) == "8 to 12"


def test_a_command_lasts_as_many_decisions_as_were_drawn_for_it():
    held = ActiveCommand.nothing(3, 1, 0, CPU)
    always, target = torch.ones(3, dtype=torch.bool), torch.ones(3, 1)
    assert held.due.tolist() == [True] * 3
    held = held.renewed(always, target, torch.tensor([1, 2, 3]))
    for last in ([True, False, False], [True, True, False], [True, True, True]):
        assert held.last.tolist() == last and not held.due.any()
        held = held.ticked(always, always)
    waiting = held.ticked(always, ~always)  # the level below goes on with its decision
    assert waiting.decisions.tolist() == [3, 3, 3] and waiting.elapsed.tolist() == [4, 4, 4]
    some = torch.tensor([True, False, False])
    assert held.dropped(some).due.tolist() == [True, False, False]
    again = held.renewed(some, 2 * target, torch.tensor([5, 5, 5]))
    assert again.lasts.tolist() == [5, 2, 3] and again.elapsed.tolist() == again.decisions.tolist() == [0, 3, 3]
    assert again.target.flatten().tolist() == [2, 1, 1]


def test_segments_of_different_lengths_have_their_own_discounts():
    env = make_env(EnvConfig("Ledger-v0", num_envs=4))
    agent = small_hiro(period=(2, 4)).make(setting(env))  # type: ignore[arg-type]
    obs, asked = env.reset(0), {}
    for _ in range(60):
        action = agent.act(obs)
        (held,) = agent.memory
        for i in (held.elapsed == 0).nonzero().flatten().tolist():
            asked[(i, *obs.state[i].tolist())] = int(held.lasts[i])
        step = env.step(action)
        agent.observe(step)
        obs = step.obs
    t = everything(agent, 1)
    assert {int(x) for x in t.length} == {1, 2, 3, 4}
    assert len(asked) > 60 and {*asked.values()} == {2, 3, 4}
    for i in range(len(t.state)):
        episode, start = (int(x) for x in t.state[i])
        left = LENGTHS[episode % 4] - start
        assert int(t.length[i]) == min(asked[(int(t.rows.env[i]), *t.state[i].tolist())], left)
        paid = sum(0.9**k * (start + k + 1) for k in range(int(t.length[i])))
        assert float(t.reward[i]) == pytest.approx(paid, rel=1e-5)
    batch = agent.levels[1].batch(t)
    torch.testing.assert_close(batch.discount, 0.9**t.length * ~t.terminated)


def test_evaluation_takes_the_mean_period_and_leaves_the_random_state():
    agent, env = hippo(1, period=(2, 6))
    policy, before = HierarchyPolicy(agent, env), agent.generator.get_state()
    state, ages = None, []
    for _ in range(9):
        _, state = policy.predict(np.zeros((1, 2), np.float32), state)
        target, elapsed, _, lasts, _ = state
        assert target.shape == (1, 6) and lasts.tolist() == [4]
        ages.append(int(elapsed[0]))
    assert ages == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert torch.equal(agent.generator.get_state(), before)
    found = set()
    for _ in range(40):
        found |= {int(policy.predict(np.zeros((1, 2), np.float32), deterministic=False)[1][3][0])}
    assert found == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(("given", "period"), [(7, Period(7, 7)), ([5, 15], Period(5, 15)), ((5, 15), Period(5, 15))])
def test_a_preset_gives_one_number_or_two(given, period):
    assert Period.of(coerced(given, int | tuple[int, int], "period")) == period
    with pytest.raises(UserError, match="period must be of type int or a list of 2, not"):
        coerced([1, 2, 3], int | tuple[int, int], "period")


@pytest.mark.parametrize("algorithm", ["hippo", "hiro"])
def test_a_run_with_random_periods_resumes_bit_for_bit(algorithm, tmp_path):
    line = ["--n-steps", "60"] if algorithm == "hippo" else ["--high.period", "2", "6"]
    whole = trained(tmp_path / "whole", *line, algorithm=algorithm)
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm=algorithm)
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)


# -- HiPPO ---------------------------------------------------------------------------------------------------


def test_both_levels_learn_from_the_returns_of_whole_episodes():
    """Values of 0 and λ = 1 make an advantage the discounted sum of later rewards, (t + 1 - 3) / 2 here: at the low
    level too, where it does not end with the latent."""
    agent, env = hippo(1, period=(2, 3), reward_scale=0.5, reward_offset=-3.0, gae_lambda=1.0)
    for level in agent.levels:
        for parameter in level.learner.critic.parameters():
            parameter.data.zero_()
    roll(agent, env, 2 * sum(LENGTHS))
    for number, level in enumerate(agent.levels):
        t, rollout = everything(agent, number), level.learning.rollout(agent.generator)
        assert len(t.state) == len(rollout.advantage) and set(t.length.tolist()) == ({1} if not number else {1, 2, 3})
        for state, advantage in zip(t.state, rollout.advantage, strict=True):
            episode, start = (int(x) for x in state)
            rest = range(start, LENGTHS[episode % 4])
            expected = sum(0.9 ** (k - start) * (k + 1 - 3) / 2 for k in rest)
            assert float(advantage) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_sub_policys_baseline_depends_on_the_latent_and_on_the_next_one_where_it_changes():
    """δ = r + γ V(s', z') - V(s, z) with λ = 0, where V(s, z) is 10 times the latent's number."""
    agent, env = hippo(1, period=(2, 3), gae_lambda=0.0)
    low = agent.levels[0]
    low.learner.critic = torch.nn.Linear(2 + 6, 1)  # type: ignore[assignment]
    low.learner.critic.weight.data.copy_(torch.tensor([[0.0, 0.0, *(10.0 * k for k in range(6))]]))
    low.learner.critic.bias.data.zero_()
    roll(agent, env, 2 * sum(LENGTHS))
    t, rollout = everything(agent, 0), low.learning.rollout(agent.generator)
    number = t.target.argmax(-1)
    changed = 0
    for i in range(len(number) - 1):
        last = int(t.next_state[i, 1]) == LENGTHS[int(t.state[i, 0]) % 4]
        following = number[i] if last else number[i + 1]  # a truncated episode has no next latent
        after = 0.0 if t.terminated[i] else 0.9 * 10 * float(following)
        assert float(rollout.advantage[i]) == pytest.approx(float(t.state[i, 1]) + 1 + after - 10 * float(number[i]))
        changed += bool(number[i] != following)
    assert changed >= 4


def test_a_rollout_has_the_same_steps_at_both_levels():
    agent, _ = hippo(3, n_steps=41, period=(5, 15))
    low, high = agent.levels
    assert low.timescale.every == high.timescale.every == 3 * 50  # 41 rounded up to a multiple of 10
    assert isinstance(low.config.learner, PPOConfig) and low.config.learner.n_steps == 50
    config = HiPPOConfig.of(masked_entries=(0,), hidden_from_skills=(1,))
    low, high = config.make(setting(make_env(EnvConfig("Ledger-v0", num_envs=1)))).levels
    assert low.observation_mask.tolist() == [0, 0] and high.observation_mask.tolist() == [0, 1]


def test_sub_policies_differ_from_the_first_step_on():
    agent, _ = hippo()
    assert 0.1 < float(agent.levels[0].decide(torch.zeros(6, 2), torch.eye(6)).std()) < 1
    same, _ = hippo(skill_gain=0.01)
    assert float(same.levels[0].decide(torch.zeros(6, 2), torch.eye(6)).std()) < 0.02


def test_the_sub_policy_sees_the_goal_that_the_manager_obeys():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=3))
    agent = HiPPOConfig.of(**{**QUIET, "n_steps": 40}).make(setting(env))
    obs = env.reset(0)
    agent.act(obs)
    latent, target = agent.commands[0], agent.levels[0].segment.target
    assert latent.dim == 6 + 1 and torch.equal(target[:, 6:], obs.goal)
    assert torch.equal(target[:, :6], torch.eye(6)[agent.levels[1].segment.action.flatten().long()])
    achieved = obs.state[:, env.spec.achieved]
    expected = torch.cat([target[:, :6], obs.goal - achieved, obs.goal], -1)  # as the task's command shows it
    torch.testing.assert_close(latent.encode(obs.state, target, obs.state), expected)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--skill-gain -1", "--skill-gain must not be negative"),
        ("--period 15 5", "--period must be one number, or two in ascending order, not 15 5"),
        ("--period 0 5", "--period must be at least 1 environment step, not 0"),
        ("--latents 1", "--latents must be at least 2"),
        ("--learner td3", "HiPPO is a PPO over both levels"),
    ],
)
def test_invalid_options_raise_a_clear_error(option, words, tmp_path, capsys):
    assert train.main(["hippo", *LINE, "--log-dir", str(tmp_path), *option.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_the_latent_is_scaled_among_the_sub_policies_inputs():
    agent, _ = hippo(latents=3, latent_scale=4.0)
    latent = torch.tensor([[0.0, 1.0, 0.0]])
    assert agent.levels[0].inputs(torch.tensor([[1.0, 2.0]]), latent).tolist() == [[1, 2, 0, 4, 0]]
    with pytest.raises(UserError, match="--latent-scale must be positive, not 0"):
        hippo(latent_scale=0.0)
