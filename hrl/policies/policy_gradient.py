"""On-policy formulas: returns, a baseline fitted to each batch, advantages, and the policy gradient's loss."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Credit:
    """Options of the advantage estimate. The defaults are MAML's (Finn 2017, after Duan 2016)."""

    gamma: float = 0.99
    """Discount per step."""
    lam: float = 1.0
    """λ of generalised advantage estimation (Schulman 2016)."""
    powers: bool = True
    """Whether the baseline also has the features state², time, time² and time³, in addition to the state."""
    ridge: float = 1e-5
    """Weight of the squared coefficients in the fit of the baseline. For one-hot states, it equals a number of
    additional visits with a return of 0."""
    bootstrap: bool = False
    """Whether advantages bootstrap truncated episodes from the baseline, which is fitted to the returns up to the
    truncation. Otherwise, truncation counts as termination."""
    normalise: bool = True
    """Whether advantages are normalised to mean 0 and standard deviation 1 within each task."""
    summed: bool = False
    """Whether losses are summed over the steps of an episode, instead of averaged."""


class Trajectories(NamedTuple):
    """T steps of E episodes, with optional leading dimensions (tasks)."""

    state: Tensor
    """[..., T, E, D]"""
    action: Tensor
    """[..., T, E, A], or [..., T, E] for discrete actions."""
    reward: Tensor
    """[..., T, E], 0 after the episode's end."""
    keep: Tensor
    """[..., T, E] 1 up to the episode's end, 0 after."""
    advantage: Tensor
    """[..., T, E], 0 after the episode's end."""
    success: Tensor
    """[..., T, E] 1 where the environment reports success."""
    divisor: Tensor
    """[...] divisor of sums over all steps: the number of valid steps, or of episodes."""
    memory: Any = ()
    """[..., T, E] the policy's memory after each step; a tree of tensors."""

    @classmethod
    def with_advantages(
        cls,
        state: Tensor,
        action: Tensor,
        reward: Tensor,
        keep: Tensor,
        success: Tensor,
        credit: Credit,
        final: Tensor | None = None,
        truncated: Tensor | None = None,
        memory: Any = (),
    ) -> "Trajectories":
        """Compute the advantages of episodes. `final` [..., E, D] are the states after the last steps; `truncated`
        [..., E] masks the episodes that a time limit truncated. Without it, all episodes count as terminated.
        """
        reward = reward * keep
        value, tail = baseline(state, discounted(reward, credit.gamma), keep, credit, final)
        tail = tail * truncated if credit.bootstrap and truncated is not None else torch.zeros_like(tail)
        advantage = advantages(reward, value, tail, keep, credit.gamma, credit.lam)
        steps = keep.sum((-2, -1))
        advantage = normalised(advantage, keep) if credit.normalise else advantage
        divisor = torch.full_like(steps, keep.shape[-1]) if credit.summed else steps
        return cls(state, action, reward, keep, advantage, success, divisor, memory)

    def returns(self) -> Tensor:
        """[...] mean undiscounted return of an episode."""
        return self.reward.sum(-2).mean(-1)

    def mean(self, values: Tensor) -> Tensor:
        """[...] the mean of values [..., T, E] over all valid steps, or the mean over episodes of their sums."""
        return (values * self.keep).sum((-2, -1)) / self.divisor


def discounted(reward: Tensor, gamma: float | Tensor) -> Tensor:
    """Σ_{k≥t} γ^(k-t) r_k for every step of [..., T, E]; `gamma` may also be a tensor [..., T, E] of each step's γ."""
    steps = reward.unbind(-2)
    factors: Any = gamma.unbind(-2) if isinstance(gamma, Tensor) else [gamma] * len(steps)
    sums = [steps[-1]]
    for r, factor in zip(reversed(steps[:-1]), reversed(factors[:-1]), strict=True):
        sums.append(r + factor * sums[-1])
    return torch.stack(sums[::-1], -2)


def advantages(reward: Tensor, value: Tensor, tail: Tensor, keep: Tensor, gamma: float, lam: float) -> Tensor:
    """Σ_k (γλ)^k δ_{t+k} with δ = r + γ V(s') - V(s), all [..., T, E]; `tail` [..., E] is V after the last step.

    With λ = 1 and no tail, these are the returns minus the values.
    """
    goes_on = torch.cat([keep[..., 1:, :], torch.zeros_like(keep[..., :1, :])], -2)
    following = torch.cat([value[..., 1:, :], torch.zeros_like(value[..., :1, :])], -2)
    following = torch.where(goes_on > 0, following, tail.unsqueeze(-2))
    return discounted((reward + gamma * following - value) * keep, gamma * lam) * keep


def option_advantages(
    reward: Tensor, value: Tensor, following: Tensor, goes_on: Tensor, stays: Tensor, lam: float
) -> Tensor:
    """A_t = r + g V(s') - V(s) + λ g' A_{t+1} of each step's option, all [..., T, E].

    g = γ (1 - β(s')) is `goes_on`, and `following` is V of the same option at the next state. g' is g where the option
    continued (`stays`), and 0 where it ended: there, only V estimates how the option would have continued.
    """
    return discounted(reward + goes_on * following - value, lam * goes_on * stays)


def normalised(values: Tensor, keep: Tensor) -> Tensor:
    """Values [..., T, E] with mean 0 and standard deviation 1 over the valid steps, 0 elsewhere."""
    count = keep.sum((-2, -1), keepdim=True)
    mean = (values * keep).sum((-2, -1), keepdim=True) / count
    spread = (((values - mean).square() * keep).sum((-2, -1), keepdim=True) / count).sqrt()
    return (values - mean) / (spread + 1e-8) * keep


def baseline(
    state: Tensor, returns: Tensor, keep: Tensor, credit: Credit, final: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The values [..., T, E] of a least-squares fit of the returns on features of state and time, for each task, and
    its values [..., E] at the final states (0 without final states)."""
    horizon = state.shape[-3]
    time = torch.arange(horizon + 1, device=state.device, dtype=state.dtype) / 100.0
    seen = features(state, time[:horizon].view(horizon, 1, 1).expand(*state.shape[:-1], 1), credit.powers)
    # Use float64, because features can be collinear (a state of zeros and ones equals its square).
    x = (seen * keep.unsqueeze(-1)).flatten(-3, -2).double()
    y = (returns * keep).flatten(-2).unsqueeze(-1).double()
    ridge = credit.ridge * torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    weights = torch.linalg.solve(x.mT @ x + ridge, x.mT @ y).to(state.dtype)
    value = (seen.flatten(-3, -2) @ weights).view(returns.shape)
    if final is None:
        return value, torch.zeros_like(value[..., 0, :])
    length = keep.sum(-2).long()
    return value, (features(final, time[length].unsqueeze(-1), credit.powers) @ weights).squeeze(-1)


def features(state: Tensor, time: Tensor, powers: bool) -> Tensor:
    """State, state², time, time², time³ and 1 (Duan 2016), or the state alone without `powers`."""
    if not powers:
        return state
    return torch.cat([state, state.square(), time, time.square(), time**3, torch.ones_like(time)], -1)


def score(log_prob: Tensor, data: Trajectories) -> Tensor:
    """-E[log π(a|s) A]. Its gradient is the negative policy gradient (Williams 1992)."""
    return -data.mean(log_prob * data.advantage)


def dice(log_prob: Tensor, data: Trajectories) -> Tensor:
    """The loss of `score` with magic boxes exp(x - stop(x)) over each episode so far (DiCE, Foerster 2018).

    Its gradient is the same, and its second derivative is also correct: it includes the effect of earlier actions on
    the probability of reaching a step, which `score` omits. The variance is higher. An advantage contains all rewards
    after its step, so the box of the earlier steps is subtracted (loaded DiCE, Farquhar 2019)."""
    now = log_prob * data.keep
    so_far = now.cumsum(-2)
    before = so_far - now
    boxes = (so_far - so_far.detach()).exp() - (before - before.detach()).exp()
    return -data.mean(boxes * data.advantage)


def surrogate(log_prob: Tensor, old: Tensor, data: Trajectories) -> Tensor:
    """-E[π(a|s) / π_old(a|s) A] (TRPO's objective)."""
    return -data.mean((log_prob - old).exp() * data.advantage)
