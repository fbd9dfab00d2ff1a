"""The trainer: one loop for everything that learns. Logging, evaluation, checkpoints and stopping, on the count of
environment steps. A trainee says what one round is: a step of every environment, a batch of episodes, a rollout.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hrl.execution.processes import lost_connection
from hrl.report.episodes import Finished, Recent
from hrl.report.evaluation import Policy
from hrl.run.checkpoint import Checkpoint, Checkpoints
from hrl.run.reporter import Bystander, Reporter
from hrl.run.session import Session
from hrl.stopping import Interrupted, close_within
from hrl.types import BatchedEnv, UserError


class Trainee(ABC):
    """An algorithm at work on its environments."""

    whole: bool = True
    """Whether its state is one that a run can go on from: not in the middle of an update."""
    together: bool = False
    """Whether the episodes of a round begin together, and all end in it."""
    policy: Policy
    """Acts by what is learned so far."""

    def __init__(self, env: BatchedEnv, session: Session) -> None:
        self.env, self.session = env, session
        self.warnings: list[str] = []
        """Sentences for the user that were not printed yet; the trainer takes them out."""

    @property
    def name(self) -> str:
        """The environment's id."""
        return self.env.spec.env_id

    @property
    def time_limit(self) -> int | None:
        """Longest episode that a round can leave unfinished, in environment steps; None where there is no limit."""
        return self.env.spec.max_episode_steps

    @property
    def tells_success(self) -> bool:
        """Whether the environment has reported success so far."""
        return self.env.tells_success

    @property
    @abstractmethod
    def steps(self) -> int:
        """Environment steps so far, of all processes."""

    @abstractmethod
    def begin(self) -> None:
        """Begin an episode in every environment: at the start, and after each checkpoint."""

    @abstractmethod
    def round(self, total_steps: int) -> Sequence[Finished]:
        """One round of a run of `total_steps`; the episodes that ended, by step of all environments. A request to stop
        leaves it by Interrupted."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Scalars since the last call, by tag. Raises for faults that a round could not tell without waiting."""

    @abstractmethod
    def truncate_episodes(self) -> None:
        """End every episode, so that nothing is lost that a checkpoint does not hold."""

    @abstractmethod
    def networks(self) -> dict[str, Tensor]:
        """Enough to act."""

    @abstractmethod
    def state(self) -> Checkpoint:
        """Enough to go on; `numbers` without the steps. Called by all processes alike."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's state."""

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


class Trainer:
    """One run: everything between the first step and the last checkpoint."""

    def __init__(self, trainee: Trainee, session: Session, lines: Sequence[str] = (), config: Any = None) -> None:
        """`lines` say what was resolved; they are printed as the run begins. `config` is the agent's configuration as
        it was resolved; None where nothing was."""
        self.trainee, self.session = trainee, session
        self.run_config, self.stop, self.processes = session.run, session.stop, session.processes
        self.checkpoints = Checkpoints(session.folder.checkpoints)
        self.saved_at: int | None = None
        if session.resume is not None:  # what does not fit is found before the folder is changed
            with session.fitting():
                trainee.restore(session.resume)
                Recent(session.device, trainee.time_limit).load_state_dict(session.resume.numbers["reporter"]["recent"])
            self.saved_at = session.resume.steps
        with self.stop.interruptible():
            session.begin(lines, config)
        kind = Reporter if self.processes.first else Bystander
        with session.fitting():
            self.reporter = kind(session, self.saved_at or 0, trainee.time_limit)

    def run(self) -> signal.Signals | None:
        """Train to the end, or until asked to stop; the signal that asked. The last state is always saved."""
        try:
            with self.reporter.display, self._with_others():
                self._train()
        finally:
            self.reporter.close()
            if reason := close_within(self.trainee.close):
                self.reporter.display.say(f"warning: {self.trainee.name} could not be closed: {reason}")
        return self.stop.signal

    def _train(self) -> None:
        trainee, report, total = self.trainee, self.reporter, self.run_config.total_steps
        with self._saved_on_failure():
            self._begin()
            while trainee.steps < total and not self.processes.any(bool(self.stop) or report.given_up):
                if not self._round(total):
                    break
                if report.log_due(trainee.steps):
                    self._log()
                if report.eval_due(trainee.steps):
                    self._evaluate()
                if report.save_due(trainee.steps) and trainee.steps < total:
                    self._save()
                    self._begin()
            if self.run_config.eval_freq and trainee.steps >= total and not self.stop:
                self._evaluate()
        if self.saved_at != trainee.steps:
            self._save()

    def _begin(self) -> None:
        """Interrupted before the first step, a run has its first state to save."""
        try:
            self.trainee.begin()
        except Interrupted:
            return  # the loop sees the request

    def _round(self, total: int) -> bool:
        """One round; False where a request to stop interrupted it."""
        try:
            ended = self.trainee.round(total)
        except Interrupted:
            if self.processes.size > 1:  # all of them save together, and this one's environments do not answer
                raise UserError(
                    f"The environments of process {self.processes.rank} did not answer the request to stop. Its "
                    f"last checkpoint, at {self.saved_at or 0:,} steps, is whole."
                ) from None
            return False
        recent = self.reporter.recent
        for finished in ended:
            (recent.add_together if self.trainee.together else recent.add)(finished)
        self.reporter.tells_success |= self.trainee.tells_success
        return True

    def _log(self) -> None:
        metrics = self.trainee.metrics()
        self.reporter.warn(self.trainee.warnings)
        self.reporter.log(self.trainee.steps, metrics)

    def _evaluate(self) -> None:
        try:
            best = self.reporter.evaluate(self.trainee.steps, self.trainee.policy)
        except Interrupted:
            return  # the loop sees the request
        if best:
            self.checkpoints.save_best(Checkpoint(self.trainee.networks(), self._numbers({})))

    def _save(self) -> None:
        """A checkpoint ends every episode, in the running process too: a resumed run equals one that went on."""
        self._log()
        self.trainee.truncate_episodes()
        self.reporter.recent.truncate_episodes()
        state = self.trainee.state()
        if self.processes.first:
            self.checkpoints.save(Checkpoint(state.tensors, self._numbers(state.numbers)))
        self.saved_at = self.trainee.steps

    def _numbers(self, more: dict[str, Any]) -> dict[str, Any]:
        own = {"steps": self.trainee.steps, "processes": self.processes.size, "reporter": self.reporter.state_dict()}
        return own | more

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Where something fails, what is there is saved first; then its own sentence is printed."""
        try:
            yield
        except Exception:
            # With other processes a checkpoint takes all of them.
            if self.trainee.whole and self.trainee.steps not in (0, self.saved_at) and self.processes.size == 1:
                self._save()
            raise

    @contextmanager
    def _with_others(self) -> Iterator[None]:
        """Where another process of the run dies, its replay is lost with it: what is whole is the last checkpoint."""
        try:
            yield
        except RuntimeError as error:
            if self.processes.size == 1 or not lost_connection(error):
                raise
            self.stop.outlast()
            at = self.saved_at
            whole = f"its last checkpoint, at {at:,} steps, is whole" if at else "no checkpoint yet"
            place = f"{self.trainee.steps:,} steps. {self.session.folder.path}"
            raise UserError(f"A process of this run died at {place}: {whole}.") from error
