"""The training loop: act, step, observe, learn; logging, evaluation and checkpoints on the count of steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hrl.hierarchy import RANK_SEED, Hierarchy
from hrl.level import under
from hrl.processes import lost_connection
from hrl.stopping import Interrupted, close_within
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.episodes import EpisodeCounter
from hrl.training.policy import HierarchyPolicy
from hrl.training.reporter import Bystander, Reporter
from hrl.training.session import Session
from hrl.training.tracking import Tracking
from hrl.types import BatchedEnv, Observation, UserError

STEP_GRACE = 1.0
"""Seconds that an environment's step gets to end after a stop was requested."""


class Training:
    """One run of one agent: everything between the first step and the last checkpoint."""

    def __init__(self, agent: Hierarchy, env: BatchedEnv, session: Session) -> None:
        self.agent, self.env, self.session = agent, env, session
        self.policy = HierarchyPolicy(agent)
        self.checkpoints = Checkpoints(session.folder.checkpoints)
        self.tracking = Tracking(agent.levels, session.run.total_steps)
        self.counter = EpisodeCounter(env.num_envs, agent.device)
        self.stop = session.stop
        self.saved_at: int | None = None
        self.processes = session.processes
        if self.processes.size > 1 and not env.steady:
            raise UserError(
                f"{env.spec.env_id} spends a step on each reset (NEXT_STEP), so that several processes would not count "
                "alike; use its sync or async form."
            )
        kind = Reporter if self.processes.first else Bystander
        self.reporter = kind(
            session, self._restore(session.resume) if session.resume else 0, env.spec.max_episode_steps
        )

    def _restore(self, checkpoint: Checkpoint) -> int:
        """Put the agent where the checkpoint was taken; the steps then."""
        try:
            own = under(f"rank{self.processes.rank}.", checkpoint.tensors)
            self.agent.load_tensors(checkpoint.tensors | own)
            self.agent.load_counters(checkpoint.numbers["agent"])
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"The checkpoint in {self.session.folder.path} does not fit the configuration there; was config.json "
                "changed? A run goes on only as it was begun."
            ) from error
        self.saved_at = checkpoint.steps
        return checkpoint.steps

    def run(self) -> signal.Signals | None:
        """Train to the end, or until asked to stop; the signal that asked. The last state is always saved."""
        try:
            with self.reporter.display, self._together():
                self._train()
        finally:
            self.reporter.close()
            if reason := close_within(self.env.close):
                self.reporter.display.say(f"warning: {self.env.spec.env_id} could not be closed: {reason}")
        return self.stop.signal

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Where another process of the run dies, its replay is lost with it: what is whole is the last checkpoint."""
        try:
            yield
        except RuntimeError as error:
            if self.processes.size == 1 or not lost_connection(error):
                raise
            self.stop.outlast()
            at = self.saved_at
            whole = f"its last checkpoint, at {at:,} steps, is whole" if at else "no checkpoint yet"
            place = f"{self.agent.steps:,} steps. {self.session.folder.path}"
            raise UserError(f"A process of this run died at {place}: {whole}.") from error

    def _train(self) -> None:
        agent, report, total = self.agent, self.reporter, self.session.run.total_steps
        try:
            obs = self._begin()
        except Interrupted:
            return self._checkpoint(None) if self.saved_at is None else None
        while agent.steps < total and not self.processes.any(self._to_stop()):
            try:
                obs = self._step(obs)
            except Interrupted:
                self._require_alone()
                break
            if report.log_due(agent.steps):
                with self._saving(obs):
                    self.env.verify()
                self._log()
            if report.eval_due(agent.steps):
                self._evaluate(obs)
            if report.save_due(agent.steps) and agent.steps < total:
                obs = self._save(obs)
        if self.session.run.eval_freq and agent.steps >= total and not self.stop:
            self._evaluate(obs)
        if self.saved_at != agent.steps:
            self._checkpoint(obs)

    def _to_stop(self) -> bool:
        return bool(self.stop) or self.reporter.given_up

    def _step(self, obs: Observation) -> Observation:
        """Learning comes while the environments step, from what was seen before."""
        actions = self.agent.act(obs)
        with self._saving(obs), self.stop.interruptible(STEP_GRACE):
            self.env.send(actions)
        with self._saving(obs, UserError):
            self.agent.learn(self.session.run.total_steps, self._in_haste)
        with self._saving(obs), self.stop.interruptible(STEP_GRACE):
            step = self.env.receive()
        self.agent.observe(step)
        done = step.terminated | step.truncated
        self.reporter.recent.add(self.counter.add(step.reward, step.success, done, step.active))
        self.reporter.tells_success |= self.env.tells_success
        return step.obs

    def _require_alone(self) -> None:
        """With other processes, all of them save together: one whose environments do not answer cannot."""
        if self.processes.size > 1:
            raise UserError(
                f"The environments of process {self.processes.rank} did not answer when the run was to stop. Its last "
                f"checkpoint, at {self.saved_at or 0:,} steps, is whole."
            )

    def _in_haste(self) -> bool:
        """Whether to leave out updates that are due. With other processes, all of them must make the same."""
        return bool(self.stop) and self.processes.size == 1

    def _begin(self) -> Observation:
        """Begin an episode in every environment, seeded by the run's seed and the steps so far."""
        self.agent.restart()
        self.counter.restart()
        seed = self.session.run.seed * 1_000_003 + self.agent.steps + self.processes.rank * RANK_SEED
        generator = torch.Generator().manual_seed(seed)
        with self.stop.interruptible(STEP_GRACE):
            return self.env.reset(int(torch.randint(0, 9_000_000, (), generator=generator)))

    def _log(self) -> None:
        metrics = self.agent.pop_metrics()
        if self.processes.first:
            metrics |= self.tracking.measure(self.agent.steps)
            self.reporter.warn(self.tracking.warnings)
        self.reporter.log(self.agent.steps, metrics)

    def _evaluate(self, obs: Observation) -> None:
        try:
            with self._saving(obs):
                best = self.reporter.evaluate(self.agent.steps, self.policy)
        except Interrupted:
            return  # the loop sees the request
        if best:
            self.checkpoints.save_best(Checkpoint(self.agent.network_tensors(), self._numbers()))

    @contextmanager
    def _saving(self, obs: Observation, failure: type[Exception] = Exception) -> Iterator[None]:
        """Where an environment fails, what is there is saved first; then its own sentence is told."""
        try:
            yield
        except failure:
            if self.saved_at != self.agent.steps and self.processes.size == 1:  # with others it takes all of them
                self._checkpoint(obs)
            raise

    def _save(self, obs: Observation) -> Observation:
        """Checkpoint, and go on."""
        self._checkpoint(obs)
        try:
            return self._begin()
        except Interrupted:
            return obs  # the loop sees the request

    def _checkpoint(self, obs: Observation | None) -> None:
        """It ends every episode, in the running process too, so that a resumed run equals one that went on."""
        self._log()
        if obs is not None:
            self.agent.cut(obs)
        self.reporter.recent.cut()
        # What differs between processes: the others' replays and random states stand under their ranks.
        others = {} if self.processes.first else self.agent.own_tensors()
        parts = self.processes.gather((others, self.agent.fingerprint()))
        if self.processes.first:
            tensors = self.agent.tensors()
            for rank, (theirs, _) in enumerate(parts[1:], 1):
                tensors |= {f"rank{rank}.{name}": x for name, x in theirs.items()}
            prints = [fingerprint for _, fingerprint in parts]
            if len(set(prints)) > 1:
                raise AssertionError(f"the networks differ between the processes: {prints}")
            self.checkpoints.save(Checkpoint(tensors, {**self._numbers(), "fingerprints": prints}))
        self.saved_at = self.agent.steps

    def _numbers(self) -> dict[str, Any]:
        return {
            "steps": self.agent.steps,
            "processes": self.processes.size,
            "agent": self.agent.counters(),
            "reporter": self.reporter.state_dict(),
        }
