"""HRAC: adjacency-constrained subgoals (Zhang, Guo, Tan, Hu, Chen 2020, arXiv:2006.11485).

HIRO, whose high level proposes subgoals that can be reached before the next one. What was reached within k steps of
what is kept as a matrix over the cells of a grid; an adjacency network ψ learns distances from it; and the high
level's actor also lessens

    η max(0, ||ψ(φ(s)) - ψ(φ(s) + g)|| - (ε₁ + ε₂) / 2),

which is 0 for subgoals within k steps (hrl/adjacency.py). k is the period of the high level. The low level does not
see where it is, only the way to the subgoal.

The defaults are HIRO's with the constraint; `--preset published` has the paper's settings. Unlike there, the constraint
holds from the first fit on, not before, when ψ knows nothing yet.
"""

import signal
from dataclasses import dataclass, field

from hrl.adjacency import Adjacency, AdjacencyConfig
from hrl.agents import hiro
from hrl.agents.base import Setting, require_continuous
from hrl.commands import Subgoal
from hrl.hierarchy import Hierarchy
from hrl.run.session import Session
from hrl.types import UserError


@dataclass
class Low(hiro.Low):
    """The low level: HIRO's, which is nearsighted and does not see where it is."""

    policy_delay: int = 1
    """Critic updates for each actor and target update (TD3) (published: 1)."""
    egocentric: bool = True
    """Be blind to the state entries that relative subgoals are made of (published: x and y), beside low.blind."""


@dataclass
class High(hiro.High):
    """The high level: HIRO's, held to subgoals that are adjacent."""

    policy_delay: int = 1
    """Critic updates for each actor and target update (TD3) (published: 1)."""


@dataclass
class HRACConfig(hiro.HIROConfig):
    """HRAC: HIRO with subgoals that are held to what is within k steps (Zhang 2020)."""

    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    adjacency: AdjacencyConfig = field(default_factory=AdjacencyConfig)

    def build(self, setting: Setting) -> Hierarchy:
        """The agent for an environment. Raises UserError where they do not fit."""
        require_continuous(setting.spec, "HRAC")
        agent = super().build(setting)
        low, high = agent.levels
        assert isinstance(low.command, Subgoal)
        adjacency = Adjacency(high, low.command, low.replay, self.high.period, self.adjacency)
        high.models.append(adjacency)
        high.learner.constraint = adjacency.constraint
        return agent

    def train(self, session: Session) -> signal.Signals | None:
        """Build, and run the training loop."""
        if session.processes.size > 1:
            raise UserError("HRAC's matrix is of what one process walked: run it in one, with more --num-envs.")
        return super().train(session)

    def check(self) -> None:
        """Raise UserError where values can't be meant."""
        super().check()
        self.adjacency.check()
