"""The setting of a hierarchy: environment, device and execution mode."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hrl.execution.modes import EAGER, Execution
from hrl.execution.processes import ALONE, Processes
from hrl.networks.encoders import PixelEncoder
from hrl.types import BatchedEnv, Spec


@dataclass(frozen=True)
class Setting:
    """The environment, device and execution mode that a hierarchy is built for."""

    spec: Spec
    num_envs: int
    device: torch.device
    seed: int
    measure: Callable[[], BatchedEnv]
    """Makes separate environments, for measured goal bounds."""
    total_steps: int | None = None
    """Environment steps of training, of all processes together; 0 to only act. None: unknown."""
    execution: Execution = EAGER
    """Execution mode of acting, observing and updates."""
    processes: Processes = ALONE
    """The processes of the run, which learn together."""
    encoder: PixelEncoder | None = None
    """Encoder of another level, through which levels see images. None: each level has its own."""

    @property
    def acts_only(self) -> bool:
        """Whether the agent will not learn, so that memories need no capacity."""
        return self.total_steps == 0
