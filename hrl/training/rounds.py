"""The loop of an agent that learns in rounds: logging, evaluation and checkpoints on the count of steps."""

import signal
from typing import Any

from hrl.training.adapting import MetaLearner
from hrl.training.adapting_policy import AdaptingPolicy
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.loop import StopRequest
from hrl.training.reporter import Reporter
from hrl.training.session import Session
from hrl.types import BatchedEnv, UserError


class Rounds:
    """One run. A round begins every episode anew, so a checkpoint between two rounds is exact."""

    def __init__(self, learner: MetaLearner, env: BatchedEnv, session: Session) -> None:
        if session.processes.size > 1:
            raise UserError("Meta-learning runs in one process; give it more --tasks instead.")
        self.learner, self.env, self.session = learner, env, session
        self.policy = AdaptingPolicy(learner)
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
            with StopRequest() as stop, self.reporter.display:
                self._train(stop)
        finally:
            self.reporter.close()
            self.env.close()
        return stop.signal

    def _train(self, stop: StopRequest) -> None:
        learner, report, run = self.learner, self.reporter, self.session.run
        while learner.steps < run.total_steps and stop.signal is None and not report.given_up:
            report.recent.add(learner.round(self.env, learner.steps / run.total_steps))
            if report.log_due(learner.steps):
                report.log(learner.steps, learner.metrics)
            if report.eval_due(learner.steps):
                self._evaluate()
            if report.save_due(learner.steps) and learner.steps < run.total_steps:
                self._save()
        if run.eval_freq and learner.steps >= run.total_steps:
            self._evaluate()
        if self.saved_at != learner.steps:
            self._save()

    def _evaluate(self) -> None:
        if self.reporter.evaluate(self.learner.steps, self.policy):
            self.checkpoints.save_best(Checkpoint(self.learner.network_tensors(), self._numbers()))

    def _save(self) -> None:
        self.reporter.log(self.learner.steps, self.learner.metrics)
        self.checkpoints.save(Checkpoint(self.learner.tensors(), self._numbers()))
        self.saved_at = self.learner.steps

    def _numbers(self) -> dict[str, Any]:
        learner = self.learner
        return {"steps": learner.steps, "agent": learner.counters(), "reporter": self.reporter.state_dict()}
