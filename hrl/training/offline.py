"""Training from a dataset, without environment steps: a round is one gradient step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from hrl.memory.dataset import Dataset
from hrl.metrics import Means
from hrl.report.episodes import Finished
from hrl.report.evaluation import Policy
from hrl.run.checkpoint import Checkpoint
from hrl.run.session import Session
from hrl.run.trainer import Trainee
from hrl.state import Stateful, gather, restore
from hrl.types import BatchedEnv, UserError


class OfflineLearner(ABC):
    """The base class of learners that learn from a dataset."""

    @abstractmethod
    def update(self, data: Dataset, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Take one gradient step on every network. Returns metrics by tag, as tensors."""

    @abstractmethod
    def networks(self) -> dict[str, Stateful]:
        """The networks that acting needs."""

    @abstractmethod
    def others(self) -> dict[str, Stateful]:
        """Everything else that later steps depend on, such as target networks and optimisers."""

    def load_networks(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the networks of a checkpoint. Raises UserError if the names or sizes differ."""
        try:
            restore(self.networks(), tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError("The checkpoint does not fit its configuration or environment.") from error


class OfflineTrainee(Trainee):
    """Takes gradient steps on a dataset. Only evaluations use the environment."""

    counts: ClassVar[str] = "gradient steps"

    def __init__(
        self, learner: OfflineLearner, data: Dataset, policy: Policy, env: BatchedEnv, session: Session
    ) -> None:
        super().__init__(env, session)
        self.learner, self.data, self.policy = learner, data, policy
        self.generator = torch.Generator(session.device).manual_seed(session.run.seed)
        self.means = Means(session.device)
        self._steps = 0

    @property
    def steps(self) -> int:
        """Gradient steps so far."""
        return self._steps

    @property
    def time_limit(self) -> int | None:
        """None: training has no episodes."""
        return None

    def begin(self) -> None:
        """Do nothing: training has no episodes."""

    def round(self, total_steps: int) -> Sequence[Finished]:
        """Take one gradient step. After a failure during the step, `whole` is False."""
        try:
            self.means.add(dict(self.learner.update(self.data, self.generator)))
        except Exception:
            self.whole = False
            raise
        self._steps += 1
        return []

    def metrics(self) -> dict[str, float]:
        """Means of the learner's metrics."""
        return self.means.pop()

    def truncate_episodes(self) -> None:
        """Do nothing: training has no episodes."""

    def networks(self) -> dict[str, Tensor]:
        """The tensors of the networks that acting needs."""
        return gather(self.learner.networks())

    def state(self) -> Checkpoint:
        """Networks, optimisers, the random state, and the dataset's checksum."""
        tensors = gather(self.learner.networks() | self.learner.others())
        random = {"generator": self.generator.get_state(), "gradient_steps": torch.tensor(self._steps)}
        return Checkpoint(tensors | random, {"dataset": self.data.fingerprint()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the state of a checkpoint. Raises UserError if the dataset has changed since."""
        if checkpoint.numbers["dataset"] != self.data.fingerprint():
            raise UserError(
                "The dataset has changed since the run started, so the run cannot be resumed exactly: restore it, or "
                "start a new run."
            )
        restore(self.learner.networks() | self.learner.others(), checkpoint.tensors)
        self.generator.set_state(checkpoint.tensors["generator"].cpu())
        self._steps = int(checkpoint.tensors["gradient_steps"])
