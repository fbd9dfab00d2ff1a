"""The contract between a level and the one above it.

A command is one vector for each environment, the *target*. The level below is shown an encoding of it, and is paid by
it. The task is the command to the top level; the others are issued by a level, whose decision they are.
"""

from typing import Protocol

from torch import Tensor

from hrl.spaces import Space


class Command(Protocol):
    """What a level obeys."""

    dim: int
    """Entries of a target."""
    input_dim: int
    """Entries of its encoding."""
    extrinsic: bool
    """Whether the level learns on the environment's reward, which its memory then stores."""

    def scale_reward(self, reward: Tensor) -> Tensor:
        """The environment's reward as it is learned on (where extrinsic)."""

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """The encoding [..., input_dim] of state [..., D] and target [..., G]; `shown` is the state without its masked
        entries."""

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """Intrinsic reward [...] for a step from state to next_state under target."""

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """Least and greatest discounted sum of rewards that can be, where known."""


class IssuedCommand(Command, Protocol):
    """What a level decides for the one below."""

    space: Space
    """What the level above decides in: a Box of [-1, 1], or numbers from 0."""
    ends_early: bool
    """Whether `ended` may be true before the period is over."""

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The target [..., G] of a decision [..., A] taken in this state."""

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """Whether [...] the command ends in this state."""

    def available(self, state: Tensor) -> Tensor | None:
        """Choices [..., K] that can be taken in this state; None for all."""

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Numbers [...] by name that say how well a command was obeyed, when it ended in this state."""

    def same(self, other: object) -> bool:
        """Whether decisions and targets mean the same under another command."""

    def place(self, target: Tensor) -> Tensor | None:
        """Where [..., G] in the goal space a target is, for pictures; None where it is no place."""
