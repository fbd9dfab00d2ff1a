"""SAC: soft actor-critic with automatic temperature (Haarnoja et al. 2018)."""

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hrl.learners.actor_critic import ActorCriticConfig, combine_q, new_critics, regression
from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Build, Kind, Learner, Metrics
from hrl.networks.layers import mlp, polyak_update, width_of
from hrl.spaces import action_width, require_box

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


@dataclass
class SACConfig(ActorCriticConfig):
    """SAC's options."""

    kind: Kind = "sac"
    learning_rate: float = 3e-4
    """Step size of Adam."""
    action_noise: tuple[float, ...] = (0.0,)
    """Exploration: standard deviation of Gaussian noise in addition to the policy's, in half-ranges of the action; one
    number for all environments, or two for the first and the last."""
    ent_coef: float | None = None
    """Temperature. Default: learned, for a target entropy of minus the action dimension."""

    def build(self, build: Build) -> "SAC":
        """Build the learner. Raises UserError if the action space is not a Box."""
        require_box(build.actions, build.name, self.kind)
        return SAC(build, self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("ent_coef",), lambda x: x >= 0, "must not be negative, but is")


class SAC(Learner):
    """Stochastic tanh-Gaussian actor, critics with target networks, temperature α."""

    formulas = ("target", "critic_loss", "actor_loss")
    entropy_bonus = True

    def __init__(self, build: Build, config: SACConfig) -> None:
        # With an entropy bonus, values have no known bound.
        super().__init__(build._replace(value_range=None))
        self.config = config
        self.action_dim = action_width(build.actions)
        width = width_of(build.encoder, build.inputs)
        self.actor = mlp(width, config.hidden, 2 * self.action_dim, build.tasks, layer_norm=config.layer_norm)
        self.critic = new_critics(build, config)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = temperature(config.ent_coef)
        self.learned = config.ent_coef is None and "ent_coef" not in build.tuned
        self.target_entropy = -float(self.action_dim)
        self.actor_optimiser = FlatAdam(self.actor.parameters(), config.actor_learning_rate or config.learning_rate)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), config.learning_rate)
        self.alpha_optimiser = FlatAdam([self.log_alpha], config.learning_rate)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """A sample of π(·|s), or its mode without a generator."""
        if generator is None:
            return self.mode(inputs)
        features = self.critic.features(inputs)
        shape = (*inputs.shape[:-1], self.action_dim)
        return self.sample(features, torch.randn(shape, generator=generator, device=inputs.device))[0]

    def mode(self, inputs: Tensor) -> Tensor:
        """tanh(μ(s)), differentiable."""
        return self.actor(self.critic.features(inputs)).chunk(2, -1)[0].tanh()

    @torch.no_grad()
    def value(self, inputs: Tensor) -> Tensor:
        """min_i Q_i(s, tanh(μ(s))) [B]."""
        return self.critic(inputs, self.mode(inputs)).amin(0)

    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, A] of N(μ(s), σ(s)), before the tanh."""
        mean, log_std = self.actor(self.critic.features(inputs)).chunk(2, -1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()

    def critic_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """The critic's loss, as in `update_critic`."""
        return self.critic_loss(batch, self.target(batch, noise))[0]

    def actor_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """The actor's loss, also differentiable in the temperature."""
        return self.actor_loss(batch, noise, self.log_alpha.exp())[0]

    def sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """a = tanh(u) with u = μ + σ noise, and log π(a|s) with the change of variables (appendix C)."""
        mean, log_std = self.actor(features).chunk(2, -1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        u = mean + log_std.exp() * noise
        log_gauss = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)²) = 2 (log 2 - u - softplus(-2u)), which does not underflow.
        log_prob = log_gauss - 2 * (math.log(2) - u - softplus(-2 * u))
        return u.tanh(), log_prob.sum(-1)

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Take one step on critics, actor and temperature, then update the target critics."""
        shape, device = (2, *batch.action.shape), batch.action.device
        first, second = torch.randn(shape, generator=generator, device=device)
        metrics = self.update_critic(batch, first) | self.update_actor_and_temperature(batch, second)
        polyak_update(self.target_critic, self.critic, self.config.tau)
        return metrics

    def update_critic(self, batch: Batch, noise: Tensor) -> Metrics:
        """Take one step of all critics towards the target."""
        loss, q = self.critic_loss(batch, self.target(batch, noise).detach())
        norm = self.critic_optimiser.minimise(loss)
        return {"critic_loss": loss.detach(), "q_mean": q.mean(), "critic_grad_norm": norm}

    def update_actor_and_temperature(self, batch: Batch, noise: Tensor) -> Metrics:
        """Take one step on the actor's loss; raise α if the entropy is below its target."""
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
        """y = r + γ^k (min_i Q'_i(s', a') - α log π(a'|s')),  a' ~ π(·|s'); `min_q_weight` replaces the minimum."""
        with torch.no_grad():
            next_action, log_prob = self.sample(self.critic.features(batch.next_inputs), noise)
            q = self.target_critic(batch.next_inputs, next_action)
            next_value = combine_q(q, self.config.min_q_weight)
        return batch.reward + batch.discount * (next_value - self.log_alpha.exp() * log_prob)

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_i (Q_i(s, a) - y)², and the values [C, B]."""
        q = self.critic(batch.inputs, batch.action)
        return regression(q, target, self.config.huber), q.detach()

    def actor_loss(self, batch: Batch, noise: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """E[α log π(a|s) - min_i Q_i(s, a)],  a ~ π(·|s), plus the constraint; and log π [B]. `min_q_weight` replaces
        the minimum. Only the critic's loss trains the encoder."""
        features = self.critic.features(batch.inputs).detach()
        action, log_prob = self.sample(features, noise)
        value = combine_q(self.critic.of_features(features, action), self.config.min_q_weight)
        loss = (alpha * log_prob - value).mean()
        if self.constraint is not None:
            loss = loss + self.constraint(batch.inputs, action).mean()
        return loss, log_prob.detach()


def temperature(fixed: float | None) -> nn.Parameter:
    """log α, initially 0 if it is learned; -inf for a fixed α of 0, which removes the entropy bonus."""
    alpha = 1.0 if fixed is None else fixed
    return nn.Parameter(torch.tensor(math.log(alpha) if alpha > 0 else -math.inf))
