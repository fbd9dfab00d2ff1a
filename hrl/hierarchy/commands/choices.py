"""Commands without a position in goal space: one of K skills or options, a latent vector, a direction."""

from collections.abc import Callable

import torch
from gymnasium import spaces
from torch import Tensor, nn
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
    `reward`. The target has n entries, followed by the task's current goal if it is passed on."""

    ends_early = False
    termination_cost = 0.0

    def __init__(self, dim: int, reward: Reward | None = None, scale: float = 1.0, goal_dim: int = 0) -> None:
        """`dim` is n. With a `goal_dim`, the level below also sees the task's goal of this width."""
        self.dim = self.input_dim = dim + goal_dim
        self.own, self.goal_dim = dim, goal_dim
        self.space: Space = unit_box(dim)
        self.extrinsic, self.pays, self.scale = reward is None, reward, scale

    def scale_reward(self, reward: Tensor) -> Tensor:
        """The environment's reward times the scale."""
        return reward * self.scale

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The decision, followed by entries for the goal."""
        return self.with_room(action)

    def with_room(self, own: Tensor) -> Tensor:
        """A target [..., G] from its own first entries [..., n]."""
        return nn.functional.pad(own, (0, self.goal_dim)) if self.goal_dim else own

    def with_goal(self, target: Tensor, goal: Tensor) -> Tensor:
        """The target with the task's current goal, if it is passed on."""
        return torch.cat([target[..., : self.own], goal], -1) if self.goal_dim else target

    def duration(self, action: Tensor) -> Tensor | None:
        """None: the command lasts for the level's period."""
        return None

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
        """False: the command always lasts for its complete period."""
        return torch.zeros(state.shape[:-1], dtype=torch.bool, device=state.device)

    def available(self, state: Tensor) -> Tensor | None:
        """None: every vector is available."""
        return None

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """No metrics."""
        return {}

    def shares(self, target: Tensor) -> dict[str, Tensor]:
        """No metrics."""
        return {}

    def same(self, other: object) -> bool:
        """Whether the other is of the same kind and width."""
        return type(other) is type(self) and (other.own, other.goal_dim) == (self.own, self.goal_dim)

    def place(self, target: Tensor) -> Tensor | None:
        """None: the command has no position in goal space."""
        return None


class Skill(Latent):
    """One of K skills. The target is the skill's number as a one-hot vector.

    `available` is true where a skill can start, and `ends` where it ends before its period. A skill that can end early
    is an option (Sutton 1999). If its end is learned, as in option-critic, the learner of the level that obeys it
    decides (`Terminating` in hrl/learners/base.py). With `durations` [K, D], a decision is a skill and one of its D
    durations in environment steps: decision k D + d is skill k for durations[k, d].
    """

    def __init__(
        self,
        count: int,
        reward: Reward | None = None,
        scale: float = 1.0,
        available: Available | None = None,
        ends: Ends | None = None,
        goal_dim: int = 0,
        durations: Tensor | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        """`durations` [K, D] are int64. `names` of the skills label their metrics."""
        super().__init__(count, reward, scale, goal_dim)
        self.lengths = 1 if durations is None else durations.shape[-1]
        self.space = spaces.Discrete(count * self.lengths)
        self.ends_early, self._ends, self._available = ends is not None, ends, available
        self.durations, self.names = durations, names or tuple(map(str, range(count)))

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The skill's number as a one-hot vector [..., K], followed by entries for the goal."""
        number = action.squeeze(-1).long() // self.lengths
        return self.with_room(one_hot(number, self.own).to(state.dtype))

    def duration(self, action: Tensor) -> Tensor | None:
        """The chosen duration; None without durations to choose from."""
        return None if self.durations is None else self.durations.flatten()[action.squeeze(-1).long()]

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """The value of `ends`; False without one."""
        return super().ended(state, target) if self._ends is None else self._ends(state, target)

    def available(self, state: Tensor) -> Tensor | None:
        """The value of `available` for every decision; None, which means all choices, without one."""
        return None if self._available is None else self._available(state).repeat_interleave(self.lengths, -1)

    def shares(self, target: Tensor) -> dict[str, Tensor]:
        """`usage_<name>`: the fraction of each skill."""
        return {f"usage_{name}": target[..., k] for k, name in enumerate(self.names)}


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
