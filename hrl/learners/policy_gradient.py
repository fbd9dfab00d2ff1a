"""On-policy formulas: returns, a baseline that is fitted to each batch, and the policy gradient's loss."""

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-5


class Trajectories(NamedTuple):
    """Episodes side by side: T steps of E episodes, further dimensions (tasks) before them."""

    state: Tensor
    """[..., T, E, D]"""
    action: Tensor
    """[..., T, E, A], or [..., T, E] numbers of discrete actions."""
    reward: Tensor
    """[..., T, E], 0 after the episode's end."""
    keep: Tensor
    """[..., T, E] 1 up to the episode's end, 0 after."""
    advantage: Tensor
    """[..., T, E] normalised; 0 after the end."""
    success: Tensor
    """[..., T, E] 1 where the environment says so."""

    @classmethod
    def judged(
        cls, state: Tensor, action: Tensor, reward: Tensor, keep: Tensor, gamma: float, success: Tensor
    ) -> "Trajectories":
        """With advantages: returns over the fitted baseline, normalised within each task."""
        returns = discounted(reward * keep, gamma)
        gain = (returns - baseline(state, returns, keep)) * keep
        count = keep.sum((-2, -1), keepdim=True)
        mean = gain.sum((-2, -1), keepdim=True) / count
        spread = (((gain - mean).square() * keep).sum((-2, -1), keepdim=True) / count).sqrt()
        advantage = (gain - mean) / (spread + 1e-8) * keep
        return cls(state, action, reward * keep, keep, advantage, success)

    def returns(self) -> Tensor:
        """[...] the mean undiscounted return of an episode."""
        return self.reward.sum(-2).mean(-1)

    def mean(self, values: Tensor) -> Tensor:
        """[...] over all steps that count."""
        return (values * self.keep).sum((-2, -1)) / self.keep.sum((-2, -1))


def discounted(reward: Tensor, gamma: float) -> Tensor:
    """Σ_{k≥t} γ^(k-t) r_k for every step of [..., T, E]."""
    steps = reward.unbind(-2)
    sums = [steps[-1]]
    for r in reversed(steps[:-1]):
        sums.append(r + gamma * sums[-1])
    return torch.stack(sums[::-1], -2)


def baseline(state: Tensor, returns: Tensor, keep: Tensor) -> Tensor:
    """Returns [..., T, E] as a least-squares fit on state, state², time, time², time³ (Duan 2016), for each task."""
    horizon = state.shape[-3]
    time = torch.arange(horizon, device=state.device, dtype=state.dtype) / 100.0
    time = time.view(horizon, 1, 1).expand(*state.shape[:-1], 1)
    features = torch.cat([state, state.square(), time, time.square(), time**3, torch.ones_like(time)], -1)
    # In float64, since features may repeat each other (a state of zeros and ones is its own square).
    x = (features * keep.unsqueeze(-1)).flatten(-3, -2).double()
    y = (returns * keep).flatten(-2).unsqueeze(-1).double()
    ridge = RIDGE * torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    weights = torch.linalg.solve(x.mT @ x + ridge, x.mT @ y)
    return (features.flatten(-3, -2) @ weights.to(state.dtype)).view(returns.shape)


def score(log_prob: Tensor, data: Trajectories) -> Tensor:
    """-E[log π(a|s) A]: its gradient is the policy gradient's (Williams 1992)."""
    return -data.mean(log_prob * data.advantage)


def dice(log_prob: Tensor, data: Trajectories) -> Tensor:
    """The same by magic boxes exp(x - stop(x)) over each episode so far (DiCE, Foerster 2018).

    Its gradient is the same, and the gradient of its gradient is right too: it counts how the policy before a step
    made it likelier, which `score` leaves out. More variance. An advantage holds all that comes after its step, so
    the box of what came before is taken off (loaded DiCE, Farquhar 2019).
    """
    now = log_prob * data.keep
    so_far = now.cumsum(-2)
    before = so_far - now
    boxes = (so_far - so_far.detach()).exp() - (before - before.detach()).exp()
    return -data.mean(boxes * data.advantage)


def surrogate(log_prob: Tensor, old: Tensor, data: Trajectories) -> Tensor:
    """-E[π(a|s) / π_old(a|s) A] (TRPO's objective)."""
    return -data.mean((log_prob - old).exp() * data.advantage)
