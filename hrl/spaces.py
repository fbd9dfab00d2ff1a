"""Action spaces of learners: a Box of [-1, 1], or entries numbered from 0 (Discrete, MultiDiscrete and MultiBinary).
Every action is a row of float32 numbers [A], for all spaces.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

Space = gym.Space[Any]
MOST_COMBINATIONS = 4096
"""Maximum number of joint choices for learners that enumerate them."""


def unit_box(width: int) -> spaces.Box:
    """The Box [-1, 1]^width."""
    return spaces.Box(-1.0, 1.0, (width,), np.float32)


def choice_sizes(space: Space) -> tuple[int, ...] | None:
    """Number of choices of each entry of an action; None for a Box."""
    match space:
        case spaces.Discrete():
            return (int(space.n),)
        case spaces.MultiDiscrete():
            return tuple(int(n) for n in space.nvec.ravel())
        case spaces.MultiBinary():
            return (2,) * int(np.prod(space.shape))
    return None


def action_width(space: Space) -> int:
    """A, the number of entries of an action."""
    sizes = choice_sizes(space)
    return len(sizes) if sizes is not None else int(np.prod(space.shape or (1,)))


class Choices:
    """Numbers the joint choices of several entries: mixed radix, with the last entry fastest."""

    def __init__(self, sizes: tuple[int, ...], device: torch.device | None = None) -> None:
        self.sizes, self.count = sizes, math.prod(sizes)
        table = np.stack(np.unravel_index(np.arange(min(self.count, MOST_COMBINATIONS)), sizes), -1)
        self.entries = torch.as_tensor(table, dtype=torch.float32, device=device)
        """[count, A] the entries of every joint choice."""
        strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        self.strides = torch.as_tensor(strides, dtype=torch.int64, device=device)

    def number(self, action: Tensor) -> Tensor:
        """The joint choice [...] of actions [..., A], int64."""
        return (action.long() * self.strides).sum(-1)

    def action(self, number: Tensor) -> Tensor:
        """Actions [..., A] of joint choices [...]."""
        return self.entries[number]


def random_actions(space: Space, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """[count, A] uniformly random actions."""
    uniform = torch.rand(count, action_width(space), generator=generator, device=device)
    return from_uniform(space, uniform)


def from_uniform(space: Space, uniform: Tensor) -> Tensor:
    """Uniformly random actions [..., A] from uniform numbers [..., A] in [0, 1)."""
    sizes = choice_sizes(space)
    if sizes is None:
        return uniform * 2 - 1
    return (uniform * torch.tensor(sizes, device=uniform.device)).floor()
