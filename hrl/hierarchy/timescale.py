"""A level's timescale: the frequency of its updates and the schedule of its learning rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hrl.types import UserError

Schedule = Literal["constant", "linear", "cosine"]


@dataclass
class Timescale:
    """Counts environment steps and computes how many updates are due, on the host only."""

    every: int
    """Environment steps (of all environments together) from one round of updates to the next."""
    updates: int
    """Gradient updates per round."""
    schedule: Schedule = "constant"
    """Decay of the learning rate while the level learns: none, linear to zero, or a half cosine to zero."""
    warmup: int = 0
    """Updates over which the learning rate first rises from zero."""
    starts: int = 0
    """Environment steps before the first update."""
    rounds: int = 0
    done: int = 0
    """Updates made."""

    def due(self, steps: int) -> int:
        """Number of updates to make after `steps` environment steps."""
        if steps < self.starts:
            return 0
        rounds = (steps - self.starts) // self.every
        due, self.rounds = (rounds - self.rounds) * self.updates, rounds
        return due

    def factor(self, progress: float, updates: int = 1) -> float:
        """The learning rate's factor for the next updates, at the fraction `progress` of learning. Counts the
        updates."""
        rise = min(1.0, (self.done + 1) / self.warmup) if self.warmup else 1.0
        self.done += updates
        return rise * FALL[self.schedule](min(max(progress, 0.0), 1.0))

    def state_dict(self) -> dict[str, int]:
        """The counters."""
        return {"rounds": self.rounds, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.rounds, self.done = int(state["rounds"]), int(state["done"])


FALL = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


@dataclass
class Coupling:
    """The ratio between the learning rates of adjacent levels."""

    ratio: float | None = None
    """Learning rate of each level divided by that of the level below. The levels then share its schedule. Default:
    independent learning rates."""

    def tie(self, levels: Sequence[Any]) -> list[Any]:
        """The levels' configurations, with new learning rates and schedules for all levels but the lowest. Raises
        UserError if the ratio is not positive."""
        if self.ratio is None:
            return list(levels)
        if not self.ratio > 0:
            raise UserError(f"--timescale.ratio must be positive, not {self.ratio}.")
        tied = [levels[0]]
        for level in levels[1:]:
            below = tied[-1].learner
            rates = {"learning_rate": self.ratio * below.learning_rate}
            if hasattr(level.learner, "actor_learning_rate"):
                actor = getattr(below, "actor_learning_rate", None) or below.learning_rate
                rates["actor_learning_rate"] = self.ratio * actor
            learner = replace(level.learner, **rates)
            schedule = {"schedule": tied[-1].schedule, "warmup": tied[-1].warmup}
            tied.append(replace(level, learner=learner, **schedule))
        return tied
