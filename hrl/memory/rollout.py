"""A rollout: the last decisions of a level's current policy, from which on-policy learners learn once.

It is a ring (hrl/memory/ring.py), and its new rows are read in order. Like a replay, it has one stream per environment,
true final observations, and segments of different lengths.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hrl.memory.ring import Replay, Rows


class RolloutMemory(Replay):
    """A ring that keeps track of the rows that were read."""

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
        """`decisions` is the maximum number of decisions per environment in a rollout."""
        # An episode needs an additional row for its final observation, and may have a single decision.
        rows = 2 * (decisions + 2) * num_envs
        super().__init__(fields, next_fields, counters, rows, num_envs, device, pixels=pixels, frames=frames)
        self.read_until = torch.zeros_like(self.cursor)

    def unread(self) -> tuple[Rows, Tensor]:
        """Rows [T, N] since the last `finish`, in order, and whether [T, N] each row is a decision. Waits for the
        device.

        Rows that are not decisions are also valid positions.
        """
        first = torch.maximum(self.read_until, self.cursor - (self.length - 2))
        count = max(0, int((self.cursor - first).max()))
        row = first + torch.arange(count, device=self.device).unsqueeze(-1)
        there = row < self.cursor
        rows = Rows(self._env.expand_as(row), torch.where(there, row, (self.cursor - 1).clamp_min(0)))
        return rows, there & ~self.is_final(rows)

    @property
    def has_unread(self) -> bool:
        """Whether there is a row since the last `finish`. Waits for the device."""
        return bool((self.cursor > self.read_until).any())

    def finish(self) -> None:
        """Mark all stored rows as read."""
        self.read_until.copy_(self.cursor)

    def clear(self) -> None:
        """Remove all decisions, including open ones, which another policy may have taken."""
        super().clear()
        self.read_until.copy_(self.cursor + 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the ring."""
        return super().state_dict() | {"read_until": self.read_until}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        super().load_state_dict(state)
        self.read_until.copy_(state["read_until"])


def advantages(
    reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, follows: Tensor, lam: float
) -> Tensor:
    """Generalised advantage estimates of decisions with different durations, all [T, N]:

        δ_t = R_t + γ^{k_t} V(s_{t+1}) - V(s_t)        Â_t = δ_t + γ^{k_t} λ Â_{t+1}

    R_t is the discounted reward of the decision's k_t environment steps. `discount` is γ^{k_t}, or 0 where the task
    ended. `follows` is true where the next row is the next decision of the same episode under the same command.
    """
    delta = reward + discount * next_value - value
    carry = discount * lam * follows
    result = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + carry[t] * running
        result[t] = running
    return result
