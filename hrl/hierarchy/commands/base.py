"""The contract between a level and the one above it.

A command is one vector per environment, the *target*. The level below sees an encoding of it and is rewarded for
following it. The top level obeys the task; every other command is a decision of the level above.
"""

from typing import Protocol

from torch import Tensor

from hrl.spaces import Space


class Command(Protocol):
    """The interface of a command as seen by the level that obeys it."""

    dim: int
    """Entries of a target."""
    input_dim: int
    """Entries of its encoding."""
    extrinsic: bool
    """Whether the level learns from the environment's reward. Its memory then stores this reward."""

    def scale_reward(self, reward: Tensor) -> Tensor:
        """The reward that the level learns from, computed from the environment's reward (if extrinsic)."""

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """The encoding [..., input_dim] of state [..., D] and target [..., G]; `shown` is the state without its masked
        entries."""

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """Intrinsic reward [...] for a step from state to next_state under target."""

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """Minimum and maximum of the discounted sum of rewards; None if unknown."""


class IssuedCommand(Command, Protocol):
    """The interface of a command as seen by the level that issues it."""

    space: Space
    """The action space of the level above: a Box of [-1, 1], or numbers from 0."""
    ends_early: bool
    """Whether `ended` may be true before the end of the period."""
    termination_cost: float
    """Cost of the end of the task, which then ends the return of the level that obeys. With 0, the level bootstraps
    there."""

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The target [..., G] of a decision [..., A] taken in this state."""

    def with_goal(self, target: Tensor, goal: Tensor) -> Tensor:
        """The target [..., G], with the task's current goal if the command passes it on to the level below."""

    def duration(self, action: Tensor) -> Tensor | None:
        """Decisions [...] of the level below for which a decision [..., A] may last, int64; None for the period."""

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """Whether [...] the command ends in this state."""

    def available(self, state: Tensor) -> Tensor | None:
        """Choices [..., K] that can be taken in this state; None for all."""

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Metrics [...] by name that measure how well the level obeyed a command that ended in this state. NaN where a
        metric does not apply."""

    def shares(self, target: Tensor) -> dict[str, Tensor]:
        """Metrics [...] by name of a command; their means are taken over environment steps, not over commands."""

    def same(self, other: object) -> bool:
        """Whether decisions and targets have the same meaning under another command."""

    def place(self, target: Tensor) -> Tensor | None:
        """The position [..., G] of a target in goal space, for pictures; None if it has none."""
