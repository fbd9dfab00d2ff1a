"""DQN (Mnih 2015), with optional double Q learning (van Hasselt 2016) and dueling heads (Wang 2016).

The memory provides prioritised replay (Schaul 2016) and n-step returns: a batch has weights, and each transition has a
discount. Several discrete entries (MultiDiscrete, MultiBinary) become one joint choice.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch, Build, Exploring, Kind, Learner, Metrics, ReplayConfig
from hrl.learners.fitting import joint_choices
from hrl.networks.layers import mlp, polyak_update, width_of


@dataclass
class DQNConfig(ReplayConfig):
    """DQN's options."""

    kind: Kind = "dqn"
    learning_rate: float = 5e-4
    """Step size of Adam."""
    batch_size: int = 64
    """Transitions per gradient step, over all processes."""
    buffer_size: int = 100_000
    """Capacity of the replay, in transitions of the level."""
    train_freq: int = 4
    """Environment steps (of all environments together) between two rounds of gradient steps."""
    tau: float = 0.01
    """Weight of the online network in each update of the target network (Polyak averaging)."""
    huber: bool = True
    """Huber loss instead of the squared error."""
    double: bool = True
    """The online network chooses the next action, and the target network evaluates it (double Q learning)."""
    dueling: bool = False
    """Separate heads for the state's value and the actions' advantages."""
    n_step: int = 1
    """Number of decisions over which rewards are summed before bootstrapping from the target network."""
    prioritised: bool = False
    """Sample transitions by their last error (alpha .6) with importance weights, instead of uniformly."""
    priority_beta: float = 0.4
    """Exponent of the importance weights at the start of the run; it rises linearly to 1."""
    random_actions: tuple[float, float] = (0.02, 0.1)
    """Exploration: fraction of uniformly random decisions in the first and in the last environment. The others
    interpolate between them; a single environment uses the mean."""
    exploration_fraction: float = 0.1
    """Fraction of the run over which the fraction of random decisions falls from 1 to `random_actions`."""
    clip_values: bool = True
    """Clip bootstrapped targets to the range of possible discounted returns, if it is known."""
    max_grad_norm: float = 10.0
    """Maximum norm of the gradient. Longer gradients are scaled down."""

    @property
    def exploring(self) -> Exploring:
        """Random decisions, with a fraction that falls at the start of the run."""
        return super().exploring._replace(fraction=self.exploration_fraction)

    def build(self, build: Build) -> "DQN":
        """Build the learner. Raises UserError for continuous actions."""
        joint_choices(build, self.kind)
        return DQN(build if self.clip_values else build._replace(value_range=None), self)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        self._require(prefix, ("n_step", "max_grad_norm"), lambda x: x > 0, "must be positive, not")
        names = ("priority_beta", "exploration_fraction")
        self._require(prefix, names, lambda x: 0 <= x <= 1, "must be between 0 and 1, not")


class QNetwork(nn.Module):
    """Q(s, ·) [..., K]; dueling: V(s) + A(s, ·) - mean A(s, ·)."""

    def __init__(self, build: Build, count: int, config: DQNConfig) -> None:
        super().__init__()
        self.encoder = nn.Identity() if build.encoder is None else build.encoder
        width, sizes = width_of(build.encoder, build.inputs), config.hidden
        self.net = mlp(width, sizes, count, build.tasks, layer_norm=config.layer_norm)
        self.value = mlp(width, sizes, 1, build.tasks, layer_norm=config.layer_norm) if config.dueling else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [..., I] -> values [..., K]."""
        features = self.encoder(inputs)
        values = self.net(features)
        if self.value is None:
            return values
        return self.value(features) + values - values.mean(-1, keepdim=True)


class DQN(Learner):
    """A network of action values and its target network."""

    formulas = ("target", "loss")

    def __init__(self, build: Build, config: DQNConfig) -> None:
        super().__init__(build)
        self.config = config
        self.choices = joint_choices(build, config.kind)
        self.critic = QNetwork(build, self.choices.count, config)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.critic_optimiser = FlatAdam(self.critic.parameters(), config.learning_rate, config.max_grad_norm)
        self.last_error: Tensor | None = None
        """[B] absolute errors of the last update, for priorities."""

    @torch.no_grad()
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """argmax_a Q(s, a) over the available choices."""
        return self.choices.action(available(self.critic(inputs), mask).argmax(-1))

    @torch.no_grad()
    def value(self, inputs: Tensor) -> Tensor:
        """max_a Q(s, a) [B]."""
        return self.critic(inputs).amax(-1)

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Take one step towards the target, then update the target network."""
        loss, error, q = self.loss(batch, self.target(batch))
        norm = self.critic_optimiser.minimise(loss)
        polyak_update(self.target_critic, self.critic, self.config.tau)
        self.last_error = error
        return {"critic_loss": loss.detach(), "q_mean": q.mean(), "critic_grad_norm": norm}

    def target(self, batch: Batch) -> Tensor:
        """y = r + γ^k Q'(s', argmax_a Q(s', a)), or max_a Q'(s', a) without double Q learning."""
        with torch.no_grad():
            slow = self.target_critic(batch.next_inputs)
            chooser = self.critic(batch.next_inputs) if self.config.double else slow
            best = available(chooser, batch.next_mask).argmax(-1, keepdim=True)
            return self.bound(batch.reward + batch.discount * slow.gather(-1, best).squeeze(-1))

    def loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[w L(Q(s, a) - y)], the absolute errors [B] and the values [B]."""
        q = self.critic(batch.inputs).gather(-1, self.choices.number(batch.action).unsqueeze(-1)).squeeze(-1)
        measure = nn.functional.smooth_l1_loss if self.config.huber else nn.functional.mse_loss
        each = measure(q, target, reduction="none")
        loss = each.mean() if batch.weight is None else (each * batch.weight).mean()
        return loss, (q - target).detach().abs(), q.detach()


def available(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values [..., K], with -inf for choices that are not available."""
    return values if mask is None else values.masked_fill(mask < 0.5, -torch.inf)
