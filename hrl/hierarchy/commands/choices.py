"""Commands without a position in goal space: one of K skills or options, a latent vector, a direction."""

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
"""state [..., D] -> mask [..., K] of the available choices."""
Ends = Callable[[Tensor, Tensor], Tensor]
"""(state [..., D], target [..., G]) -> [...] whether a choice ends."""


class Latent:
    """A vector in [-1, 1]^n without a predefined meaning. The level below learns from the task's reward, or from
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

    def carry(self, target: Tensor, above: Tensor) -> Tensor:
        """The target alone."""
        return target

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """The vector itself."""
        return target

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """The scaled `reward` function's value; 0 if the level learns from the task's reward."""
        if self.pays is None:
            return state.new_zeros(state.shape[:-1])
        return self.pays(state, next_state, target) * self.scale

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """None: the bounds are unknown."""
        return None

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """False: the command always lasts its whole period."""
        return torch.zeros(state.shape[:-1], dtype=torch.bool, device=state.device)

    def available(self, state: Tensor) -> Tensor | None:
        """None: every vector is available."""
        return None

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """No metrics."""
        return {}

    def same(self, other: object) -> bool:
        """Whether the other is of the same kind and width."""
        return type(other) is type(self) and other.dim == self.dim

    def place(self, target: Tensor) -> Tensor | None:
        """None: the command has no position in goal space."""
        return None


class Skill(Latent):
    """One of K numbered skills. The target is its number, one-hot.

    `available` is true where a skill can begin, and `ends` where it ends before its period is over. A skill with `ends`
    is an option (Sutton 1999); with a learned `ends` it is an option of option-critic.
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
        """The value of `ends`; False without one."""
        return super().ended(state, target) if self._ends is None else self._ends(state, target)

    def available(self, state: Tensor) -> Tensor | None:
        """The value of `available`; None, for all choices, without one."""
        return None if self._available is None else self._available(state)


class Direction(Latent):
    """A direction in goal space. The level below is rewarded with the cosine between the direction and its displacement
    (FeUdal networks, Vezhnevets 2017, eq. 8)."""

    def __init__(self, space: GoalSpace, scale: float = 1.0) -> None:
        super().__init__(space.dim, self._cosine, scale)
        self.goals = space

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The decision, scaled to length 1."""
        return action / torch.linalg.vector_norm(action, dim=-1, keepdim=True).clamp_min(1e-6)

    def _cosine(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        moved = (self.goals.project(next_state) - self.goals.project(state)) / self.goals.half
        return cosine_similarity(moved, target, dim=-1)

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """A cosine lies between -1 and 1."""
        return -self.scale / (1 - gamma), self.scale / (1 - gamma)
