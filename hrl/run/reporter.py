"""Reports during training, scheduled by environment steps: scalars, evaluations and terminal output."""

import time
from dataclasses import replace
from typing import Any

import torch

from hrl.report.display import Display
from hrl.report.episodes import Recent
from hrl.report.evaluation import Evaluation, Policy
from hrl.report.logger import Logger
from hrl.run.folder import RunConfig
from hrl.run.session import Session
from hrl.stopping import Interrupted

PICTURES, PATHS = 100, 6
"""Greatest number of pictures of a run, to limit its size, and the number of episodes in each."""


class Every:
    """Called with the steps so far, returns True once per `frequency` steps, and never if `frequency` is 0."""

    def __init__(self, frequency: int, steps: int) -> None:
        self.frequency = frequency
        self.passed = steps // frequency if frequency else 0

    def __call__(self, steps: int) -> bool:
        if not self.frequency or steps // self.frequency <= self.passed:
            return False
        self.passed = steps // self.frequency
        return True


class Reporter:
    """Logger, display, recent episodes and evaluations of one run, starting at `steps` environment steps."""

    def __init__(
        self, session: Session, steps: int = 0, time_limit: int | None = None, counts: str = "environment steps"
    ) -> None:
        """`counts` names the unit of steps, for the terminal and TensorBoard."""
        run = session.run
        self.session = session
        self._set_clocks(run, steps)
        self.recent = Recent(session.device, time_limit)
        self.reports_success = False
        """Whether the environment has reported success so far."""
        self._warned_of_truncation = False
        self.best = -float("inf"), -float("inf")
        self.last_eval: dict[str, float] = {}
        self.last_scalars: dict[str, float] = {}
        """The last value of every logged scalar."""
        self.elapsed = self.evaluating = 0.0
        """Seconds of training, without evaluations, and seconds of evaluations and their pictures."""
        self.given_up = False
        self.logger = Logger(session.folder.path, steps if session.resume else None)
        if session.resume is None:
            self.logger.note("time/total_timesteps", f"The horizontal axis of every scalar shows {counts}.")
        self.display = Display(run.total_steps, steps, run.progress, counts)
        if session.hyperparameters and not session.resume:
            metrics = ("eval/success_rate", "eval/success_rate_final", "eval/mean_reward")
            self.logger.hyperparameters(session.hyperparameters(), dict.fromkeys(metrics, 0.0))
        if session.resume:
            self.load_state_dict(session.resume.numbers["reporter"])
        self._since, self._at = time.perf_counter(), steps

    def _set_clocks(self, run: RunConfig, steps: int) -> None:
        self.log_due, self.eval_due, self.save_due, self.picture_due = (
            Every(frequency, steps)
            for frequency in (run.log_every, run.eval_freq, run.save_freq, max(run.total_steps // PICTURES, 1))
        )

    def log(self, steps: int, metrics: dict[str, float]) -> None:
        """Log one row: recent episodes, rate, and `train/<metric>`."""
        if steps == self._at:
            return
        now = time.perf_counter()
        rate = (steps - self._at) / max(now - self._since, 1e-9)
        self.elapsed, self._since, self._at = self.elapsed + now - self._since, now, steps
        share = self.evaluating / max(self.elapsed + self.evaluating, 1e-9)
        times = {"time/fps": rate, "time/time_elapsed": self.elapsed, "time/evaluation_share": share}
        scalars = self.recent.scalars(self.reports_success) | times
        scalars |= {f"train/{name}": value for name, value in metrics.items()}
        self.last_scalars |= scalars
        self.logger.write(steps, scalars)
        self.display.update(steps, rate, scalars, self.last_eval)

    def warn(self, sentences: list[str]) -> None:
        """Print warnings, and remove them from the list."""
        while sentences:
            self.display.say(f"warning: {sentences.pop(0)}")

    def evaluate(self, steps: int, policy: Policy) -> bool:
        """Evaluate, at most once per number of steps. Returns whether the result is the best so far."""
        if self.last_eval.get("steps") == steps:
            return False
        if self.session.device.type == "cuda":
            torch.cuda.synchronize()  # count queued work as training time
        paused = time.perf_counter()
        try:
            result = self.session.evaluate(policy, keep_paths=PATHS if self.session.draw else 0)
            self.reports_success |= result.reports_success
            result = replace(result, reports_success=self.reports_success)
        except Interrupted:
            self.eval_due.passed -= 1  # repeat the evaluation when the run resumes
            raise
        scalars = result.scalars()
        self.last_eval = {**scalars, "steps": float(steps)}
        self.last_scalars |= scalars
        self._warn_of_truncation(result)
        self.logger.write(steps, {**scalars, "eval/time_elapsed": self.elapsed + paused - self._since})
        draw = self.session.draw if self.picture_due(steps) else None
        if draw is not None and (image := draw(result)) is not None:
            self.logger.picture("eval/trajectories", steps, image)
        self.display.evaluated(steps, scalars)
        self.given_up = self.session.give_up is not None and self.session.give_up(steps, scalars)
        score = scalars.get("eval/success_rate", 0.0), scalars["eval/mean_reward"]
        better, self.best = score > self.best, max(score, self.best)
        seconds = time.perf_counter() - paused
        self.evaluating, self._since = self.evaluating + seconds, self._since + seconds  # the rate excludes evaluations
        return better

    def _warn_of_truncation(self, result: Evaluation) -> None:
        """Print once that evaluation episodes are truncated."""
        if result.truncated and not self._warned_of_truncation:
            self._warned_of_truncation = True
            self.display.say(
                f"note: {result.truncated} of {len(result.episodes)} evaluation episodes were truncated after "
                f"{result.limit:,} steps; --eval-max-steps sets the limit."
            )

    def close(self) -> None:
        """Close the files."""
        self.logger.close()

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "tells_success": self.reports_success,
            "evaluations": self.eval_due.passed,
            "recent": self.recent.state_dict(),
            "best": self.best,
            "last_eval": self.last_eval,
            "elapsed": self.elapsed,
            "evaluating": self.evaluating,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.recent.load_state_dict(state["recent"])
        self.reports_success = state["tells_success"]
        self.eval_due.passed = state["evaluations"]
        success, reward = state["best"]
        self.best = float(success), float(reward)
        self.last_eval = {name: float(value) for name, value in state["last_eval"].items()}
        self.elapsed, self.evaluating = float(state["elapsed"]), float(state["evaluating"])


class Bystander(Reporter):
    """The reporter of all processes except the first: it has the same schedule, but writes and prints nothing."""

    def __init__(
        self, session: Session, steps: int = 0, time_limit: int | None = None, counts: str = "environment steps"
    ) -> None:
        run = session.run
        self._set_clocks(run, steps)
        self.given_up = self.reports_success = False
        self.recent, self.display = Recent(session.device, time_limit), Display(run.total_steps, steps, live=False)

    def log(self, steps: int, metrics: dict[str, float]) -> None:
        """Do nothing."""

    def evaluate(self, steps: int, policy: Policy) -> bool:
        """Do nothing, and return False."""
        return False

    def close(self) -> None:
        """Do nothing."""
