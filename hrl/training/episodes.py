"""Episodes of a batch of environments: return, length, and success by both definitions. Counted on the device."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrl.learners.policy_gradient import Trajectories


@dataclass
class Episode:
    """One finished episode."""

    env: int
    reward: float
    """Undiscounted return."""
    length: int
    """Environment steps."""
    success_any: bool
    """Success at any step."""
    success_final: bool
    """Success at the final step."""


class Finished(NamedTuple):
    """The episodes that ended with one step of N environments."""

    done: Tensor
    """[N] where one ended; the rest counts only there."""
    values: Tensor
    """[N, 4] return, length, success at any step, success at the final step."""

    def episodes(self) -> list[Episode]:
        """By environment. Waits for the device."""
        places = self.done.nonzero().flatten().tolist()
        rows = self.values[self.done].tolist()
        return [
            Episode(i, reward, int(length), bool(reached), bool(final))
            for i, (reward, length, reached, final) in zip(places, rows, strict=True)
        ]


def finished(data: Trajectories) -> Finished:
    """Episodes [..., T, E] that were collected side by side."""
    length = data.keep.sum(-2)
    last = (length.long() - 1).unsqueeze(-2)
    final = data.success.gather(-2, last).squeeze(-2)
    reached = (data.success * data.keep).amax(-2)
    values = torch.stack([x.flatten() for x in (data.reward.sum(-2), length, reached, final)], -1)
    return Finished(torch.ones(len(values), dtype=torch.bool, device=values.device), values)


class EpisodeCounter:
    """Adds up steps and hands out episodes as they finish."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.sums = torch.zeros(num_envs, 3, device=device)  # return, length, successful steps

    def add(self, reward: Tensor, success: Tensor, done: Tensor, active: Tensor) -> Finished:
        """Count a step, each argument [N]; the episodes that ended with it."""
        now = torch.stack([reward, torch.ones_like(reward), success.float()], -1)
        self.sums += torch.where(active.unsqueeze(-1), now, 0.0)
        done = done & active
        reached = (self.sums[:, 2] > 0).float()
        values = torch.stack([self.sums[:, 0], self.sums[:, 1], reached, success.float()], -1)
        self.sums.masked_fill_(done.unsqueeze(-1), 0.0)
        return Finished(done, values)

    def restart(self) -> None:
        """Forget the episodes that still run."""
        self.sums.zero_()


class Recent:
    """The last episodes of training, as TensorBoard's `rollout/` shows them: a ring on the device."""

    def __init__(self, device: torch.device, window: int = 100) -> None:
        self.window = window
        self.values = torch.zeros(window + 1, 4, device=device)  # the last row takes what is not kept
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, finished: Finished) -> None:
        """Of many at once, the last stay."""
        order = finished.done.cumsum(0)
        kept = finished.done & (order[-1] - order < self.window)
        place = torch.where(kept, (self.count + order - 1) % self.window, self.window)
        self.values.index_copy_(0, place, finished.values)
        self.count += order[-1]

    def scalars(self) -> dict[str, float]:
        """Means over the window; nothing before the first episode. Waits for the device."""
        count = int(self.count)
        if not count:
            return {}
        reward, length, reached, _ = self.values[: min(count, self.window)].mean(0).tolist()
        return {
            "rollout/ep_rew_mean": reward,
            "rollout/ep_len_mean": length,
            "rollout/success_rate": reached,
            "rollout/episodes": float(count),
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"count": int(self.count), "values": self.values[:-1].tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.count.fill_(state["count"])
        self.values[:-1] = torch.tensor(state["values"])
