"""Families of tasks: environments that differ in what is asked of them, for agents that adapt to a task."""

from abc import abstractmethod

import torch
from torch import Tensor

from hrl.envs.tasks.tensor import TensorEnv


class TaskFamily(TensorEnv):
    """A batch of environments, each with a task of its own. The task is not observed: one finds out by acting."""

    @property
    @abstractmethod
    def task_dim(self) -> int:
        """Entries of a task."""

    @abstractmethod
    def sample_tasks(self, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """[count, task_dim] tasks to train on, or of those that are held out for evaluation."""

    @abstractmethod
    def set_tasks(self, tasks: Tensor) -> None:
        """Give environment i the task tasks[i]; call `reset` then."""
