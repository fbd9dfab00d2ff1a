"""A subgoal: a position in goal space that the level below should reach, given as a vector or as a grid cell."""

from collections.abc import Callable
from typing import Literal

import torch
from gymnasium import spaces
from torch import Tensor

from hrl.hierarchy.commands.goals import GoalSpace
from hrl.spaces import Space, unit_box
from hrl.types import UserError

Reward = Literal["sparse", "distance", "progress"] | Callable[[Tensor, Tensor, Tensor], Tensor]
"""A reward by name, or a function (state [..., D], next_state [..., D], target [..., G]) -> [...]."""
MOST_CELLS = 4096


class Subgoal:
    """A position in goal space to reach. The target is absolute; in a relative space, the level observes `target -
    φ(s)`.

    HIRO's goal transition h(s, g, s') = s + g - s' keeps the position s + g fixed. Storing the position and observing
    `target - φ(s)` gives the same transition, computed from the true state at each step.
    """

    extrinsic = False

    def __init__(
        self,
        goals: GoalSpace,
        reward: Reward,
        scale: float = 1.0,
        ends_early: bool = False,
        termination_cost: float = 0.0,
    ) -> None:
        """With `ends_early`, a subgoal ends as soon as it is reached. With a positive `termination_cost`, the end of
        the task has this cost and is terminal for the level that obeys."""
        self.goals, self.scale, self.ends_early, self.termination_cost = goals, scale, ends_early, termination_cost
        self.dim = goals.dim
        self.input_dim = goals.dim * (1 if goals.relative else 2) + goals.feature_dim
        self.space: Space = unit_box(goals.dim)
        self.kind = reward if isinstance(reward, str) else "custom"
        named: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
            "sparse": self._sparse, "distance": self._negative_distance, "progress": self._progress
        }  # fmt: skip
        self._reward = named[reward] if isinstance(reward, str) else reward

    def same(self, other: object) -> bool:
        """Whether decisions and targets have the same meaning under another command."""
        return isinstance(other, Subgoal) and self.goals.same(other.goals) and self.space == other.space

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The target [..., G] of a decision in [-1, 1]."""
        goal = self.goals.scale(action)
        return goal + self.goals.project(state) if self.goals.relative else goal

    def sample(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """A target [B, G] of a uniformly random decision in states [B, D]."""
        uniform = torch.rand(len(state), self.dim, generator=generator, device=state.device)
        return self.issue(state, uniform * 2 - 1)

    def with_goal(self, target: Tensor, goal: Tensor) -> Tensor:
        """The target itself: the level below does not see the task's goal."""
        return target

    def duration(self, action: Tensor) -> Tensor | None:
        """None: every subgoal may last for the level's period."""
        return None

    def place(self, target: Tensor) -> Tensor | None:
        """The target itself."""
        return target

    def available(self, state: Tensor) -> Tensor | None:
        """None: every subgoal is available."""
        return None

    def ended(self, state: Tensor, target: Tensor) -> Tensor:
        """Whether [...] the subgoal is reached, if it ends early; else False."""
        reached = self.reached(state, target)
        return reached if self.ends_early else torch.zeros_like(reached)

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The remaining distance [...], and 1 where the subgoal was reached, else 0."""
        distance = self.distance(state, target)
        return {"subgoal_distance": distance, "subgoal_reach_rate": (distance <= self.goals.threshold).float()}

    def shares(self, target: Tensor) -> dict[str, Tensor]:
        """No metrics."""
        return {}

    def retrace(self, state: Tensor, target: Tensor) -> Tensor:
        """The decision in [-1, 1] that issues this target from this state, clipped."""
        return self.goals.unscale(target - self.goals.project(state) if self.goals.relative else target)

    def candidates(
        self, state: Tensor, next_state: Tensor, action: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """`count` decisions [B, K, A] that may explain the path from state to next_state [B, D]: the decision taken
        [B, A], the decision for the reached goal, and Gaussian samples around the latter with a standard deviation of
        half the goal space's half-range. The decision taken comes first, so that ties keep it."""
        moved = self.project(next_state)
        if self.goals.relative:
            moved = moved - self.project(state)
        moved = ((moved - self.goals.centre) / self.goals.half).unsqueeze(1)
        shape = (len(moved), count - 2, self.dim)
        around = moved + 0.5 * torch.randn(shape, generator=generator, device=moved.device)
        return torch.cat([action.unsqueeze(1), moved.clamp(-1, 1), around.clamp(-1, 1)], 1)

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """Displacement to the target (and the target if the space is absolute), scaled to order 1, and position
        features."""
        way = (target - self.goals.project(state)) / self.goals.half
        parts = [way] if self.goals.relative else [way, (target - self.goals.centre) / self.goals.half]
        return torch.cat([*parts, self.goals.features(self.goals.project(shown))], -1)

    def scale_reward(self, reward: Tensor) -> Tensor:
        """Zeros: a subgoal ignores the environment's reward."""
        return torch.zeros_like(reward)

    def project(self, state: Tensor) -> Tensor:
        """φ(s) [..., G]."""
        return self.goals.project(state)

    def distance(self, state: Tensor, target: Tensor) -> Tensor:
        """Distance [...] of the state from the target."""
        return self.goals.distance(self.goals.project(state), target)

    def reached(self, state: Tensor, target: Tensor) -> Tensor:
        """Whether [...] the state lies within the threshold of the target."""
        return self.distance(state, target) <= self.goals.threshold

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """HIRO's eq. 3 (distance: -||s + g - s'||), HAC's sparse -1 / 0, or the decrease of the distance (progress).

        Progress is (1 - γ) times the distance reward, plus potential-based shaping (Ng 1999) with the value of never
        moving, -||s + g - s||. The optimal policy stays the same, and the critic does not have to learn the shaping
        potential. This also holds where the task ends, because that is not terminal for the level below
        (`Level.batch`), unless it has a cost."""
        return self._reward(state, next_state, target) * self.scale

    def _sparse(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        return self.reached(next_state, target).float() - 1.0

    def _negative_distance(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        return -self.distance(next_state, target)

    def _progress(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        return self.distance(state, target) - self.distance(next_state, target)

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """[-1/(1-γ), 0] times the scale for sparse, or lower for the cost of the end of the task; (-∞, 0] for distance;
        None for progress and custom rewards."""
        least = min(-self.scale / (1.0 - gamma), -self.scale - self.termination_cost)
        return {"sparse": (least, 0.0), "distance": (-float("inf"), 0.0)}.get(self.kind)


class GridSubgoal(Subgoal):
    """A subgoal that is the centre of one of K grid cells: `cells` along each dimension of the goal space's bounds."""

    def __init__(
        self,
        goals: GoalSpace,
        cells: int,
        reward: Reward,
        scale: float = 1.0,
        ends_early: bool = False,
        termination_cost: float = 0.0,
    ) -> None:
        """Raises UserError for more than MOST_CELLS cells."""
        super().__init__(goals, reward, scale, ends_early, termination_cost)
        self.cells, count = cells, cells**goals.dim
        if count > MOST_CELLS:
            raise UserError(
                f"--goal.cells {cells} gives {count:,} subgoals, more than {MOST_CELLS:,}: use fewer cells."
            )
        self.space = spaces.Discrete(count)
        along = (torch.arange(cells, device=goals.low.device) + 0.5) / cells * 2 - 1
        self.centres = torch.cartesian_prod(*[along] * goals.dim).view(count, goals.dim)
        """[K, G] in [-1, 1]"""

    def issue(self, state: Tensor, action: Tensor) -> Tensor:
        """The target [..., G] of a cell's number [..., 1]."""
        return super().issue(state, self.centres[action.squeeze(-1).long()])

    def sample(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """The target [B, G] of a random cell in states [B, D]."""
        return self.issue(state, self._random_cells(len(state), 1, generator))

    def _random_cells(self, batch: int, count: int, generator: torch.Generator) -> Tensor:
        """[B, count] numbers of cells."""
        uniform = torch.rand(batch, count, generator=generator, device=self.centres.device)
        return (uniform * len(self.centres)).floor()

    def available(self, state: Tensor) -> Tensor | None:
        """If subgoals end early, the mask [..., K] of cells that are not reached (all, if all are reached); else
        None."""
        if not self.ends_early:
            return None
        places = Subgoal.issue(self, state.unsqueeze(-2), self.centres)
        ahead = ~self.reached(state.unsqueeze(-2), places)
        return (ahead | ~ahead.any(-1, keepdim=True)).float()

    def retrace(self, state: Tensor, target: Tensor) -> Tensor:
        """The cell [..., 1] that contains this target, or the nearest one."""
        along = ((super().retrace(state, target) + 1) / 2 * self.cells).long().clamp(0, self.cells - 1)
        powers = [self.cells**k for k in range(self.goals.dim)][::-1]
        return (along * torch.tensor(powers, device=along.device)).sum(-1, keepdim=True).float()

    def candidates(
        self, state: Tensor, next_state: Tensor, action: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """The cell taken, the cell reached, and random cells [B, K, 1]."""
        reached = self.retrace(state, self.project(next_state))
        others = self._random_cells(len(state), count - 2, generator)
        return torch.cat([action, reached, others], 1).unsqueeze(-1)
