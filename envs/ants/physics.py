"""MuJoCo's physics for a batch of equal worlds, stepped by MuJoCo's threads."""

import importlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout
from torch import Tensor

Simulator = Literal["mujoco", "mjx", "warp"]
ON_GPU = {"mjx": "MJXPhysics", "warp": "WarpPhysics"}
"""Classes of the modules physics_mjx and physics_warp, which need more packages."""


def simulated(name: Simulator, model: mujoco.MjModel, num_envs: int, substeps: int, device: torch.device) -> Any:
    """N worlds of one model, on the CPU, or on `device` with MJX or MuJoCo Warp.

    Raises ValueError for an unknown name, and ImportError if the simulator is not installed.
    """
    if name == "mujoco":
        return Physics(model, num_envs, substeps)
    if name not in ON_GPU:
        raise ValueError(f"physics must be mujoco, mjx or warp, not {name}")
    try:
        module = importlib.import_module(f"hrl.envs.ants.physics_{name}")
        return getattr(module, ON_GPU[name])(model, num_envs, substeps, device)
    except ImportError as error:
        raise ImportError(f"physics={name} needs more: pip install 'nested-hrl[gpu-physics]' ({error})") from error


def cores() -> int:
    """This process's share of the CPU cores: torchrun may start several processes on a machine."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Physics:
    """N worlds of one model on the CPU, with one thread per core. Give torch fewer threads, because its threads
    busy-wait. `qpos` [N, nq] and `qvel` [N, nv] are float64 tensors, written in place.
    """

    device = torch.device("cpu")

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int) -> None:
        self.model, self.num_envs, self.substeps = model, num_envs, substeps
        width = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._state = np.zeros((num_envs, width))
        self._after = np.zeros((num_envs, substeps, width))
        self._control = np.zeros((num_envs, substeps, model.nu))
        self._sensors = np.zeros((num_envs, substeps, model.nsensordata))
        threads = min(cores(), num_envs)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._models = [model] * num_envs
        self._rollout = Rollout(nthread=threads if threads > 1 else 0)
        state = torch.from_numpy(self._state)
        self.qpos, self.qvel = state[:, 1 : 1 + model.nq], state[:, 1 + model.nq : 1 + model.nq + model.nv]
        self.qpos.copy_(torch.from_numpy(model.qpos0))
        self._background = ThreadPoolExecutor(1)
        self._outcome: Future[None] | None = None

    def send(self, control: Tensor) -> None:
        """Start `substeps` physics steps with the control [N, nu] in the background."""
        self._control[:] = control.numpy(force=True)[:, None]
        self._outcome = self._background.submit(self._go)

    def receive(self) -> None:
        """Wait for the physics steps."""
        assert self._outcome is not None
        self._outcome.result()
        self._state[:] = self._after[:, -1]

    def clear_warmstart(self, where: Tensor) -> None:
        """Do nothing for restarted worlds [N]: each step starts the solver without a warm start."""

    def step(self, control: Tensor) -> None:
        """Send and receive without a background thread."""
        self._control[:] = control.numpy(force=True)[:, None]
        self._go()
        self._state[:] = self._after[:, -1]

    def _go(self) -> None:
        self._rollout.rollout(
            self._models, self._data, self._state, self._control,
            skip_checks=True, nstep=self.substeps, state=self._after, sensordata=self._sensors,
        )  # fmt: skip

    def close(self) -> None:
        """End the threads."""
        self._background.shutdown()
        self._rollout.close()
