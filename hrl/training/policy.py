"""A trained hierarchy as a policy, for evaluations and with stable-baselines3's `predict`."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from hrl.hierarchy.clock import FRESH, ActiveCommand
from hrl.hierarchy.stack import ActionMode, Stack
from hrl.hierarchy.warm_start import select_task
from hrl.training.predicting import PredictingPolicy, PredictState
from hrl.types import BatchedEnv, Observation, Step


class HierarchyPolicy(PredictingPolicy):
    """Acts deterministically by default. It has no state: all memory is passed in and out."""

    def __init__(self, agent: Stack, env: BatchedEnv | None = None) -> None:
        super().__init__(agent.device, env)
        self.agent = agent

    def select_task(self, task: int) -> None:
        """Select one of the learned tasks. Raises UserError for an unknown task."""
        select_task(self.agent, task)

    def start(self, num_envs: int) -> Any:
        """The initial memory: every level is due for a decision."""
        return self.agent.initial_state(num_envs)

    def act(self, obs: Observation, memory: Any, how: ActionMode) -> tuple[Tensor, Any, list[Tensor]]:
        """Actions [N, A], the memory, and the active subgoals [N, G], lowest level first."""
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

    def restarted(self, memory: Any, where: Tensor) -> Any:
        """The memory at an episode's start where [N], and unchanged elsewhere."""
        return [held.dropped(where) for held in memory]

    def following(self, memory: Any, state: Tensor, how: ActionMode) -> Any:
        """The memory one step later, in states [N, D] of the same episodes."""
        return self.agent.after_state(memory, state, how)

    def pack(self, memory: Any) -> PredictState:
        """The active commands as arrays."""
        return tuple(x.cpu().numpy() for held in memory for x in vars(held).values())

    def unpack(self, state: PredictState) -> Any:
        """The active commands that `pack` converted."""
        tensors = [torch.as_tensor(x, device=self.device) for x in state]
        width = len(fields(ActiveCommand))
        return [ActiveCommand(*tensors[i : i + width]) for i in range(0, len(tensors), width)]
