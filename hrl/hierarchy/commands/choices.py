"""Commands without a place: one of K skills or options, a latent vector, a direction in goal space."""

from collections.abc import Callable

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from hrl.hierarchy.commands.goals import GoalSpace
from hrl.spaces import Space, unit_box

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(state [..., D], next_state [..., D], target [..., G]) -> reward [...]."""
Available = Callable[[Tensor], Tensor]
"""state [..., D] -> [..., K] which choices can be taken."""
Ends = Callable[[Tensor, Tensor], Tensor]
"""(state [..., D], target [..., G]) -> [...] whether a choice ends."""


class Latent:
    """A vector in [-1, 1]^n without a meaning of its own. The level below learns on the task's reward, or on
    `reward`."""

    ends_early = False

    def __init__(self, dim: int, reward: Reward | None = None, scale: float = 1.0) -> None:
        self.dim = self.input_dim = dim
        self.space: Space = unit_box(dim)
        self.extrinsic, self.pays, self.scale = reward is None, reward, scale

    def scale_reward(self, reward: Tensor) -> Tensor:
        """The environment's reward times the scale."""
        return reward * self.scale

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The decision itself."""
        return action

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """The vector itself."""
        return target

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """As was given; 0 where the level learns on the task's reward."""
        if self.pays is None:
            return state.new_zeros(state.shape[:-1])
        return self.pays(state, next_state, target) * self.scale

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """Not known."""
        return None

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """Never before its period is over."""
        return torch.zeros(state.shape[:-1], dtype=torch.bool, device=state.device)

    def available(self, state: Tensor) -> Tensor | None:
        """Every vector."""
        return None

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def same(self, other: object) -> bool:
        """Whether the other is of the same kind and width."""
        return type(other) is type(self) and other.dim == self.dim

    def place(self, target: Tensor) -> Tensor | None:
        """No place."""
        return None


class Skill(Latent):
    """One of K numbered skills. The target is its number, one-hot.

    `available` says where a skill can be begun, `ends` where it ends before its period is over: with that a skill is an
    option (Sutton 1999), and where `ends` is learned, one of option-critic.
    """

    def __init__(
        self,
        count: int,
        reward: Reward | None = None,
        scale: float = 1.0,
        available: Available | None = None,
        ends: Ends | None = None,
    ) -> None:
        super().__init__(count, reward, scale)
        self.space = spaces.Discrete(count)
        self.ends_early, self._ends, self._available = ends is not None, ends, available

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The number as a one-hot vector [..., K]."""
        return one_hot(action.squeeze(-1).long(), self.dim).to(state.dtype)

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """What `ends` says."""
        return super().ended(state, target) if self._ends is None else self._ends(state, target)

    def available(self, state: Tensor) -> Tensor | None:
        """What was given; all where nothing was."""
        return None if self._available is None else self._available(state)


class Direction(Latent):
    """A direction in goal space. The level below is paid the cosine between it and its displacement (FeUdal networks,
    Vezhnevets 2017, eq. 8)."""

    def __init__(self, space: GoalSpace, scale: float = 1.0) -> None:
        super().__init__(space.dim, self._cosine, scale)
        self.goals = space

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The decision at length 1."""
        return action / torch.linalg.vector_norm(action, dim=-1, keepdim=True).clamp_min(1e-6)

    def _cosine(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        moved = (self.goals.project(next_state) - self.goals.project(state)) / self.goals.half
        return cosine_similarity(moved, target, dim=-1)

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """A cosine lies between -1 and 1."""
        return -self.scale / (1 - gamma), self.scale / (1 - gamma)
