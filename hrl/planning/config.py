"""The options of graphs of landmarks, and of the planner that follows one."""

from dataclasses import dataclass
from typing import Literal

from hrl.types import UserError

LEAST = 4
"""Minimum number of landmarks and neighbours."""


@dataclass
class GraphConfig:
    """A graph of landmarks."""

    landmarks: int = 500
    """Maximum number of landmarks."""
    candidates: int = 20_000
    """Number of visited states from which landmarks are chosen."""
    neighbours: int = 32
    """Number of nearest landmarks, in goal space, to which a landmark may have an edge."""
    max_hop: float | None = None
    """Maximum length of an edge: the environment steps until its landmark counts as reached. Default: the effective
    horizon 1 / (1 - γ) of the level's value, or the period of the level above if that is shorter."""
    distance: Literal["auto", "value", "calibrated", "travelled"] = "auto"
    """Source of the number of steps between two states. value: the level's value, solved for the steps (sparse rewards
    without an entropy bonus). calibrated: a monotone function of the level's value, fitted to the steps between visited
    states. travelled: the distance in goal space divided by the speed of the visited episodes. auto: travelled for
    policies learned from a dataset and for levels rewarded for progress; else value where possible, and calibrated
    elsewhere."""
    confirmed: bool | None = None
    """Keep only edges that visited states confirm: an episode went from near one landmark to near the other. Default:
    on where the steps cannot reflect obstacles: if the level does not observe its position or was trained in another
    environment, or if the steps are travelled ones."""

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        for name in ("landmarks", "candidates", "neighbours"):
            if getattr(self, name) < LEAST:
                raise UserError(f"{prefix}{name} must be at least {LEAST}, not {getattr(self, name)}.")
        if self.max_hop is not None and not self.max_hop > 0:
            raise UserError(f"{prefix}max_hop must be positive, not {self.max_hop}.")


@dataclass
class PlannerConfig(GraphConfig):
    """A planner that follows the graph."""

    max_landmarks: int = 2000
    """While fewer than 80 % of the landmarks are connected, their number is doubled, up to this one, unless
    `landmarks` is larger. Large mazes with short hops need more landmarks."""
    patience: float = 2.0
    """A hop has failed after this multiple of its expected steps."""
    level: int = 0
    """The level that obeys the planner, counted from the lowest. The levels above it do not act."""
    explore: int | None = None
    """Environment steps of exploration with random subgoals in the environment of the evaluation. Landmarks then come
    from the visited states, not from the run's replay. Default: 0 in the run's environment, 200,000 in another one."""

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        super().check(prefix)
        if self.max_landmarks < LEAST:
            raise UserError(f"{prefix}max_landmarks must be at least {LEAST}, not {self.max_landmarks}.")
        if not self.patience >= 1:
            raise UserError(f"{prefix}patience must be at least 1, not {self.patience}.")
        for name in ("level", "explore"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"{prefix}{name} must not be negative, but is {getattr(self, name)}.")
