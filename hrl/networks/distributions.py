"""Action distributions of stochastic policies: Gaussian for a Box, categorical for discrete entries.

Both sample with a generator that the caller passes, so equal random states give equal actions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hrl.spaces import Space, action_width, choice_sizes

FAR = -1e9
"""Logit of a choice that is not available."""


class DiagonalGaussian(nn.Module):
    """N(μ, diag σ²) with a state-independent standard deviation. Actions are not squashed."""

    def __init__(self, width: int, log_std: float) -> None:
        super().__init__()
        self.width, self.parameters_needed = width, width
        self.log_std = nn.Parameter(torch.full((width,), log_std))

    def sample(self, mean: Tensor, generator: torch.Generator | None, mask: Tensor | None) -> Tensor:
        """A sample [..., A], or the mean without a generator."""
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return torch.addcmul(mean, self.log_std.exp(), noise)

    def log_prob(self, mean: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        """Σ_a log N(a; μ, σ) [...]"""
        return self.log_prob_and_entropy(mean, action, mask)[0]

    def log_prob_and_entropy(self, mean: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """`log_prob` [...], and the entropy [] Σ_a (log σ + (1 + log 2π) / 2), which is equal for all states.

        log N(a; μ, σ) = ½ - H - ½ ((a - μ) / σ)², for every entry, where H is its entropy.
        """
        return self.log_prob_and_slopes(mean, action, mask)[:2]

    def log_prob_and_slopes(
        self, mean: Tensor, action: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Callable[[Tensor, float], tuple[Tensor, list[Tensor]]]]:
        """`log_prob_and_entropy`, and a function that takes the slopes of a loss in the log-probabilities [B] and in
        the entropy, and returns its slopes in the means [B, A] and in this module's parameters."""
        std = self.log_std.exp()
        z = (action - mean) / std
        entropy = self.log_std.sum() + 0.5 * self.width * (1 + math.log(2 * math.pi))
        log_prob = torch.add(0.5 * self.width - entropy, z.square().sum(-1), alpha=-0.5)

        def slopes(by_log_prob: Tensor, by_entropy: float) -> tuple[Tensor, list[Tensor]]:
            weighted = by_log_prob.unsqueeze(-1) * z
            return weighted / std, [(weighted * z).sum(0) - by_log_prob.sum() + by_entropy]

        return log_prob, entropy, slopes

    def sample_and_log_prob(
        self, mean: Tensor, generator: torch.Generator | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`sample` [..., A], and its log-probability [...]."""
        action = self.sample(mean, generator, mask)
        return action, self.log_prob(mean, action, mask)


class Categoricals(nn.Module):
    """One independent categorical distribution per entry. With a single entry, a mask [..., K] can exclude choices."""

    valid: Tensor

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.parameters_needed = sizes, sum(sizes)
        table = torch.arange(max(sizes)) < torch.tensor(sizes).unsqueeze(-1)
        self.register_buffer("valid", table, persistent=False)

    def log_probs(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        """log π [..., E, K]; entries with fewer choices are padded."""
        if len(self.sizes) == 1:
            wide = logits if mask is None else logits.masked_fill(mask < 0.5, FAR)
            return wide.log_softmax(-1).unsqueeze(-2)
        padded = logits.new_full((*logits.shape[:-1], *self.valid.shape), FAR)
        padded[..., self.valid] = logits
        return padded.log_softmax(-1)

    def sample(self, logits: Tensor, generator: torch.Generator | None, mask: Tensor | None) -> Tensor:
        """Choices [..., E], the most likely ones without a generator."""
        return _drawn(self.log_probs(logits, mask), generator)

    def sample_and_log_prob(
        self, logits: Tensor, generator: torch.Generator | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`sample` [..., E], and its log-probability [...]."""
        log_probs = self.log_probs(logits, mask)
        action = _drawn(log_probs, generator)
        return action, _chosen(log_probs, action)

    def log_prob_and_slopes(
        self, logits: Tensor, action: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Callable[[Tensor, float], tuple[Tensor, list[Tensor]]]]:
        """`log_prob_and_entropy`, and a function that takes the slopes of a loss in the log-probabilities [B] and in
        the entropy, and returns its slopes in the logits [B, ·] and none in parameters."""
        log_probs = self.log_probs(logits, mask)
        probs = log_probs.exp()
        entropies = -(probs * log_probs).sum(-1, keepdim=True)
        chosen = action.long().unsqueeze(-1)

        def slopes(by_log_prob: Tensor, by_entropy: float) -> tuple[Tensor, list[Tensor]]:
            weights = by_log_prob.view(-1, 1, 1)
            by_logits = (probs * -weights).scatter_add_(-1, chosen, weights.expand(chosen.shape))
            if by_entropy:
                by_logits.addcmul_(probs, log_probs + entropies, value=-by_entropy / len(logits))
            return by_logits.squeeze(-2) if len(self.sizes) == 1 else by_logits[..., self.valid], []

        return log_probs.gather(-1, chosen).sum((-2, -1)), entropies.sum((-2, -1)).mean(), slopes

    def log_prob(self, logits: Tensor, action: Tensor, mask: Tensor | None) -> Tensor:
        """Log-probability [...] of the choices taken, summed over entries."""
        return _chosen(self.log_probs(logits, mask), action)

    def log_prob_and_entropy(self, logits: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """`log_prob` [...], and the entropy [] -Σ π log π, summed over entries and averaged over the batch."""
        return self.log_prob_and_slopes(logits, action, mask)[:2]


def _drawn(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """Choices [..., E] for log π [..., E, K], the most likely ones without a generator."""
    if generator is not None:  # the argmax of logits plus Gumbel noise is a sample
        uniform = torch.rand(log_probs.shape, generator=generator, device=log_probs.device)
        log_probs = log_probs - uniform.clamp_min_(1e-20).log_().neg_().clamp_min_(1e-20).log_()
    return log_probs.argmax(-1).float()


def _chosen(log_probs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities [...] of the choices taken, summed over entries."""
    return log_probs.gather(-1, action.long().unsqueeze(-1)).sum((-2, -1))


def distribution(actions: Space, log_std: float) -> DiagonalGaussian | Categoricals:
    """The distribution over an action space."""
    sizes = choice_sizes(actions)
    return DiagonalGaussian(action_width(actions), log_std) if sizes is None else Categoricals(sizes)
