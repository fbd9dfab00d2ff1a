"""HRAC: adjacency-constrained subgoals (Zhang, Guo, Tan, Hu, Chen 2020, arXiv:2006.11485).

HIRO with a high level that proposes subgoals which are reachable before its next decision. An adjacency matrix over
grid cells records which cells were reached from each other within k steps. An adjacency network ψ learns distances from
it, and the high level's actor also minimises

    η max(0, ||ψ(φ(s)) - ψ(φ(s) + g)|| - (ε₁ + ε₂) / 2),

which is 0 for subgoals within k steps (agents/parts/adjacency.py). k is the period of the high level. The low level
does not observe its position, only the displacement to the subgoal.

The defaults are HIRO's with the constraint; `--preset published` has the paper's settings. Unlike in the paper, the
constraint applies only after the first fit of ψ.
"""

import signal
from dataclasses import dataclass, field

from hrl.agents import hiro
from hrl.agents.parts.adjacency import Adjacency, AdjacencyConfig
from hrl.hierarchy.clock import Period
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.level import Model
from hrl.hierarchy.setting import Setting
from hrl.learners import Choice, Constraint, TD3Config
from hrl.memory.ring import Replay
from hrl.run.session import Session
from hrl.types import UserError


@dataclass
class Low(hiro.Low):
    """The low level of HIRO, without its position in the observation.

    Published: policy_delay 1.
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(tau=0.01, train_freq=2, random_actions=(0.0, 0.2), policy_delay=1)
    )
    egocentric: bool = True
    """Mask the state entries of relative subgoals (published: x and y), in addition to low.masked_entries."""


@dataclass
class High(hiro.High):
    """The high level of HIRO, constrained to adjacent subgoals.

    Published: policy_delay 1.
    """

    learner: Choice = field(
        default_factory=lambda: TD3Config(
            tau=0.01, buffer_size=100_000, train_freq=4, random_actions=(0.05, 0.5), policy_delay=1
        )
    )


@dataclass
class HRACConfig(hiro.HIROConfig):
    """HRAC: HIRO with subgoals that are constrained to be reachable within k steps (Zhang 2020)."""

    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    adjacency: AdjacencyConfig = field(default_factory=AdjacencyConfig)

    def constraint(self, subgoal: Subgoal, walked: Replay, setting: Setting) -> tuple[list[Model], Constraint | None]:
        """The adjacency network and its constraint on the high level's actor."""
        masked = self.high.masked_entries
        k = Period.of(self.high.period).greatest
        adjacency = Adjacency(subgoal, walked, setting.spec.state_dim, masked, k, self.adjacency)
        return [adjacency], adjacency.constraint

    def train(self, session: Session) -> signal.Signals | None:
        """Build the agent and run the training loop. Raises UserError for several processes."""
        if session.processes.size > 1:
            raise UserError(
                "HRAC's adjacency matrix covers the cells that one process visited: run it in one process, with more "
                "--num-envs."
            )
        return super().train(session)

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        super().check()
        self.adjacency.check()
        if self.levels != 2:
            raise UserError(
                "HRAC needs --levels 2, because it constrains subgoals to those that the low level reaches in a period."
            )
        if not hasattr(self.high.learner, "action_noise") or self.goal.cells:
            raise UserError(
                "HRAC's constraint needs gradients of subgoals that are vectors: use high.learner td3 or sac, "
                "without goal.cells."
            )
