"""The base of policies for evaluations and programs. They have stable-baselines3's `predict`, and no state."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.hierarchy.stack import ActionMode
from hrl.types import BatchedEnv, Observation, Step, UserError

PredictState = tuple[np.ndarray, ...]


class PredictingPolicy(ABC):
    """Acts deterministically by default. It has no state: all memory is an argument and a result."""

    def __init__(self, device: torch.device, env: BatchedEnv | None = None) -> None:
        """`env` converts observations and actions; only `predict` needs it."""
        self.device, self.env = device, env

    @abstractmethod
    def start(self, num_envs: int) -> Any:
        """The initial memory."""

    def decide(self, obs: Observation, memory: Any, deterministic: bool = True) -> tuple[Tensor, Any, list[Tensor]]:
        """Deterministic or sampled actions [N, A], the memory, and the active subgoals [N, G], lowest level first."""
        return self.act(obs, memory, "greedy" if deterministic else "noisy")

    @abstractmethod
    def act(self, obs: Any, memory: Any, how: ActionMode) -> tuple[Tensor, Any, list[Tensor]]:
        """Actions [N, A] in this mode, the memory, and the active subgoals [N, G]."""

    @abstractmethod
    def place(self, state: Tensor) -> Tensor | None:
        """Positions [N, G] of states [N, D] in goal space, for pictures; None without a goal space."""

    @abstractmethod
    def after(self, memory: Any, step: Step) -> tuple[Any, dict[str, Tensor]]:
        """The memory after a step, and metrics by name: [2, N] values and their weights (0 or 1)."""

    @abstractmethod
    def restarted(self, memory: Any, where: Tensor) -> Any:
        """The memory of an episode's start where the mask [N] is true, unchanged elsewhere."""

    @abstractmethod
    def following(self, memory: Any, state: Tensor, how: ActionMode) -> Any:
        """The memory one step later, in states [N, D] of the same episodes."""

    @abstractmethod
    def pack(self, memory: Any) -> PredictState:
        """The memory as arrays."""

    @abstractmethod
    def unpack(self, state: PredictState) -> Any:
        """The memory that `pack` converted."""

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: PredictState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, PredictState]:
        """Actions in the environment's own bounds, and the state for the next call (one call per step).

        Observations may be batched, as from a vector environment, or single. With deterministic=False, every decision
        has the mean exploration noise of the training environments. No decision is uniformly random.
        `action_masks` [N, K] or [K] masks the available discrete actions; None for all. Raises UserError if the
        observation or the mask does not fit the environment's space.
        """
        assert self.env is not None
        try:
            obs, single = self.env.given(observation, lambda single: self._masks(action_masks, single))
        except ValueError as error:
            raise UserError(str(error)) from error
        how: ActionMode = "greedy" if deterministic else "noisy"
        memory = self.following(self.unpack(state), obs.state, how) if state else self.start(len(obs.state))
        if episode_start is not None:
            starts = torch.as_tensor(np.atleast_1d(np.asarray(episode_start, dtype=bool)), device=self.device)
            memory = self.restarted(memory, starts)
        chosen, memory, _ = self.act(obs, memory, how)
        actions = self.env.to_action(chosen.cpu().numpy())
        return actions[0] if single else actions, self.pack(memory)

    def _masks(self, masks: np.ndarray | None, single: bool) -> Tensor | None:
        """[N, K] available actions; None for all. Raises ValueError if the actions are not discrete, or if their number
        differs."""
        if masks is None:
            return None
        assert self.env is not None
        space = self.env.spec.action_space
        choices = int(space.n) if isinstance(space, spaces.Discrete) else 0
        given = np.asarray(masks, dtype=np.float32)
        given = given[None] if single and given.ndim == 1 else given
        if not choices or given.shape[1:] != (choices,):
            raise ValueError(
                "action_masks must have shape [N, n] for a choice of one of n actions, but the actions here are "
                f"{space}."
            )
        return torch.as_tensor(given, device=self.device)
