"""MuJoCo's physics for a batch of worlds alike, stepped by MuJoCo's own threads."""

from concurrent.futures import Future, ThreadPoolExecutor

import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout
from torch import Tensor


class Physics:
    """N worlds of one model on the CPU. `qpos` [N, nq] and `qvel` [N, nv] are float64 tensors, written in place."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int) -> None:
        self.model, self.num_envs, self.substeps = model, num_envs, substeps
        width = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._state = np.zeros((num_envs, width))
        self._after = np.zeros((num_envs, substeps, width))
        self._control = np.zeros((num_envs, substeps, model.nu))
        self._sensors = np.zeros((num_envs, substeps, model.nsensordata))
        threads = min(torch.get_num_threads(), num_envs)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._models = [model] * num_envs
        self._rollout = Rollout(nthread=threads if threads > 1 else 0)
        state = torch.from_numpy(self._state)
        self.qpos, self.qvel = state[:, 1 : 1 + model.nq], state[:, 1 + model.nq : 1 + model.nq + model.nv]
        self.qpos.copy_(torch.from_numpy(model.qpos0))
        self._beside = ThreadPoolExecutor(1)
        self._outcome: Future[None] | None = None
        self._renderer: mujoco.Renderer | None = None

    def send(self, control: Tensor) -> None:
        """Hold the control [N, nu] for `substeps` physics steps, which go on from now beside all else."""
        self._control[:] = control.numpy(force=True)[:, None]
        self._outcome = self._beside.submit(self._go)

    def receive(self) -> None:
        """Wait for them."""
        assert self._outcome is not None
        self._outcome.result()
        self._state[:] = self._after[:, -1]

    def step(self, control: Tensor) -> None:
        """Both, without a thread in between."""
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
        self._beside.shutdown()
        self._rollout.close()

    def picture(self, index: int, marks: list[tuple[Tensor, tuple[float, ...], float]]) -> np.ndarray:
        """One world from above, at a slant [H, W, 3]; `marks` are spheres (place [3], colour, radius)."""
        data = mujoco.MjData(self.model)
        data.qpos[:], data.qvel[:] = self.qpos[index], self.qvel[index]
        mujoco.mj_forward(self.model, data)
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.model, 360, 480)
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self.model, camera)
        camera.elevation, camera.azimuth = -60.0, 90.0
        self._renderer.update_scene(data, camera)
        scene = self._renderer.scene
        for place, colour, radius in marks:
            mujoco.mjv_initGeom(
                scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, radius),
                place.double().numpy(force=True), np.eye(3).ravel(), np.array(colour, np.float32),
            )  # fmt: skip
            scene.ngeom += 1
        return self._renderer.render()
