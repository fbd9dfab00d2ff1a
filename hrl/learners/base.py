"""The interface of a learner: an update rule for one action space, independent of the hierarchy."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
import tyro
from torch import Tensor, nn

from hrl.execution.modes import EAGER, Execution
from hrl.learners.adam import FlatAdam
from hrl.networks.layers import ActionFeatures, TaskLinear
from hrl.spaces import Space
from hrl.types import UserError
from hrl.variants import Variant

Metrics = dict[str, Tensor]
Constraint = Callable[[Tensor, Tensor], Tensor]
"""(inputs [B, I], action [B, A]) -> cost of the action [B] in the actor's loss, differentiable in the action."""
Reads = Callable[[Tensor], Tensor]
"""State [..., D], as the levels observe it -> [..., K], such as the values or probabilities of K options."""


class Batch(NamedTuple):
    """B transitions in the form that learners use. Inputs are the observation and the encoded command; actions are rows
    of numbers (hrl/spaces.py)."""

    inputs: Tensor
    """[B, I]"""
    action: Tensor
    """[B, A]"""
    reward: Tensor
    """[B] the discounted sum over the transition's duration."""
    next_inputs: Tensor
    """[B, I]"""
    discount: Tensor
    """[B] γ^duration, or 0 where the task ended (semi-Markov decision process)."""
    weight: Tensor | None = None
    """[B] weight of each transition in the loss; None for 1."""
    mask: Tensor | None = None
    """[B, K] choices available at the decision; None for all."""
    next_mask: Tensor | None = None
    """[B, K] choices available at the next decision; None for all."""

    def at(self, index: Tensor) -> "Batch":
        """The transitions with these indices [K]."""
        return Batch(*(None if x is None else x.index_select(0, index) for x in self))  # type: ignore[arg-type]

    def split(self, size: int) -> "list[Batch]":
        """Batches of `size` transitions each."""
        count = -(-len(self.reward) // size)
        columns = ([None] * count if x is None else x.split(size) for x in self)
        return [Batch(*part) for part in zip(*columns, strict=True)]


class Build(NamedTuple):
    """The arguments for building a learner."""

    inputs: int
    """I, the width of its inputs."""
    actions: Space
    """A Box of [-1, 1], or Discrete, MultiDiscrete or MultiBinary with numbers from 0."""
    name: str = "learner"
    """The level's name, for error messages."""
    encoder: nn.Module | None = None
    """Inputs [B, I] -> features [B, width], with an attribute `width`; None for the inputs themselves."""
    tasks: int = 1
    """Number of tasks, each with separate biases in the actor."""
    value_range: tuple[float, float] | None = None
    """Minimum and maximum of the discounted sum of rewards; None if unknown."""
    constraint: Constraint | None = None
    """Added to the actor's loss."""
    tuned: frozenset[str] = frozenset()
    """Hyperparameters that a tuner sets during learning."""
    execution: Execution = EAGER
    """Execution mode of the learner's formulas."""
    command: int = 0
    """Number of the last inputs that encode the command from above; 0 if it is the task."""
    reads: Reads | None = None
    """A function of another level that the learner's decisions or targets depend on."""
    action_features: ActionFeatures | None = None
    """Features of an action that critics of continuous actions receive."""


class Exploring(NamedTuple):
    """Exploration of a level in addition to its learner's sampling. Pairs are values of the first and the last
    environment."""

    noise: tuple[float, ...] = (0.0,)
    """Standard deviation of Gaussian noise on vectors."""
    random: tuple[float, float] = (0.0, 0.0)
    """Fraction of uniformly random decisions."""
    hold: float = 1.0
    """Mean number of decisions for which a random one is repeated."""
    fraction: float = 0.0
    """Fraction of the run over which the fraction of random decisions falls from 1 to `random`."""


Kind = Annotated[str, tyro.conf.arg(name="learner")]


@dataclass
class LearnerConfig(Variant, ABC, family=True):
    """The options of an update rule."""

    on_policy: ClassVar[bool] = False
    """Whether the learner needs a rollout of its current policy instead of a replay."""

    kind: Kind = ""
    """Update rule: td3, sac, dqn, discrete-sac or ppo. Each rule has its own options."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers of every network."""
    layer_norm: bool = False
    """Normalise the output of each hidden layer."""

    @abstractmethod
    def build(self, build: Build) -> "Learner":
        """Build the learner. Raises UserError if it does not support the action space."""

    @property
    def exploring(self) -> Exploring:
        """Exploration of the level; none by default."""
        return Exploring()

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        self._require(prefix, ("learning_rate",), lambda x: x > 0, "must be positive, not")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"{prefix}hidden must be one or more positive layer sizes, not {self.hidden}.")

    def _require(self, prefix: str, names: tuple[str, ...], holds: Callable[[Any], bool], sentence: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise UserError(f"{prefix}{name} {sentence} {value}.")


@dataclass
class ReplayConfig(LearnerConfig):
    """The options of update rules that learn from a replay."""

    batch_size: int = 256
    """Transitions per gradient step, over all processes."""
    buffer_size: int = 1_000_000
    """Capacity of the replay, in transitions of the level."""
    train_freq: int = 1
    """Environment steps (of all environments together) between two rounds of gradient steps."""
    gradient_steps: int = 1
    """Gradient steps per round."""
    tau: float = 0.005
    """Weight of the online network in each update of the target network (Polyak averaging)."""
    huber: bool = False
    """Huber loss for the critic instead of the squared error."""
    random_actions: tuple[float, float] = (0.0, 0.0)
    """Exploration: fraction of uniformly random decisions in the first and in the last environment. The others
    interpolate between them; a single environment uses the mean."""
    random_hold: float = 1.0
    """Exploration: mean number of decisions for which a random one is repeated."""

    @property
    def exploring(self) -> Exploring:
        """The configured random decisions."""
        return Exploring(random=self.random_actions, hold=self.random_hold)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        positive = ("batch_size", "buffer_size", "train_freq", "tau")
        self._require(prefix, positive, lambda x: x > 0, "must be positive, not")
        self._require(prefix, ("gradient_steps",), lambda x: x >= 0, "must not be negative, but is")
        self._require(prefix, ("tau",), lambda x: x <= 1, "must be between 0 and 1, not")
        if not all(0 <= share <= 1 for share in self.random_actions):
            raise UserError(f"{prefix}random_actions must be two fractions between 0 and 1, not {self.random_actions}.")
        if not self.random_hold >= 1:
            raise UserError(f"{prefix}random_hold must be at least 1 decision, not {self.random_hold}.")


class Learner(nn.Module, ABC):
    """An update rule with its networks and optimisers, independent of the hierarchy."""

    cycle = 1
    """Number of updates after which the update pattern repeats, such as TD3's `policy_delay`."""
    formulas: tuple[str, ...] = ()
    """Names of pure methods, which may be compiled."""
    entropy_bonus = False
    """Whether values include an entropy bonus."""
    remembers: tuple[str, ...] = ()
    """Names of values that are stored with each decision for learning, such as PPO's log-probability and value."""
    recurrent = False
    """Whether acting has a recurrent state under each command; `act_on` is then called."""
    state_dim = 0
    """S, the width of that state."""
    requires_host = False
    """Whether acting calls the host, as policies of other libraries do; it is then not captured."""

    def __init__(self, build: Build) -> None:
        super().__init__()
        self.value_range, self.constraint, self.tasks = build.value_range, build.constraint, build.tasks
        self.rate_factor = 1.0
        for name in self.formulas:
            setattr(self, name, build.execution.formula(getattr(self, name)))

    @abstractmethod
    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """Actions [..., A] for inputs [..., I]: samples if the policy is stochastic and there is a generator, else its
        mode. `mask` [..., K] masks the available choices."""

    def act_and_note(
        self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The actions of `act`, and the values [...] by name that the learner `remembers`."""
        return self.act(inputs, generator, mask), {}

    def act_on(self, inputs: Tensor, carried: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The actions [N, A] of a recurrent learner, and its next state [N, S], from the carried state [N, S]. `start`
        [N] masks environments where a new command starts and the carried state is invalid."""
        raise NotImplementedError

    def value(self, inputs: Tensor) -> Tensor:
        """Value [B] of inputs [B, I] under the policy's mode: the minimum of the critics."""
        raise NotImplementedError

    @abstractmethod
    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Take one gradient step on each network that is due at update `number`, counted from 0.

        Metrics are tensors, so that the host does not wait for the device.
        """

    def choose_task(self, task: int) -> None:
        """Act and learn with this task's biases, if there are several tasks."""
        for module in self.modules():
            if isinstance(module, TaskLinear):
                module.task.fill_(task)

    @property
    def task(self) -> int:
        """The current task, which determines the active biases. Waits for the device."""
        return next((int(m.task) for m in self.modules() if isinstance(m, TaskLinear)), 0)

    def optimisers(self) -> dict[str, FlatAdam]:
        """The learner's optimisers by attribute name."""
        return {name: x for name, x in vars(self).items() if isinstance(x, FlatAdam)}

    def set_learning_rate(self, factor: float) -> None:
        """Set every learning rate to `factor` times its configured value."""
        if factor != self.rate_factor:
            self.rate_factor = factor
            for optimiser in self.optimisers().values():
                optimiser.lr.fill_(optimiser.initial_lr * factor)

    def bound(self, target: Tensor) -> Tensor:
        """Clip bootstrapped targets to `value_range` if it is known (HAC: [-1/(1-γ), 0])."""
        return target if self.value_range is None else target.clamp(*self.value_range)


@runtime_checkable
class Terminating(Protocol):
    """The additional interface of a learner that decides when the command from above ends."""

    def ends(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Whether [B] the command in the inputs [B, I] ends: a sample, or the more likely answer without a
        generator."""


Choice = Annotated[LearnerConfig, tyro.conf.arg(name="")]
"""A configuration field with a learner's options, which the command line shows next to the field."""
