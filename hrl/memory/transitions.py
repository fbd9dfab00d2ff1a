"""Transitions as they leave the ring, before relabelling and before a learner sees them."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from hrl.memory.ring import Replay, Rows


@dataclass(frozen=True)
class Transitions:
    """B decisions of one level with what came of them. Relabelling returns a changed copy."""

    rows: Rows
    """Where they stand in the level's ring."""
    steps: Rows
    """Where their first environment step stands in the bottom level's ring (the same, for the bottom level)."""
    below: Rows
    """Where the first decision of the level directly below stands in that level's ring."""
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
    below_length: Tensor
    """[B] decisions of the level directly below until then, int64."""
    terminated: Tensor
    """[B] whether the task ended there."""
    mask: Tensor | None = None
    """[B, K] choices that the environment made available, where it says so."""
    next_mask: Tensor | None = None
    """[B, K] the same at the decision's end."""
    weight: Tensor | None = None
    """[B] in the loss, where transitions are not drawn uniformly."""
    penalty: Tensor | None = None
    """[B] what a missed subgoal costs: where it is above 0, it takes the reward's place, as an end."""
    rewards: Tensor | None = None
    """[B, period] of each environment step, undiscounted, where the level's discount is tuned."""

    def split(self, size: int) -> "list[Transitions]":
        """Parts of `size` transitions each, without their places in the ring."""
        nowhere = Rows(self.rows.env[:0], self.rows.row[:0])
        places = ("rows", "steps", "below")
        names = [f.name for f in fields(self) if f.name not in places and getattr(self, f.name) is not None]
        parts = zip(*(getattr(self, name).split(size) for name in names), strict=True)
        return [Transitions(nowhere, nowhere, nowhere, **dict(zip(names, part, strict=True))) for part in parts]

    def total(self, gamma: Tensor) -> Tensor:
        """[B] Σ_i γ^i r_i: as it was stored, or by this discount where each step's reward is known."""
        if self.rewards is None:
            return self.reward
        return (self.rewards * gamma ** torch.arange(self.rewards.shape[-1], device=gamma.device)).sum(-1)

    def changed(self, **fields: Any) -> "Transitions":
        """A copy with these fields instead."""
        return replace(self, **fields)


def read_transitions(replay: Replay, rows: Rows, extrinsic: bool) -> Transitions:
    """Read these rows of a level's ring.

    A command that pays the task's reward is read anew at the end, since another one may follow; a subgoal holds
    while it is pursued, so the value of the next state is taken under the same one.
    """
    row, following = replay.read(rows), replay.read(rows.later(1))
    # Segments follow each other in the rings below, so each is as long as it is to where the next begins.
    span = lambda name: (replay.count(rows, name), replay.count(rows.later(1), name))  # noqa: E731
    first, end = span("first") if "first" in replay.counters else (rows.row, rows.row + 1)
    below, below_end = span("below") if "below" in replay.counters else (first, end)
    return Transitions(
        rows=rows,
        steps=Rows(rows.env, first),
        below=Rows(rows.env, below),
        state=row["state"],
        target=row["target"],
        action=row["action"],
        reward=row["reward"].squeeze(-1) if "reward" in row else row["state"].new_zeros(len(rows.env)),
        next_state=following["state"],
        next_target=following["target"] if extrinsic else row["target"],
        length=end - first,
        below_length=below_end - below,
        terminated=replay.terminated(rows),
        mask=row.get("mask"),
        next_mask=following.get("mask"),
    )
