"""A trained hierarchy as a policy, for our evaluations and with stable-baselines3's `predict`."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.hierarchy.clock import FRESH, ActiveCommand
from hrl.hierarchy.hierarchy import ActionMode, Hierarchy
from hrl.hierarchy.warm_start import recall
from hrl.types import BatchedEnv, Observation, Step

PredictState = tuple[np.ndarray, ...]


class HierarchyPolicy:
    """Acts deterministically by default. It has no state: all memory is passed in and out."""

    def __init__(self, agent: Hierarchy, env: BatchedEnv | None = None) -> None:
        self.agent = agent
        self._env = env  # converts observations and actions; only `predict` needs it

    def recall(self, task: int) -> None:
        """Select one of the learned tasks. Raises UserError for an unknown task."""
        recall(self.agent, task)

    def start(self, num_envs: int) -> Any:
        """The initial memory: every level is due for a decision."""
        return self.agent.initial_state(num_envs)

    def decide(self, obs: Observation, memory: Any) -> tuple[Tensor, Any, list[Tensor]]:
        """Actions [N, A], the memory, and the active subgoals [N, G], lowest level first."""
        return self._decide(obs, memory, "greedy")

    def _decide(self, obs: Observation, memory: Any, how: ActionMode) -> tuple[Tensor, Any, list[Tensor]]:
        d = self.agent.decide(obs, memory, how)
        pairs = zip(self.agent.commands, d.targets, strict=False)
        places = [place for command, target in pairs if (place := command.place(target)) is not None]
        return d.actions[0], d.memory, places

    def place(self, state: Tensor) -> Tensor | None:
        """Positions [N, G] of states [N, D] in the goal space of the lowest level that has one; None without any. A
        level that obeys a goal environment's task has the space of its goals."""
        spaces: Any = (getattr(level.command, "goals", None) for level in self.agent.levels)
        goals = next((space for space in spaces if space is not None), None)
        return goals.project(state) if goals is not None else None

    def after(self, memory: Any, step: Step) -> tuple[Any, dict[str, Tensor]]:
        """The memory after a step, and metrics of the subgoals that ended with it."""
        following = self.agent.after(memory, step)
        rates = {}
        if memory:
            ended = ((following[0].elapsed >= FRESH) & (memory[0].elapsed < FRESH) & step.active).float()
            measured = self.agent.commands[0].measure(step.final.state, memory[0].target)
            counted = {name: ended * ~values.isnan() for name, values in measured.items()}
            rates = {name: torch.stack([measured[name].nan_to_num(), here]) for name, here in counted.items()}
        return following, rates

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
        has the mean exploration noise of the training environments, but no decision is uniformly random.
        `action_masks` [N, K] or [K] masks the available discrete actions; None for all.
        """
        assert self._env is not None
        single = self._env.is_single(observation)
        raw = self._env.as_batch(observation) if single else observation
        obs = self._env.observe(raw, None if action_masks is None else self._masks(action_masks, single))
        how: ActionMode = "greedy" if deterministic else "noisy"
        memory = self._following(self._unpack(state), obs.state, how) if state else self.start(len(obs.state))
        if episode_start is not None:
            begun = torch.as_tensor(np.atleast_1d(np.asarray(episode_start, dtype=bool)), device=self.agent.device)
            memory = self._dropped(memory, begun)
        chosen, memory, _ = self._decide(obs, memory, how)
        actions = self._env.to_action(chosen.cpu().numpy())
        return actions[0] if single else actions, self._pack(memory)

    def _dropped(self, memory: Any, where: Tensor) -> Any:
        """The memory at an episode's start where [N]."""
        return [held.dropped(where) for held in memory]

    def _following(self, memory: Any, state: Tensor, how: ActionMode) -> Any:
        """The memory one step later, in states [N, D] of the same episodes."""
        return self.agent.after_state(memory, state, how)

    def _masks(self, masks: np.ndarray, single: bool) -> Tensor:
        """[N, K] available actions. Raises ValueError if the actions are not numbered, or another number of them."""
        assert self._env is not None
        space = self._env.spec.action_space
        choices = int(space.n) if isinstance(space, spaces.Discrete) else 0
        given = np.asarray(masks, dtype=np.float32)
        given = given[None] if single and given.ndim == 1 else given
        if not choices or given.shape[1:] != (choices,):
            raise ValueError(
                "action_masks must have shape [N, n] for a choice of one of n actions, but the actions here are "
                f"{space}."
            )
        return torch.as_tensor(given, device=self.agent.device)

    def _pack(self, memory: Any) -> PredictState:
        return tuple(x.cpu().numpy() for held in memory for x in vars(held).values())

    def _unpack(self, packed: PredictState) -> Any:
        tensors = [torch.as_tensor(x, device=self.agent.device) for x in packed]
        width = len(fields(ActiveCommand))
        return [ActiveCommand(*tensors[i : i + width]) for i in range(0, len(tensors), width)]
