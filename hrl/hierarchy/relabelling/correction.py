"""HIRO's off-policy correction of old high-level decisions for the current low level (Nachum 2018, sec. 3.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.hierarchy.commands import Subgoal
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions

LogLikelihood = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(state [..., D], target [..., G], action [..., A]) -> log-likelihood [...], up to a constant."""


@dataclass
class OffPolicyCorrection:
    """Replaces a subgoal by the candidate under which the current low level most likely takes the stored actions.

    Candidates (`Subgoal.candidates`) are the stored subgoal, the reached goal, and samples around it. The low level is
    the level directly below; its decisions within the segment are read from its memory.
    """

    command: Subgoal
    below: Replay
    """The memory of the level below."""
    log_likelihood: LogLikelihood
    """The log-likelihood of the lower level's decisions."""
    span: int
    """Maximum number of decisions of the level below within one segment."""
    candidates: int = 10

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        options = self.command.candidates(t.state, t.next_state, t.action, self.candidates, generator)
        best = self.scores(t, options).argmax(-1)
        corrected = options[torch.arange(len(best), device=best.device), best]
        # If the low level's decisions are no longer in its memory, keep the subgoal.
        held = self.below.holds(t.below).unsqueeze(-1)
        return t.changed(action=torch.where(held, corrected, t.action))

    def scores(self, t: Transitions, options: Tensor) -> Tensor:
        """log μ(a_{t:t+c} | s, g̃) = Σ_i log μ(a_{t+i} | s_{t+i}, g̃_{t+i}) for every candidate [B, K]."""
        i = torch.arange(self.span, device=options.device)
        rows = self.below.within(Rows(t.below.env.unsqueeze(-1), t.below.row.unsqueeze(-1) + i))
        state, action = self.below.get(rows, "state"), self.below.get(rows, "action")  # [B, c, ·]
        target = self.command.issue(t.state.unsqueeze(1), options)  # [B, K, G]
        shape = (len(options), options.shape[1], self.span)
        states, actions = (x.unsqueeze(1).expand(*shape, x.shape[-1]) for x in (state, action))
        targets = target.unsqueeze(2).expand(*shape, target.shape[-1])
        within = i < t.below_length.unsqueeze(-1)
        return (self.log_likelihood(states, targets, actions) * within.unsqueeze(1)).sum(-1)
