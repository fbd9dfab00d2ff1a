"""The loop of an agent that learns in rounds: logging, evaluation and checkpoints on the count of steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from hrl.stopping import Interrupted, close_within
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.episodes import Finished
from hrl.training.evaluation import Policy
from hrl.training.reporter import Reporter
from hrl.training.session import Session
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


class Rounds:
    """One run. A round begins every episode anew, so a checkpoint between two rounds is exact."""

    def __init__(self, learner: RoundLearner, policy: Policy, env: BatchedEnv, session: Session) -> None:
        self.learner, self.policy, self.env, self.session = learner, policy, env, session
        self.checkpoints = Checkpoints(session.folder.checkpoints)
        self.saved_at: int | None = None
        self.reporter = Reporter(session, self._restore(session.resume) if session.resume else 0)

    def _restore(self, checkpoint: Checkpoint) -> int:
        self.learner.load_tensors(checkpoint.tensors)
        self.learner.load_counters(checkpoint.numbers["agent"])
        self.saved_at = checkpoint.steps
        return checkpoint.steps

    def run(self) -> signal.Signals | None:
        """Train to the end, or until asked to stop; the signal that asked. The last state is always saved."""
        try:
            with self.reporter.display:
                self._train()
        finally:
            self.reporter.close()
            if reason := close_within(self.env.close):
                self.reporter.display.say(f"warning: {self.env.spec.env_id} could not be closed: {reason}")
        return self.session.stop.signal

    def _train(self) -> None:
        learner, report, run, stop = self.learner, self.reporter, self.session.run, self.session.stop
        while learner.steps < run.total_steps and not stop and not report.given_up:
            try:
                with self._whole(), stop.interruptible():
                    ended = learner.round(self.env, learner.steps / run.total_steps)
            except Interrupted:
                break
            report.tells_success |= self.env.tells_success
            report.recent.add_together(ended)
            if report.log_due(learner.steps):
                report.log(learner.steps, learner.metrics)
            if report.eval_due(learner.steps):
                self._evaluate()
            if report.save_due(learner.steps) and learner.steps < run.total_steps:
                self._save()
        if run.eval_freq and learner.steps >= run.total_steps and not stop:
            self._evaluate()
        if self.saved_at != learner.steps:
            self._save()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """A round is made whole or not at all: one that is interrupted, or in which an environment fails, is undone.
        Where it fails, what is there is saved first."""
        learner = self.learner
        before = {name: x.clone() for name, x in learner.tensors().items()}
        counters = learner.counters()
        try:
            yield
        except BaseException as error:
            learner.load_tensors(before)
            learner.load_counters(counters)
            if isinstance(error, Exception) and self.saved_at != learner.steps:
                self._save()
            raise

    def _evaluate(self) -> None:
        try:
            best = self.reporter.evaluate(self.learner.steps, self.policy)
        except Interrupted:
            return  # the loop sees the request
        if best:
            self.checkpoints.save_best(Checkpoint(self.learner.network_tensors(), self._numbers()))

    def _save(self) -> None:
        self.reporter.log(self.learner.steps, self.learner.metrics)
        self.learner.cut()
        self.checkpoints.save(Checkpoint(self.learner.tensors(), self._numbers()))
        self.saved_at = self.learner.steps

    def _numbers(self) -> dict[str, Any]:
        learner = self.learner
        return {"steps": learner.steps, "agent": learner.counters(), "reporter": self.reporter.state_dict()}
