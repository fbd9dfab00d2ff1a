"""SAC: soft actor-critic with automatic temperature (Haarnoja et al. 2018)."""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Learner, LearnerConfig, Metrics, combine_twin_q, regression
from hrl.networks import TwinCritic, mlp, polyak_update

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class SAC(Learner):
    """Stochastic tanh-Gaussian actor, twin critics with slow copies, temperature α."""

    formulas = ("target", "critic_loss", "actor_loss")

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        config: LearnerConfig,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        # An entropy bonus leaves no bound on values.
        super().__init__(config, None)
        self.actor = mlp(input_dim, config.hidden, 2 * action_dim, config.tasks, layer_norm=config.layer_norm)
        self.critic = TwinCritic(input_dim, action_dim, config.hidden, config.layer_norm)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.action_dim = action_dim
        self.learned = config.entropy is None
        alpha = 1.0 if config.entropy is None else config.entropy
        # exp(-inf) = 0: without a bonus for entropy.
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha) if alpha > 0 else -math.inf))
        self.target_entropy = -float(action_dim)
        self.actor_optimiser = FlatAdam(self.actor.parameters(), config.actor_lr or config.lr)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), config.lr)
        self.alpha_optimiser = FlatAdam([self.log_alpha], config.lr)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """A sample of π(·|s), or its mode without a generator."""
        if generator is None:
            return self.mode(inputs)
        shape = (*inputs.shape[:-1], self.action_dim)
        return self.sample(inputs, torch.randn(shape, generator=generator, device=inputs.device))[0]

    def mode(self, inputs: Tensor) -> Tensor:
        """tanh(μ(s)), differentiable."""
        return self.actor(inputs).chunk(2, -1)[0].tanh()

    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """N(μ(s), σ(s)), before the tanh."""
        mean, log_std = self.actor(inputs).chunk(2, -1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()

    def critic_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """As `update_critic`."""
        return self.critic_loss(batch, self.target(batch, noise))[0]

    def actor_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """As in `update_actor_and_temperature`, differentiable in the temperature too."""
        return self.actor_loss(batch, noise, self.log_alpha.exp())[0]

    def sample(self, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """a = tanh(u), u = μ + σ noise, and log π(a|s) with the change of variables (appendix C)."""
        mean, log_std = self.actor(inputs).chunk(2, -1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        u = mean + log_std.exp() * noise
        log_gauss = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)²) = 2 (log 2 - u - softplus(-2u)), which does not underflow.
        log_prob = log_gauss - 2 * (math.log(2) - u - softplus(-2 * u))
        return u.tanh(), log_prob.sum(-1)

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """One step on critics, actor and temperature; the target critics follow."""
        shape, device = (2, *batch.action.shape), batch.action.device
        first, second = torch.randn(shape, generator=generator, device=device)
        metrics = self.update_critic(batch, first) | self.update_actor_and_temperature(batch, second)
        polyak_update(self.target_critic, self.critic, self.config.tau)
        return metrics

    def update_critic(self, batch: Batch, noise: Tensor) -> Metrics:
        """Move both critics towards the target."""
        loss, q = self.critic_loss(batch, self.target(batch, noise).detach())
        norm = self.critic_optimiser.minimise(loss)
        return {"critic_loss": loss.detach(), "q_mean": q.mean(), "critic_grad_norm": norm}

    def update_actor_and_temperature(self, batch: Batch, noise: Tensor) -> Metrics:
        """Move the actor downhill; raise α where the entropy is below its target."""
        alpha = self.log_alpha.detach().exp()
        loss, log_prob = self.actor_loss(batch, noise, alpha)
        norm = self.actor_optimiser.minimise(loss)
        metrics = {"actor_loss": loss.detach(), "actor_grad_norm": norm, "entropy_coefficient": alpha}
        if self.learned:
            gap = (log_prob + self.target_entropy).mean()
            self.alpha_optimiser.minimise(-self.log_alpha * gap)
            metrics["entropy"] = -log_prob.mean()
        return metrics

    def target(self, batch: Batch, noise: Tensor) -> Tensor:
        """y = r + γ^k (min_i Q'_i(s', a') - α log π(a'|s')),  a' ~ π(·|s'), or less pessimistic."""
        with torch.no_grad():
            next_action, log_prob = self.sample(batch.next_inputs, noise)
            next_value = combine_twin_q(self.target_critic(batch.next_inputs, next_action), self.config.pessimism)
        return batch.reward + batch.discount * (next_value - self.log_alpha.exp() * log_prob)

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_i (Q_i(s, a) - y)², and the values [2, B]."""
        q = self.critic(batch.inputs, batch.action)
        return regression(q, target, self.config.huber), q.detach()

    def actor_loss(self, batch: Batch, noise: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """E[α log π(a|s) - min_i Q_i(s, a)],  a ~ π(·|s), or less pessimistic, and the constraint; log π [B]."""
        action, log_prob = self.sample(batch.inputs, noise)
        value = combine_twin_q(self.critic(batch.inputs, action), self.config.pessimism)
        loss = (alpha * log_prob - value).mean()
        return self.constrained(loss, batch.inputs, action), log_prob.detach()
