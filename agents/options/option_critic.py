"""Option-critic (Bacon, Harb, Precup 2017, arXiv:1609.05140), for discrete actions.

A policy over options chooses an option ω, which acts with its own policy π(a|s, ω) until it ends with probability
β(s', ω). All parts learn from the task's reward at every step:

    target         y = r + γ U(ω, s'),   U(ω, s') = (1 - β(s', ω)) Q_Ω(s', ω) + β(s', ω) max_ω' Q_Ω(s', ω')
    critics        Q_Ω(s, ω) and Q_U(s, ω, a) move towards y, by intra-option Q-learning
    options        θ ← θ + α_θ τ ∇ log π_θ(a|s, ω) (Q_U(s, ω, a) - Q_Ω(s, ω))
    terminations   ϑ ← ϑ - α_ϑ ∇ β_ϑ(s', ω) (A_Ω(s', ω) + ξ),   A_Ω(s', ω) = Q_Ω(s', ω) - max_ω' Q_Ω(s', ω')

The termination gradient is taken at s', where the option may end. ξ is the deliberation cost (Harb 2018): an option
ends only where another option is better by more than ξ. The policy over options is ε-greedy in Q_Ω; ties are broken at
random. Policies are softmax with temperature τ, and their gradient is multiplied by τ, as in the authors' code.

Without hidden layers, all functions are linear in the observation: tables for Discrete (one-hot) observations.
`--options 1` is a flat actor-critic.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hrl.agents.parts.options import OptionsConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.setting import Setting
from hrl.learners import Batch, Build, Choice, Decisions, LearnerConfig, Metrics, OnPolicyConfig, OnPolicyLearner
from hrl.learners.adam import FlatSGD
from hrl.learners.base import Exploring, Kind
from hrl.learners.on_policy import mean_metrics
from hrl.networks.distributions import Categoricals
from hrl.networks.layers import mlp
from hrl.networks.options import OptionNet, draw_end, split_option
from hrl.spaces import choice_sizes
from hrl.types import Spec, UserError


@dataclass
class OptionLearnerConfig(OnPolicyConfig, listed=False):
    """Hyperparameters of the options' learner (published: those for four rooms)."""

    kind: Kind = "option-critic"
    learning_rate: float = 0.5
    """Step size of the critics Q_Ω and Q_U."""
    intra_learning_rate: float = 0.25
    """Step size of the options' policies."""
    termination_learning_rate: float = 0.25
    """Step size of the terminations."""
    hidden: tuple[int, ...] = ()
    """Units of the hidden layers (tanh). Without hidden layers, tables for Discrete observations."""
    n_steps: int = 1
    """Steps of every environment between two rounds of updates."""
    batch_size: int = 1
    """Steps per update. With 1, updates use several environments one after another."""
    temperature: float = 0.01
    """Temperature τ of the options' policies."""
    deliberation_cost: float = 0.0
    """ξ, the advantage that another option must have before an option ends. Above 0, options last longer."""

    def build(self, build: Build) -> "OptionCritic":
        """Build the learner."""
        return OptionCritic(build, self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        rates = ("learning_rate", "intra_learning_rate", "termination_learning_rate")
        positive = (*rates, "n_steps", "batch_size", "temperature")
        self._require(prefix, positive, lambda x: x > 0, "must be positive, not")
        self._require(prefix, ("deliberation_cost",), lambda x: x >= 0, "must not be negative, but is")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"{prefix}hidden must be positive layer sizes, not {self.hidden}.")


class OptionCritic(OnPolicyLearner):
    """Policies, terminations and critics of K options."""

    def __init__(self, build: Build, config: OptionLearnerConfig) -> None:
        super().__init__(build)
        sizes = choice_sizes(build.actions)
        assert sizes is not None
        self.config, self.options = config, build.command
        self.distribution = Categoricals(sizes)
        actions = self.distribution.parameters_needed
        width = build.inputs - self.options
        self.option_value, self.action_value, self.policy, self.termination = (
            self.network(width, outputs) for outputs in (1, actions, actions, 1)
        )
        critics = [*self.option_value.parameters(), *self.action_value.parameters()]
        self.critic_optimiser = FlatSGD(critics, config.learning_rate)
        self.policy_optimiser = FlatSGD(self.policy.parameters(), config.intra_learning_rate)
        self.termination_optimiser = FlatSGD(self.termination.parameters(), config.termination_learning_rate)

    def network(self, width: int, outputs: int) -> OptionNet:
        """A table of zeros without hidden layers, else a multilayer perceptron, with outputs for each option."""
        hidden, total = self.config.hidden, self.options * outputs
        if hidden:
            return OptionNet(mlp(width, hidden, total, smooth=True), self.options, outputs)
        table = nn.Linear(width, total, bias=False)
        nn.init.zeros_(table.weight)
        return OptionNet(nn.Sequential(table), self.options, outputs)

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """A sample of π(·|s, ω), or its mode without a generator."""
        return self.distribution.sample(self.policy(inputs) / self.config.temperature, generator, mask)

    @torch.no_grad()
    def ends(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Whether [B] the options end, with probability β(s, ω)."""
        return draw_end(self.termination(inputs).squeeze(-1).sigmoid(), generator)

    def values(self, state: Tensor) -> Tensor:
        """Q_Ω(s, ·) [..., K]."""
        return self.option_value.each(state).squeeze(-1)

    # -- the update ------------------------------------------------------------------------------------------

    def rollout(self, decisions: Decisions) -> Batch:
        """The steps to learn from, one environment after another."""
        num_envs = decisions.follows.shape[1]
        return decisions.batch.at(decisions.places[(decisions.places % num_envs).argsort(stable=True)])

    def learn(self, rollout: Batch, size: int, progress: float, generator: torch.Generator) -> Metrics:
        """Make one update with every `size` steps."""
        return mean_metrics([self.step(batch) for batch in rollout.split(size)])

    def step(self, batch: Batch) -> Metrics:
        """Update the critics, then policies and terminations with the new critics."""
        critic_loss = self.critic_loss(batch)
        self.critic_optimiser.minimise(critic_loss)
        self.policy_optimiser.minimise(self.policy_loss(batch))
        termination_loss, chance = self.termination_loss(batch)
        self.termination_optimiser.minimise(termination_loss)
        return {"critic_loss": critic_loss.detach(), "termination": chance.mean()}

    def target(self, batch: Batch) -> Tensor:
        """y = r + γ U(ω, s') [B], with U(ω, s') = (1 - β(s', ω)) Q_Ω(s', ω) + β(s', ω) max_ω' Q_Ω(s', ω')."""
        with torch.no_grad():
            state, option = self._arrival(batch)
            value, chance = self.values(state), self._chance(state, option)
            arrived = (1 - chance) * (value * option).sum(-1) + chance * value.amax(-1)
            return batch.reward + batch.discount * arrived

    def critic_loss(self, batch: Batch) -> Tensor:
        """½ E[(Q_Ω(s, ω) - y)² + (Q_U(s, ω, a) - y)²]"""
        y = self.target(batch)
        value, action_value = self.option_value(batch.inputs).squeeze(-1), self._of_action(batch)
        return 0.5 * ((value - y).square() + (action_value - y).square()).mean()

    def policy_loss(self, batch: Batch) -> Tensor:
        """-τ E[log π(a|s, ω) (Q_U(s, ω, a) - Q_Ω(s, ω))]"""
        with torch.no_grad():
            advantage = self._of_action(batch) - self.option_value(batch.inputs).squeeze(-1)
        tau = self.config.temperature
        log_prob = self.distribution.log_prob(self.policy(batch.inputs) / tau, batch.action, batch.mask)
        return -tau * (log_prob * advantage).mean()

    def termination_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """E[β(s', ω) (A_Ω(s', ω) + ξ)], 0 where the task ended; and β(s', ω) [B]."""
        state, option = self._arrival(batch)
        with torch.no_grad():
            value = self.values(state)
            advantage = (value * option).sum(-1) - value.amax(-1) + self.config.deliberation_cost
        chance = self._chance(state, option)
        return (chance * advantage * (batch.discount > 0)).mean(), chance.detach()

    def _arrival(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The next state s' [B, D], and the option [B, K] that led to it."""
        return split_option(batch.next_inputs, self.options)[0], split_option(batch.inputs, self.options)[1]

    def _chance(self, state: Tensor, option: Tensor) -> Tensor:
        """β(s, ω) [B]."""
        return self.termination(torch.cat([state, option], -1)).squeeze(-1).sigmoid()

    def _of_action(self, batch: Batch) -> Tensor:
        """Q_U(s, ω, a) [B]."""
        return self.action_value(batch.inputs).gather(-1, batch.action.long()).squeeze(-1)


@dataclass
class GreedyConfig(OnPolicyConfig, listed=False):
    """Hyperparameters of the policy over options."""

    kind: Kind = "greedy"
    n_steps: int = 1
    epsilon: float = 0.01
    """Fraction of random choices (published)."""

    @property
    def exploring(self) -> Exploring:
        """Random choices with probability ε."""
        return Exploring(random=(self.epsilon, self.epsilon))

    def build(self, build: Build) -> "Greedy":
        """Build the policy over options."""
        return Greedy(build)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("epsilon",), lambda x: 0 <= x <= 1, "must be between 0 and 1, not")


class Greedy(OnPolicyLearner):
    """The policy over options: argmax_ω Q_Ω(s, ω). It does not learn: the level below learns Q_Ω."""

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        assert build.reads is not None
        self.reads = build.reads

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """The best option [..., 1]; ties are broken at random with a generator, else by taking the first option."""
        value = self.reads(inputs)
        if generator is None:
            return value.argmax(-1, keepdim=True).float()
        draw = torch.rand(value.shape, generator=generator, device=value.device)
        return torch.where(value == value.amax(-1, keepdim=True), draw, -1.0).argmax(-1, keepdim=True).float()

    def rollout(self, decisions: Decisions) -> Batch:
        """The decisions."""
        return decisions.batch.at(decisions.places)

    def learn(self, rollout: Batch, size: int, progress: float, generator: torch.Generator) -> Metrics:
        """Do nothing: the policy does not learn."""
        return {}


@dataclass
class Low(LevelConfig):
    """The options' policies, terminations and critics."""

    learner: Choice = field(default_factory=OptionLearnerConfig)


@dataclass
class High(LevelConfig):
    """The policy over options. It is frozen, because the low level learns its values."""

    learner: Choice = field(default_factory=GreedyConfig)
    frozen: bool = True


@dataclass
class OptionCriticConfig(OptionsConfig):
    """Option-critic: options and their terminations, learned online from the task's reward (Bacon 2017)."""

    essential: ClassVar[tuple[str, ...]] = ("options", "low.learning_rate", "low.deliberation_cost", "high.epsilon")
    learners: ClassVar[tuple[type[LearnerConfig], type[LearnerConfig]]] = (OptionLearnerConfig, GreedyConfig)
    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)

    def require(self, spec: Spec) -> None:
        """Raise UserError if the environment does not fit."""
        super().require(spec)
        sizes = choice_sizes(spec.actions)
        if sizes is None or len(sizes) > 1:
            raise UserError(
                f"Option-critic needs discrete actions, but {spec.env_id} has {spec.action_space}: use ppoc."
            )

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent: the policy over options reads Q_Ω of the level below."""
        return self.build_with(setting, high_reads=lambda low, state: low.values(state))
