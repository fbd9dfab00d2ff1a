"""The setting of a hierarchy: environment, device and execution mode."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Environment steps of training, of all processes together; 0 for acting only; None if unknown."""
    execution: Execution = EAGER
    """Execution mode of acting, observing and updates."""
    processes: Processes = ALONE
    """The processes of the run, which learn together."""
    env: BatchedEnv | None = None
    """The training environments, for policies that use observations and actions in the form of the environment."""
    load_policy: Callable[[Path], Any] | None = None
    """Loads the trained policy of a run's folder."""
    encoder: PixelEncoder | None = None
    """Encoder of another level that levels use for images; None if each level has a separate encoder."""

    @property
    def acts_only(self) -> bool:
        """Whether the agent will not learn, so that memories need no capacity."""
        return self.total_steps == 0
