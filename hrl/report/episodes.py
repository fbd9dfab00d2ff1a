"""Counts return, length and success (by both definitions) of the episodes of many environments, on the device."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrl.policies.policy_gradient import Trajectories

BUCKETS = 1024
"""Number of buckets for start times in the training statistics."""
WINDOW = 100
"""Minimum number of episodes that the training statistics average over."""


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
    """[N] mask of environments where an episode ended; `values` are valid only there."""
    values: Tensor
    """[N, 4] return, length, success at any step, success at the final step."""

    def episodes(self) -> list[Episode]:
        """The ended episodes, ordered by environment. Waits for the device."""
        places = self.done.nonzero().flatten().tolist()
        rows = self.values[self.done].tolist()
        return [
            Episode(i, reward, int(length), bool(reached), bool(final))
            for i, (reward, length, reached, final) in zip(places, rows, strict=True)
        ]


def finished(data: Trajectories) -> Finished:
    """Statistics of collected episodes [..., T, E], all of which have ended."""
    length = data.keep.sum(-2)
    last = (length.long() - 1).unsqueeze(-2)
    final = data.success.gather(-2, last).squeeze(-2)
    reached = (data.success * data.keep).amax(-2)
    values = torch.stack([x.flatten() for x in (data.reward.sum(-2), length, reached, final)], -1)
    return Finished(torch.ones(len(values), dtype=torch.bool, device=values.device), values)


class EpisodeCounter:
    """Accumulates the steps of running episodes, and returns episodes when they end."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.sums = torch.zeros(num_envs, 3, device=device)  # return, length, successful steps

    def add(self, reward: Tensor, success: Tensor, done: Tensor, active: Tensor) -> Finished:
        """Add one step, with arguments of shape [N]. Returns the episodes that ended with it."""
        now = torch.stack([reward, torch.ones_like(reward), success.float()], -1)
        self.sums += torch.where(active.unsqueeze(-1), now, 0.0)
        done = done & active
        reached = (self.sums[:, 2] > 0).float()
        values = torch.stack([self.sums[:, 0], self.sums[:, 1], reached, success.float()], -1)
        self.sums.masked_fill_(done.unsqueeze(-1), 0.0)
        return Finished(done, values)

    def restart(self) -> None:
        """Drop the running episodes."""
        self.sums.zero_()


class Recent:
    """Means over the last training episodes, for TensorBoard's `rollout/` tags.

    Among episodes that start together, the short ones end first, and these are often successful. To avoid this bias, an
    episode counts only after all episodes that started with it must have ended. Sums are stored on the device by start
    time, in buckets of an eighth of the longest episode's duration.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        self.width = max((limit or 8 * 128) // 8, 1)
        self.now = 0  # vector steps
        self.longest = torch.full((), float(limit or 0), device=device)
        self.sums = torch.zeros(BUCKETS, 4, device=device)  # episodes, return, length, success at any step
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self._opened = 0  # the bucket of the current step

    def add(self, finished: Finished) -> None:
        """Add the episodes that ended with one step of all environments."""
        self._go_to(self.now + 1)
        length = finished.values[:, 1]
        self.longest = torch.maximum(self.longest, torch.where(finished.done, length, 0.0).amax())
        self._add(finished, ((self.now - length.long()).clamp_min(0) // self.width) % BUCKETS)

    def add_together(self, finished: Finished) -> None:
        """Add episodes that started together and have all ended."""
        self._go_to((self._opened + 1) * self.width)
        self._add(finished, torch.full_like(finished.done, self._opened % BUCKETS, dtype=torch.int64))
        self.now += self.width - 1

    def _go_to(self, now: int) -> None:
        """Advance the clock to `now`, and clear a newly entered bucket."""
        self.now = now
        if now // self.width > self._opened:
            self._opened = now // self.width
            self.sums[self._opened % BUCKETS] = 0.0

    def _add(self, finished: Finished, bucket: Tensor) -> None:
        values = torch.cat([torch.ones_like(finished.values[:, :1]), finished.values[:, :3]], -1)
        self.sums.index_add_(0, bucket, torch.where(finished.done.unsqueeze(-1), values, 0.0))
        self.count += finished.done.sum()

    def _number(self) -> Tensor:
        """[BUCKETS] absolute bucket numbers, counted from the run's start."""
        place = torch.arange(BUCKETS, device=self.sums.device)
        return self._opened - (self._opened - place) % BUCKETS

    def _complete(self) -> Tensor:
        """Mask [BUCKETS] of buckets in which all episodes must have ended."""
        last_start = (self._number() + 1) * self.width - 1
        return (last_start + self.longest <= self.now) & (self._number() >= 0)

    def truncate_episodes(self) -> None:
        """Drop the buckets of all running episodes, including episodes in them that have ended."""
        self.sums.masked_fill_(~self._complete().unsqueeze(-1), 0.0)

    def scalars(self, success: bool = True) -> dict[str, float]:
        """Means over the newest episodes, at least WINDOW of them if available; empty before the first episode. Waits
        for the device."""
        result = {"rollout/episodes": float(self.count)} if int(self.count) else {}
        order = self._number().argsort(descending=True)
        sums = (self.sums * self._complete().unsqueeze(-1))[order]
        before = sums[:, 0].cumsum(0) - sums[:, 0]
        episodes, reward, length, reached = sums[before < WINDOW].sum(0).tolist()
        if episodes:
            result |= {"rollout/ep_rew_mean": reward / episodes, "rollout/ep_len_mean": length / episodes}
            if success:
                result["rollout/success_rate"] = reached / episodes
        return result

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        filled = self.sums[:, 0].nonzero().flatten()
        return {
            "now": self.now,
            "longest": float(self.longest),
            "count": int(self.count),
            "buckets": [[i, *row] for i, row in zip(filled.tolist(), self.sums[filled].tolist(), strict=True)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.now, self._opened = state["now"], state["now"] // self.width
        self.longest.fill_(state["longest"])
        self.count.fill_(state["count"])
        self.sums.zero_()
        for i, *row in state["buckets"]:
            self.sums[i] = torch.tensor(row)
