"""Flat policies: Gaussian and categorical."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hrl.networks.layers import mlp
from hrl.policies.base import choose, gather_actions, num_actions, xavier
from hrl.types import Spec

LEAST_STD = 1e-6


class Gaussian(nn.Module):
    """A normal distribution with a state-dependent mean and one standard deviation per action entry."""

    closed_form = True

    def __init__(
        self, state_dim: int, action_dim: int, hidden: tuple[int, ...], log_std: float = 0.0, smooth: bool = False
    ) -> None:
        super().__init__()
        self.net = xavier(mlp(state_dim, hidden, action_dim, smooth=smooth))
        self.log_std = nn.Parameter(torch.full((action_dim,), log_std))
        self.noise_dim = action_dim

    def shape(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation [..., A]."""
        mean = self.net(state)
        return mean, self.log_std.clamp_min(torch.tensor(LEAST_STD).log().item()).expand_as(mean)

    def start(self, episodes: int, device: torch.device) -> tuple[()]:
        """An empty memory."""
        return ()

    def act(self, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """A sample by the inverse normal distribution function, or the mean without noise."""
        mean, log_std = self.shape(state)
        return mean if noise is None else mean + log_std.exp() * torch.special.ndtri(noise), memory

    def log_prob(self, state: Tensor, action: Tensor, memory: Any = ()) -> Tensor:
        """Log-probability of a normal distribution, summed over action entries."""
        mean, log_std = self.shape(state)
        z = (action - mean) / log_std.exp()
        return -(0.5 * z.square() + log_std + 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(-1)

    def entropy(self, state: Tensor, memory: Any = ()) -> Tensor:
        """Entropy Σ (log σ + (1 + log 2π) / 2) [...]."""
        return (self.shape(state)[1] + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)

    def divergence(self, state: Tensor, old: tuple[Tensor, Tensor]) -> Tensor:
        """KL divergence of two normal distributions, summed over action entries."""
        (mean, log_std), (old_mean, old_log_std) = self.shape(state), old
        moved = (2 * old_log_std).exp() + (old_mean - mean).square()
        return (log_std - old_log_std + moved / (2 * (2 * log_std).exp()) - 0.5).sum(-1)


class Categorical(nn.Module):
    """A categorical distribution over discrete actions."""

    noise_dim, closed_form = 1, True

    def __init__(self, state_dim: int, actions: int, hidden: tuple[int, ...], smooth: bool = False) -> None:
        super().__init__()
        self.net = xavier(mlp(state_dim, hidden, actions, smooth=smooth))

    def shape(self, state: Tensor) -> Tensor:
        """log π(·|s) [..., K]."""
        return self.net(state).log_softmax(-1)

    def start(self, episodes: int, device: torch.device) -> tuple[()]:
        """An empty memory."""
        return ()

    def act(self, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """A sample by the inverse distribution function, or the most likely action without noise."""
        return choose(self.shape(state), None if noise is None else noise[..., 0]), memory

    def log_prob(self, state: Tensor, action: Tensor, memory: Any = ()) -> Tensor:
        """Log-probability of the action taken."""
        return gather_actions(self.shape(state), action)

    def entropy(self, state: Tensor, memory: Any = ()) -> Tensor:
        """Entropy -Σ_a π log π [...]."""
        log_probs = self.shape(state)
        return -(log_probs.exp() * log_probs).sum(-1)

    def divergence(self, state: Tensor, old: Tensor) -> Tensor:
        """KL divergence Σ_a π_old (log π_old - log π) [...]."""
        return (old.exp() * (old - self.shape(state))).sum(-1)


def policy_for(spec: Spec, hidden: tuple[int, ...], std: float, smooth: bool = False) -> Gaussian | Categorical:
    """A Gaussian policy with this initial standard deviation for continuous actions, or a categorical policy for
    discrete ones. Raises UserError for other action spaces."""
    inputs = spec.state_dim + spec.goal_dim
    if spec.continuous:
        return Gaussian(inputs, spec.action_dim, hidden, math.log(std), smooth)
    return Categorical(inputs, num_actions(spec), hidden, smooth)
