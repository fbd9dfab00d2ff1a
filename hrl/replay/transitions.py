"""Transitions as they leave the ring, before relabelling and before a learner sees them."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from hrl.replay.ring import Replay, Rows


@dataclass(frozen=True)
class Transitions:
    """B decisions of one level with what came of them. Relabelling returns a changed copy."""

    rows: Rows
    """Where they stand in the level's ring."""
    steps: Rows
    """Where their first environment step stands in the bottom level's ring (the same, for the bottom level)."""
    state: Tensor
    """[B, D] when the decision was taken."""
    target: Tensor
    """[B, G] the command from above that was in force."""
    action: Tensor
    """[B, A] the decision, in [-1, 1]."""
    reward: Tensor
    """[B] the discounted sum of the task's rewards; 0 for a level that learns on intrinsic reward."""
    next_state: Tensor
    """[B, D] the true observation at the decision's end."""
    next_target: Tensor
    """[B, G] the command under which the value of next_state is taken."""
    length: Tensor
    """[B] environment steps from decision to end, int64."""
    terminated: Tensor
    """[B] whether the task ended there."""
    rewards: Tensor | None = None
    """[B, period] of each environment step, undiscounted, where the level's discount is tuned."""

    def split(self, size: int) -> "list[Transitions]":
        """Parts of `size` transitions each, without their places in the ring."""
        nowhere = Rows(self.rows.env[:0], self.rows.row[:0])
        names = [f.name for f in fields(self) if f.name not in ("rows", "steps") and getattr(self, f.name) is not None]
        parts = zip(*(getattr(self, name).split(size) for name in names), strict=True)
        return [Transitions(nowhere, nowhere, *part) for part in parts]

    def total(self, gamma: Tensor) -> Tensor:
        """[B] Σ_i γ^i r_i: as it was stored, or by this discount where each step's reward is known."""
        if self.rewards is None:
            return self.reward
        return (self.rewards * gamma ** torch.arange(self.rewards.shape[-1], device=gamma.device)).sum(-1)

    def changed(self, **fields: Any) -> "Transitions":
        """A copy with these fields instead."""
        return replace(self, **fields)


def sample_transitions(replay: Replay, rows: Rows, extrinsic: bool) -> Transitions:
    """Read these rows of a level's ring.

    The task's command is read anew at the end, since an environment may set another goal; a subgoal holds
    while it is pursued, so the value of the next state is taken under the same one.
    """
    row, following = replay.read(rows), replay.read(rows.later(1))
    # Segments follow each other in the bottom ring, so each is as long as it is to where the next begins.
    first, end = (
        (replay.count(rows, "first"), replay.count(rows.later(1), "first"))
        if "first" in replay.counters
        else (rows.row, rows.row + 1)
    )
    return Transitions(
        rows=rows,
        steps=Rows(rows.env, first),
        state=row["state"],
        target=row["target"],
        action=row["action"],
        reward=row["reward"].squeeze(-1) if "reward" in row else row["state"].new_zeros(len(rows.env)),
        next_state=following["state"],
        next_target=following["target"] if extrinsic else row["target"],
        length=end - first,
        terminated=replay.terminated(rows),
    )
