"""PPO: proximal policy optimisation (Schulman et al. 2017), with generalised advantage estimation (Schulman 2016).

PPO learns from the last rollout of its policy. A decision may take several environment steps. Advantages are discounted
by γ to the power of each decision's duration (hrl/memory/rollout.py).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Build, Kind, Metrics
from hrl.learners.on_policy import Decisions, OnPolicyConfig, OnPolicyLearner, Rollout, mean_metrics
from hrl.learners.slopes import Clipping, Slopes, is_perceptron
from hrl.memory.rollout import advantages
from hrl.networks.distributions import distribution
from hrl.networks.layers import mlp, width_of


@dataclass
class PPOConfig(OnPolicyConfig):
    """PPO's options."""

    remembers: ClassVar[tuple[str, ...]] = ("log_prob",)
    kind: Kind = "ppo"
    learning_rate: float = 3e-4
    """Step size of Adam."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers (tanh) of policy and value function."""
    n_epochs: int = 10
    """Passes over a rollout."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    clip_range: float = 0.2
    """Clip range of π/π_old around 1."""
    clip_range_vf: float | None = None
    """Clip range of the value around its old value. Default: no clipping."""
    normalize_advantage: bool = True
    """Normalise the advantages of a minibatch to mean 0 and standard deviation 1."""
    ent_coef: float = 0.0
    """Weight of the policy's entropy."""
    ent_coef_final: float | None = None
    """Entropy weight at the end of the run, with linear interpolation. Default: constant."""
    vf_coef: float = 0.5
    """Weight of the value function's loss."""
    max_grad_norm: float = 0.5
    """Maximum norm of the gradient. Longer gradients are scaled down."""
    target_kl: float | None = None
    """Stop the passes when the divergence of π from π_old exceeds 1.5 times this value. Default: never."""
    log_std_init: float = 0.0
    """Initial logarithm of the policy's standard deviation, in half-ranges of the action."""
    policy_gain: float = 0.01
    """Initial gain of the policy's last layer. With the default, the policy is almost the same for all inputs."""

    def build(self, build: Build) -> "PPO":
        """Build the learner, for any action space."""
        return PPO(build, self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        positive = ("n_epochs", "clip_range", "clip_range_vf", "max_grad_norm", "target_kl")
        self._require(prefix, positive, lambda x: x > 0, "must be positive, not")
        weights = ("ent_coef", "ent_coef_final", "vf_coef", "policy_gain")
        self._require(prefix, weights, lambda x: x >= 0, "must not be negative, but")
        self._require(prefix, ("gae_lambda",), lambda x: 0 <= x <= 1, "must be between 0 and 1, not")


class PPO(OnPolicyLearner):
    """A stochastic policy and a value function, with one optimiser."""

    formulas = ("loss",)
    remembers = PPOConfig.remembers

    def __init__(self, build: Build, config: PPOConfig) -> None:
        super().__init__(build)
        self.config = config
        self.encoder = nn.Identity() if build.encoder is None else build.encoder
        width = width_of(build.encoder, build.inputs)
        self.distribution = distribution(build.actions, config.log_std_init)
        outputs = self.distribution.parameters_needed
        self.actor = self.network(width, outputs, build.tasks)
        self.critic = self.network(width, 1)
        orthogonal(self.actor, config.policy_gain)
        orthogonal(self.critic, 1.0)
        self.policy_optimiser = FlatAdam(self.parameters(), config.learning_rate, config.max_grad_norm, eps=1e-5)
        self.slopes = self._slopes()

    def _slopes(self) -> Slopes | None:
        """The analytic gradient of the loss; None if there is an encoder, or if a network is not a plain perceptron."""
        c, plain = self.config, all(is_perceptron(net) for net in (self.actor, self.critic))
        if not plain or not isinstance(self.encoder, nn.Identity):
            return None
        clipping = Clipping(c.clip_range, c.clip_range_vf, c.vf_coef)
        return Slopes(self.actor, self.critic, self.distribution, self.policy_optimiser, clipping)

    def network(self, width: int, outputs: int, tasks: int = 1) -> nn.Sequential:
        """The layers from features [..., width] to outputs."""
        c = self.config
        return mlp(width, c.hidden, outputs, tasks, smooth=True, layer_norm=c.layer_norm)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """A sample of π(·|s), or its mode without a generator."""
        return self.distribution.sample(self.actor(self.encoder(inputs)), generator, mask)

    @torch.no_grad()
    def act_and_note(
        self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The actions of `act`, with log π(a|s)."""
        head = self.actor(self.encoder(inputs))
        action, log_prob = self.distribution.sample_and_log_prob(head, generator, mask)
        return action, {"log_prob": log_prob}

    @torch.no_grad()
    def value(self, inputs: Tensor) -> Tensor:
        """V(s) [B]."""
        return self.critic(self.encoder(inputs)).squeeze(-1)

    def next_values(self, batch: Batch) -> Tensor:
        """V(s') [B], the bootstrap values of the decisions' targets."""
        return self.value(batch.next_inputs)

    def rollout(self, decisions: Decisions) -> Rollout:
        """The decisions with their advantages."""
        batch, follows = decisions.batch, decisions.follows
        log_prob, value = decisions.noted["log_prob"], self.value(batch.inputs)
        columns = (batch.reward, batch.discount, value, self.next_values(batch))
        reward, discount, now, following = (x.view(follows.shape) for x in columns)
        advantage = advantages(reward, discount, now, following, follows, self.config.gae_lambda).flatten()
        rollout = Rollout(batch.inputs, batch.action, log_prob, value, advantage, advantage + value, batch.mask)
        return rollout.at(decisions.places)

    def learn(self, rollout: Rollout, size: int, progress: float, generator: torch.Generator) -> Metrics:
        """Make `n_epochs` passes over a rollout in minibatches of `size`, at the fraction `progress` of the run.
        Returns mean metrics."""
        c, count = self.config, len(rollout.action)
        ent_coef = c.ent_coef if c.ent_coef_final is None else c.ent_coef + progress * (c.ent_coef_final - c.ent_coef)
        noted: list[Metrics] = []
        for _ in range(c.n_epochs):
            order = torch.randperm(count, generator=generator, device=rollout.action.device)
            for batch in rollout.at(order).split(size):
                noted.append(self.step(batch, ent_coef))
                if c.target_kl is not None and float(divergence(noted[-1]["log_ratio"])) > 1.5 * c.target_kl:
                    return self.summary(noted)
        return self.summary(noted)

    def step(self, batch: Rollout, ent_coef: float) -> Metrics:
        """Take one gradient step on a minibatch."""
        if self.slopes is not None:
            metrics = self.slopes(batch, self.weights(batch), ent_coef)
            return metrics | {"grad_norm": self.policy_optimiser.descend()}
        loss, metrics = self.loss(batch, ent_coef)
        return metrics | {"grad_norm": self.policy_optimiser.minimise(loss)}

    def loss(self, batch: Rollout, ent_coef: float) -> tuple[Tensor, Metrics]:
        """-E[min(ρ Â, clip(ρ, 1 - ε, 1 + ε) Â)] + c_v E[(V(s) - R)²] - c_e E[H],   ρ = π(a|s) / π_old(a|s)

        The metrics include log ρ and V(s) [B], from which `summary` computes further ones.
        """
        c = self.config
        features = self.encoder(batch.inputs)
        head = self.actor(features)
        advantage = self.weights(batch)
        log_prob, entropy = self.distribution.log_prob_and_entropy(head, batch.action, batch.mask)
        log_ratio = log_prob - batch.log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - c.clip_range, 1 + c.clip_range)
        policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
        value = self.critic(features).squeeze(-1)
        if c.clip_range_vf is not None:
            value = batch.value + (value - batch.value).clamp(-c.clip_range_vf, c.clip_range_vf)
        value_loss = nn.functional.mse_loss(value, batch.returns)
        loss = policy_loss + c.vf_coef * value_loss - ent_coef * entropy
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        metrics |= {"log_ratio": log_ratio, "value": value}
        return loss, {name: x.detach() for name, x in metrics.items()}

    def weights(self, batch: Rollout) -> Tensor:
        """Â [B], normalised over the minibatch with `normalize_advantage`."""
        advantage = batch.advantage
        if not self.config.normalize_advantage or len(advantage) < 2:
            return advantage
        deviation, mean = torch.std_mean(advantage)
        return (advantage - mean) / (deviation + 1e-8)

    def summary(self, noted: list[Metrics]) -> Metrics:
        """The mean metrics of gradient steps over all decisions: those of the loss, the divergence of π from π_old
        (Schulman's low-variance estimate), the fraction of clipped ratios, and the mean value."""
        together = {name: torch.cat([metrics.pop(name) for metrics in noted]) for name in ("log_ratio", "value")}
        log_ratio = together["log_ratio"]
        outside = (log_ratio.exp() - 1).abs() > self.config.clip_range
        more = {"kl": divergence(log_ratio), "clip_fraction": outside.float().mean()}
        return mean_metrics(noted) | more | {"value_mean": together["value"].mean()}


def divergence(log_ratio: Tensor) -> Tensor:
    """E[ρ - 1 - log ρ], Schulman's low-variance estimate of KL(π_old, π)."""
    return (log_ratio.exp() - 1 - log_ratio).mean()


def orthogonal(net: nn.Sequential, gain: float) -> None:
    """Initialise orthogonal weights and zero biases: gain √2 in hidden layers, `gain` in the last one."""
    layers = [layer for layer in net if hasattr(layer, "weight") and layer.weight is not None]
    for layer in layers:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        if weight.dim() == 2:
            nn.init.orthogonal_(weight, gain if layer is layers[-1] else math.sqrt(2))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
