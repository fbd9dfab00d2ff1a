"""What a hierarchy is built for: the environment, the device and how to run there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hrl.execution.modes import EAGER, Execution
from hrl.execution.processes import ALONE, Processes
from hrl.networks.encoders import PixelEncoder
from hrl.types import BatchedEnv, Spec


@dataclass(frozen=True)
class Setting:
    """What a hierarchy is built for."""

    spec: Spec
    num_envs: int
    device: torch.device
    seed: int
    measure: Callable[[], BatchedEnv]
    """Makes environments of their own, for goal bounds that are measured."""
    total_steps: int | None = None
    """Environment steps that the agent will learn for, of all processes; 0 to act alone. None: not known."""
    execution: Execution = EAGER
    """How acting, observing and updates are run."""
    processes: Processes = ALONE
    """The processes of the run, which learn together."""
    encoder: PixelEncoder | None = None
    """Another level's encoder, through which levels see images. None: each has its own."""

    @property
    def acts_only(self) -> bool:
        """Whether nothing will be learned, so that memories need no room."""
        return self.total_steps == 0
