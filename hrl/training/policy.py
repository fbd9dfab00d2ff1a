"""A trained hierarchy as a policy, for our evaluations and with stable-baselines3's `predict`."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.hierarchy.clock import FRESH, ActiveCommand
from hrl.hierarchy.hierarchy import Hierarchy, Memory
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

    def start(self, num_envs: int) -> Memory:
        """The initial memory: every level is due for a decision."""
        return self.agent.initial_state(num_envs)

    def decide(self, obs: Observation, memory: Memory) -> tuple[Tensor, Memory, list[Tensor]]:
        """Actions [N, A], the memory, and the active subgoals [N, G], lowest level first."""
        d = self.agent.decide(obs, memory, "greedy")
        pairs = zip(self.agent.commands, d.targets, strict=False)
        places = [place for command, target in pairs if (place := command.place(target)) is not None]
        return d.actions[0], d.memory, places

    def place(self, state: Tensor) -> Tensor | None:
        """Positions [N, G] of states [N, D] in the bottom level's goal space; None without one."""
        command: Any = self.agent.levels[0].command
        goals = getattr(command, "goals", None)
        return goals.project(state) if goals is not None else None

    def after(self, memory: Memory, step: Step) -> tuple[Memory, dict[str, Tensor]]:
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
        memory = self.start(len(obs.state)) if state is None else self._unpack(state)
        if episode_start is not None:
            begun = torch.as_tensor(np.atleast_1d(np.asarray(episode_start, dtype=bool)), device=self.agent.device)
            memory = [held.dropped(begun) for held in memory]
        memory = self.agent.drop_ended(memory, obs.state)
        d = self.agent.decide(obs, memory, "greedy" if deterministic else "noisy")
        always = torch.ones(len(obs.state), dtype=torch.bool, device=self.agent.device)
        memory = [held.ticked(always) for held in d.memory]
        actions = self._env.to_action(d.actions[0].cpu().numpy())
        return actions[0] if single else actions, self._pack(memory)

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

    def _pack(self, memory: Memory) -> PredictState:
        return tuple(x.cpu().numpy() for held in memory for x in (held.target, held.elapsed))

    def _unpack(self, state: PredictState) -> Memory:
        tensors = [torch.as_tensor(x, device=self.agent.device) for x in state]
        return [ActiveCommand(*tensors[i : i + 2]) for i in range(0, len(tensors), 2)]
