"""Callbacks: functions that are called during training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hrl.report.evaluation import Evaluation, Policy
from hrl.types import UserError


class Progress(Protocol):
    """A run in training, as callbacks see it."""

    @property
    def steps(self) -> int:
        """Environment steps so far."""

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole run."""

    @property
    def num_envs(self) -> int:
        """Number of training environments in this process."""

    @property
    def path(self) -> Path:
        """The run's folder."""

    @property
    def agent(self) -> Any:
        """The agent in training: a `Hierarchy`, a learner that learns in rounds, or stable-baselines3's model."""

    @property
    def policy(self) -> Policy:
        """The current policy."""

    @property
    def scalars(self) -> dict[str, float]:
        """The last value of every logged scalar."""

    def log(self, name: str, value: float) -> None:
        """Log a scalar at the current step, in TensorBoard and progress.csv."""

    def evaluate(self, episodes: int | None = None) -> Evaluation:
        """Evaluate the current policy in separate environments."""

    def save(self) -> None:
        """Save a checkpoint after this call. It ends the episodes of every environment."""

    def stop(self) -> None:
        """Save, and end the run after this call."""


@dataclass
class Callback:
    """A function that is called during training. It may log scalars, evaluate, save, and stop the run."""

    function: Callable[[Progress], Any]
    every: int = 1000
    """Environment steps between two calls; 0 for none."""
    begin: Callable[[Progress], Any] = field(default=lambda progress: None)
    """Called once before the first step."""
    end: Callable[[Progress], Any] = field(default=lambda progress: None)
    """Called once after the last checkpoint."""
    logged: Callable[[Progress, Mapping[str, float]], Any] = field(default=lambda progress, scalars: None)
    """Called with every row of scalars that is logged, by tag. It must not log itself."""


Callbacks = Callback | Callable[[Progress], Any] | Sequence[Callback | Callable[[Progress], Any]]
"""One callback or several: functions, which are called every 1,000 environment steps, or `Callback` objects."""


def as_callbacks(given: Callbacks) -> list[Callback]:
    """Callbacks from one function or callback, or from several. Raises UserError for anything else."""
    each = [given] if callable(given) or isinstance(given, Callback) else given
    if not isinstance(each, Sequence) or not all(callable(x) or isinstance(x, Callback) for x in each):
        raise UserError(f"callbacks must be functions or Callback objects, not {given!r}.")
    return [x if isinstance(x, Callback) else Callback(x) for x in each]
