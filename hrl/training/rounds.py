"""Training of algorithms that learn in rounds of complete parallel episodes, or of segments (see segments.py)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hrl.report.episodes import Finished
from hrl.report.evaluation import Policy
from hrl.run.checkpoint import Checkpoint
from hrl.run.session import Session
from hrl.run.trainer import Trainee
from hrl.types import BatchedEnv, UserError


class RoundLearner(ABC):
    """The base class of learners that learn in rounds."""

    together: ClassVar[bool] = True
    """Whether each round collects complete episodes that start together."""
    counted: ClassVar[tuple[str, ...]] = ("steps",)
    """Names of attributes with host numbers that later rounds depend on."""

    steps: int
    """Environment steps so far."""
    metrics: dict[str, float]
    """Metrics of the last round, by tag."""
    generator: torch.Generator

    @abstractmethod
    def round(self, env: Any, progress: float) -> Finished | list[Finished]:
        """Collect experience and learn from it; `progress` in [0, 1] is the fraction of the run so far.

        Returns the round's episodes or, if they do not start together, those that ended with each step."""

    @abstractmethod
    def networks(self) -> dict[str, Tensor]:
        """The current learned tensors that acting needs."""

    @abstractmethod
    def momenta(self) -> dict[str, Tensor]:
        """The current values of other tensors that later rounds depend on, such as optimiser states."""

    def drop_episodes(self) -> None:  # noqa: B027
        """Drop the current episodes: a checkpoint does not store them, and a resumed run collects new ones."""

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that later rounds depend on."""
        counters = {f"count.{name}": torch.tensor(getattr(self, name)) for name in self.counted}
        return self.networks() | self.momenta() | counters | {"generator": self.generator.get_state()}

    @torch.no_grad()
    def load_networks(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the learned tensors. Raises UserError if the names or sizes differ."""
        try:
            for name, x in self.networks().items():
                x.copy_(tensors[name])
        except (KeyError, RuntimeError) as error:
            raise UserError("The checkpoint does not fit its configuration or environment.") from error

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.load_networks(state)
        for name, x in self.momenta().items():
            x.copy_(state[name])
        for name in self.counted:
            setattr(self, name, int(state[f"count.{name}"]))
        self.generator.set_state(state["generator"].cpu())


class RoundsTrainee(Trainee):
    """Trains a learner in rounds. No episode continues after a checkpoint, so a checkpoint between two rounds is exact.
    A round that is interrupted or fails is undone."""

    def __init__(self, learner: RoundLearner, policy: Policy, env: BatchedEnv, session: Session) -> None:
        super().__init__(env, session)
        self.learner, self.policy, self.together = learner, policy, learner.together

    @property
    def learned(self) -> RoundLearner:
        """The learner."""
        return self.learner

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.learner.steps

    @property
    def time_limit(self) -> int | None:
        """The environment's limit; None if no episode continues after its round."""
        return None if self.together else super().time_limit

    def begin(self) -> None:
        """Do nothing: the learner starts its episodes."""

    def round(self, total_steps: int) -> Sequence[Finished]:
        """Run one round. Restores the learner's state if it is interrupted or fails."""
        learner = self.learner
        before = {name: x.clone() for name, x in learner.state_dict().items()}
        try:
            with self.session.stop.interruptible():
                ended = learner.round(self.env, learner.steps / total_steps)
        except BaseException:
            learner.load_state_dict(before)
            raise
        return ended if isinstance(ended, list) else [ended]

    def metrics(self) -> dict[str, float]:
        """Metrics of the last round."""
        return self.learner.metrics

    def truncate_episodes(self) -> None:
        """Drop the episodes that a checkpoint does not store."""
        self.learner.drop_episodes()

    def networks(self) -> dict[str, Tensor]:
        """The learned tensors that acting needs."""
        return self.learner.networks()

    def state(self) -> Checkpoint:
        """Everything that later rounds depend on."""
        return Checkpoint(self.learner.state_dict(), {})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the learner's state from a checkpoint."""
        self.learner.load_state_dict(checkpoint.tensors)
