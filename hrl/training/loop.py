"""The training loop: act, step, observe, learn; logging, evaluation and checkpoints on the count of steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from hrl.hierarchy import RANK_SEED, Hierarchy
from hrl.level import under
from hrl.processes import lost_connection
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.episodes import EpisodeCounter
from hrl.training.policy import HierarchyPolicy
from hrl.training.reporter import Bystander, Reporter
from hrl.training.session import Session
from hrl.training.tracking import Tracking
from hrl.types import BatchedEnv, Observation, UserError

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none


class StopRequest:
    """Ctrl-C, SIGTERM and a terminal that closes ask for a stop after the step at hand; a second of the former two is
    obeyed at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        asking = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(HANGUP) is not signal.SIG_IGN:  # as under nohup
            asking.append(HANGUP)
        self._before = {s: signal.signal(s, self._ask) for s in asking}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def outlast(self) -> None:
        """The run is ending with an error: SIGTERM, which torchrun sends to those that are left, may not cut it off."""
        self._before[signal.SIGTERM] = signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for s, handler in self._before.items():
            signal.signal(s, signal.SIG_IGN if s == HANGUP else handler)  # a shell passes on what it was told itself


class Training:
    """One run of one agent: everything between the first step and the last checkpoint."""

    def __init__(self, agent: Hierarchy, env: BatchedEnv, session: Session) -> None:
        self.agent, self.env, self.session = agent, env, session
        self.policy = HierarchyPolicy(agent)
        self.checkpoints = Checkpoints(session.folder.checkpoints)
        self.tracking = Tracking(agent.levels, session.run.total_steps)
        self.counter = EpisodeCounter(env.num_envs, agent.device)
        self.saved_at: int | None = None
        self.processes = session.processes
        if self.processes.size > 1 and not env.steady:
            raise UserError(
                f"{env.spec.env_id} spends a step on each reset (NEXT_STEP), so that several processes would not count "
                "alike; use its sync or async form."
            )
        kind = Reporter if self.processes.first else Bystander
        self.reporter = kind(session, self._restore(session.resume) if session.resume else 0)

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
            with StopRequest() as stop, self.reporter.display, self._together(stop):
                self._train(stop)
        finally:
            self.reporter.close()
            self.env.close()
        return stop.signal

    @contextmanager
    def _together(self, stop: StopRequest) -> Iterator[None]:
        """Where another process of the run dies, its replay is lost with it: what is whole is the last checkpoint."""
        try:
            yield
        except RuntimeError as error:
            if self.processes.size == 1 or not lost_connection(error):
                raise
            stop.outlast()
            at = self.saved_at
            whole = f"its last checkpoint, at {at:,} steps, is whole" if at else "no checkpoint yet"
            place = f"{self.agent.steps:,} steps. {self.session.folder.path}"
            raise UserError(f"A process of this run died at {place}: {whole}.") from error

    def _train(self, stop: StopRequest) -> None:
        agent, report, total = self.agent, self.reporter, self.session.run.total_steps
        obs = self._begin()
        while agent.steps < total and not self.processes.any(self._to_stop(stop)):
            obs = self._step(obs)
            if report.log_due(agent.steps):
                with self._saving(obs):
                    self.env.verify()
                self._log()
            if report.eval_due(agent.steps):
                self._evaluate(obs)
            if report.save_due(agent.steps) and agent.steps < total:
                obs = self._save(obs)
        if self.session.run.eval_freq and agent.steps >= total:
            self._evaluate(obs)
        if self.saved_at != agent.steps:
            self._checkpoint(obs)

    def _to_stop(self, stop: StopRequest) -> bool:
        return stop.signal is not None or self.reporter.given_up

    def _step(self, obs: Observation) -> Observation:
        """Learning comes while the environments step, from what was seen before."""
        actions = self.agent.act(obs)
        with self._saving(obs):
            self.env.send(actions)
        with self._saving(obs, UserError):
            self.agent.learn(self.session.run.total_steps)
        with self._saving(obs):
            step = self.env.receive()
        self.agent.observe(step)
        done = step.terminated | step.truncated
        self.reporter.recent.add(self.counter.add(step.reward, step.success, done, step.active))
        return step.obs

    def _begin(self) -> Observation:
        """Begin an episode in every environment, seeded by the run's seed and the steps so far."""
        self.agent.restart()
        self.counter.restart()
        seed = self.session.run.seed * 1_000_003 + self.agent.steps + self.processes.rank * RANK_SEED
        generator = torch.Generator().manual_seed(seed)
        return self.env.reset(int(torch.randint(0, 9_000_000, (), generator=generator)))

    def _log(self) -> None:
        metrics = self.agent.pop_metrics()
        if self.processes.first:
            metrics |= self.tracking.measure(self.agent.steps)
            self.reporter.warn(self.tracking.warnings)
        self.reporter.log(self.agent.steps, metrics)

    def _evaluate(self, obs: Observation) -> None:
        with self._saving(obs):
            best = self.reporter.evaluate(self.agent.steps, self.policy)
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
        return self._begin()

    def _checkpoint(self, obs: Observation) -> None:
        """It ends every episode, in the running process too, so that a resumed run equals one that went on."""
        self._log()
        self.agent.cut(obs)
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
