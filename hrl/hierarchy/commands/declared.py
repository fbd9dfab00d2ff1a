"""Declared subgoals: the level above chooses one of a list of subgoals, each a predicate of the state."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from hrl.hierarchy.commands.building import build_projection
from hrl.hierarchy.commands.choices import Skill
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.types import Spec, UserError

Reached = Callable[[Tensor], Tensor]
"""state [..., D] -> bool [..., K] whether each subgoal is reached there."""


class DeclaredSubgoals(Skill):
    """One of K named subgoals, one-hot. A subgoal ends as soon as it is reached; reached subgoals are not available.

    If all are reached, all are available.
    """

    def __init__(
        self, names: Sequence[str], reached: Reached, reward: Literal["bonus", "sparse"] = "bonus", scale: float = 1.0
    ) -> None:
        """`reward`: "bonus" gives `scale` where the subgoal is reached; "sparse" costs `scale` per step until then."""
        self.reached, self.kind = reached, reward
        super().__init__(len(names), self._reward, scale, self._not_reached, self._is_reached, names=tuple(names))

    def _is_reached(self, state: Tensor, target: Tensor) -> Tensor:
        return (self.reached(state) & (target > 0.5)).any(-1)

    def _not_reached(self, state: Tensor) -> Tensor:
        ahead = ~self.reached(state)
        return (ahead | ~ahead.any(-1, keepdim=True)).float()

    def _reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        reached = self._is_reached(next_state, target).float()
        return reached if self.kind == "bonus" else reached - 1.0

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """[0, scale] for bonus, which is given at most once; [-scale / (1 - γ), 0] for sparse."""
        return (0.0, self.scale) if self.kind == "bonus" else (-self.scale / (1.0 - gamma), 0.0)

    def measure(self, state: Tensor, target: Tensor) -> dict[str, Tensor]:
        """1 where the subgoal was reached, else 0, for all subgoals and for each."""
        rate = self._is_reached(state, target).float()
        metrics = {"subgoal_reach_rate": rate}
        for name, chosen in zip(self.names, target.unbind(-1), strict=True):
            metrics[f"reach_rate_{name}"] = torch.where(chosen > 0.5, rate, torch.nan)
        return metrics

    def same(self, other: object) -> bool:
        """Whether the other is a list of the same names."""
        return isinstance(other, DeclaredSubgoals) and other.names == self.names


def load_predicates(path: str, spec: Spec, device: torch.device) -> tuple[tuple[str, ...], Reached]:
    """Import `module:NAME`: a dictionary of predicates by name, states [..., D] -> bool [...], or one function, states
    [..., D] -> bool [..., K]. Returns the names and the joint predicate, and calls it once as a check. Raises UserError
    if it is neither."""
    module, _, name = path.partition(":")
    form = "it must name a dictionary of predicates (states [..., D] to bool [...]), or a function to bool [..., K]"
    try:
        declared: Any = getattr(importlib.import_module(module), name)
        reached = _joined(declared) if isinstance(declared, Mapping) else declared
        result = reached(torch.zeros(2, spec.state_dim, device=device))
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(f"--subgoals {path} cannot be used ({type(error).__name__}: {error}); {form}.") from error
    if not isinstance(result, Tensor) or result.dtype != torch.bool or result.dim() != 2 or len(result) != 2:
        raise UserError(f"--subgoals {path} cannot be used; {form}.")
    names = tuple(declared) if isinstance(declared, Mapping) else tuple(map(str, range(result.shape[-1])))
    return names, reached


def _joined(predicates: Mapping[str, Callable[[Tensor], Tensor]]) -> Reached:
    functions = list(predicates.values())
    return lambda state: torch.stack([function(state) for function in functions], -1)


def near_points(
    points: Sequence[float], goal: GoalConfig, spec: Spec, device: torch.device
) -> tuple[tuple[str, ...], Reached]:
    """Names and joint predicate of K positions; `points` lists their coordinates one after another. A position is
    reached within `goal.threshold`, in the projection and distance of `goal`. Raises UserError if they do not fit the
    environment."""
    project = build_projection(goal, spec, device)
    dim = project(torch.zeros(1, spec.state_dim, device=device)).shape[-1]
    if goal.threshold is None:
        raise UserError("--points needs --goal.threshold, the distance within which a position counts as reached.")
    if len(points) % dim:
        raise UserError(f"--points needs {dim} numbers per position (--goal.indices), but has {len(points)} numbers.")
    places, threshold = torch.tensor(points, device=device).view(-1, dim), goal.threshold
    order = goal.order

    def reached(state: Tensor) -> Tensor:
        return torch.linalg.vector_norm(project(state).unsqueeze(-2) - places, ord=order, dim=-1) <= threshold

    return tuple("_".join(f"{x:g}" for x in place.tolist()) for place in places), reached
