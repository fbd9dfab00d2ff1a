"""Transitions as read from the ring, before relabelling."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from hrl.memory.ring import Replay, Rows


@dataclass(frozen=True)
class Transitions:
    """B decisions of one level and their results. Relabelling returns a changed copy."""

    rows: Rows
    """Their rows in the level's ring."""
    steps: Rows
    """Rows of their first environment steps in the bottom level's ring; for the bottom level, equal to `rows`."""
    below: Rows
    """Rows of the first decisions of the level directly below, in that level's ring."""
    state: Tensor
    """[B, D] at the decision."""
    target: Tensor
    """[B, G] the active command from above."""
    action: Tensor
    """[B, A] the decision, in [-1, 1]."""
    reward: Tensor
    """[B] the discounted sum of the task's rewards; 0 if the level's memory does not store them."""
    next_state: Tensor
    """[B, D] the true observation at the decision's end."""
    next_target: Tensor
    """[B, G] the command with which next_state is evaluated."""
    length: Tensor
    """[B] environment steps from the decision to its end, int64."""
    below_length: Tensor
    """[B] decisions of the level directly below within this decision, int64."""
    terminated: Tensor
    """[B] whether the task ended at the decision's end."""
    mask: Tensor | None = None
    """[B, K] available choices, if the environment gives a mask."""
    next_mask: Tensor | None = None
    """[B, K] available choices at the decision's end."""
    weight: Tensor | None = None
    """[B] weight in the loss, if transitions are not sampled uniformly."""
    penalty: Tensor | None = None
    """[B] cost of a missed subgoal. A positive cost replaces the reward and makes the transition terminal."""
    rewards: Tensor | None = None
    """[B, period] undiscounted rewards of each environment step, if the level's discount is tuned."""

    def split(self, size: int) -> "list[Transitions]":
        """Split into parts of `size` transitions each, without their rows in the rings."""
        no_rows = Rows(self.rows.env[:0], self.rows.row[:0])
        places = ("rows", "steps", "below")
        names = [f.name for f in fields(self) if f.name not in places and getattr(self, f.name) is not None]
        parts = zip(*(getattr(self, name).split(size) for name in names), strict=True)
        return [Transitions(no_rows, no_rows, no_rows, **dict(zip(names, part, strict=True))) for part in parts]

    def total(self, gamma: Tensor) -> Tensor:
        """[B] Σ_i γ^i r_i with this discount if the reward of each step is available, otherwise the stored reward."""
        if self.rewards is None:
            return self.reward
        return (self.rewards * gamma ** torch.arange(self.rewards.shape[-1], device=gamma.device)).sum(-1)

    def changed(self, **fields: Any) -> "Transitions":
        """A copy with these fields replaced."""
        return replace(self, **fields)


def read_transitions(replay: Replay, rows: Rows, extrinsic: bool) -> Transitions:
    """Read these rows of a level's ring.

    For an `extrinsic` command, the next target is read from the next row, because the task's goal may change.
    Otherwise the next target equals the target: the next state is evaluated under the same subgoal.
    """
    both = replay.read(Rows(rows.env, torch.stack([rows.row, rows.row + 1])))  # one read is faster than two
    row, following = ({name: values[i] for name, values in both.items()} for i in (0, 1))
    # Segments are contiguous in the rings below, so each one ends where the next one starts.
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
