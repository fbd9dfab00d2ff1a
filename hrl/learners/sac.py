"""SAC: soft actor-critic with automatic temperature (Haarnoja et al. 2018)."""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hrl.learners.adam import Adam
from hrl.learners.base import Batch, Learner, LearnerConfig, Metrics, regression
from hrl.networks import TwinCritic, mlp, track

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class SAC(Learner):
    """Stochastic tanh-Gaussian actor, twin critics with slow copies, temperature α."""

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        config: LearnerConfig,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        # An entropy bonus leaves no bound on values.
        super().__init__(config, None)
        self.actor = mlp(input_dim, config.hidden, 2 * action_dim)
        self.critic = TwinCritic(input_dim, action_dim, config.hidden)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.learned = config.entropy is None
        self.log_alpha = nn.Parameter(torch.tensor(math.log(1.0 if config.entropy is None else config.entropy)))
        self.target_entropy = -float(action_dim)
        self.actor_optimiser = Adam(self.actor.parameters(), config.actor_lr or config.lr)
        self.critic_optimiser = Adam(self.critic.parameters(), config.lr)
        self.alpha_optimiser = Adam([self.log_alpha], config.lr)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """A sample of π(·|s), or its mode without a generator."""
        if generator is None:
            return self.actor(inputs).chunk(2, -1)[0].tanh()
        return self.sample(inputs, generator)[0]

    def sample(self, inputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """a = tanh(u), u ~ N(μ, σ), and log π(a|s) with the change of variables (appendix C)."""
        mean, log_std = self.actor(inputs).chunk(2, -1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        u = mean + log_std.exp() * noise
        log_gauss = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)²) = 2 (log 2 - u - softplus(-2u)), which does not underflow.
        log_prob = log_gauss - 2 * (math.log(2) - u - softplus(-2 * u))
        return u.tanh(), log_prob.sum(-1)

    def update(self, batch: Batch, generator: torch.Generator) -> Metrics:
        """One step on critics, actor and temperature; the target critics follow."""
        self.updates += 1
        metrics = self.update_critic(batch, generator) | self.update_actor_and_temperature(batch, generator)
        track(self.target_critic, self.critic, self.config.tau)
        return metrics

    def update_critic(self, batch: Batch, generator: torch.Generator) -> Metrics:
        """y = r + γ^k (min_i Q'_i(s', a') - α log π(a'|s')),  a' ~ π(·|s')."""
        with torch.no_grad():
            next_action, log_prob = self.sample(batch.next_inputs, generator)
            next_value = self.target_critic(batch.next_inputs, next_action).amin(0)
            next_value = next_value - self.log_alpha.exp() * log_prob
            target = batch.reward + batch.discount * next_value
        q = self.critic(batch.inputs, batch.action)
        loss = regression(q, target, self.config.huber)
        norm = self.critic_optimiser.minimise(loss)
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean(), "critic_grad_norm": norm}

    def update_actor_and_temperature(self, batch: Batch, generator: torch.Generator) -> Metrics:
        """Minimise E[α log π - min_i Q_i]; raise α where the entropy is below its target."""
        action, log_prob = self.sample(batch.inputs, generator)
        alpha = self.log_alpha.detach().exp()
        loss = (alpha * log_prob - self.critic(batch.inputs, action).amin(0)).mean()
        norm = self.actor_optimiser.minimise(loss)
        metrics = {"actor_loss": loss.detach(), "actor_grad_norm": norm, "entropy_coefficient": alpha}
        if self.learned:
            gap = (log_prob.detach() + self.target_entropy).mean()
            self.alpha_optimiser.minimise(-self.log_alpha * gap)
            metrics["entropy"] = -log_prob.detach().mean()
        return metrics
