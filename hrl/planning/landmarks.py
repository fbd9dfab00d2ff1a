"""A graph of landmarks for one goal-conditioned level, and the next landmark on the shortest path to a goal.

Landmarks are visited states, spread by farthest-point sampling over goal space. An edge leads from a landmark to one of
its nearest neighbours if the level's value says that the hop takes at most `max_hop` environment steps. The sizes of
all tensors are fixed, so that a graph can be saved, replaced in place, and used by captured functions.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hrl.hierarchy.commands.goals import Select
from hrl.hierarchy.level import Level
from hrl.memory.ring import Replay
from hrl.planning.config import GraphConfig
from hrl.planning.distance import Distance
from hrl.planning.graph import components, farthest_points, shortest_paths
from hrl.types import Spec, UserError

FAR = 1e4
"""Steps added to the first and the last hop of a path if it is longer than the longest edge. It is then taken only if
there is no other."""


class Route(NamedTuple):
    """The next hop of N environments on the way to their goals."""

    node: Tensor
    """[N] the landmark to go to, int64; the greatest number of landmarks for the goal itself."""
    place: Tensor
    """[N, G] its position."""
    steps: Tensor
    """[N] environment steps of the hop."""
    connected: Tensor
    """[N] whether a path of edges leads to the goal."""


class Landmarks:
    """Landmarks for a level, and shortest paths between them."""

    def __init__(self, level: Level, spec: Spec, config: GraphConfig, period: int | None) -> None:
        """`period` is that of the level above, if there is one. Raises UserError if the level or the task has no
        goals."""
        if not spec.goal_dim:
            raise UserError(f"A planner needs a goal to plan to, but {spec.env_id} has no desired goal.")
        self.distance = Distance(level, spec, config.distance)
        self.config, self.device = config, self.distance.device
        self.max_hop = config.max_hop or self._longest(level, period)
        size, dim = config.landmarks, self.distance.command.dim
        self.neighbours = min(config.neighbours, size)
        self.achieved = torch.tensor(spec.achieved, device=self.device)
        project = self.distance.command.goals.project
        self.same_space = isinstance(project, Select) and tuple(project.indices.tolist()) == tuple(spec.achieved)
        self.state = torch.zeros(size, spec.state_dim, device=self.device)
        self.place = torch.zeros(size, dim, device=self.device)
        self.there = torch.zeros(size, dtype=torch.bool, device=self.device)
        """[L] which of the rows are landmarks."""
        self.between = torch.full((size, size), torch.inf, device=self.device)
        """[L, L] steps of the shortest path from one landmark to another."""
        self.reach = torch.tensor(self.distance.threshold, device=self.device)
        """Distance in goal space within which a landmark counts as reached. Where the level tells none, it is the
        median distance between neighbours."""
        self.facts: dict[str, float] = {}
        """Numbers that describe the graph: landmarks, edges, components, mean steps of an edge."""

    def _longest(self, level: Level, period: int | None) -> float:
        horizon = self.distance.unit / (1 - min(self.distance.discount, 0.999))
        return min(horizon, period or horizon)

    # -- the graph -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, replay: Replay, generator: torch.Generator) -> None:
        """Choose landmarks among the states of a replay, and plan between them. Waits for the device."""
        self.distance.fit(replay, self.max_hop, generator)
        states = replay.get(replay.draw(self.config.candidates, generator), "state")
        chosen = farthest_points(self.distance.place(states), len(self.state))
        count = len(chosen)
        self.there.copy_(torch.arange(len(self.state), device=self.device) < count)
        self.state[:count] = states[chosen]
        self.place.copy_(self.distance.place(self.state))
        start, end = self._pairs(count)
        apart = self.distance.apart(self.place[start], self.place[end])
        self._measure_speed(start, end, apart)
        near, steps = self.distance(self.state[start], self.place[end])
        short = near <= self.max_hop
        start, end, steps = start[short], end[short], steps[short].clamp_min(1e-3)
        self.between.fill_(torch.inf)
        self.between[:count, :count] = shortest_paths(start, end, steps, count)
        sizes = components(start, end, count).bincount()
        self.facts = {
            "landmarks": float(count), "edges": float(len(start)), "components": float(len(sizes)),
            "largest_component": float(sizes.max()) / count,
            "edge_steps": float(steps.mean()) if len(steps) else 0.0,
        }  # fmt: skip

    def _pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices [E] of landmarks and their nearest neighbours, in both directions."""
        apart = self.distance.apart(self.place[:count, None], self.place[None, :count]).fill_diagonal_(torch.inf)
        near = apart.topk(min(self.neighbours, count - 1), largest=False).indices
        start = torch.arange(count, device=self.device).unsqueeze(-1).expand_as(near)
        if not self.distance.threshold:
            self.reach.copy_(apart.amin(-1).median())
        linked = torch.zeros(count, count, dtype=torch.bool, device=self.device)
        linked[start, near] = True
        start, end = (linked | linked.T).nonzero().unbind(-1)
        return start, end

    def _measure_speed(self, start: Tensor, end: Tensor, apart: Tensor) -> None:
        if self.distance.exact and self.distance.threshold:
            value = self.distance.value(self.state[start], self.place[end])
            self.distance.measure_speed(value, apart, self.max_hop)

    # -- the way ---------------------------------------------------------------------------------------------

    def goal_place(self, goal: Tensor) -> Tensor:
        """The task's goals [N, G] in the level's goal space: themselves, or the place of the landmark that achieves
        the nearest goal."""
        if self.same_space:
            return goal
        apart = torch.cdist(goal, self.state[:, self.achieved])
        return self.place[torch.where(self.there, apart, torch.inf).argmin(-1)]

    def to_goal(self, place: Tensor) -> Tensor:
        """Steps [N, L] of the shortest path from each landmark to places [N, G]."""
        node, near = self._near(place)
        steps = self._steps(self.state[node], place.unsqueeze(1).expand(-1, self.neighbours, -1), near)
        return (self.between[:, node] + steps).amin(-1).T

    def route(self, state: Tensor, place: Tensor, to_goal: Tensor, extra: Tensor | None = None) -> Route:
        """The next hop from states [N, D] on the shortest path to places [N, G], given `to_goal` [N, L]. Landmarks
        that are reached already are no hop. `extra` [N, L + 1] is added to the steps to each landmark and to the
        goal."""
        here, size = self.distance.place(state), len(self.state)
        node, apart = self._near(here)
        steps = self._steps(state.unsqueeze(1), self.place[node], apart)
        steps = torch.where(apart <= self.reach, torch.inf, steps)
        direct = self._steps(state, place, torch.zeros_like(place[:, 0]))
        node = torch.cat([node, torch.full_like(node[:, :1], size)], -1)  # the goal itself
        steps = torch.cat([steps, direct.unsqueeze(-1)], -1)
        total = steps + torch.cat([to_goal.gather(-1, node[:, :-1]), torch.zeros_like(direct).unsqueeze(-1)], -1)
        total = total if extra is None else total + extra.gather(-1, node)
        # Without any path, the level goes straight to the goal.
        best = torch.where(total.isfinite().any(-1), total.argmin(-1), node.shape[-1] - 1).unsqueeze(-1)
        chosen = node.gather(-1, best).squeeze(-1)
        places = torch.where((chosen == size).unsqueeze(-1), place, self.place[chosen.clamp_max(size - 1)])
        steps, total = steps.gather(-1, best).squeeze(-1), total.gather(-1, best).squeeze(-1)
        return Route(chosen, places, torch.where(steps >= FAR, steps - FAR, steps), total < FAR)

    def _near(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """The landmarks [N, K] nearest to places [N, G], and their distances [N, K] in goal space, infinite for rows
        that are no landmarks."""
        apart = self.distance.apart(place.unsqueeze(1), self.place)
        near, node = torch.where(self.there, apart, torch.inf).topk(self.neighbours, largest=False)
        return node, near

    def _steps(self, state: Tensor, place: Tensor, apart: Tensor) -> Tensor:
        """Steps [...] of first and last hops from states to places that are `apart` [...]; FAR is added to those that
        are longer than an edge."""
        near, steps = self.distance(state, place)
        steps = torch.where(near <= self.max_hop, steps, steps + FAR)
        return torch.where(apart.isfinite(), steps, torch.inf)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """The landmarks, the paths between them, and the fitted steps."""
        own = {name: getattr(self, name) for name in ("state", "place", "there", "between", "reach")}
        return own | {name: getattr(self.distance, name) for name in ("slowness", "curve")}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`. Raises RuntimeError if the sizes differ."""
        for name, mine in self.state_dict().items():
            mine.copy_(state[name])
