"""Normalisation of observations and rewards with running statistics."""

import torch
from torch import Tensor, nn

from hrl.execution.processes import average_over_processes

CLIP = 10.0
"""Normalised entries are clipped to this many standard deviations."""


class RunningNorm(nn.Module):
    """Normalises states [..., D] to mean 0 and standard deviation 1, with running moments by Chan's parallel formula.
    Only training calls `update`. Pixels, the last entries, are not changed."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, state_dim: int, pixels: int = 0) -> None:
        super().__init__()
        self.entries = state_dim - pixels
        self.register_buffer("mean", torch.zeros(self.entries))
        self.register_buffer("variance", torch.ones(self.entries))
        self.register_buffer("count", torch.full((), 1e-4))

    @torch.no_grad()
    def update(self, state: Tensor, active: Tensor) -> None:
        """Add states [N, D] where active [N]. Moments are averaged over the processes of the run."""
        x, weight = state[:, : self.entries], active.to(state.dtype).unsqueeze(-1)
        moments = torch.cat([weight.sum().view(1), (x * weight).sum(0), (x.square() * weight).sum(0)])
        average_over_processes(moments)
        count = moments[0].clamp_min(1e-8)
        mean = moments[1 : self.entries + 1] / count
        variance = (moments[self.entries + 1 :] / count - mean.square()).clamp_min(0.0)
        total, delta = self.count + count, mean - self.mean
        second = self.variance * self.count + variance * count + delta.square() * self.count * count / total
        self.mean += delta * count / total
        self.variance.copy_(second / total)
        self.count.copy_(total)

    def forward(self, state: Tensor) -> Tensor:
        """Normalised states [..., D], clipped to ±CLIP."""
        vector = (state[..., : self.entries] - self.mean) / (self.variance + 1e-8).sqrt()
        return torch.cat([vector.clamp(-CLIP, CLIP), state[..., self.entries :]], -1)


class RewardScale(nn.Module):
    """Divides rewards by the running standard deviation of discounted returns, so that values are of order 1."""

    returns: Tensor
    variance: Tensor
    mean: Tensor
    count: Tensor

    def __init__(self, num_envs: int) -> None:
        super().__init__()
        self.register_buffer("returns", torch.zeros(num_envs))
        for name, value in (("mean", 0.0), ("variance", 1.0), ("count", 1e-4)):
            self.register_buffer(name, torch.tensor(value))

    @torch.no_grad()
    def scaled(self, reward: Tensor, discount: Tensor, there: Tensor) -> Tensor:
        """Rewards [T, N] of consecutive decisions, divided by the standard deviation so far (including these rewards)
        and clipped to ±CLIP. `discount` [T, N] is 0 where the task ended; `there` [T, N] masks the rows that are
        decisions."""
        seen = torch.empty_like(reward)
        for t in range(len(reward)):
            self.returns.copy_(torch.where(there[t], self.returns + reward[t], self.returns))
            seen[t] = self.returns
            self.returns.copy_(torch.where(there[t], self.returns * discount[t], self.returns))
        weight = there.to(reward.dtype)
        moments = torch.stack([weight.sum(), (seen * weight).sum(), (seen.square() * weight).sum()])
        average_over_processes(moments)
        count = moments[0].clamp_min(1e-8)
        mean = moments[1] / count
        variance = (moments[2] / count - mean.square()).clamp_min(0.0)
        total, delta = self.count + count, mean - self.mean
        second = self.variance * self.count + variance * count + delta.square() * self.count * count / total
        self.mean += delta * count / total
        self.variance.copy_(second / total)
        self.count.copy_(total)
        return (reward / (self.variance + 1e-8).sqrt()).clamp(-CLIP, CLIP)
