"""TD3: twin delayed deep deterministic policy gradient (Fujimoto, van Hoof, Meger 2018)."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.learners.actor_critic import ActorCriticConfig, combine_q, new_critics, regression
from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Build, Kind, Learner, Metrics
from hrl.networks.layers import mlp, polyak_update, width_of
from hrl.spaces import action_width, require_box


@dataclass
class TD3Config(ActorCriticConfig):
    """TD3's options."""

    kind: Kind = "td3"
    policy_delay: int = 2
    """Critic updates for each actor and target update."""
    target_noise: float = 0.2
    """Standard deviation of the target policy's smoothing noise, in half-ranges of the action."""
    noise_clip: float = 0.5
    """Clip range of the smoothing noise."""
    action_l2: float = 0.0
    """Weight of the mean squared action in the actor's loss, against saturated actions."""
    clip_values: bool = True
    """Clip bootstrapped targets to the range of possible discounted returns, if it is known."""

    def build(self, build: Build) -> "TD3":
        """Build the learner. Raises UserError if the action space is not a Box."""
        require_box(build.actions, build.name, self.kind)
        return TD3(build if self.clip_values else build._replace(value_range=None), self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("policy_delay",), lambda x: x > 0, "must be positive, not")
        names = ("target_noise", "noise_clip", "action_l2")
        self._require(prefix, names, lambda x: x >= 0, "must not be negative, but is")


class TD3(Learner):
    """Deterministic actor π, critics Q₁, Q₂, …, and target networks of all of them."""

    formulas = ("target", "critic_loss", "actor_loss")

    def __init__(self, build: Build, config: TD3Config) -> None:
        super().__init__(build)
        self.config, self.cycle = config, config.policy_delay
        width, actions = width_of(build.encoder, build.inputs), action_width(build.actions)
        self.actor = mlp(width, config.hidden, actions, build.tasks, layer_norm=config.layer_norm)
        self.critic = new_critics(build, config)
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.actor_optimiser = FlatAdam(self.actor.parameters(), config.actor_learning_rate or config.learning_rate)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), config.learning_rate)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """π(s) in [-1, 1]."""
        return self.mode(inputs)

    def mode(self, inputs: Tensor) -> Tensor:
        """π(s), differentiable."""
        return self.actor(self.critic.features(inputs)).tanh()

    @torch.no_grad()
    def value(self, inputs: Tensor) -> Tensor:
        """min_i Q_i(s, π(s)) [B]."""
        features = self.critic.features(inputs)
        return self.critic.of_features(features, self.actor(features).tanh()).amin(0)

    def gaussian(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, A] of N(π(s), 1)."""
        mean = self.mode(inputs)
        return mean, torch.ones_like(mean)

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Take one critic step and, at every `policy_delay`-th update, one actor step and one target update."""
        metrics = self.update_critic(batch, generator)
        if (number + 1) % self.config.policy_delay == 0:
            metrics |= self.update_actor(batch)
            polyak_update(self.target_critic, self.critic, self.config.tau)
            polyak_update(self.target_actor, self.actor, self.config.tau)
        return metrics

    def update_critic(self, batch: Batch, generator: torch.Generator) -> Metrics:
        """Take one step of all critics towards the target."""
        noise = torch.randn(batch.action.shape, generator=generator, device=batch.action.device)
        loss, q = self.critic_loss(batch, self.target(batch, noise))
        norm = self.critic_optimiser.minimise(loss)
        return {"critic_loss": loss.detach(), "q_mean": q.mean(), "critic_grad_norm": norm}

    def update_actor(self, batch: Batch) -> Metrics:
        """Take one step of the actor towards a higher Q₁."""
        loss = self.actor_loss(batch)
        norm = self.actor_optimiser.minimise(loss)
        return {"actor_loss": loss.detach(), "actor_grad_norm": norm}

    def critic_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """The critic's loss, as in `update_critic`."""
        return self.critic_loss(batch, self.target(batch, noise))[0]

    def actor_objective(self, batch: Batch, noise: Tensor) -> Tensor:
        """The actor's loss, as in `update_actor`; ignores the noise."""
        return self.actor_loss(batch)

    def target(self, batch: Batch, noise: Tensor) -> Tensor:
        """y = r + γ^k min_i Q'_i(s', π'(s') + ε),  ε ~ clip(N(0, σ), -c, c); `min_q_weight` replaces the minimum."""
        c = self.config
        with torch.no_grad():
            smoothing = (noise * c.target_noise).clamp(-c.noise_clip, c.noise_clip)
            features = self.target_critic.features(batch.next_inputs)
            next_action = (self.target_actor(features).tanh() + smoothing).clamp(-1.0, 1.0)
            next_value = combine_q(self.target_critic.of_features(features, next_action), c.min_q_weight)
        return self.bound(batch.reward + batch.discount * next_value)

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_i (Q_i(s, a) - y)², and the values [C, B]."""
        q = self.critic(batch.inputs, batch.action)
        return regression(q, target, self.config.huber), q.detach()

    def actor_loss(self, batch: Batch) -> Tensor:
        """-Q₁(s, π(s)) + action_l2 E[a²] + the constraint. Only the critic's loss trains the encoder."""
        features = self.critic.features(batch.inputs).detach()
        action = self.actor(features).tanh()
        value = self.critic.first(features, action)
        loss = -value.mean() + self.config.action_l2 * action.square().mean()
        return loss if self.constraint is None else loss + self.constraint(batch.inputs, action).mean()
