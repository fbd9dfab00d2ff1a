"""TD3: twin delayed deep deterministic policy gradient (Fujimoto, van Hoof, Meger 2018)."""

from copy import deepcopy

import torch
from torch import Tensor

from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Learner, LearnerConfig, Metrics, combine_twin_q, regression
from hrl.networks import TwinCritic, mlp, polyak_update


class TD3(Learner):
    """Deterministic actor π, twin critics Q₁ and Q₂, and slow copies of all three."""

    formulas = ("target", "critic_loss", "actor_loss")

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        config: LearnerConfig,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(config, value_range)
        self.cycle = config.policy_delay
        self.actor = mlp(input_dim, config.hidden, action_dim, config.tasks, layer_norm=config.layer_norm)
        self.critic = TwinCritic(input_dim, action_dim, config.hidden, config.layer_norm)
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.actor_optimiser = FlatAdam(self.actor.parameters(), config.actor_lr or config.lr)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), config.lr)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """π(s) in [-1, 1]."""
        return self.mode(inputs)

    def mode(self, inputs: Tensor) -> Tensor:
        """π(s), differentiable."""
        return self.actor(inputs).tanh()

    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """N(π(s), 1)."""
        mean = self.mode(inputs)
        return mean, torch.ones_like(mean)

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """One critic step, and every `policy_delay`-th time one actor step and the targets' tracking."""
        metrics = self.update_critic(batch, generator)
        if (number + 1) % self.config.policy_delay == 0:
            metrics |= self.update_actor(batch)
            polyak_update(self.target_critic, self.critic, self.config.tau)
            polyak_update(self.target_actor, self.actor, self.config.tau)
        return metrics

    def update_critic(self, batch: Batch, generator: torch.Generator) -> Metrics:
        """Move both critics towards the target."""
        noise = torch.randn(batch.action.shape, generator=generator, device=batch.action.device)
        loss, q = self.critic_loss(batch, self.target(batch, noise))
        norm = self.critic_optimiser.minimise(loss)
        return {"critic_loss": loss.detach(), "q_mean": q.mean(), "critic_grad_norm": norm}

    def update_actor(self, batch: Batch) -> Metrics:
        """Move the actor uphill."""
        loss = self.actor_loss(batch)
        norm = self.actor_optimiser.minimise(loss)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm}

    def critic_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """As `update_critic`."""
        return self.critic_loss(batch, self.target(batch, noise))[0]

    def actor_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """As `update_actor`; no noise is needed."""
        return self.actor_loss(batch)

    def target(self, batch: Batch, noise: Tensor) -> Tensor:
        """y = r + γ^k min_i Q'_i(s', π'(s') + ε),  ε ~ clip(N(0, σ), -c, c), or less pessimistic."""
        c = self.config
        with torch.no_grad():
            smoothing = (noise * c.target_noise).clamp(-c.noise_clip, c.noise_clip)
            next_action = (self.target_actor(batch.next_inputs).tanh() + smoothing).clamp(-1.0, 1.0)
            next_value = combine_twin_q(self.target_critic(batch.next_inputs, next_action), c.pessimism)
        return self.bound(batch.reward + batch.discount * next_value)

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_i (Q_i(s, a) - y)², and the values [2, B]."""
        q = self.critic(batch.inputs, batch.action)
        return regression(q, target, self.config.huber), q.detach()

    def actor_loss(self, batch: Batch) -> Tensor:
        """-Q₁(s, π(s)), the squared action's weight, and the constraint."""
        action = self.actor(batch.inputs).tanh()
        value = self.critic.first(batch.inputs, action)
        loss = -value.mean() + self.config.action_l2 * action.square().mean()
        return self.constrained(loss, batch.inputs, action)
