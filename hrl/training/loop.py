"""The training loop: act, observe, learn; logging, evaluation and checkpoints on the count of environment steps."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from hrl.hierarchy import Hierarchy
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.display import Display
from hrl.training.episodes import EpisodeCounter, Recent
from hrl.training.evaluation import Evaluation
from hrl.training.logger import Logger
from hrl.training.run import RunConfig, RunFolder
from hrl.types import BatchedEnv, Observation

Evaluate = Callable[[], Evaluation]
Draw = Callable[[Evaluation], Any]
"""A picture [H, W, 3] of an evaluation, or None."""


class Every:
    """True once whenever another `frequency` steps have gone by; 0 is never."""

    def __init__(self, frequency: int, steps: int) -> None:
        self.frequency = frequency
        self.passed = steps // frequency if frequency else 0

    def __call__(self, steps: int) -> bool:
        if not self.frequency or steps // self.frequency <= self.passed:
            return False
        self.passed = steps // self.frequency
        return True


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

    def __init__(
        self,
        agent: Hierarchy,
        env: BatchedEnv,
        config: RunConfig,
        folder: RunFolder,
        evaluate: Evaluate,
        draw: Draw | None = None,
        resume: Checkpoint | None = None,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        self.agent, self.env, self.config, self.folder = agent, env, config, folder
        self.evaluate, self.draw = evaluate, draw
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.counter = EpisodeCounter(env.num_envs, agent.device)
        self.recent = Recent()
        self.best = -float("inf"), -float("inf")
        self.last_eval: dict[str, float] = {}
        self.elapsed = 0.0
        if resume is not None:
            self._restore(resume)
        self.logger = Logger(folder.path, resume.steps if resume else None)
        self.display = Display(config.total_steps, agent.steps, config.progress)
        if hyperparameters and resume is None:
            self.logger.hyperparameters(hyperparameters, {"eval/success_rate": 0.0, "eval/mean_reward": 0.0})
        self.saved_at: int | None = resume.steps if resume else None

    def run(self) -> signal.Signals | None:
        """Train to the end, or until asked to stop; the signal that asked. The last state is always saved."""
        with StopRequest() as stop, self.display:
            self._train(stop)
        self.logger.close()
        self.env.close()
        return stop.signal

    def _train(self, stop: StopRequest) -> None:
        agent, c = self.agent, self.config
        log_due, eval_due, save_due = (Every(f, agent.steps) for f in (c.log_freq, c.eval_freq, c.save_freq))
        self._clock, self._clock_steps = time.perf_counter(), agent.steps
        obs = self._begin()
        while agent.steps < c.total_steps and stop.signal is None:
            obs = self._step(obs)
            if log_due(agent.steps):
                self._log()
            if eval_due(agent.steps):
                self._evaluate()
            if save_due(agent.steps) and agent.steps < c.total_steps:
                obs = self._save(obs)
        if c.eval_freq and stop.signal is None and self.last_eval.get("steps") != agent.steps:
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
        self.agent.learn(self.agent.steps / self.config.total_steps)
        self.recent.add(self.counter.add(step))
        return step.obs

    def _begin(self) -> Observation:
        """Begin an episode in every environment, seeded by the run's seed and the steps so far."""
        self.agent.restart()
        self.counter.restart()
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.agent.steps)
        return self.env.reset(int(torch.randint(0, 9_000_000, (), generator=generator)))

    # -- on the count of steps -------------------------------------------------------------------------------

    def _log(self) -> None:
        now, steps = time.perf_counter(), self.agent.steps
        if steps == self._clock_steps:
            return
        rate = (steps - self._clock_steps) / max(now - self._clock, 1e-9)
        self.elapsed += now - self._clock
        self._clock, self._clock_steps = now, steps
        scalars = self.recent.scalars()
        scalars |= {"time/fps": rate, "time/time_elapsed": self.elapsed}
        scalars |= {f"train/{name}": value for name, value in self.agent.pop_metrics().items()}
        self.logger.write(steps, scalars)
        self.display.update(steps, rate, scalars, self.last_eval)

    def _evaluate(self) -> None:
        paused = time.perf_counter()
        result, steps = self.evaluate(), self.agent.steps
        scalars = result.scalars()
        self.last_eval = {**scalars, "steps": float(steps)}
        self.logger.write(steps, {**scalars, "eval/time_elapsed": self.elapsed + paused - self._clock})
        if self.draw is not None and (image := self.draw(result)) is not None:
            self.logger.picture("eval/trajectories", steps, image)
        self.display.evaluated(steps, scalars)
        score = scalars["eval/success_rate"], scalars["eval/mean_reward"]
        if score > self.best:
            self.best = score
            policy = {n: x for n, x in self.agent.tensors().items() if ".replay." not in n and "_optimiser." not in n}
            self.checkpoints.save_best(Checkpoint(policy, self._numbers()))
        self._clock += time.perf_counter() - paused  # training's rate counts training alone

    def _save(self, obs: Observation) -> Observation:
        """Checkpoint. It ends every episode, here too, so that a resumed run equals one that went on."""
        self._log()
        self.agent.cut(obs)
        self.checkpoints.save(Checkpoint(self.agent.tensors(), self._numbers()))
        self.saved_at = self.agent.steps
        return self._begin() if self.agent.steps < self.config.total_steps else obs

    def _numbers(self) -> dict[str, Any]:
        return {
            "steps": self.agent.steps,
            "agent": self.agent.counters(),
            "recent": self.recent.state_dict(),
            "best": self.best,
            "last_eval": self.last_eval,
            "elapsed": self.elapsed,
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        numbers = checkpoint.numbers
        self.agent.load_tensors(checkpoint.tensors)
        self.agent.load_counters(numbers["agent"])
        self.recent.load_state_dict(numbers["recent"])
        self.best = tuple(numbers["best"])
        self.last_eval, self.elapsed = numbers["last_eval"], numbers["elapsed"]
