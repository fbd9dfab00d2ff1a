"""Pictures of MuJoCo's worlds from above."""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer
from torch import Tensor

SIZE = 480, 480
Mark = tuple[Sequence[float], tuple[float, ...], float]
"""Place [3], colour (red, green, blue, opacity) and radius."""


class Viewer:
    """Pictures of a model's worlds."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._screen: Any = None

    def picture(self, qpos: Tensor, marks: Sequence[Mark], view: tuple[Sequence[float], float]) -> np.ndarray:
        """The world in a state [nq] from above [H, W, 3], with spheres where the marks are; `view` is the place [3]
        that is looked at and from how far.
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
