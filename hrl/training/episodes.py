"""Episodes of a batch of environments: return, length, and success by both definitions."""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from hrl.types import Step


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


class EpisodeCounter:
    """Adds up steps and hands out episodes as they finish."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.reward = torch.zeros(num_envs, device=device)
        self.length = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.success = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def add(self, step: Step) -> list[Episode]:
        """Count a step; the episodes that it ended."""
        self.reward += torch.where(step.active, step.reward, 0.0)
        self.length += step.active.long()
        self.success |= step.success & step.active
        done = (step.terminated | step.truncated) & step.active
        finished = [
            Episode(
                i, float(self.reward[i]), int(self.length[i]), bool(self.success[i]),
                bool(step.success[i]),
            )
            for i in done.nonzero().flatten().tolist()
        ]  # fmt: skip
        self.reward = torch.where(done, 0.0, self.reward)
        self.length = torch.where(done, 0, self.length)
        self.success &= ~done
        return finished

    def restart(self) -> None:
        """Forget the episodes that still run."""
        self.reward.zero_()
        self.length.zero_()
        self.success.zero_()


class Recent:
    """The last episodes of training, as TensorBoard's `rollout/` shows them."""

    def __init__(self, window: int = 100) -> None:
        self.episodes: deque[Episode] = deque(maxlen=window)
        self.count = 0

    def add(self, episodes: list[Episode]) -> None:
        """Newest last."""
        self.episodes.extend(episodes)
        self.count += len(episodes)

    def scalars(self) -> dict[str, float]:
        """Means over the window; nothing before the first episode."""
        if not self.episodes:
            return {}
        return {
            "rollout/ep_rew_mean": float(np.mean([e.reward for e in self.episodes])),
            "rollout/ep_len_mean": float(np.mean([e.length for e in self.episodes])),
            "rollout/success_rate": float(np.mean([e.success_any for e in self.episodes])),
            "rollout/episodes": float(self.count),
        }

    def state_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"count": self.count, "episodes": [asdict(e) for e in self.episodes]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.count = state["count"]
        self.episodes.extend(Episode(**e) for e in state["episodes"])
