"""Intra-option learning: the execution of a skill from s_t also contains its execution from each later state (Sutton
1998)."""

from dataclasses import dataclass

import torch

from hrl.hierarchy.commands import Task
from hrl.hierarchy.relabelling.hindsight import chosen
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions


@dataclass
class LateStarts:
    """Makes a fraction of the decisions start at a uniformly sampled step of their execution, with the rewards from
    this step on:

        (s_t, z, Σ_{j<k} γ^j r_{t+j}, s_{t+k})  →  (s_{t+i}, z, Σ_{j<k-i} γ^j r_{t+i+j}, s_{t+k}),   0 ≤ i < k

    This is valid if the skills' actions depend only on the state. A decision of 20 steps then gives 20 transitions.
    `period` is the maximum number of environment steps of a decision. Decisions stay unchanged if the bottom level's
    ring has overwritten their steps.
    """

    command: Task
    steps: Replay
    share: float
    gamma: float
    period: int

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        device = t.reward.device
        mask = chosen(len(t.reward), self.share, generator, device) & self.steps.holds(t.steps)
        uniform = torch.rand(t.length.shape, generator=generator, device=device, dtype=torch.float64)
        late = torch.where(mask, (uniform * t.length).long(), 0)
        begins, left = Rows(t.steps.env, t.steps.row + late), t.length - late
        i = torch.arange(self.period, device=device)
        rows = self.steps.within(Rows(begins.env.unsqueeze(-1), begins.row.unsqueeze(-1) + i))
        rewards = self.command.scale_reward(self.steps.get(rows, "reward").squeeze(-1)) * (i < left.unsqueeze(-1))
        state = self.steps.get(self.steps.within(begins), "state")
        return t.changed(
            steps=begins,
            state=torch.where(mask.unsqueeze(-1), state, t.state),
            reward=torch.where(mask, (rewards * self.gamma**i).sum(-1), t.reward),
            length=left,
        )
