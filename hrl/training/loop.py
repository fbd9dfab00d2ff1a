"""The training loop: act, step, observe, learn; logging, evaluation and checkpoints on the count of steps."""

import signal
from types import FrameType
from typing import Any

import torch

from hrl.hierarchy import Hierarchy
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.episodes import EpisodeCounter
from hrl.training.policy import HierarchyPolicy
from hrl.training.reporter import Reporter
from hrl.training.session import Session
from hrl.types import BatchedEnv, Observation


class StopRequest:
    """Ctrl-C and SIGTERM ask for a stop after the step at hand; a second one is obeyed at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for s, handler in self._before.items():
            signal.signal(s, handler)


class Training:
    """One run of one agent: everything between the first step and the last checkpoint."""

    def __init__(self, agent: Hierarchy, env: BatchedEnv, session: Session) -> None:
        self.agent, self.env, self.session = agent, env, session
        self.policy = HierarchyPolicy(agent)
        self.checkpoints = Checkpoints(session.folder.checkpoints)
        self.counter = EpisodeCounter(env.num_envs, agent.device)
        self.saved_at: int | None = None
        if session.resume is not None:
            agent.load_tensors(session.resume.tensors)
            agent.load_counters(session.resume.numbers["agent"])
            self.saved_at = session.resume.steps
        self.reporter = Reporter(session, agent.steps)
        if session.resume is not None:
            self.reporter.load_state_dict(session.resume.numbers["reporter"])

    def run(self) -> signal.Signals | None:
        """Train to the end, or until asked to stop; the signal that asked. The last state is always saved."""
        try:
            with StopRequest() as stop, self.reporter.display:
                self._train(stop)
        finally:
            self.reporter.logger.close()
            self.env.close()
        return stop.signal

    def _train(self, stop: StopRequest) -> None:
        agent, report, total = self.agent, self.reporter, self.session.run.total_steps
        obs = self._begin()
        while agent.steps < total and stop.signal is None:
            obs = self._step(obs)
            if report.log_due(agent.steps):
                self._log()
            if report.eval_due(agent.steps):
                self._evaluate()
            if report.save_due(agent.steps) and agent.steps < total:
                obs = self._save(obs)
        if self.session.run.eval_freq and stop.signal is None:
            self._evaluate()
        if self.saved_at != agent.steps:
            self._save(obs)

    def _step(self, obs: Observation) -> Observation:
        actions = self.agent.act(obs)
        try:
            step = self.env.step(actions)
        except Exception:
            self._save(obs)  # what is there first; then the environment's own sentence
            raise
        self.agent.observe(step)
        self.agent.learn(self.agent.steps / self.session.run.total_steps)
        self.reporter.recent.add(self.counter.add(step))
        return step.obs

    def _begin(self) -> Observation:
        """Begin an episode in every environment, seeded by the run's seed and the steps so far."""
        self.agent.restart()
        self.counter.restart()
        generator = torch.Generator().manual_seed(self.session.run.seed * 1_000_003 + self.agent.steps)
        return self.env.reset(int(torch.randint(0, 9_000_000, (), generator=generator)))

    def _log(self) -> None:
        self.reporter.log(self.agent.steps, self.agent.pop_metrics())

    def _evaluate(self) -> None:
        if self.reporter.evaluate(self.agent.steps, self.policy):
            self.checkpoints.save_best(Checkpoint(self.agent.network_tensors(), self._numbers()))

    def _save(self, obs: Observation) -> Observation:
        """Checkpoint. It ends every episode, here too, so that a resumed run equals one that went on."""
        self._log()
        self.agent.cut(obs)
        self.checkpoints.save(Checkpoint(self.agent.tensors(), self._numbers()))
        self.saved_at = self.agent.steps
        return self._begin() if self.agent.steps < self.session.run.total_steps else obs

    def _numbers(self) -> dict[str, Any]:
        return {
            "steps": self.agent.steps,
            "agent": self.agent.counters(),
            "reporter": self.reporter.state_dict(),
        }
