"""The first updates of every learner are those of a script of a few lines: plain tensors and torch's Adam."""

import copy
import math

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.learners import (
    DQN,
    PPO,
    SAC,
    TD3,
    Batch,
    Build,
    DiscreteSAC,
    DiscreteSACConfig,
    DQNConfig,
    PPOConfig,
    SACConfig,
    TD3Config,
)
from hrl.learners.on_policy import Rollout
from hrl.spaces import unit_box

UPDATES = 4


def batches(choices: int = 0) -> list[Batch]:
    g = torch.Generator().manual_seed(5)
    drawn = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    action = lambda: torch.randint(0, choices, (8, 1), generator=g).float() if choices else drawn(8, 2).tanh()  # noqa: E731
    discount = torch.tensor([0.9] * 7 + [0.0])
    return [Batch(drawn(8, 3), action(), drawn(8), drawn(8, 3), discount) for _ in range(UPDATES)]


def net(module: torch.nn.Module) -> list[Tensor]:
    """Copies of a network's weights and biases, in order."""
    return [p.detach().clone().requires_grad_() for p in module.parameters()]


def mlp(p: list[Tensor], x: Tensor, f=torch.relu) -> Tensor:
    for i in range(0, len(p) - 2, 2):
        x = f(x @ p[i].T + p[i + 1])
    return x @ p[-2].T + p[-1]


def twins(p: list[Tensor], s: Tensor, a: Tensor) -> list[Tensor]:
    """Both critics, from their stacked weights [2, in, out]."""
    values = []
    for k in range(2):
        x = torch.cat([s, a], -1)
        for i in range(0, len(p) - 2, 2):
            x = torch.relu(x @ p[i][k] + p[i + 1][k])
        values.append((x * p[-2][k]).sum(-1) + p[-1][k])
    return values


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def follow(target: list[Tensor], source: list[Tensor], tau: float) -> None:
    for t, s in zip(target, source, strict=True):
        t.data.mul_(1 - tau).add_(tau * s.data)


def same(module: torch.nn.Module, expected: list[Tensor]) -> None:
    for mine, theirs in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)


def test_td3():
    torch.manual_seed(0)
    c = TD3Config(hidden=(6, 5), learning_rate=1e-2, actor_learning_rate=3e-3, tau=0.1)
    learner = TD3(Build(3, unit_box(2)), c)
    actor, critic = net(learner.actor), net(learner.critic)
    slow_actor, slow_critic = copy.deepcopy(actor), copy.deepcopy(critic)
    optimisers = torch.optim.Adam(critic, 1e-2), torch.optim.Adam(actor, 3e-3)
    ours, theirs = (torch.Generator().manual_seed(7) for _ in range(2))
    for number, b in enumerate(batches()):
        learner.update(b, number, ours)
        with torch.no_grad():
            noise = (torch.randn((8, 2), generator=theirs) * 0.2).clamp(-0.5, 0.5)
            after = (mlp(slow_actor, b.next_inputs).tanh() + noise).clamp(-1, 1)
            y = b.reward + b.discount * torch.minimum(*twins(slow_critic, b.next_inputs, after))
        step(optimisers[0], sum(((q - y) ** 2).mean() for q in twins(critic, b.inputs, b.action)))
        if number % 2 == 1:
            step(optimisers[1], -twins(critic, b.inputs, mlp(actor, b.inputs).tanh())[0].mean())
            follow(slow_critic, critic, 0.1)
            follow(slow_actor, actor, 0.1)
    for module, expected in ((learner.actor, actor), (learner.critic, critic), (learner.target_critic, slow_critic)):
        same(module, expected)


def test_sac():
    torch.manual_seed(0)
    learner = SAC(Build(3, unit_box(2)), SACConfig(hidden=(6, 5), learning_rate=1e-2, tau=0.1))
    actor, critic, log_alpha = net(learner.actor), net(learner.critic), torch.zeros((), requires_grad=True)
    slow = copy.deepcopy(critic)
    optimisers = [torch.optim.Adam(p, 1e-2) for p in (critic, actor, [log_alpha])]
    ours, theirs = (torch.Generator().manual_seed(7) for _ in range(2))

    def sample(s: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = mlp(actor, s).chunk(2, -1)
        u = mean + log_std.clamp(-20, 2).exp() * noise
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp()).log_prob(u)
        return u.tanh(), (normal - torch.log(1 - u.tanh() ** 2)).sum(-1)

    for number, b in enumerate(batches()):
        learner.update(b, number, ours)
        first, second = torch.randn((2, 8, 2), generator=theirs)
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            after, log_prob = sample(b.next_inputs, first)
            y = b.reward + b.discount * (torch.minimum(*twins(slow, b.next_inputs, after)) - alpha * log_prob)
        step(optimisers[0], sum(((q - y) ** 2).mean() for q in twins(critic, b.inputs, b.action)))
        a, log_prob = sample(b.inputs, second)
        step(optimisers[1], (alpha * log_prob - torch.minimum(*twins(critic, b.inputs, a))).mean())
        step(optimisers[2], -log_alpha * (log_prob.detach() - 2.0).mean())
        follow(slow, critic, 0.1)
    same(learner.actor, actor)
    same(learner.critic, critic)
    assert float(learner.log_alpha.detach()) == pytest.approx(float(log_alpha.detach()), abs=1e-5)


def test_dqn():
    torch.manual_seed(0)
    learner = DQN(Build(3, spaces.Discrete(4)), DQNConfig(hidden=(6, 5), learning_rate=1e-2, tau=0.1))
    q = net(learner.critic)
    slow, optimiser = copy.deepcopy(q), torch.optim.Adam(q, 1e-2)
    for number, b in enumerate(batches(4)):
        learner.update(b, number, torch.Generator())
        with torch.no_grad():
            best = mlp(q, b.next_inputs).argmax(-1)
            y = b.reward + b.discount * mlp(slow, b.next_inputs)[range(8), best]
        step(optimiser, torch.nn.functional.huber_loss(mlp(q, b.inputs)[range(8), b.action[:, 0].long()], y))
        follow(slow, q, 0.1)
    same(learner.critic, q)
    same(learner.target_critic, slow)


def twin_choices(p: list[Tensor], x: Tensor) -> Tensor:
    """The values [2, B, K] of both critics, from their stacked weights [2, in, out]."""
    values = []
    for weights in ([part[k] for part in p] for k in range(2)):
        h = x
        for i in range(0, len(weights) - 2, 2):
            h = torch.relu(h @ weights[i] + weights[i + 1])
        values.append(h @ weights[-2] + weights[-1])
    return torch.stack(values)


def test_discrete_sac():
    torch.manual_seed(0)
    c = DiscreteSACConfig(hidden=(6, 5), learning_rate=1e-2, actor_learning_rate=3e-3, tau=0.1, target_entropy=0.3)
    learner = DiscreteSAC(Build(3, spaces.Discrete(4)), c)
    actor, critic, log_alpha = net(learner.actor), net(learner.critic), torch.zeros((), requires_grad=True)
    slow = copy.deepcopy(critic)
    optimisers = [torch.optim.Adam(p, lr) for p, lr in ((critic, 1e-2), (actor, 3e-3), ([log_alpha], 1e-2))]
    for number, b in enumerate(batches(4)):
        metrics = learner.update(b, number, torch.Generator())
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            after = torch.distributions.Categorical(logits=mlp(actor, b.next_inputs))
            value = (after.probs * twin_choices(slow, b.next_inputs).amin(0)).sum(-1) + alpha * after.entropy()
            y = b.reward + b.discount * value
        chosen = twin_choices(critic, b.inputs)[:, range(8), b.action[:, 0].long()]
        step(optimisers[0], ((chosen - y) ** 2).mean(-1).sum())
        now = torch.distributions.Categorical(logits=mlp(actor, b.inputs))
        q = twin_choices(critic, b.inputs).amin(0).detach()
        step(optimisers[1], -(now.probs * q).sum(-1).mean() - alpha * now.entropy().mean())
        entropy = now.entropy().detach().mean()
        step(optimisers[2], log_alpha * (entropy - 0.3 * math.log(4)))
        assert float(learner.alpha_optimiser.gradient.sum()) == pytest.approx(
            float(entropy) - 0.3 * math.log(4), abs=1e-5
        )
        assert float(metrics["entropy"]) == pytest.approx(float(entropy), abs=1e-5)
        follow(slow, critic, 0.1)
    for module, expected in ((learner.actor, actor), (learner.critic, critic), (learner.target_critic, slow)):
        same(module, expected)
    assert float(learner.log_alpha.detach()) == pytest.approx(float(log_alpha.detach()), abs=1e-5)
    x = torch.randn(5, 3)
    likely = mlp(actor, x).argmax(-1)
    torch.testing.assert_close(learner.value(x), twin_choices(critic, x).amin(0)[range(5), likely].detach())


def test_ppo():
    torch.manual_seed(0)
    c = PPOConfig(hidden=(6, 5), learning_rate=1e-2, ent_coef=0.02, ent_coef_final=0.0, n_epochs=2, batch_size=4)
    learner = PPO(Build(3, unit_box(2)), c)
    everything = net(learner)  # log σ, the actor's and the critic's
    log_std, actor, critic = everything[0], everything[1:7], everything[7:]
    optimiser = torch.optim.Adam(everything, 1e-2, eps=1e-5)
    g = torch.Generator().manual_seed(3)
    s, a = torch.randn((10, 3), generator=g), torch.randn((10, 2), generator=g)
    with torch.no_grad():
        old = torch.distributions.Normal(mlp(actor, s, torch.tanh), log_std.exp()).log_prob(a).sum(-1)
    advantage, returns = torch.randn(10, generator=g), torch.randn(10, generator=g)
    ours, theirs = (torch.Generator().manual_seed(7) for _ in range(2))
    learner.learn(Rollout(s, a, old, torch.zeros(10), advantage, returns), 4, 0.5, ours)  # in the middle of the run
    for _ in range(2):
        for i in torch.randperm(10, generator=theirs).split(4):
            normal = torch.distributions.Normal(mlp(actor, s[i], torch.tanh), log_std.exp())
            ratio = (normal.log_prob(a[i]).sum(-1) - old[i]).exp()
            adv = (advantage[i] - advantage[i].mean()) / (advantage[i].std() + 1e-8)
            policy = -torch.minimum(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
            value = ((mlp(critic, s[i], torch.tanh).squeeze(-1) - returns[i]) ** 2).mean()
            entropy = (log_std + 0.5 * (1 + math.log(2 * math.pi))).sum()
            optimiser.zero_grad()
            (policy + 0.5 * value - 0.01 * entropy).backward()
            torch.nn.utils.clip_grad_norm_(everything, 0.5)
            optimiser.step()
    same(learner, everything)
