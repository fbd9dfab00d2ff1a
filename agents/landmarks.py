"""Landmarks: a planner over visited states as the high level (after SoRB, Eysenbach, Salakhutdinov, Levine 2019,
arXiv:1906.05253, and HIGL, Kim, Seo, Shin 2021, arXiv:2110.13625).

The low level is that of HIRO. With a sparse reward of -1 until a subgoal is reached, its value determines the steps to
it,

    d(s, g) = log(1 + (1 - γ) V(s, g)) / log γ,        V(s, g) = min_i Q_i(s, π(s, g), g).

Every `graph.every` environment steps, farthest-point sampling in goal space chooses landmarks l among the states in the
low level's replay (HIGL's coverage). An edge l → l' exists if d(l, φ(l')) ≤ max_hop. At each decision, the high level
sets the first landmark of the shortest path to the task's goal g,

    argmin_l  d(s, φ(l)) + D(l, g),        D(l, g) = min_l' D(l, l') + d(l', g),

with D(l, l') the lengths of the shortest paths between landmarks; or it sets g if g is near according to the level's
value. Where no path leads to the goal, as early in training, a high level that learns as in HIRO decides instead. It
learns off-policy, also from planned decisions.

Unlike in SoRB, one value with two critics replaces the ensemble of distributional values, and the level learns while
the graph grows.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from hrl.agents import hiro
from hrl.hierarchy.level import Level
from hrl.planning.config import GraphConfig
from hrl.planning.landmarks import Landmarks
from hrl.planning.level import PlannedLevel
from hrl.run.session import Session
from hrl.types import Spec, UserError


@dataclass
class Graph(GraphConfig):
    """The graph of landmarks."""

    every: int = 10_000
    """Environment steps between two updates of the landmarks."""


@dataclass
class LandmarksConfig(hiro.HIROConfig):
    """Landmarks: shortest paths over visited states set the subgoals of HIRO's low level (after SoRB and HIGL)."""

    graph: Graph = field(default_factory=Graph)

    def make_level(self, number: int, below: Sequence[Level], spec: Spec) -> Callable[..., Level]:
        """The highest level plans for the level below it."""
        if number < self.levels - 1:
            return super().make_level(number, below, spec)
        landmarks = Landmarks.of_level(below[-1], spec, self.graph, self.periods()[number].greatest)
        return partial(PlannedLevel, landmarks=landmarks, every=self.graph.every)

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved goal space, levels and graph."""
        g = self.graph
        line = f"Planner: up to {g.landmarks} landmarks, updated every {g.every:,} steps; the high level decides "
        return [*super().describe(spec), line + "where no path leads to the goal."]

    def train(self, session: Session) -> signal.Signals | None:
        """Build the agent and run the training loop. Raises UserError for several processes."""
        if session.processes.size > 1:
            raise UserError(
                "The landmarks cover the states that one process visited: run this algorithm in one process, with more "
                "--num-envs."
            )
        return super().train(session)

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        super().check()
        self.graph.check("graph.")
        if self.graph.every < 1:
            raise UserError(f"graph.every must be at least 1, not {self.graph.every}.")
        if any(config.learner.on_policy for _, config in self.stack()):
            raise UserError(
                "Landmarks are states from a replay, and planned decisions are off-policy: use learners with a replay "
                "(td3, sac, dqn or discrete-sac)."
            )
