"""Stochastic policies by hand: Gaussian, categorical, options, subgoals."""

import math

import pytest
import torch
from torch.distributions import Categorical as Choice
from torch.distributions import Normal, kl_divergence

from hrl.envs import Observation, Step
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.commands.goals import GoalSpace, Select
from hrl.policies import Categorical, Gaussian, Options, Subgoals, choose
from hrl.training.actor import Actor


def test_a_gaussian_is_torchs_and_draws_from_it():
    torch.manual_seed(0)
    policy = Gaussian(3, 2, (8,), log_std=-0.5)
    state, action = torch.randn(5, 4, 3), torch.randn(5, 4, 2)
    theirs = Normal(policy.net(state), math.exp(-0.5))
    torch.testing.assert_close(policy.log_prob(state, action), theirs.log_prob(action).sum(-1))
    old = (torch.randn(5, 4, 2), torch.full((5, 4, 2), 0.2))
    expected = kl_divergence(Normal(old[0], old[1].exp()), theirs).sum(-1)
    torch.testing.assert_close(policy.divergence(state, old), expected)
    drawn, _ = policy.act(torch.zeros(50_000, 3), (), torch.rand(50_000, 2).clamp(1e-6, 1 - 1e-6))
    mean = policy.net(torch.zeros(3))
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(0), torch.full((2,), math.exp(-0.5)), rtol=0, atol=0.02)


def test_a_categorical_is_torchs_and_draws_from_it():
    policy = Categorical(3, 4, (8,))
    state, action = torch.randn(5, 4, 3), torch.randint(0, 4, (5, 4))
    theirs = Choice(logits=policy.net(state))
    torch.testing.assert_close(policy.log_prob(state, action), theirs.log_prob(action))
    old = Choice(logits=torch.randn(5, 4, 4))
    torch.testing.assert_close(policy.divergence(state, old.logits), kl_divergence(old, theirs))
    chances = torch.tensor([0.1, 0.2, 0.0, 0.7])
    noise = torch.tensor([0.05, 0.15, 0.29, 0.31, 0.99])
    assert choose(chances.log(), noise).tolist() == [0, 1, 1, 3, 3] and int(choose(chances.log(), None)) == 3


def test_the_probability_of_options_decisions_matches_calculated_values():
    torch.manual_seed(1)
    policy = Options(2, 3, 2, (4,))
    policy.high.weight.data.normal_()
    state, action = torch.randn(3, 1, 2), torch.tensor([[2], [0], [1]])
    option, anew = torch.tensor([[1], [1], [0]]), torch.tensor([[True], [False], [True]])
    high, acts, ends = (x.squeeze(1).detach() for x in policy.shape(state))
    high, acts, ends = high.softmax(-1), acts.softmax(-1), ends.sigmoid()
    by_hand = [
        high[0, 1] * acts[0, 1, 2],  # option 1 is chosen
        (1 - ends[1, 1]) * acts[1, 1, 0],  # it goes on
        ends[2, 1] * high[2, 0] * acts[2, 0, 1],  # it ends, and option 0 is chosen
    ]
    found = policy.log_prob(state, action, (option, anew)).squeeze(1).exp()
    torch.testing.assert_close(found, torch.stack(by_hand))
    spread = -(acts[2, 0] * acts[2, 0].log()).sum()
    torch.testing.assert_close(policy.entropy(state, (option, anew))[2, 0], spread)


def test_the_memory_of_an_option_policy_contains_its_samples():
    """In many draws, the frequencies of actions, choices and ends match log_prob."""
    torch.manual_seed(2)
    policy, many = Options(1, 2, 2, ()), 40_000
    state, memory = torch.ones(many, 1), policy.start(many, torch.device("cpu"))
    drawn = []
    for _ in range(2):
        action, memory = policy.act(state, memory, torch.rand(many, 3))
        drawn.append((action, memory))
    actions, (options, anew) = (
        torch.stack([a for a, _ in drawn]),
        (torch.stack(x) for x in zip(*(m for _, m in drawn), strict=True)),
    )
    chance = policy.log_prob(state.expand(2, many, 1), actions, (options, anew)).sum(0).exp()
    key = torch.cat([actions, options, anew[1:].long()])
    for one in key.unique(dim=1).T:
        here = (key == one.unsqueeze(1)).all(0)
        assert float(here.float().mean()) == pytest.approx(float(chance[here][0]), abs=0.015)


def test_an_option_stays_until_it_ends():
    policy = Options(2, 3, 2, (4,))
    policy.low["end"][-1].bias.data = torch.tensor([-50.0, 50.0])  # option 0 never ends, option 1 at once
    policy.low["end"][-1].weight.data.zero_()
    state, noise = torch.randn(4, 2), torch.rand(4, 3)
    noise[:, 1] = torch.tensor([0.0, 1.0, 0.0, 1.0])  # the controller would choose 0, 1, 0, 1
    _, (option, anew) = policy.act(state, (torch.tensor([-1, -1, 1, 0]), torch.zeros(4, dtype=torch.bool)), noise)
    assert option.tolist() == [0, 1, 0, 0] and anew.tolist() == [True, True, True, False]


def subgoal_policy(period: int = 2) -> Subgoals:
    """Subgoals within 2 of where a point on a line is; its state has a second entry, and a task's goal is shown."""
    two = torch.tensor([2.0])
    space = GoalSpace(Select(torch.tensor([0])), -two, two, relative=True)
    return Subgoals(2, 3, 1, Subgoal(space, "distance"), period, (4,), std=0.5)


def test_a_subgoal_lasts_its_period_and_the_low_level_sees_the_displacement():
    policy = subgoal_policy()
    state, memory = torch.tensor([[1.0, 5.0, 9.0], [4.0, 5.0, 9.0]]), policy.start(2, torch.device("cpu"))
    noise = torch.tensor([[0.5, 0.5], [0.9, 0.5]])
    seen = []
    for t in range(3):
        moved = state + torch.tensor([0.25 * t, 0.0, 0.0])
        mean = policy.high.shape(moved)[0]
        action, memory = policy.act(moved, memory, noise)
        seen.append(memory)
        way = (memory[0] - moved[:, :1]) / 2
        shown = torch.cat([moved[:, :2], way], -1)
        torch.testing.assert_close(action, policy.low.shape(shown)[0])  # noise of .5 is the mean
        if t != 1:  # due: the mean, and 1.2816 deviations above it
            drawn = mean + 0.5 * torch.tensor([[0.0], [1.2815516]])
            torch.testing.assert_close(memory[0], moved[:, :1] + 2 * drawn.clamp(-1, 1))
    assert [m[3].tolist() for m in seen] == [[True] * 2, [False] * 2, [True] * 2]
    assert torch.equal(seen[0][0], seen[1][0])


def test_subgoals_stay_within_their_bounds_and_samples_are_stored():
    policy = subgoal_policy()
    state, noise = torch.zeros(2, 3), torch.tensor([[1e-6, 0.5], [1 - 1e-6, 0.5]])
    _, (target, drawn, _, _) = policy.act(state, policy.start(2, torch.device("cpu")), noise)
    assert target.tolist() == [[-2.0], [2.0]] and drawn[0] < -1.5 and drawn[1] > 1.5


def test_the_memory_is_reset_at_the_end_of_an_episode():
    policy, cpu = subgoal_policy(), torch.device("cpu")
    actor = Actor(policy, lambda: dict(policy.named_parameters()), cpu, lambda count: None)
    state, flag = torch.zeros(2, 3), torch.tensor([False, True])
    _, memory, _ = actor.decide(Observation(state, torch.zeros(2, 0)), actor.start(2))
    obs = Observation(state, torch.zeros(2, 0))
    step = Step(obs, obs, torch.zeros(2), ~flag & flag, flag, ~flag | flag, ~flag & flag, 2, torch.zeros(2, 0))
    (target, _, elapsed, _), _ = actor.after(memory, step)
    assert torch.equal(target[0], memory[0][0]) and target[1] == 0 and elapsed.tolist() == [1, 2]


def test_the_probability_of_subgoals_decisions_matches_calculated_values():
    torch.manual_seed(0)
    policy = subgoal_policy()
    state, action = torch.randn(2, 1, 3), torch.randn(2, 1, 1)
    target, raw = torch.randn(1, 1).expand(2, 1, 1), torch.randn(1, 1).expand(2, 1, 1)
    anew = torch.tensor([[True], [False]])
    found = policy.log_prob(state, action, (target, raw, torch.ones(2, 1), anew)).squeeze(-1)
    shown = torch.cat([state[..., :2], (target - state[..., :1]) / 2], -1)
    low = Normal(policy.low.shape(shown)[0], 0.5).log_prob(action).sum((1, 2))
    high = Normal(policy.high.shape(state)[0], 0.5).log_prob(raw).sum((1, 2))
    torch.testing.assert_close(found, low + high * torch.tensor([1.0, 0.0]))
