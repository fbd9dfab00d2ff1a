"""A graph of landmarks for one goal-conditioned level or policy, and the next landmark on the shortest path to a goal.

Landmarks are visited states, chosen by farthest-point sampling in goal space. An edge leads from a landmark to one of
its nearest neighbours if it takes at most `max_hop` environment steps by the estimated distance and, with `confirmed`,
if an episode went from near one landmark to near the other in about as many steps.

A hop from another state or to a goal may skip landmarks. It must reach its landmark within `max_hop` steps by the
estimated distance, and the shortest path between the landmarks around its ends must not be much longer than the hop:
otherwise, the hop cuts through an obstacle. The path length is the median over the three nearest landmarks, because a
single landmark may lie behind a wall.

All tensors have fixed sizes, so a graph can be saved, replaced in place, and used by captured functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hrl.hierarchy.commands.goals import GoalSpace, Select
from hrl.hierarchy.level import Level
from hrl.memory.ring import Rows
from hrl.planning.config import GraphConfig, PlannerConfig
from hrl.planning.distance import Distance, StepDistance, Visited
from hrl.planning.graph import components, farthest_points, shortest_paths
from hrl.planning.travelled import TravelledDistance
from hrl.types import Spec, UserError

FAR = 1e4
"""Steps added to the first or last hop of a path if it is not allowed. It is then used only if there is no other
hop."""
DETOUR, ROOM = 2.0, 0.75
"""Maximum ratio of the shortest path to a hop that skips landmarks, and multiples of the longest hop that are added for
the regions at its ends."""
WINDOWS, PART = 15_000, 500
"""Number of pieces of episodes that confirm edges, and number of pieces that are read at once."""
SLACK = 2.0
"""Multiple of the longest hop within which an episode confirms an edge. An edge ends where its landmark counts as
reached; an episode ends near it."""
BESIDE = 0.35
"""Maximum distance of a state near a landmark, relative to the median distance between neighbours."""
REGION = 3
"""Number of landmarks around a position."""


CONNECTED = 0.8
"""Fraction of the chosen states in the largest component from which the graph needs no more landmarks."""


class Route(NamedTuple):
    """The next hop of N environments on the way to their goals."""

    node: Tensor
    """[N] the next landmark, int64; the maximum number of landmarks stands for the goal."""
    place: Tensor
    """[N, G] its position."""
    steps: Tensor
    """[N] environment steps of the hop."""
    connected: Tensor
    """[N] whether a path of edges leads to the goal."""


class Landmarks:
    """Landmarks, and shortest paths between them."""

    def __init__(
        self, distance: StepDistance, spec: Spec, config: GraphConfig, longest: float, confirmed: bool = False
    ) -> None:
        """`longest` is the default of `max_hop`, unless `distance` has one of its own, and `confirmed` the default of
        the option `confirmed`."""
        self.distance, self.config, self.device = distance, config, distance.device
        self.confirmed = confirmed if config.confirmed is None else config.confirmed
        self.longest = config.max_hop or longest
        """Environment steps of the longest hop, until `distance` is fitted."""
        self.max_hop = torch.tensor(float(self.longest), device=self.device)
        """Environment steps of the longest hop."""
        size, dim = config.landmarks, self.distance.goals.dim
        self.neighbours = min(config.neighbours, size)
        self.achieved = torch.tensor(spec.achieved, device=self.device)
        project = self.distance.goals.project
        self.same_space = isinstance(project, Select) and tuple(project.indices.tolist()) == tuple(spec.achieved)
        self.state = torch.zeros(size, spec.state_dim, device=self.device)
        self.place = torch.zeros(size, dim, device=self.device)
        self.there = torch.zeros(size, dtype=torch.bool, device=self.device)
        """[L] whether a row is a landmark."""
        self.between = torch.full((size, size), torch.inf, device=self.device)
        """[L, L] steps of the shortest path from one landmark to another."""
        self.reach = torch.tensor(self.distance.threshold, device=self.device)
        """Distance in goal space within which a landmark counts as reached. Default: the median distance between
        neighbours, if the level does not define it."""
        self.share_connected = 0.0
        """Fraction of the chosen states in the largest component, including those that are no landmarks because no edge
        leads to or from them."""
        self.facts: dict[str, float] = {}
        """Numbers that describe the graph: landmarks, edges, components, mean steps of an edge."""

    @classmethod
    def of_level(
        cls, level: Level, spec: Spec, config: GraphConfig, period: int | None, elsewhere: bool = False
    ) -> "Landmarks":
        """Landmarks for a level. `period` is the period of the level above, if there is one. `elsewhere` is true if the
        level was trained in another environment. Raises UserError if the level or the task has no goals."""
        if not spec.goal_dim:
            raise UserError(f"A planner needs a goal to plan to, but {spec.env_id} has no desired goal.")
        valued = Distance(level, spec, config.distance)
        horizon = valued.unit / (1 - min(valued.discount, 0.999))
        blind = bool(set(spec.achieved) & set(level.config.masked_entries))
        distance: StepDistance = valued
        if valued.travelled:
            distance = TravelledDistance(valued.goals, valued.threshold, valued.device, widest(valued.goals))
        return cls(distance, spec, config, min(horizon, period or horizon), elsewhere or blind or valued.travelled)

    # -- the graph -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, replay: Visited, generator: torch.Generator) -> None:
        """Choose landmarks among the states of a replay, and compute the paths between them. Waits for the device."""
        self.distance.fit(replay, self.longest, generator)
        self.max_hop.fill_(self.config.max_hop or self.distance.longest(self.longest))
        max_hop = float(self.max_hop)
        states = replay.get(replay.draw(self.config.candidates, generator), "state")
        chosen = farthest_points(self.distance.place(states), len(self.state))
        count = len(chosen)
        self.there.copy_(torch.arange(len(self.state), device=self.device) < count)
        self.state[:count] = states[chosen]
        self.place.copy_(self.distance.place(self.state))
        start, end = self._pairs(count)
        apart = self.distance.apart(self.place[start], self.place[end])
        self.distance.measure_speed(self.state[start], self.place[end], apart, max_hop)
        # A hop starts where the last landmark counted as reached, so edges must be shorter than hops.
        steps = self.distance(self.state[start], self.place[end])[1]
        short = steps <= max_hop
        if self.confirmed:
            short &= self._confirmed(replay, generator)[start, end]
        start, end, steps = start[short], end[short], steps[short].clamp_min(1e-3)
        # Landmarks that cannot be reached or left would disconnect the goals and states in their regions.
        linked = start.bincount(minlength=count).bool() & end.bincount(minlength=count).bool()
        self.there[:count] &= linked | ~linked.any()
        self.between.fill_(torch.inf)
        self.between[:count, :count] = shortest_paths(start, end, steps, count)
        kept = self.there[:count]
        sizes = components(start, end, count)[kept].bincount()
        self.share_connected = float(sizes.max() / count)
        self.facts = {
            "landmarks": float(kept.sum()), "edges": float(len(start)), "components": float((sizes > 0).sum()),
            "largest_component": float(sizes.max() / kept.sum()),
            "edge_steps": float(steps.mean()) if len(steps) else 0.0, "max_hop": max_hop,
        }  # fmt: skip

    def _pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices [E] of landmarks and their nearest neighbours, in both directions."""
        apart = self._apart(count)
        near = apart.topk(min(self.neighbours, count - 1), largest=False).indices
        start = torch.arange(count, device=self.device).unsqueeze(-1).expand_as(near)
        if not self.distance.threshold:
            self.reach.copy_(apart.amin(-1).median())
        linked = torch.zeros(count, count, dtype=torch.bool, device=self.device)
        linked[start, near] = True
        start, end = (linked | linked.T).nonzero().unbind(-1)
        return start, end

    def _confirmed(self, replay: Visited, generator: torch.Generator) -> Tensor:
        """[L, L] whether an episode went from near one landmark to near another, in either direction, within SLACK
        times the longest hop."""
        count, span = int(self.there.sum()), int(SLACK * float(self.max_hop))
        apart = self._apart(count)
        beside = BESIDE * float(apart.amin(-1).median())
        rows, ahead = replay.draw(WINDOWS, generator), torch.arange(span + 1, device=self.device)
        size = len(self.state)
        seen = torch.zeros(size + 1, size + 1, dtype=torch.bool, device=self.device)  # the last index: no landmark
        for env, row in zip(rows.env.split(PART), rows.row.split(PART), strict=True):
            start = Rows(env.unsqueeze(-1), row.unsqueeze(-1))
            at = start.later(torch.minimum(ahead, (replay.end(Rows(env, row)) - row).unsqueeze(-1)))
            near, node = self._near(self.distance.place(replay.get(at, "state")), 1)  # [PART, span + 1, 1]
            node = torch.where(near <= beside, node, size).squeeze(-1)
            for k in ahead[1:].tolist():
                seen[node[:, :-k], node[:, k:]] = True
        return (seen | seen.T)[:size, :size]

    def _apart(self, count: int) -> Tensor:
        """Distances [count, count] of landmarks in goal space, infinite on the diagonal."""
        place = self.place[:count]
        return self.distance.goals.distances(place, place).fill_diagonal_(torch.inf)

    # -- the way ---------------------------------------------------------------------------------------------

    def goal_place(self, goal: Tensor) -> Tensor:
        """The task's goals [N, G] in the level's goal space: the goals themselves, or the position of the landmark that
        achieves the nearest goal."""
        if self.same_space:
            return goal
        apart = torch.cdist(goal, self.state[:, self.achieved])
        return self.place[torch.where(self.there, apart, torch.inf).argmin(-1)]

    def to_goal(self, place: Tensor) -> Tensor:
        """Steps [N, L] of the shortest paths from each landmark to positions [N, G]."""
        apart, node = self._near(place, self.neighbours)
        _, region = self._near(place, REGION)
        path = self.between[node.unsqueeze(-1), region.unsqueeze(-2)].median(-1).values
        steps = self._steps(self.state[node], place.unsqueeze(1).expand(-1, self.neighbours, -1), path)
        steps = torch.where(apart.isfinite(), steps, torch.inf)
        return (self.between[:, node] + steps).amin(-1).T

    def route(self, state: Tensor, place: Tensor, to_goal: Tensor, extra: Tensor | None = None) -> Route:
        """The next hop from states [N, D] on the shortest path to positions [N, G], given `to_goal` [N, L]. Landmarks
        that are already reached are excluded. `extra` [N, L + 1] is added to the steps to each landmark and to the
        goal."""
        here, size = self.distance.place(state), len(self.state)
        apart, node = self._near(here, self.neighbours, self.reach)
        _, region = self._near(here, REGION)
        path = self.between[region.unsqueeze(-1), node.unsqueeze(-2)].median(-2).values
        steps = self._steps(state.unsqueeze(1), self.place[node], path)
        steps = torch.where(apart.isinf(), torch.inf, steps)
        _, around = self._near(place, REGION)
        path = self.between[region.unsqueeze(-1), around.unsqueeze(-2)].flatten(1).median(-1).values
        direct = self._steps(state, place, path)
        direct = torch.where(direct >= FAR, direct + 2 * FAR, direct)  # the last choice
        node = torch.cat([node, torch.full_like(node[:, :1], size)], -1)  # the goal itself
        steps = torch.cat([steps, direct.unsqueeze(-1)], -1)
        total = steps + torch.cat([to_goal.gather(-1, node[:, :-1]), torch.zeros_like(direct).unsqueeze(-1)], -1)
        total = total if extra is None else total + extra.gather(-1, node)
        # Without a path, the level moves directly towards the goal.
        best = torch.where(total.isfinite().any(-1), total.argmin(-1), node.shape[-1] - 1).unsqueeze(-1)
        chosen = node.gather(-1, best).squeeze(-1)
        places = torch.where((chosen == size).unsqueeze(-1), place, self.place[chosen.clamp_max(size - 1)])
        steps, total = steps.gather(-1, best).squeeze(-1), total.gather(-1, best).squeeze(-1)
        return Route(chosen, places, steps % FAR, total < FAR)

    def _near(self, place: Tensor, count: int, beyond: Tensor | float = -1.0) -> tuple[Tensor, Tensor]:
        """The distances [..., count] in goal space from positions [..., G] to the nearest landmarks that are farther
        than `beyond` (infinite for other rows), and the landmarks' numbers."""
        apart = self.distance.goals.distances(place, self.place)
        apart = torch.where(self.there & (apart > beyond), apart, torch.inf)
        near, node = apart.topk(count, largest=False) if count > 1 else apart.min(-1, keepdim=True)
        return near, node

    def _steps(self, state: Tensor, place: Tensor, path: Tensor) -> Tensor:
        """Steps [...] of hops from states to positions. `path` [...] is the length of the shortest path between their
        regions, in steps. FAR is added where the hop is not allowed."""
        near, steps = self.distance(state, place)
        allowed = (near <= self.max_hop) & (path <= DETOUR * steps + ROOM * self.max_hop)
        return torch.where(allowed, steps, steps + FAR)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """The landmarks, the paths between them, and the fitted steps."""
        own = {name: getattr(self, name) for name in ("state", "place", "there", "between", "reach", "max_hop")}
        return own | self.distance.tensors()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`. Raises RuntimeError if the sizes differ."""
        for name, mine in self.state_dict().items():
            mine.copy_(state[name])


def connected_landmarks(
    make: Callable[[PlannerConfig], Landmarks], options: PlannerConfig, replay: Visited, generator: torch.Generator
) -> Landmarks:
    """Landmarks among the states of a replay, by `make`. Their number is doubled, up to `max_landmarks`, until most of
    them are connected."""
    while True:
        landmarks = make(options)
        landmarks.refresh(replay, generator)
        if landmarks.share_connected >= CONNECTED or options.landmarks >= options.max_landmarks:
            return landmarks
        options = replace(options, landmarks=min(2 * options.landmarks, options.max_landmarks))


def widest(goals: GoalSpace) -> float:
    """The distance of the farthest relative goals along the narrowest dimension; 0 for absolute goals."""
    if not goals.relative:
        return 0.0
    sides = goals.half.diag()
    return float(goals.distance(torch.zeros_like(sides), sides).amin())
