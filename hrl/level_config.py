"""What there is to set about a level."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hrl.learners import LearnerConfig
from hrl.learners.protection import ProtectConfig
from hrl.replay.hindsight import Strategy
from hrl.timescale import Schedule
from hrl.types import UserError


@dataclass
class LevelConfig(LearnerConfig):
    """One level: its learner, replay, timescale, exploration and hindsight."""

    learner: Literal["td3", "sac"] = "td3"
    """Update rule."""
    batch_size: int = 256
    """Transitions a gradient update, of all processes together."""
    replay: int = 1_000_000
    """Capacity of the level's replay, in its own transitions."""
    blind: tuple[int, ...] = ()
    """State entries that the level's networks are not shown; they see 0 there."""
    every: int = 1
    """Environment steps (of all environments together) from one round of updates to the next."""
    updates: int = 1
    """Gradient updates a round."""
    schedule: Schedule = "constant"
    """How the learning rate falls while the level learns."""
    warmup: int = 0
    """Updates over which the learning rate first rises from zero."""
    noise: tuple[float, ...] = (0.1,)
    """Exploration: standard deviation of Gaussian noise, in half-ranges of the action; one for all environments, or
    that of the first and that of the last, as with random decisions. What a policy does without noise is only seen
    where there is none."""
    random: tuple[float, float] = (0.0, 0.0)
    """Exploration: share of decisions that are uniformly random, in the first environment and in the last;
    the others lie between, and one alone has their mean."""
    hold: float = 1.0
    """Exploration: decisions that a random one is kept for, on average."""
    wait: int = 0
    """Environment steps for which all decisions are random, and nothing is learned from them or kept: meanwhile the
    levels below learn to obey."""
    until: int | None = None
    """Environment steps after which the level acts, but learns no more: a level above then learns to lead one that
    stands still. Default: it learns to the run's end."""
    hindsight: float | None = None
    """Share of a batch whose command is replaced by what was reached later, or by another. Default: .8 where commands
    can be replaced; at the task's level that needs a goal environment."""
    hindsight_strategy: Strategy = "future"
    """Reached when: at a random later moment of the episode, or at its end. Or not reached at all: any subgoal, at the
    task's level another episode's goal, which shows what a decision is worth whatever is wanted now."""
    hindsight_horizon: int | None = None
    """Only moments within so many of the level's decisions. Default: to the episode's end. What is random has none."""
    clip_values: bool = True
    """Clip bootstrapped targets to what discounted rewards can sum to, where that is known (TD3)."""
    frozen: bool = False
    """Act, but do not learn."""
    earlier: Annotated[Path | None, tyro.conf.arg(name="load")] = None
    """Begin with what the level of this name has learned in an earlier run (its folder), not from nothing."""
    protect: ProtectConfig = field(default_factory=ProtectConfig)

    def check(self, prefix: str) -> None:
        """Raise UserError, naming the option, where a value cannot be meant."""
        positive = {"lr", "actor_lr", "batch_size", "replay", "every", "policy_delay", "tau", "tasks"}
        not_negative = {
            "entropy",
            "updates",
            "warmup",
            "wait",
            "target_noise",
            "noise_clip",
            "action_l2",
        }
        share = {"hindsight", "gamma", "tau", "pessimism"}
        for option in sorted(positive | not_negative | share):
            value = getattr(self, option)
            if value is None:
                continue
            if option in positive and not value > 0:
                raise UserError(f"{prefix}{option} must be positive, not {value}.")
            if option in not_negative and not value >= 0:
                raise UserError(f"{prefix}{option} must not be negative, but is {value}.")
            if option in share and not 0 <= value <= 1:
                raise UserError(f"{prefix}{option} must lie between 0 and 1, not at {value}.")
        if self.gamma == 1.0 and self.clip_values and self.learner == "td3":
            raise UserError(f"{prefix}gamma must be below 1 while {prefix}clip_values is on.")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"{prefix}hidden must be one or more positive layer sizes, not {self.hidden}.")
        if len(self.noise) not in (1, 2) or min(self.noise) < 0:
            raise UserError(f"{prefix}noise must be one or two numbers that are not negative, not {self.noise}.")
        if not all(0 <= share <= 1 for share in self.random):
            raise UserError(f"{prefix}random must be two shares between 0 and 1, not {self.random}.")
        if not self.hold >= 1:
            raise UserError(f"{prefix}hold must be at least 1 decision, not {self.hold}.")
        if self.hindsight_horizon is not None and self.hindsight_horizon < 1:
            raise UserError(f"{prefix}hindsight_horizon must be at least 1, not {self.hindsight_horizon}.")
        if self.until is not None and not self.until > self.wait:
            raise UserError(f"{prefix}until must come after {prefix}wait ({self.wait}), not at {self.until}.")
        self.protect.check(prefix, self.tasks)
