"""SAC for discrete actions (Christodoulou 2019). Expectations over all choices replace samples."""

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.learners.actor_critic import regression
from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Build, Kind, Learner, Metrics, ReplayConfig
from hrl.learners.dqn import available
from hrl.learners.sac import temperature
from hrl.networks.layers import TwinChoices, mlp, polyak_update
from hrl.spaces import joint_choices


@dataclass
class DiscreteSACConfig(ReplayConfig):
    """Discrete SAC's options."""

    kind: Kind = "discrete-sac"
    learning_rate: float = 3e-4
    """Step size of Adam."""
    actor_learning_rate: float | None = None
    """The actor's step size. Default: the same as the critic's."""
    ent_coef: float | None = None
    """Temperature. Default: learned, for the target entropy below."""
    target_entropy: float = 0.5
    """Target entropy, as a fraction of the entropy of uniformly random choices (published: .98)."""

    def build(self, build: Build) -> "DiscreteSAC":
        """Build the learner. Raises UserError for continuous actions."""
        return DiscreteSAC(build, self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("actor_learning_rate",), lambda x: x > 0, "must be positive, not")
        self._require(prefix, ("ent_coef",), lambda x: x >= 0, "must not be negative, but is")
        self._require(prefix, ("target_entropy",), lambda x: 0 < x < 1, "must be between 0 and 1, not")


class DiscreteSAC(Learner):
    """Categorical actor, twin critics of all choices with target networks, temperature α."""

    formulas = ("target", "critic_loss", "actor_loss")
    entropy_bonus = True

    def __init__(self, build: Build, config: DiscreteSACConfig) -> None:
        super().__init__(build._replace(value_range=None))  # with an entropy bonus, values have no known bound
        self.config = config
        self.choices = joint_choices(build.actions, build.name, config.kind)
        count = self.choices.count
        self.critic = TwinChoices(build.inputs, count, config.hidden, config.layer_norm, build.encoder)
        self.actor = mlp(self.critic.width, config.hidden, count, build.tasks, layer_norm=config.layer_norm)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = temperature(config.ent_coef)
        self.learned = config.ent_coef is None
        self.target_entropy = config.target_entropy * math.log(count)
        self.actor_optimiser = FlatAdam(self.actor.parameters(), config.actor_learning_rate or config.learning_rate)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), config.learning_rate)
        self.alpha_optimiser = FlatAdam([self.log_alpha], config.learning_rate)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """A sample of π(·|s), or the most likely choice without a generator."""
        logits = available(self.actor(self.critic.features(inputs)), mask)
        if generator is not None:  # argmax of logits plus Gumbel noise is a sample
            uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
            logits = logits - (-(uniform + 1e-20).log() + 1e-20).log()
        return self.choices.action(logits.argmax(-1))

    @torch.no_grad()
    def value(self, inputs: Tensor) -> Tensor:
        """min_i Q_i(s, a) [B] of the most likely choice a."""
        features = self.critic.features(inputs)
        likely = self.actor(features).argmax(-1, keepdim=True)
        return self.critic.of_features(features).amin(0).gather(-1, likely).squeeze(-1)

    def log_probs(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """log π(·|s) [..., K]; a large negative number for choices that are not available."""
        return available(self.actor(features), mask).log_softmax(-1).clamp_min(-1e9)

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Take one step on critics, actor and temperature, then update the target critics."""
        loss, q = self.critic_loss(batch, self.target(batch))
        norm = self.critic_optimiser.minimise(loss)
        metrics = {"critic_loss": loss.detach(), "q_mean": q.mean(), "critic_grad_norm": norm}
        alpha = self.log_alpha.detach().exp()
        actor_loss, entropy = self.actor_loss(batch, alpha)
        metrics |= {"actor_grad_norm": self.actor_optimiser.minimise(actor_loss), "actor_loss": actor_loss.detach()}
        if self.learned:
            self.alpha_optimiser.minimise(self.log_alpha * (entropy.mean() - self.target_entropy))
        polyak_update(self.target_critic, self.critic, self.config.tau)
        return metrics | {"entropy_coefficient": alpha, "entropy": entropy.mean()}

    def target(self, batch: Batch) -> Tensor:
        """y = r + γ^k Σ_a π(a|s') [min_i Q'_i(s', a) - α log π(a|s')]"""
        with torch.no_grad():
            log_probs = self.log_probs(self.critic.features(batch.next_inputs), batch.next_mask)
            q = self.target_critic(batch.next_inputs).amin(0)
            value = (log_probs.exp() * (q - self.log_alpha.exp() * log_probs)).sum(-1)
        return batch.reward + batch.discount * value

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_i (Q_i(s, a) - y)², and the values [2, B]."""
        number = self.choices.number(batch.action).view(1, -1, 1).expand(2, -1, 1)
        q = self.critic(batch.inputs).gather(-1, number).squeeze(-1)
        return regression(q, target, self.config.huber), q.detach()

    def actor_loss(self, batch: Batch, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """E[Σ_a π(a|s) (α log π(a|s) - min_i Q_i(s, a))] and the entropies [B]. Only the critic's loss trains the
        encoder."""
        features = self.critic.features(batch.inputs).detach()
        log_probs = self.log_probs(features, batch.mask)
        probs = log_probs.exp()
        with torch.no_grad():
            q = self.critic.of_features(features).amin(0)
        loss = (probs * (alpha * log_probs - q)).sum(-1).mean()
        return loss, -(probs * log_probs).sum(-1).detach()
