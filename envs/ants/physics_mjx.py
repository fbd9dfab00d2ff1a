"""MuJoCo's physics on a GPU (MJX: MuJoCo in JAX). Needs the extra `gpu-physics`."""

import os
from typing import Any

import mujoco
import torch
from torch import Tensor

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave memory for torch

import jax
from mujoco import mjx


class MJXPhysics:
    """N worlds of one model on JAX's device. `qpos` [N, nq] and `qvel` [N, nv] are float32 tensors, written in place.

    Tensors and JAX arrays share memory through DLPack, which converts once per step in each direction.
    """

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int, device: torch.device) -> None:
        if device.type == "cuda" and jax.default_backend() != "gpu":
            raise ImportError("jax finds no GPU: pip install 'jax[cuda12]', or use --device cpu")
        self.model, self.num_envs, self.device = model, num_envs, device
        self._advance = jax.jit(jax.vmap(_steps(mjx.put_model(model), mjx.make_data(model), substeps)))
        of = lambda n: torch.zeros(num_envs, n, device=device)  # noqa: E731
        self.qpos, self.qvel, self._warmstart = of(model.nq), of(model.nv), of(model.nv)
        self.qpos.copy_(torch.from_numpy(model.qpos0))
        self._outcome: list[Any] = []

    def send(self, control: Tensor) -> None:
        """Start `substeps` physics steps with the control [N, nu]; JAX runs them asynchronously."""
        given = (self.qpos, self.qvel, self._warmstart, control.float())
        self._outcome = self._advance(*(jax.dlpack.from_dlpack(x.contiguous()) for x in given))

    def receive(self) -> None:
        """Copy the result of the physics steps into the tensors."""
        for mine, new in zip((self.qpos, self.qvel, self._warmstart), self._outcome, strict=True):
            mine.copy_(torch.from_dlpack(new))

    def clear_warmstart(self, where: Tensor) -> None:
        """Reset the solver's warm start in restarted worlds [N]."""
        self._warmstart.masked_fill_(where.unsqueeze(-1), 0.0)

    def step(self, control: Tensor) -> None:
        """Take `substeps` physics steps with the control [N, nu]."""
        self.send(control)
        self.receive()

    def close(self) -> None:
        """Do nothing: there are no threads to end."""


def _steps(model: Any, data: Any, count: int) -> Any:
    """A function (qpos, qvel, warmstart, control) -> (qpos, qvel, warmstart) of one world, after `count` steps."""

    def advance(qpos: Any, qvel: Any, warmstart: Any, control: Any) -> tuple[Any, Any, Any]:
        now = data.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=control)
        with jax.default_matmul_precision("highest"):  # by default, GPUs multiply at less than float32 precision
            now = jax.lax.fori_loop(0, count, lambda _, d: mjx.step(model, d), now)
        return now.qpos, now.qvel, now.qacc_warmstart

    return advance
