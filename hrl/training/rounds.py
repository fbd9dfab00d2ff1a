"""An algorithm that learns in rounds of whole episodes, side by side (MAML, FAMP, LIRPG, MODAC), in training."""

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
    """What learns in rounds of whole episodes."""

    counted: ClassVar[tuple[str, ...]] = ("steps",)
    """Numbers of the host that the rounds to come depend on, by attribute."""

    steps: int
    """Environment steps so far."""
    metrics: dict[str, float]
    """Of the last round, by tag."""
    generator: torch.Generator

    @abstractmethod
    def round(self, env: Any, progress: float) -> Finished:
        """Collect episodes and learn from them; `progress` in [0, 1] is the run's."""

    @abstractmethod
    def networks(self) -> dict[str, Tensor]:
        """What is learned, enough to act: tensors that change in place."""

    @abstractmethod
    def momenta(self) -> dict[str, Tensor]:
        """What else the rounds to come depend on, such as optimisers: tensors that change in place."""

    def drop_episodes(self) -> None:  # noqa: B027
        """Forget the episodes at hand: the running process too collects new ones after a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that the rounds to come depend on."""
        counters = {f"count.{name}": torch.tensor(getattr(self, name)) for name in self.counted}
        return self.networks() | self.momenta() | counters | {"generator": self.generator.get_state()}

    @torch.no_grad()
    def load_networks(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what is learned. Raises UserError where the sizes are others."""
        try:
            for name, x in self.networks().items():
                x.copy_(tensors[name])
        except (KeyError, RuntimeError) as error:
            raise UserError("The checkpoint does not fit its configuration or environment.") from error

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        self.load_networks(state)
        for name, x in self.momenta().items():
            x.copy_(state[name])
        for name in self.counted:
            setattr(self, name, int(state[f"count.{name}"]))
        self.generator.set_state(state["generator"].cpu())


class RoundsTrainee(Trainee):
    """A round begins every episode anew, so a checkpoint between two rounds is exact. A round that is interrupted, or
    in which something fails, is undone."""

    together = True

    def __init__(self, learner: RoundLearner, policy: Policy, env: BatchedEnv, session: Session) -> None:
        super().__init__(env, session)
        self.learner, self.policy = learner, policy

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.learner.steps

    @property
    def time_limit(self) -> int | None:
        """Rounds are whole: no episode outlasts its own."""
        return None

    def begin(self) -> None:
        """Each round begins its own episodes."""

    def round(self, total_steps: int) -> Sequence[Finished]:
        """Collect, and learn."""
        learner = self.learner
        before = {name: x.clone() for name, x in learner.state_dict().items()}
        try:
            with self.session.stop.interruptible():
                return [learner.round(self.env, learner.steps / total_steps)]
        except BaseException:
            learner.load_state_dict(before)
            raise

    def metrics(self) -> dict[str, float]:
        """Of the last round."""
        return self.learner.metrics

    def truncate_episodes(self) -> None:
        """Forget what a checkpoint does not hold."""
        self.learner.drop_episodes()

    def networks(self) -> dict[str, Tensor]:
        """What is learned, enough to act."""
        return self.learner.networks()

    def state(self) -> Checkpoint:
        """Everything that the rounds to come depend on."""
        return Checkpoint(self.learner.state_dict(), {})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put the learner where the checkpoint was taken."""
        self.learner.load_state_dict(checkpoint.tensors)
