"""HRAC: adjacency-constrained subgoals (Zhang, Guo, Tan, Hu, Chen 2020, arXiv:2006.11485).

HIRO, whose high level proposes subgoals that can be reached before the next one. What was reached within k steps of
what is kept as a matrix over the cells of a grid; an adjacency network ψ learns distances from it; and the high
level's actor also minimises

    η max(0, ||ψ(φ(s)) - ψ(φ(s) + g)|| - (ε₁ + ε₂) / 2),

which is 0 for subgoals within k steps (agents/parts/adjacency.py). k is the period of the high level. The low level
does not see where it is, only the way to the subgoal.

The defaults are HIRO's with the constraint; `--preset published` has the paper's settings. Unlike there, the constraint
holds from the first fit on, not before, when ψ knows nothing yet.
"""

import signal
from dataclasses import dataclass, field

from hrl.agents import hiro
from hrl.agents.parts.adjacency import Adjacency, AdjacencyConfig
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.level import Model
from hrl.hierarchy.setting import Setting
from hrl.learners import Choice, Constraint, TD3Config
from hrl.memory.ring import Replay
from hrl.run.session import Session
from hrl.types import UserError


@dataclass
class Low(hiro.Low):
    """The low level: HIRO's, which is nearsighted and does not see where it is.

    Published: policy_delay 1.
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(tau=0.01, train_freq=2, random_actions=(0.0, 0.2), policy_delay=1)
    )
    egocentric: bool = True
    """Mask the state entries that relative subgoals consist of (published: x and y), beside low.masked_entries."""


@dataclass
class High(hiro.High):
    """The high level: HIRO's, held to subgoals that are adjacent.

    Published: policy_delay 1.
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(
            tau=0.01, buffer_size=100_000, train_freq=4, random_actions=(0.05, 0.5), policy_delay=1
        )
    )


@dataclass
class HRACConfig(hiro.HIROConfig):
    """HRAC: HIRO with subgoals that are held to what is within k steps (Zhang 2020)."""

    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    adjacency: AdjacencyConfig = field(default_factory=AdjacencyConfig)

    def constraint(self, subgoal: Subgoal, walked: Replay, setting: Setting) -> tuple[list[Model], Constraint | None]:
        """The adjacency network, and the constraint on the high level's actor that it gives."""
        masked = self.high.masked_entries
        adjacency = Adjacency(subgoal, walked, setting.spec.state_dim, masked, self.high.period, self.adjacency)
        return [adjacency], adjacency.constraint

    def train(self, session: Session) -> signal.Signals | None:
        """Build, and run the training loop."""
        if session.processes.size > 1:
            raise UserError("HRAC's matrix is of what one process walked: run it in one, with more --num-envs.")
        return super().train(session)

    def check(self) -> None:
        """Raise UserError where values are invalid."""
        super().check()
        self.adjacency.check()
        if self.levels != 2:
            raise UserError("HRAC has two levels: its constraint is on what the low level walks within a period.")
        if not hasattr(self.high.learner, "action_noise") or self.goal.cells:
            raise UserError("HRAC's constraint is a slope for subgoals that are vectors: high.learner td3 or sac.")
