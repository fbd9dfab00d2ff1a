"""Task families: environments with different tasks, for agents that adapt to a task."""

from abc import abstractmethod

import torch
from torch import Tensor

from hrl.envs.tasks.tensor import TensorEnv


class TaskFamily(TensorEnv):
    """A batch of environments, each with a task. Agents do not observe the task; they infer it by acting."""

    @property
    @abstractmethod
    def task_dim(self) -> int:
        """Number of entries of a task."""

    @abstractmethod
    def sample_tasks(self, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """Sample [count, task_dim] training tasks, or tasks held out for evaluation."""

    @abstractmethod
    def set_tasks(self, tasks: Tensor) -> None:
        """Give environment i the task tasks[i]. Call `reset` afterwards."""
