"""Skills that a discriminator distinguishes (DIAYN: Eysenbach, Gupta, Ibarz, Levine 2018, arXiv:1802.06070).

A discriminator q(z|s) learns which of K skills led to a state, by minimising -E[log q(z|s')] over the transitions of
the level that obeys the skills. This level is rewarded for states in which the discriminator recognises its skill
(eq. 3):

    r_z(s, a, s') = log q(z|s') - log p(z),   p(z) = 1 / K.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from hrl.hierarchy.commands import Skill
from hrl.hierarchy.commands.goals import GoalSpace
from hrl.hierarchy.level import Level
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.timescale import Timescale
from hrl.learners import Metrics
from hrl.learners.adam import FlatAdam
from hrl.memory.ring import Replay
from hrl.networks.layers import mlp
from hrl.state import gather, restore
from hrl.types import UserError


@dataclass
class DiscriminatorConfig:
    """Options of the discriminator."""

    from_start: bool = False
    """The discriminator also sees the position where the skill started, so a skill can have different meanings at
    different positions. Needs goal.relative."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the discriminator's hidden layers (published: 300, 300)."""
    learning_rate: float = 3e-4
    """The discriminator's learning rate (published: 3e-4)."""
    batch_size: int = 256
    """Transitions per update (published: 128)."""
    train_freq: int = 1
    """Environment steps (of all environments together) between two rounds of updates."""
    gradient_steps: int = 1
    """Updates per round."""

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        for name in ("learning_rate", "batch_size", "train_freq", "gradient_steps"):
            if not getattr(self, name) > 0:
                raise UserError(f"discriminator.{name} must be positive, not {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"discriminator.hidden must be one or more positive layer sizes, not {self.hidden}.")


class DiscriminatedSkill(Skill, nn.Module):
    """One of K skills that a discriminator recognises.

    With an absolute goal space, the discriminator sees the projected state φ(s'). With a relative one, it sees the
    displacement φ(s') - φ(s₀) since the skill started, which the level below also observes. A target consists of the
    skill's one-hot number and φ(s₀).
    """

    def __init__(self, count: int, goals: GoalSpace, config: DiscriminatorConfig, scale: float = 1.0) -> None:
        nn.Module.__init__(self)
        super().__init__(count, self._recognised, scale)
        self.count, self.goals, self.from_start = count, goals, config.from_start
        self.dim = count + goals.dim
        self.input_dim = count + goals.dim * goals.relative
        inputs = goals.dim + config.from_start * (goals.dim + goals.feature_dim)
        with goals.low.device:
            self.net = mlp(inputs, config.hidden, count)

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """[..., K + G] the skill's one-hot number, and the position where it starts."""
        number = one_hot(action.squeeze(-1).long(), self.count).to(state.dtype)
        return torch.cat([number, self.goals.project(state)], -1)

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """The one-hot number, and the displacement since the skill started if the discriminator sees it."""
        if not self.goals.relative:
            return target[..., : self.count]
        return torch.cat([target[..., : self.count], self._moved(state, target)], -1)

    def number(self, target: Tensor) -> Tensor:
        """The skill's number [...], int64."""
        return target[..., : self.count].argmax(-1)

    def logits(self, state: Tensor, target: Tensor) -> Tensor:
        """log q(·|s) [..., K] up to a constant, for the state that a skill led to."""
        start = target[..., self.count :]
        seen = [self._moved(state, target)]
        if self.from_start:
            seen += [start / self.goals.half, self.goals.features(start)]
        return self.net(torch.cat(seen, -1))

    def _moved(self, state: Tensor, target: Tensor) -> Tensor:
        origin = target[..., self.count :] if self.goals.relative else self.goals.centre
        return (self.goals.project(state) - origin) / self.goals.half

    @torch.no_grad()
    def _recognised(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """log q(z|s') - log p(z)"""
        log_probs = self.logits(next_state, target).log_softmax(-1)
        return (log_probs * target[..., : self.count]).sum(-1) + math.log(self.count)

    @torch.no_grad()
    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Whether the discriminator recognises a skill that ended in this state."""
        return {"skill_recognised": (self.logits(state, target).argmax(-1) == self.number(target)).float()}


class SkillRecognition:
    """Trains the discriminator on transitions of the level that obeys the skills (a `Model` of that level)."""

    def __init__(
        self, command: DiscriminatedSkill, config: DiscriminatorConfig, setting: Setting, learning_starts: int
    ) -> None:
        self.command, self.batch_size = command, -(-config.batch_size // setting.processes.size)
        self.optimiser = FlatAdam(command.parameters(), config.learning_rate)
        starts = max(learning_starts, setting.num_envs * setting.processes.size)
        self.timescale = Timescale(config.train_freq, config.gradient_steps, starts=starts)
        self._update = setting.execution.function(self.update)

    def keep_up(
        self, level: Level, steps: int, generator: torch.Generator, in_haste: Callable[[], bool] = bool
    ) -> Metrics:
        """Make the updates that are due. Returns the loss and the accuracy of the last update."""
        metrics: Metrics = {}
        for _ in range(self.timescale.due(steps)):
            if in_haste():
                break
            metrics = self._update(level.memory, generator)
        return metrics

    def update(self, memory: Replay, generator: torch.Generator) -> Metrics:
        """Take one gradient step on -E[log q(z|s')] over sampled transitions."""
        rows = memory.draw(self.batch_size, generator)
        target, reached = memory.get(rows, "target"), memory.get(rows.later(1), "state")
        logits, number = self.command.logits(reached, target), self.command.number(target)
        loss = cross_entropy(logits, number)
        self.optimiser.minimise(loss)
        accuracy = (logits.argmax(-1) == number).float().mean()
        return {"discriminator_loss": loss.detach(), "discriminator_accuracy": accuracy}

    def state_dict(self) -> dict[str, Tensor]:
        """The optimiser and the counters; the network is part of the command."""
        return gather({"adam": self.optimiser, "timescale": self.timescale})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        restore({"adam": self.optimiser, "timescale": self.timescale}, state)


class SkillUsage:
    """The entropy of the skills in use, averaged over about `window` steps of every environment (a `Model` of the level
    that chooses them)."""

    def __init__(self, count: int, device: torch.device, window: int = 200) -> None:
        self.count, self.decay = count, 1 - 1 / window
        self.share = torch.full((count,), 1 / count, device=device)
        """[K] fraction of the environments in each skill."""

    def keep_up(
        self, level: Level, steps: int, generator: torch.Generator, in_haste: Callable[[], bool] = bool
    ) -> Metrics:
        """Add the active skills. Returns the entropy, 1 for equal fractions."""
        active = one_hot(level.segment.action.squeeze(-1).long(), self.count).to(self.share.dtype).mean(0)
        self.share.lerp_(active, 1 - self.decay)
        return {"skill_entropy": -torch.xlogy(self.share, self.share).sum() / math.log(self.count)}

    def state_dict(self) -> dict[str, Tensor]:
        """The fractions."""
        return {"share": self.share}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.share.copy_(state["share"])
