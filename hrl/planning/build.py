"""Builds a planner for a trained run, with landmarks from its replay or from a short exploration."""

import math
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from hrl.hierarchy.hierarchy import Hierarchy
from hrl.planning.config import PlannerConfig
from hrl.planning.exploring import explore
from hrl.planning.landmarks import Landmarks, connected_landmarks
from hrl.planning.offline import Offline, plan_offline
from hrl.planning.planner import PlannerPolicy
from hrl.pretrained import visited
from hrl.run.checkpoint import Which
from hrl.run.session import Session
from hrl.training.policy import HierarchyPolicy
from hrl.types import Spec, UserError

ENOUGH = 0.8
"""Minimum fraction of hops that should succeed."""
WHOLE = 0.9
"""Minimum fraction of landmarks that should be in one component."""
EXPLORED = 200_000
"""Default exploration in another environment, in environment steps."""
EXPLORERS = 200
"""Number of environments that explore in parallel."""


@runtime_checkable
class Restorable(Protocol):
    """The interface of algorithms that produce runs with levels and replays."""

    def restored(self, session: Session) -> Hierarchy:
        """The final agent of the session's run, including its memories."""


def plan_for(
    config: Any, session: Session, which: Which, options: PlannerConfig, elsewhere: bool
) -> tuple[PlannerPolicy, dict[str, float]]:
    """A planner over the levels of a run, and numbers that describe its graph. Landmarks are states of the run's
    replay or dataset, or of an exploration of the session's environment. `elsewhere` is true if this environment
    differs from the run's own.

    Raises UserError if the run has no level that obeys goals, or if the task has no goals.
    """
    options.check("planner.")
    if isinstance(config, Offline):
        return plan_offline(config, session, which, options)
    if not isinstance(config, Restorable):
        raise UserError(
            "--planner needs a run of this toolkit with levels and stored replays, or a run that learned to reach "
            "goals from a dataset."
        )
    started = time.perf_counter()
    agent, env = config.restored(session), session.make_env(1)
    if which == "best":
        agent.load_networks(session.checkpoint("best").tensors)
    generator = torch.Generator(agent.device).manual_seed(session.run.seed)
    part = agent.lowest(options.level + 1)
    stored = visited(session.checkpoint("last"), agent.device)
    replay = agent.levels[0].memory if stored is None else stored
    explored = (EXPLORED if elsewhere else 0) if options.explore is None else options.explore
    if explored:
        hold = max(round(landmarks_of(agent, env.spec, options, elsewhere).longest), 1)
        replay = explore(part, session.make_env(EXPLORERS), explored, hold, generator)
    make = lambda options: landmarks_of(agent, env.spec, options, elsewhere)  # noqa: E731
    landmarks = connected_landmarks(make, options, replay, generator)
    seconds = time.perf_counter() - started
    facts = landmarks.facts | {"explored": float(explored), "planning_seconds": seconds}
    return PlannerPolicy(HierarchyPolicy(part), landmarks, options.patience, env), facts


def landmarks_of(agent: Hierarchy, spec: Spec, options: PlannerConfig, elsewhere: bool) -> Landmarks:
    """An empty graph of landmarks for the level in the options. Raises UserError if the agent lacks this level."""
    count = len(agent.levels)
    if options.level >= count:
        raise UserError(f"planner.level {options.level} does not exist: the agent has levels 0 to {count - 1}.")
    period = agent.levels[options.level + 1].period.greatest if options.level + 1 < count else None
    return Landmarks.of_level(agent.levels[options.level], spec, options, period, elsewhere)


def planner_notes(summary: Mapping[str, Any]) -> list[str]:
    """Sentences about the planner's graph and hops, from the numbers of its graph and of its evaluation."""
    s = {"hop_steps": math.nan, "hop_success_rate": math.nan, "disconnected_goals": math.nan} | dict(summary)
    source = f"{s['explored']:,.0f} steps of exploration here" if s["explored"] else "the run's data"
    lines = [
        f"Planner: {s['landmarks']:,.0f} landmarks from {source}, {s['edges']:,.0f} edges of up to {s['max_hop']:.3g} "
        f"steps, {s['largest_component']:.0%} of the landmarks in one component; planned in "
        f"{s['planning_seconds']:.1f} s.",
        f"Hops: {s['edge_steps']:.1f} steps long as planned, {s['hop_steps']:.1f} as measured; "
        f"{s['hop_success_rate']:.0%} of them succeed. Disconnected goals: "
        f"{s['disconnected_goals'] * s['episodes']:.0f} of {s['episodes']}.",
    ]
    if s["hop_success_rate"] < ENOUGH:
        lines.append(
            f"Fewer than {ENOUGH:.0%} of the hops succeed: the level does not reach nearby goals reliably. Try a "
            "smaller --planner.max-hop, or train for longer."
        )
    if s["disconnected_goals"] > 0.1 and s["largest_component"] >= WHOLE:
        lines.append(
            "Disconnected goals are out of reach of every landmark according to the level's value; the level pursues "
            "them directly. Try a larger --planner.max-hop, or train for longer."
        )
    if s["largest_component"] < WHOLE:
        lines.append(
            "Parts of the graph are not connected. Try more landmarks (--planner.max-landmarks), a larger "
            "--planner.max-hop, or more exploration (--planner.explore)."
        )
    return lines
