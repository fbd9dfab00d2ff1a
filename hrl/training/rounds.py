"""An algorithm that learns in rounds of whole episodes, side by side (MAML, FAMP, LIRPG, MODAC), in training."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from hrl.report.episodes import Finished
from hrl.report.evaluation import Policy
from hrl.run.checkpoint import Checkpoint
from hrl.run.session import Session
from hrl.types import BatchedEnv


class RoundLearner(Protocol):
    """What learns in rounds."""

    steps: int
    """Environment steps so far."""
    metrics: dict[str, float]
    """Of the last round, by tag."""

    def round(self, env: Any, progress: float) -> Finished:
        """Collect episodes and learn from them; `progress` in [0, 1] is the run's."""

    def cut(self) -> None:
        """Forget what a checkpoint does not hold."""

    def network_tensors(self) -> dict[str, Tensor]:
        """What is learned, enough to act."""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, enough to go on."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""

    def counters(self) -> dict[str, Any]:
        """Host numbers."""

    def load_counters(self, counters: dict[str, Any]) -> None:
        """Take over what `counters` gave."""


class RoundsTrainee:
    """A round begins every episode anew, so a checkpoint between two rounds is exact. A round that is interrupted, or
    in which something fails, is undone."""

    together = whole = True

    def __init__(self, learner: RoundLearner, policy: Policy, env: BatchedEnv, session: Session) -> None:
        self.learner, self.policy, self.env, self.session = learner, policy, env, session
        self.warnings: list[str] = []

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self.learner.steps

    @property
    def name(self) -> str:
        """The environment's id."""
        return self.env.spec.env_id

    @property
    def time_limit(self) -> int | None:
        """Rounds are whole: no episode outlasts its own."""
        return None

    @property
    def tells_success(self) -> bool:
        """Whether the environment has reported success so far."""
        return self.env.tells_success

    def begin(self) -> None:
        """Each round begins its own episodes."""

    def round(self, total_steps: int) -> Sequence[Finished]:
        """Collect, and learn."""
        learner = self.learner
        before = {name: x.clone() for name, x in learner.tensors().items()}
        counters = learner.counters()
        try:
            with self.session.stop.interruptible():
                return [learner.round(self.env, learner.steps / total_steps)]
        except BaseException:
            learner.load_tensors(before)
            learner.load_counters(counters)
            raise

    def metrics(self) -> dict[str, float]:
        """Of the last round."""
        return self.learner.metrics

    def cut(self) -> None:
        """Forget what a checkpoint does not hold."""
        self.learner.cut()

    def networks(self) -> dict[str, Tensor]:
        """What is learned, enough to act."""
        return self.learner.network_tensors()

    def state(self) -> Checkpoint:
        """Everything that the rounds to come depend on."""
        return Checkpoint(self.learner.tensors(), {"agent": self.learner.counters()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put the learner where the checkpoint was taken."""
        self.learner.load_tensors(checkpoint.tensors)
        self.learner.load_counters(checkpoint.numbers["agent"])

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
