"""The rewards of each environment step within a decision, for a level with a tuned discount."""

from dataclasses import dataclass

import torch

from hrl.hierarchy.commands import Task
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions


@dataclass
class StepRewards:
    """Reads the rewards [B, period] from the bottom level's ring. If the ring has overwritten them, the stored sum
    becomes the first step's reward.

    `period` is the maximum number of environment steps of a decision.
    """

    command: Task
    steps: Replay
    period: int

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        i = torch.arange(self.period, device=t.reward.device)
        rows = self.steps.within(Rows(t.steps.env.unsqueeze(-1), t.steps.row.unsqueeze(-1) + i))
        rewards = self.command.scale_reward(self.steps.get(rows, "reward").squeeze(-1)) * (i < t.length.unsqueeze(-1))
        stored = t.reward.unsqueeze(-1) * (i == 0)
        return t.changed(rewards=torch.where(self.steps.holds(t.steps).unsqueeze(-1), rewards, stored))
