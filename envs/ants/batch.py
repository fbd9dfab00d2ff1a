"""The base class of tasks with MuJoCo's ant: its body, its initial state, and physics in parallel to learning."""

import math
from abc import abstractmethod
from numbers import Real
from typing import Any

import mujoco
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.ants.physics import Simulator, simulated
from hrl.envs.ants.viewer import Viewer
from hrl.envs.ants.worlds import TORQUE
from hrl.envs.tasks.tensor import TensorEnv

SUBSTEPS, NOISE = 5, 0.1
ANT_QPOS, ANT_QVEL = 15, 14
CLOCK = 0.001
GREEN, ORANGE = (0.1, 0.8, 0.2, 0.7), (1.0, 0.6, 0.0, 0.8)


def require_number(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a finite number."""
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, not {value}")


def require_positive(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a positive, finite number."""
    if not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive number, not {value}")


class Ants(TensorEnv):
    """N ants in N separate worlds. Actions are torques in ±30, held for 0.1 s.

    Physics, state and rewards are on the CPU for `physics` "mujoco", and on `device` for "mjx" and "warp".
    """

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str,
        max_episode_steps: int | None,
        render_mode: str | None,
        observation_space: spaces.Space[Any],
        model: mujoco.MjModel,
        physics: Simulator,
    ) -> None:
        torques = spaces.Box(-TORQUE, TORQUE, (model.nu,), np.float32)
        self.physics = simulated(physics, model, num_envs, SUBSTEPS, torch.device(device))
        super().__init__(num_envs, self.physics.device, max_episode_steps, render_mode, observation_space, torques)
        self.viewer = Viewer(model)
        self.at_rest = torch.from_numpy(model.qpos0).to(self.physics.qpos)

    def begin(self, where: Tensor) -> None:
        """Reset the worlds at the mask `where` [N]. The ant starts at rest, with noise U(-0.1, 0.1) on its pose and
        N(0, 0.1²) on its velocity."""
        qpos, qvel = self.at_rest.repeat(self.num_envs, 1), torch.zeros_like(self.physics.qvel)
        qpos[:, :ANT_QPOS] += (self.uniform(self.num_envs, ANT_QPOS) * 2 - 1) * NOISE
        qpos[:, :2] += self.starts()
        qpos[:, 3:7] /= qpos[:, 3:7].norm(dim=-1, keepdim=True)
        noise = torch.randn(self.num_envs, ANT_QVEL, generator=self.generator, device=self.device)
        qvel[:, :ANT_QVEL] = noise * NOISE
        wide = where.unsqueeze(-1)
        self.physics.qpos.copy_(torch.where(wide, qpos, self.physics.qpos))
        self.physics.qvel.copy_(torch.where(wide, qvel, self.physics.qvel))
        self.physics.clear_warmstart(where)

    def starts(self) -> Tensor:
        """[N, 2] start positions of new episodes."""
        return torch.zeros(self.num_envs, 2, device=self.device)

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take five physics steps. Returns (reward [N], whether the task ended [N], success [N])."""
        self.physics.step(actions)
        return self.outcome()

    def step_async(self, actions: Any) -> None:
        """Start the physics steps in the background."""
        self.physics.send(torch.as_tensor(actions))

    def step_wait(self) -> Any:
        """Wait for the physics steps. Returns the result of `step`."""
        self.physics.receive()
        return self.conclude(*self.outcome())

    @abstractmethod
    def outcome(self) -> tuple[Tensor, Tensor, Tensor]:
        """The result of the last step: (reward [N], whether the task ended [N], success [N])."""

    @property
    def torso(self) -> Tensor:
        """[N, 3] positions of the torsos."""
        return self.physics.qpos[:, :3]

    def sensed(self, *more: Tensor) -> Tensor:
        """[N, 30 + …] the ants' 15 positions and 14 velocities, the observations `more`, and 0.001 t."""
        body = self.physics.qpos[:, :ANT_QPOS], self.physics.qvel[:, :ANT_QVEL]
        return torch.cat([*body, *more, CLOCK * self.elapsed.unsqueeze(-1)], -1).float()

    def close_extras(self, **_: Any) -> None:
        """End the physics' threads."""
        self.physics.close()
