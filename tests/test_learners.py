"""The update rules against values computed by hand or by torch's own distributions."""

import pytest
import torch
from conftest import made

from hrl.hierarchy.timescale import Timescale
from hrl.learners import SAC, TD3, Batch
from hrl.learners.actor_critic import combine_q
from hrl.networks.layers import Critics, polyak_update


def batch(n: int = 16) -> Batch:
    g = torch.Generator().manual_seed(1)
    r = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Batch(r(n, 3), r(n, 2).tanh(), r(n), r(n, 3), torch.tensor([0.9**3, 0.0]).repeat(n // 2))


def test_the_twin_critic_is_two_separate_networks():
    critic = Critics(3, 2, (5,))
    x, a = torch.randn(7, 3), torch.randn(7, 2)
    q = critic(x, a)
    assert q.shape == (2, 7) and not torch.allclose(q[0], q[1])
    assert torch.allclose(critic.first(x, a), q[0], atol=1e-6)
    w1, w2 = critic.layers[0], critic.layers[2]
    hidden = (torch.cat([x, a], -1) @ w1.weight[1] + w1.bias[1]).relu()
    assert torch.allclose(hidden @ w2.weight[1, 0] + w2.bias[1], q[1], atol=1e-6)


@pytest.mark.parametrize("learner", [TD3, SAC])
def test_layer_normalisation_stands_before_every_relu_of_actor_and_critics(learner):
    net_of = made(learner, 3, 2, hidden=(5, 4), layer_norm=True)
    seen = []
    for net, names in ((net_of.actor, (1, 4)), (net_of.critic.layers, (1, 4))):
        for name in names:
            net[name].register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    net_of.critic(torch.randn(7, 3), net_of.mode(torch.randn(7, 3)))
    assert len(seen) == 4 and seen[2][0].shape == (2, 7, 5)
    for given, out in seen:
        spread = (given - given.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)
        # PyTorch normalises before the ReLU, which works in place afterwards.
        assert torch.allclose(out, ((given - given.mean(-1, keepdim=True)) / (spread + 1e-5).sqrt()).relu(), atol=1e-5)


def test_td3s_target_is_the_smaller_twin_at_the_smoothed_action_with_each_transitions_own_discount():
    torch.manual_seed(0)
    learner = made(TD3, 3, 2, hidden=(8,), target_noise=0.0)
    b = batch()
    next_action = learner.target_actor(b.next_inputs).tanh()
    target = b.reward + b.discount * torch.minimum(*learner.target_critic(b.next_inputs, next_action))
    expected = ((learner.critic(b.inputs, b.action) - target) ** 2).mean(-1).sum()
    metrics = learner.update_critic(b, torch.Generator())
    assert metrics["critic_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(target[1::2], b.reward[1::2])  # where the task ended there is nothing after


def test_the_bootstrapped_value_lies_between_the_mean_and_the_minimum_of_the_twins():
    twins = torch.tensor([[1.0, -3.0], [2.0, -7.0]])
    for pessimism, told in ((1.0, [1.0, -7.0]), (0.5, [1.25, -6.0]), (0.0, [1.5, -5.0])):
        assert combine_q(twins, pessimism).tolist() == told


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_without_pessimism_the_target_is_the_twins_mean(kind):
    learner = made(kind, 3, 2, hidden=(8,), target_noise=0.0, min_q_weight=0.0, ent_coef=1e-9)
    b, noise = batch(), torch.zeros(16, 2)
    values = learner.target_critic(b.next_inputs, learner.act(b.next_inputs, None))
    assert torch.allclose(learner.target(b, noise), b.reward + b.discount * values.mean(0), atol=1e-5)


@pytest.mark.parametrize("kind", [TD3, SAC])
@pytest.mark.parametrize("count", [1, 5])
def test_every_critic_learns_from_the_combined_target(kind, count):
    learner = made(kind, 3, 2, hidden=(8,), target_noise=0.0, n_critics=count, min_q_weight=0.5, ent_coef=1e-9)
    b, noise = batch(), torch.zeros(16, 2)
    values = learner.target_critic(b.next_inputs, learner.act(b.next_inputs, None))
    assert values.shape == (count, 16)
    target = b.reward + b.discount * (values.mean(0) + values.min(0).values) / 2
    assert torch.allclose(learner.target(b, noise), target, atol=1e-5)
    loss, q = learner.critic_loss(b, target)
    assert loss.item() == pytest.approx(sum(((x - target) ** 2).mean().item() for x in q), rel=1e-5)


def test_sacs_actor_increases_the_bootstrapped_value():
    learner = made(SAC, 3, 2, hidden=(8,), min_q_weight=0.0, ent_coef=1e-9)
    b, noise = batch(), torch.zeros(16, 2)
    loss, _ = learner.actor_loss(b, noise, torch.zeros(()))
    assert loss.item() == pytest.approx(-learner.critic(b.inputs, learner.mode(b.inputs)).mean().item(), rel=1e-5)


def test_targets_are_clipped_to_the_range_of_values():
    learner = made(TD3, 3, 2, hidden=(8,), value_range=(-0.1, 0.0))
    b = batch()
    b = b._replace(reward=torch.full_like(b.reward, -7.0))  # every target lies below the least possible value
    q = learner.critic(b.inputs, b.action).detach()
    loss = learner.update_critic(b, torch.Generator())["critic_loss"]
    assert loss.item() == pytest.approx(((q + 0.1) ** 2).mean(-1).sum().item(), rel=1e-5)
    assert learner.bound(torch.tensor([-5.0, -0.05, 3.0])).tolist() == pytest.approx([-0.1, -0.05, 0.0])


def test_td3_delays_the_actor_and_its_targets_follow():
    torch.manual_seed(0)
    learner = made(TD3, 3, 2, hidden=(8,), policy_delay=2, tau=0.5)
    actor = learner.actor[0].weight.clone()
    target = learner.target_critic.layers[0].weight.clone()
    assert "actor_loss" not in learner.update(batch(), 0, torch.Generator())
    assert torch.equal(learner.actor[0].weight, actor)
    assert torch.equal(learner.target_critic.layers[0].weight, target)
    assert "actor_loss" in learner.update(batch(), 1, torch.Generator())
    assert not torch.equal(learner.actor[0].weight, actor)
    halfway = 0.5 * target + 0.5 * learner.critic.layers[0].weight
    assert torch.allclose(learner.target_critic.layers[0].weight, halfway)


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_the_actors_step_leaves_the_critic_alone_and_learning_goes_downhill(kind):
    torch.manual_seed(0)
    learner = made(kind, 3, 2, hidden=(32,), learning_rate=3e-3)
    b, g = batch(), torch.Generator().manual_seed(0)
    first = float(learner.update(b, 1, g)["critic_loss"])
    for _ in range(300):
        last = float(learner.update(b, 1, g)["critic_loss"])
    assert last < 0.2 * first
    before = [p.clone() for p in learner.critic.parameters()]
    (learner.update_actor(b) if kind is TD3 else learner.update_actor_and_temperature(b, torch.randn(16, 2)))
    assert all(torch.equal(p, q) for p, q in zip(learner.critic.parameters(), before, strict=True))


def test_sacs_log_probability_is_that_of_a_squashed_gaussian():
    torch.manual_seed(0)
    learner = made(SAC, 3, 2, hidden=(8,))
    x = torch.randn(6, 3)
    action, log_prob = learner.sample(x, torch.randn(6, 2))
    mean, log_std = learner.actor(x).chunk(2, -1)
    squashed = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), [torch.distributions.TanhTransform()]
    )
    assert torch.allclose(squashed.log_prob(action).sum(-1), log_prob, atol=1e-3)


def test_sacs_temperature_rises_while_the_entropy_is_below_its_target():
    torch.manual_seed(0)
    learner = made(SAC, 3, 2, hidden=(8,), learning_rate=1e-2)
    with torch.no_grad():
        learner.actor[-1].bias[2:] = -8.0  # hardly any spread, so little entropy
    before = float(learner.log_alpha)
    learner.update(batch(), 0, torch.Generator().manual_seed(0))
    assert float(learner.log_alpha.detach()) > before
    fixed = made(SAC, 3, 2, hidden=(8,), ent_coef=0.2)
    fixed.update(batch(), 0, torch.Generator().manual_seed(0))
    assert float(fixed.log_alpha.detach().exp()) == pytest.approx(0.2)


def test_tracking_is_polyaks():
    a, b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    expected = 0.9 * a.weight.detach() + 0.1 * b.weight.detach()
    polyak_update(a, b, 0.1)
    assert torch.allclose(a.weight, expected)


def test_a_timescale_updates_every_k_steps_whatever_the_number_of_environments():
    one, many = Timescale(every=10, updates=3, starts=25), Timescale(every=10, updates=3, starts=25)
    assert [one.due(s) for s in (10, 25, 34, 35, 46)] == [0, 0, 0, 3, 3]
    assert many.due(64) == 9 and many.due(65) == 3


def test_learning_rate_schedules():
    assert [Timescale(1, 1, "linear").factor(p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert [Timescale(1, 1, "cosine").factor(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    warm = Timescale(1, 1, warmup=4)
    assert [warm.factor(0.0) for _ in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    learner = made(TD3, 3, 2, hidden=(8,), learning_rate=1e-3, actor_learning_rate=1e-4)
    learner.set_learning_rate(0.5)
    assert learner.critic_optimiser.lr.item() == pytest.approx(5e-4)
    assert learner.actor_optimiser.lr.item() == pytest.approx(5e-5)
