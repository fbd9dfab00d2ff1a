"""A rollout: the last decisions of a level's own policy, which on-policy learners learn from once.

It is a ring (hrl/memory/ring.py) that is read in order: the rows since the last reading. So everything that holds for
replays holds here: streams by environment, true final observations, segments of different lengths.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hrl.memory.ring import Replay, Rows


class RolloutMemory(Replay):
    """The ring, with the row up to which each environment's stream was read."""

    def __init__(
        self,
        fields: Mapping[str, int],
        next_fields: tuple[str, ...],
        counters: tuple[str, ...],
        decisions: int,
        num_envs: int,
        device: torch.device,
        pixels: int = 0,
        frames: int = 1,
    ) -> None:
        """`decisions` is the most that one environment makes in a rollout."""
        # An episode takes a row for its final observation, and may be a single decision long.
        rows = 2 * (decisions + 2) * num_envs
        super().__init__(fields, next_fields, counters, rows, num_envs, device, pixels=pixels, frames=frames)
        self.read_until = torch.zeros_like(self.cursor)

    def unread(self) -> tuple[Rows, Tensor]:
        """Rows [T, N] since the last reading, in order, and whether [T, N] each is a decision. Waits for the device.

        A row that is none has a place that can be read all the same.
        """
        first = torch.maximum(self.read_until, self.cursor - (self.length - 2))
        count = int((self.cursor - first).max())
        row = first + torch.arange(count, device=self.device).unsqueeze(-1)
        there = row < self.cursor
        rows = Rows(self._env.expand_as(row), torch.where(there, row, (self.cursor - 1).clamp_min(0)))
        return rows, there & ~self.is_final(rows)

    def finish(self) -> None:
        """What is stored so far has been read."""
        self.read_until.copy_(self.cursor)

    def clear(self) -> None:
        """Keep nothing so far."""
        super().clear()
        self.finish()

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the ring."""
        return super().state_dict() | {"read_until": self.read_until}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the result of `state_dict`."""
        super().load_state_dict(state)
        self.read_until.copy_(state["read_until"])


def advantages(
    reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, follows: Tensor, lam: float
) -> Tensor:
    """Generalised advantage estimates of decisions of different durations, all [T, N]:

        δ_t = R_t + γ^{k_t} V(s_{t+1}) - V(s_t)        Â_t = δ_t + γ^{k_t} λ Â_{t+1}

    R_t is the discounted reward of the decision's k_t environment steps, and `discount` is γ^{k_t}, or 0 where the task
    ended. `follows` says whether the next row is the next decision of the same episode, under the same command.
    """
    delta = reward + discount * next_value - value
    carry = discount * lam * follows
    result = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + carry[t] * running
        result[t] = running
    return result
