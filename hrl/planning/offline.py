"""A planner for a policy that was learned from a dataset: landmarks are states of the dataset.

The policy goes from landmark to landmark without further training (test-time graph search over a frozen policy). An
edge is a hop that a trajectory of the dataset confirms. Values learned in few steps are too smooth near obstacles to
define edges alone. `planner.distance value` uses them nevertheless.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hrl.hierarchy.commands.goals import UNBOUNDED, GoalSpace, Select
from hrl.memory.dataset import Dataset
from hrl.memory.goal_sampling import draw_transitions
from hrl.memory.ring import Rows
from hrl.planning.config import PlannerConfig
from hrl.planning.distance import Visited
from hrl.planning.landmarks import Landmarks, connected_landmarks
from hrl.planning.planner import PlannerPolicy
from hrl.planning.travelled import TravelledDistance
from hrl.report.evaluation import success_radius
from hrl.run.checkpoint import Which
from hrl.run.session import Session
from hrl.training.predicting import PredictingPolicy
from hrl.types import Spec, UserError

CHUNK = 1 << 15
"""Maximum number of pairs of states and goals that a network evaluates at once."""


@dataclass(frozen=True)
class GoalReacher:
    """A trained policy with its dataset. Its goals are achieved goals."""

    policy: PredictingPolicy
    distance: Callable[[Tensor, Tensor], Tensor]
    """(states [P, D], goals [P, G]) -> environment steps [P] from states to goals."""
    data: Dataset
    longest: float
    """Default of the longest hop in environment steps."""


@runtime_checkable
class Offline(Protocol):
    """The interface of an algorithm with a policy that obeys goals and was learned from a dataset."""

    def goal_reacher(self, session: Session, which: Which, level: int) -> GoalReacher:
        """The policy of a checkpoint, up to this level from the lowest. Raises UserError for an unknown level."""


class VisitedRows:
    """The states of a dataset, with the interface of visited states."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """Uniformly drawn transitions [B]."""
        rows = draw_transitions(self.data, count, generator)
        return Rows(torch.zeros_like(rows), rows)

    def get(self, rows: Rows, name: str) -> Tensor:
        """States [..., D]."""
        if name != "state":
            raise KeyError(name)
        return self.data.state[rows.row]

    def end(self, rows: Rows) -> Tensor:
        """The last row [B] of each row's trajectory."""
        return self.data.final[rows.row]


class PolicyDistance(TravelledDistance):
    """Steps between states and goal positions, estimated by a policy's own value."""

    def __init__(self, reacher: GoalReacher, goals: GoalSpace) -> None:
        super().__init__(goals, goals.threshold, reacher.data.state.device)
        self._steps = reacher.distance

    def __call__(self, state: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Environment steps [...] from states [..., D] to positions [..., G], twice, because no threshold applies."""
        flat = state.expand(*place.shape[:-1], -1).flatten(0, -2), place.flatten(0, -2)
        parts = [self._steps(*pair) for pair in zip(*(x.split(CHUNK) for x in flat), strict=True)]
        steps = torch.cat(parts).view(place.shape[:-1])
        return steps, steps

    def fit(self, replay: Visited, longest: float, generator: torch.Generator) -> None:
        """Do nothing: the value determines the steps."""


def achieved_goals(spec: Spec, device: torch.device) -> GoalSpace:
    """The space of the task's goals."""
    unbounded = torch.full((spec.goal_dim,), UNBOUNDED, device=device)
    threshold = success_radius(spec, torch.zeros(spec.goal_dim, device=device)) or 0.0
    project = Select(torch.tensor(spec.achieved, device=device))
    return GoalSpace(project, -unbounded, unbounded, relative=False, threshold=threshold)


def plan_offline(
    config: Offline, session: Session, which: Which, options: PlannerConfig
) -> tuple[PlannerPolicy, dict[str, float]]:
    """A planner over a policy, with landmarks from its dataset, and numbers that describe its graph.

    Raises UserError for options that need a replay.
    """
    if options.explore or options.distance == "calibrated":
        raise UserError(
            "Over a policy that learned from a dataset, a planner takes landmarks from the dataset and steps from the "
            "policy: planner.explore and planner.distance calibrated are for runs with levels and replays."
        )
    started = time.perf_counter()
    reacher, env = config.goal_reacher(session, which, options.level), session.make_env(1)
    goals, travelled = achieved_goals(env.spec, reacher.data.state.device), options.distance != "value"
    distance = (
        TravelledDistance(goals, goals.threshold, reacher.data.state.device)
        if travelled
        else PolicyDistance(reacher, goals)
    )
    make = lambda options: Landmarks(distance, env.spec, options, reacher.longest, confirmed=travelled)  # noqa: E731
    generator = torch.Generator(distance.device).manual_seed(session.run.seed)
    landmarks = connected_landmarks(make, options, VisitedRows(reacher.data), generator)
    facts = landmarks.facts | {"explored": 0.0}
    facts["planning_seconds"] = time.perf_counter() - started
    return PlannerPolicy(reacher.policy, landmarks, options.patience, env), facts
