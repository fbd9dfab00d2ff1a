"""The trainer: one training loop for all algorithms. It logs, evaluates, saves checkpoints and stops, scheduled by
environment steps, or by gradient steps for offline algorithms. A trainee defines one round: a step of every
environment, a batch of episodes, a rollout, or a gradient step.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from hrl.execution.processes import lost_connection
from hrl.report.episodes import Finished, Recent
from hrl.report.evaluation import Evaluation, Policy
from hrl.run.averaging import Averaging
from hrl.run.callbacks import Callback
from hrl.run.checkpoint import Checkpoint, Checkpoints
from hrl.run.divergence import require_finite
from hrl.run.reporter import Bystander, Every, Reporter
from hrl.run.session import Session
from hrl.stopping import Interrupted, close_within
from hrl.types import BatchedEnv, UserError


class Trainee(ABC):
    """An algorithm in training, with its environments."""

    whole: bool = True
    """Whether a run can resume from the current state. False after a failure during an update."""
    together: bool = False
    """Whether the episodes of a round start together and all end within it."""
    policy: Policy
    """The current policy, for evaluations."""
    counts: ClassVar[str] = "environment steps"
    """The unit of `steps` and of all settings that count steps."""

    def __init__(self, env: BatchedEnv, session: Session) -> None:
        self.env, self.session = env, session
        self.warnings: list[str] = []
        """Warnings to print; the trainer prints and removes them."""

    @property
    def learned(self) -> Any:
        """The object that learns, for callbacks; by default the trainee itself."""
        return self

    @property
    def name(self) -> str:
        """The environment's id."""
        return self.env.spec.env_id

    @property
    def time_limit(self) -> int | None:
        """Maximum length of an episode that a round can leave unfinished, in environment steps; None if unlimited."""
        return self.env.spec.max_episode_steps

    @property
    def reports_success(self) -> bool:
        """Whether the environment has reported success so far."""
        return self.env.reports_success

    @property
    @abstractmethod
    def steps(self) -> int:
        """Environment steps so far, of all processes together; gradient steps for an offline algorithm."""

    @abstractmethod
    def begin(self) -> None:
        """Start an episode in every environment, at the start of a run and after each checkpoint."""

    @abstractmethod
    def round(self, total_steps: int) -> Sequence[Finished]:
        """Run one round of a run of `total_steps`. Returns the ended episodes, one entry per step of all environments.
        Raises Interrupted on a request to stop."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Scalars by tag since the last call. Raises errors for faults that a round does not check to avoid waiting."""

    @abstractmethod
    def truncate_episodes(self) -> None:
        """End every episode, so that a checkpoint contains the complete state."""

    @abstractmethod
    def networks(self) -> dict[str, Tensor]:
        """The learned tensors that acting needs."""

    def parameters(self) -> dict[str, Tensor]:
        """The current learned parameters among `networks`, by the same names."""
        return {name: x for name, x in self.networks().items() if x.is_floating_point()}

    @abstractmethod
    def state(self) -> Checkpoint:
        """The state for resuming; its `numbers` exclude the steps. All processes must call it."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint's state."""

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


class Trainer:
    """One run, from the first step to the last checkpoint."""

    def __init__(self, trainee: Trainee, session: Session, lines: Sequence[str] = (), config: Any = None) -> None:
        """`lines` describe the resolved options and are printed when the run starts. `config` is the agent's resolved
        configuration; None if there is nothing to resolve."""
        self.trainee, self.session = trainee, session
        self.run_config, self.stop, self.processes = session.run, session.stop, session.processes
        self.saved_at: int | None = None
        self.average = Averaging(trainee.parameters, session.run.ema)
        if session.resume is not None:  # an error must come before the folder changes
            with session.fitting():
                trainee.restore(session.resume)
                self.average.load(session.resume.tensors)
                Recent(session.device, trainee.time_limit).load_state_dict(session.resume.numbers["reporter"]["recent"])
            self.saved_at = session.resume.steps
        with self.stop.interruptible():
            session.begin(lines, config)
        kind = Reporter if self.processes.first else Bystander
        with session.fitting():
            self.reporter = kind(session, self.saved_at or 0, trainee.time_limit, trainee.counts)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run's folder, whose name is known once the folder exists."""
        return Checkpoints(self.session.folder.checkpoints)

    def run(self) -> signal.Signals | None:
        """Train to the end or until a request to stop, and save the last state. Returns the signal that stopped it."""
        try:
            with self.reporter.display, self._with_others():
                self._train()
        finally:
            self.reporter.close()
            self.session.close()
            if reason := close_within(self.trainee.close):
                self.reporter.display.say(f"warning: {self.trainee.name} could not be closed: {reason}")
        return self.stop.signal

    def _train(self) -> None:
        trainee, report, total = self.trainee, self.reporter, self.run_config.total_steps
        calls = Calls(self)
        with self._saved_on_failure():
            self._begin()
            calls.begin()
            while trainee.steps < total and not self.processes.any(bool(self.stop) or report.given_up):
                if not self._round(total):
                    break
                if report.log_due(trainee.steps):
                    self._log()
                if report.eval_due(trainee.steps):
                    self._evaluate()
                if calls.due() | report.save_due(trainee.steps) and trainee.steps < total:
                    self._save()
                    self._begin()
            if self.run_config.eval_freq and trainee.steps >= total and not self.stop:
                self._evaluate()
        if self.saved_at != trainee.steps:
            self._save()
        calls.end()

    def _begin(self) -> None:
        """Start the episodes. After an interruption, the current state is still saved."""
        try:
            self.trainee.begin()
        except Interrupted:
            return  # the loop handles the request

    def _round(self, total: int) -> bool:
        """Run one round. Returns False if a request to stop interrupted it."""
        try:
            ended = self.trainee.round(total)
        except Interrupted:
            if self.processes.size > 1:  # all processes save together, but this one's environments do not respond
                raise UserError(
                    f"The environments of process {self.processes.rank} did not respond to the request to stop. Resume "
                    f"from the last checkpoint, at {self.saved_at or 0:,} steps."
                ) from None
            return False
        self.average.update()
        recent = self.reporter.recent
        for finished in ended:
            (recent.add_together if self.trainee.together else recent.add)(finished)
        self.reporter.reports_success |= self.trainee.reports_success
        return True

    def _log(self) -> None:
        metrics = self.trainee.metrics()
        self.reporter.warn(self.trainee.warnings)
        self.reporter.log(self.trainee.steps, metrics)
        self._require_finite()

    def _require_finite(self) -> None:
        """Raise Diverged before broken parameters replace a good checkpoint. Waits for the device."""
        require_finite(self.trainee.parameters(), f"{self.trainee.steps:,} {self.trainee.counts}", self.saved_at)

    def _evaluate(self) -> None:
        self._require_finite()
        with self.average.applied():
            try:
                best = self.reporter.evaluate(self.trainee.steps, self.trainee.policy)
            except Interrupted:
                return  # the loop handles the request
            if best:
                self.checkpoints.save_best(Checkpoint(self.trainee.networks(), self._numbers({})))

    def _save(self) -> None:
        """Save a checkpoint. This ends every episode, also in this process, so that a resumed run equals this run."""
        self._log()
        self.trainee.truncate_episodes()
        self.reporter.recent.truncate_episodes()
        state = self.trainee.state()
        if self.processes.first:
            self.checkpoints.save(Checkpoint(state.tensors | self.average.tensors(), self._numbers(state.numbers)))
        self.saved_at = self.trainee.steps

    def _numbers(self, more: dict[str, Any]) -> dict[str, Any]:
        own = {"steps": self.trainee.steps, "processes": self.processes.size, "reporter": self.reporter.state_dict()}
        return own | more

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """A context that saves the state after a failure, and re-raises the error; or Diverged if that is the cause."""
        try:
            yield
        except Exception:
            self._require_finite()  # otherwise the environment would be blamed for the actions that it received
            # With several processes, a checkpoint needs all of them.
            if self.trainee.whole and self.trainee.steps not in (0, self.saved_at) and self.processes.size == 1:
                self._save()
            raise

    @contextmanager
    def _with_others(self) -> Iterator[None]:
        """A context that raises UserError if another process dies. The replay of that process is lost, so only the last
        checkpoint is complete."""
        try:
            yield
        except RuntimeError as error:
            if self.processes.size == 1 or not lost_connection(error):
                raise
            self.stop.outlast()
            at = self.saved_at
            path = self.session.folder.path
            remedy = f"resume {path} from its checkpoint at {at:,} steps" if at else f"{path} has no checkpoint"
            raise UserError(f"A process of this run died at {self.trainee.steps:,} steps: {remedy}.") from error


class Calls:
    """The callbacks of a run in training, and the run as they see it (`Progress`)."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._session, self._save_requested = trainer, trainer.session, False
        self._callbacks = [(x, Every(x.every, self.steps)) for x in self._session.callbacks]
        self.total_steps, self.path = trainer.run_config.total_steps, self._session.folder.path
        self.agent, self.policy = trainer.trainee.learned, trainer.trainee.policy
        self.num_envs = self._session.num_envs
        if self._callbacks and trainer.processes.first:
            trainer.reporter.logger.listeners.append(self._logged)

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self._trainer.trainee.steps

    @property
    def scalars(self) -> dict[str, float]:
        """The last value of every logged scalar."""
        return dict(self._trainer.reporter.last_scalars)

    def begin(self) -> None:
        """Call the functions that run before the first step."""
        for callback, _ in self._mine():
            callback.begin(self)

    def due(self) -> bool:
        """Call the functions that are due. Returns whether one of them requested a checkpoint."""
        if not self._callbacks:
            return False
        for callback, clock in self._mine():
            if clock(self.steps):
                callback.function(self)
        saving, self._save_requested = self._save_requested, False
        return self._trainer.processes.any(saving)

    def _mine(self) -> list[tuple[Callback, Every]]:
        """The callbacks in the first process; none in other processes."""
        return self._callbacks if self._trainer.processes.first else []

    def _logged(self, scalars: Mapping[str, float]) -> None:
        for callback, _ in self._callbacks:
            callback.logged(self, scalars)

    def end(self) -> None:
        """Call the functions that run after the last checkpoint."""
        for callback, _ in self._mine():
            callback.end(self)

    def log(self, name: str, value: float) -> None:
        """Log a scalar at the current step."""
        self._trainer.reporter.logger.write(self.steps, {name: float(value)})

    def evaluate(self, episodes: int | None = None) -> Evaluation:
        """Evaluate the current policy, or its average (--ema), in separate environments."""
        with self._trainer.average.applied():
            return self._session.evaluate(self.policy, episodes)

    def save(self) -> None:
        """Save a checkpoint after this call."""
        self._save_requested = True

    def stop(self) -> None:
        """End the run after this call."""
        self._trainer.reporter.given_up = True
