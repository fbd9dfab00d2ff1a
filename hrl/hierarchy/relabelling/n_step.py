"""n-step returns (n-step Q learning) as a relabelling."""

from dataclasses import dataclass

import torch

from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions


@dataclass
class NStep:
    """Replaces the reward by Σ_{i<n} γ^{k_1 + … + k_i} R_i over n consecutive decisions (fewer at the end of an
    episode), and the next state by that of the last one. There is no off-policy correction."""

    replay: Replay
    steps: int
    gamma: float

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        count = (self.replay.end(t.rows) - t.rows.row).clamp_max(self.steps)
        i = torch.arange(self.steps, device=count.device)
        rows = self.replay.within(Rows(t.rows.env.unsqueeze(-1), t.rows.row.unsqueeze(-1) + i))
        within = i < count.unsqueeze(-1)  # [B, n]
        reward = self.replay.get(rows, "reward").squeeze(-1) * within
        last = Rows(t.rows.env, t.rows.row + count - 1)
        following = self.replay.read(last.later(1))
        lengths = torch.ones_like(rows.row)
        if "first" in self.replay.counters:
            ahead = self.replay.within(rows.later(1))
            lengths = self.replay.count(ahead, "first") - self.replay.count(rows, "first")
        lengths = lengths * within
        before = lengths.cumsum(-1) - lengths
        return t.changed(
            reward=(reward * self.gamma**before).sum(-1),
            next_state=following["state"],
            next_target=following["target"],
            next_mask=following.get("mask"),
            length=lengths.sum(-1),
            terminated=self.replay.terminated(last),
        )
