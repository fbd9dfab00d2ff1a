"""The options of a level."""

from collections.abc import Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from hrl.hierarchy.relabelling.hindsight import Strategy
from hrl.hierarchy.timescale import Schedule
from hrl.learners import ActorCriticConfig, Choice, ReplayConfig, TD3Config
from hrl.learners.protection import ProtectConfig
from hrl.types import UserError
from hrl.variants import flat


@dataclass
class LevelConfig:
    """One level: its learner, timescale and hindsight."""

    learner: Choice = field(default_factory=TD3Config)
    gamma: float = 0.99
    """Discount per environment step."""
    tasks: int = 1
    """Number of tasks, each with separate biases in the actor; with --…init-from, each run learns the next task."""
    masked_entries: tuple[int, ...] = ()
    """State entries that are hidden from the level's networks; they read 0 instead."""
    normalize_observations: bool = False
    """Normalise the observation's entries to mean 0 and standard deviation 1, with running statistics."""
    schedule: Schedule = "constant"
    """Decay of the learning rate while the level learns."""
    warmup: int = 0
    """Updates over which the learning rate first rises from zero."""
    random_warmup: int = 0
    """Environment steps at the start during which all decisions are random. The level does not store or learn from
    them, while the levels below learn to follow commands."""
    learning_stops: int | None = None
    """Environment steps after which the level acts but no longer learns, so that the level above sees a fixed policy.
    Default: the end of the run."""
    hindsight: float | None = None
    """Fraction of a batch in which another goal, for example one reached later, replaces the command. Default: .8 if
    commands can be replaced and the learner has a replay. The top level needs a goal environment."""
    hindsight_strategy: Strategy = "future"
    """future: the goal reached at a random later time in the episode. final: the goal reached at its end. random: any
    subgoal or, at the top level, the goal of another decision, reached or not."""
    hindsight_horizon: int | None = None
    """Maximum number of the level's decisions until the replacing goal. Default: until the end of the episode. random
    ignores this option."""
    frozen: bool = False
    """Act, but do not learn."""
    init_from: Path | None = None
    """Run folder: start from the level of the same name in this earlier run, not from scratch."""
    protect: ProtectConfig = field(default_factory=ProtectConfig)

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Make a level from its options and those of its learner: `LevelConfig.of(learner="sac", tau=.01,
        gamma=.95)`."""
        return flat(cls(), options)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, if a value is invalid."""
        self.learner.check(prefix)
        for option in ("warmup", "random_warmup"):
            if getattr(self, option) < 0:
                raise UserError(f"{prefix}{option} must not be negative, but is {getattr(self, option)}.")
        for option in ("hindsight", "gamma"):
            value = getattr(self, option)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{prefix}{option} must be between 0 and 1, not {value}.")
        if self.tasks < 1:
            raise UserError(f"{prefix}tasks must be positive, not {self.tasks}.")
        if self.gamma == 1.0 and getattr(self.learner, "clip_values", False):
            raise UserError(f"{prefix}gamma must be below 1 while {prefix}clip_values is on.")
        if self.hindsight_horizon is not None and self.hindsight_horizon < 1:
            raise UserError(f"{prefix}hindsight_horizon must be at least 1, not {self.hindsight_horizon}.")
        if self.learning_stops is not None and not self.learning_stops > self.random_warmup:
            raise UserError(
                f"{prefix}learning_stops must be greater than {prefix}random_warmup ({self.random_warmup}), "
                f"not {self.learning_stops}."
            )
        if self.learner.on_policy:
            self._check_on_policy(prefix)
        self.protect.check(prefix, self.tasks)

    def fitted(self, given: Set[str]) -> Self:
        """A copy without the preset's options that the learner cannot use, such as relabelling without a replay.
        `given` options stay."""
        needs: dict[str, Any] = {}
        if not isinstance(self.learner, ActorCriticConfig):
            needs |= {"subgoal_features": False}
        if self.learner.on_policy:
            needs |= {"hindsight": None, "hindsight_actions": None}
            needs |= {"correction": False, "testing": 0.0, "count_bonus": 0.0}
        known = {f.name for f in fields(self)}
        return replace(self, **{name: x for name, x in needs.items() if name in known and name not in given})

    def _check_on_policy(self, prefix: str) -> None:
        kind = self.learner.kind
        if self.hindsight:
            raise UserError(
                f"{prefix}hindsight needs a replay, but {kind} learns only from its last rollout: set it to 0."
            )

    @property
    def off_policy(self) -> ReplayConfig:
        """The options of the learner, which must have a replay."""
        assert isinstance(self.learner, ReplayConfig)
        return self.learner
