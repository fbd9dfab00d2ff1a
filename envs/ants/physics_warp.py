"""MuJoCo's physics on a GPU (MuJoCo Warp: MuJoCo in NVIDIA Warp). Needs the extra `gpu-physics`."""

from copy import copy

import mujoco
import mujoco_warp
import torch
import warp
from torch import Tensor

CONTACTS = 64
"""Maximum number of contacts of one world. Legs, body, walls and floor have far fewer at a time."""
ROWS = 4 * CONTACTS + 64
"""Maximum number of constraint rows of one world: four per contact, and joint limits."""


class WarpPhysics:
    """N worlds of one model on `device`. `qpos` [N, nq] and `qvel` [N, nv] are float32 tensors, written in place.

    The tensors are Warp's own arrays. On a GPU, the physics steps are captured as one CUDA graph.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int, device: torch.device) -> None:
        """Warp compiles its kernels at the first step of a new version, which takes minutes."""
        self.model, self.num_envs, self.substeps, self.device = model, num_envs, substeps, device
        warp.config.quiet = True
        warp.init()
        self._place = warp.device_from_torch(device)
        with warp.ScopedDevice(self._place):
            self._worlds = mujoco_warp.put_model(without_margins(model))
            self._data = mujoco_warp.make_data(model, nworld=num_envs, nconmax=CONTACTS, njmax=ROWS)
        names = ("qpos", "qvel", "ctrl", "qacc_warmstart")
        self.qpos, self.qvel, self._control, self._warmstart = (
            warp.to_torch(getattr(self._data, name)) for name in names
        )
        self._graph = None
        if device.type == "cuda":
            self._go()  # compiles the kernels
            with warp.ScopedCapture(self._place) as capture:
                self._go()
            self._graph = capture.graph
        for tensor in (self.qvel, self._control, self._warmstart):
            tensor.zero_()
        self.qpos.copy_(torch.from_numpy(model.qpos0))

    def send(self, control: Tensor) -> None:
        """Queue `substeps` physics steps with the control [N, nu], after torch's queued work."""
        self._control.copy_(control)
        if self._graph is None:
            self._go()
        else:
            warp.capture_launch(self._graph, stream=warp.stream_from_torch(torch.cuda.current_stream(self.device)))

    def receive(self) -> None:
        """Do nothing: the tensors are Warp's arrays, on torch's stream."""

    def clear_warmstart(self, where: Tensor) -> None:
        """Reset the solver's warm start in restarted worlds [N]."""
        self._warmstart.masked_fill_(where.unsqueeze(-1), 0.0)

    def step(self, control: Tensor) -> None:
        """Take `substeps` physics steps with the control [N, nu]."""
        self.send(control)

    def close(self) -> None:
        """Do nothing: there are no threads to end."""

    def _go(self) -> None:
        with warp.ScopedDevice(self._place):
            for _ in range(self.substeps):
                mujoco_warp.step(self._worlds, self._data)


def without_margins(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of the model in which boxes touch at a distance of 0. Warp supports no contact margin between boxes. A
    box and another geom keep the other geom's margin."""
    copied = copy(model)
    copied.geom_margin[copied.geom_type == mujoco.mjtGeom.mjGEOM_BOX] = 0.0
    return copied
