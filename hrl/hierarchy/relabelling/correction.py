"""HIRO's off-policy correction: old high-level decisions, restated for today's low level (Nachum 2018, sec. 3.3)."""

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
    """Of several candidates, take the subgoal under which today's low level is likeliest to have acted as it did.

    Candidates (`Subgoal.candidates`): the subgoal as stored, the one that names what was reached, and others around it.
    The low level is the one directly below, and its decisions within the segment are those of its own memory.
    """

    command: Subgoal
    below: Replay
    """The memory of the level below."""
    log_likelihood: LogLikelihood
    """That level's, of its decisions."""
    span: int
    """Most decisions of the level below within one segment."""
    candidates: int = 10

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        options = self.command.candidates(t.state, t.next_state, t.action, self.candidates, generator)
        best = self.scores(t, options).argmax(-1)
        corrected = options[torch.arange(len(best), device=best.device), best]
        # Where the low level's decisions have left its memory there is no likelihood: keep the subgoal.
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
