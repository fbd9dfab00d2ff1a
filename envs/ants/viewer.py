"""Pictures of MuJoCo worlds from above."""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer
from torch import Tensor

SIZE = 480, 480
Mark = tuple[Sequence[float], tuple[float, ...], float]
"""Position [3], colour (red, green, blue, opacity) and radius."""


class Viewer:
    """Renders pictures of a model's worlds."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._screen: Any = None

    def picture(self, qpos: Tensor, marks: Sequence[Mark], view: tuple[Sequence[float], float]) -> np.ndarray:
        """A picture [H, W, 3] from above of the world with positions `qpos` [nq], with a sphere at each mark. `view` is
        the camera's target [3] and its distance.
        """
        if self._screen is None:
            self._screen = OffScreenViewer(self.model, mujoco.MjData(self.model), *SIZE)
            self._screen.cam.elevation, self._screen.cam.azimuth = -80.0, 90.0
            self._screen.cam.lookat[:], self._screen.cam.distance = view
        self._screen.data.qpos[:] = qpos.numpy(force=True)
        mujoco.mj_forward(self.model, self._screen.data)
        for place, colour, radius in marks:
            self._screen.add_marker(pos=np.array(place), size=np.full(3, radius), rgba=np.array(colour), label="")
        return np.asarray(self._screen.render("rgb_array"))
