"""PPOC: options with proximal policy optimisation (Klissarov, Bacon, Harb, Precup 2017, arXiv:1712.00004).

A policy over options π_Ω(ω|s) chooses an option, which acts with π(a|s, ω) until it ends with probability β(s', ω).
Both levels learn with PPO from the task's reward, each from a rollout of its own decisions:

    low     Â_t of single steps, δ_t = r_t + γ U(ω_t, s_{t+1}) - Q_Ω(s_t, ω_t)
            U(ω, s') = (1 - β(s', ω)) Q_Ω(s', ω) + β(s', ω) V_Ω(s'),   V_Ω(s') = Σ_ω' π_Ω(ω'|s') Q_Ω(s', ω')
    high    Â of whole options: the discounted rewards until an option ended, and γ to the power of its duration
    ends    minimise β(s', ω) (A_Ω(s', ω) + ξ),   A_Ω(s', ω) = Q_Ω(s', ω) - V_Ω(s')

The termination gradient is taken at s', where the option may end. ξ is the deliberation cost (Harb 2018). The layout of
rollouts is that of DAC (Zhang & Whiteson 2019): 4 options, one PPO for each of the two levels.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hrl.agents.parts.options import OptionsConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.setting import Setting
from hrl.learners import PPO, Batch, Build, Choice, Decisions, LearnerConfig, Metrics, PPOConfig
from hrl.learners.adam import FlatAdam
from hrl.learners.on_policy import Rollout
from hrl.learners.ppo import orthogonal
from hrl.networks.distributions import Categoricals
from hrl.networks.options import OptionNet, draw_end, split_option


@dataclass
class OptionPPOConfig(PPOConfig):
    """The options of PPO, and of the terminations."""

    termination_learning_rate: float = 3e-6
    """Step size of Adam for the terminations. Adam's steps do not shrink with the advantage: with a rate near that of
    the policies, options soon last complete episodes, or end immediately, before their values are accurate."""
    deliberation_cost: float = 0.01
    """ξ, the advantage that other options must have before an option ends, in standard deviations of the options'
    advantages if these are normalised. With a larger ξ, options last longer."""
    termination_init: float = 0.1
    """Initial probability β that an option ends at a step."""

    def build(self, build: Build) -> "OptionPPO":
        """Build the learner, for any action space."""
        return OptionPPO(build, self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("termination_learning_rate",), lambda x: x > 0, "must be positive, not")
        self._require(prefix, ("deliberation_cost",), lambda x: x >= 0, "must not be negative, but is")
        self._require(prefix, ("termination_init",), lambda x: 0 < x < 1, "must be between 0 and 1, not")


class OptionPPO(PPO):
    """PPO for K options: each has its own policy and value Q_Ω(s, ω), and ends with probability β(s, ω)."""

    def __init__(self, build: Build, config: OptionPPOConfig) -> None:
        assert build.reads is not None
        self.options, self.over_options = build.command, build.reads
        super().__init__(build, config)
        self.config: OptionPPOConfig = config
        layers = super().network(build.inputs - self.options, self.options)
        self.termination = OptionNet(layers, self.options, 1)
        orthogonal(self.termination, 0.01)
        chance = torch.tensor(config.termination_init)
        nn.init.constant_(self.termination[-1].bias, float(chance.logit()))  # type: ignore[arg-type]
        self.termination_optimiser = FlatAdam(
            self.termination.parameters(), config.termination_learning_rate, config.max_grad_norm, eps=1e-5
        )

    def network(self, width: int, outputs: int, tasks: int = 1) -> OptionNet:
        """Layers that the options share, with common outputs and the deviations of each option from them."""
        layers = super().network(width - self.options, (self.options + 1) * outputs, tasks)
        return OptionNet(layers, self.options, outputs, common=True)

    @torch.no_grad()
    def ends(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Whether [B] the options end, with probability β(s, ω)."""
        return draw_end(self.termination(inputs).squeeze(-1).sigmoid(), generator)

    # -- the update ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def option_values(self, state: Tensor, option: Tensor) -> tuple[Tensor, Tensor]:
        """Q_Ω(s, ω) [B] and V_Ω(s) [B] at states [B, D] under one-hot options [B, K]."""
        value = self.critic.each(state).squeeze(-1)  # type: ignore[operator]
        return (value * option).sum(-1), (value * self.over_options(state)).sum(-1)

    @torch.no_grad()
    def next_values(self, batch: Batch) -> Tensor:
        """U(ω, s') [B] of the option that led to s'."""
        state, option = split_option(batch.next_inputs, self.options)[0], split_option(batch.inputs, self.options)[1]
        value, chosen_anew = self.option_values(state, option)
        return torch.lerp(value, chosen_anew, self._chance(state, option))

    def _chance(self, state: Tensor, option: Tensor) -> Tensor:
        """β(s, ω) [B]."""
        return self.termination(torch.cat([state, option], -1)).squeeze(-1).sigmoid()

    def rollout(self, decisions: Decisions) -> Rollout:
        """The decisions with their advantages and next states."""
        batch, places = decisions.batch, decisions.places
        ahead = {"next_inputs": batch.next_inputs[places], "discount": batch.discount[places]}
        return super().rollout(decisions)._replace(**ahead)

    def step(self, batch: Rollout, ent_coef: float) -> Metrics:
        """Take one gradient step on a minibatch with policies and values, and one with terminations."""
        metrics = super().step(batch, ent_coef)
        loss, chance = self.termination_loss(batch)
        self.termination_optimiser.minimise(loss)
        return metrics | {"termination": chance.mean()}

    def termination_loss(self, batch: Rollout) -> tuple[Tensor, Tensor]:
        """E[β(s', ω) (A_Ω(s', ω) + ξ)], 0 where the task ended; and β(s', ω) [B]. A_Ω is divided by the standard
        deviation of the minibatch's advantages, if these are normalised."""
        assert batch.next_inputs is not None and batch.discount is not None
        c = self.config
        state, option = split_option(batch.next_inputs, self.options)[0], split_option(batch.inputs, self.options)[1]
        value, chosen_anew = self.option_values(state, option)
        advantage = value - chosen_anew
        if c.normalize_advantage and len(advantage) > 1:
            advantage = advantage / (batch.advantage.std() + 1e-8)
        chance = self._chance(state, option)
        return (chance * (advantage + c.deliberation_cost) * (batch.discount > 0)).mean(), chance.detach()


@dataclass
class Low(LevelConfig):
    """The options' policies, values and terminations."""

    learner: Choice = field(default_factory=OptionPPOConfig)


@dataclass
class High(LevelConfig):
    """The policy over options."""

    learner: Choice = field(default_factory=lambda: PPOConfig(ent_coef=0.01))


@dataclass
class PPOCConfig(OptionsConfig):
    """PPOC: options with PPO at both levels, and learned terminations (Klissarov 2017)."""

    essential: ClassVar[tuple[str, ...]] = ("options", "low.learning_rate", "low.n_steps", "low.deliberation_cost")
    learners: ClassVar[tuple[type[LearnerConfig], type[LearnerConfig]]] = (OptionPPOConfig, PPOConfig)
    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent: the terminations read the policy over options of the level above."""
        return self.build_with(setting, low_reads=over_options)


def over_options(high: PPO, state: Tensor) -> Tensor:
    """π_Ω(·|s) [..., K]."""
    assert isinstance(high.distribution, Categoricals)
    return high.distribution.log_probs(high.actor(state), None).exp().squeeze(-2)
