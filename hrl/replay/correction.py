"""HIRO's off-policy correction: old high-level decisions, restated for today's low level (Nachum 2018, sec. 3.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.commands import Subgoal
from hrl.replay.ring import Replay, Rows
from hrl.replay.transitions import Transitions

Policy = Callable[[Tensor, Tensor], Tensor]
"""(state [..., D], target [..., G]) -> action [..., A] in [-1, 1], deterministic."""


@dataclass
class OffPolicyCorrection:
    """Of several candidates, take the subgoal under which today's low level is likeliest to have acted as it did.

    Candidates: the subgoal as stored, the displacement s_{t+c} - s_t, and Gaussian ones around the latter with
    half the goal space's half-range as deviation, clipped to it.
    """

    command: Subgoal
    steps: Replay
    """The low level's ring."""
    policy: Policy
    """The low level's policy."""
    period: int
    candidates: int = 10

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        options = self.propose(t, generator)
        best = self.log_likelihood(t, options).argmax(-1)
        corrected = options[torch.arange(len(best), device=best.device), best]
        # Where the low level's steps have left its ring there is no likelihood: keep the decision.
        held = self.steps.holds(t.steps).unsqueeze(-1)
        return t.changed(action=torch.where(held, corrected, t.action))

    def propose(self, t: Transitions, generator: torch.Generator) -> Tensor:
        """Candidates [B, K, G] in [-1, 1]; the stored decision is the first, so that ties keep it."""
        space = self.command.space
        moved = self.command.project(t.next_state)
        if space.relative:
            moved = moved - space.project(t.state)
        moved = ((moved - space.centre) / space.half).unsqueeze(1)
        shape = (len(moved), self.candidates - 2, space.dim)
        around = moved + 0.5 * torch.randn(shape, generator=generator, device=moved.device)
        return torch.cat([t.action.unsqueeze(1), moved.clamp(-1, 1), around.clamp(-1, 1)], 1)

    def log_likelihood(self, t: Transitions, options: Tensor) -> Tensor:
        """log μ(a_{t:t+c} | s, g̃) ∝ -½ Σ_i ||a_{t+i} - μ(s_{t+i}, g̃_{t+i})||²  for every candidate [B, K]."""
        i = torch.arange(self.period, device=options.device)
        rows = Rows(t.steps.env.unsqueeze(-1), t.steps.row.unsqueeze(-1) + i)
        state, action = self.steps.get(rows, "state"), self.steps.get(rows, "action")  # [B, c, ·]
        target = self.command.issue(t.state.unsqueeze(1), options)  # [B, K, G]
        batch, count, c = len(options), options.shape[1], self.period
        states = state.unsqueeze(1).expand(batch, count, c, state.shape[-1])
        targets = target.unsqueeze(2).expand(batch, count, c, target.shape[-1])
        error = (action.unsqueeze(1) - self.policy(states, targets)).square().sum(-1)
        within = i < t.length.unsqueeze(-1)
        return -0.5 * (error * within.unsqueeze(1)).sum(-1)
