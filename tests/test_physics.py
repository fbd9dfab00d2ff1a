"""The ants' physics: batches with MuJoCo, and with MJX."""

import os

import mujoco
import numpy as np
import pytest
import torch

import hrl.envs  # noqa: F401
from hrl.envs.ants.maze import AntMaze

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_step_is_five_of_mujocos():
    ants = AntMaze(num_envs=3)
    ants.reset(seed=1)
    torques = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) * 60 - 30
    data = mujoco.MjData(ants.physics.model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = ants.physics.qpos[1], ants.physics.qvel[1], torques[1]
    ants.physics.qpos[1, 2] = data.qpos[2] = 0.4
    mujoco.mj_step(ants.physics.model, data, nstep=5)
    ants.step(torques)
    assert np.array_equal(ants.physics.qpos[1], data.qpos) and np.array_equal(ants.physics.qvel[1], data.qvel)
    model = ants.physics.model
    assert model.opt.timestep == 0.02 and (model.actuator_ctrlrange == [-30, 30]).all()
    assert data.ncon and (data.contact.includemargin == 0.01).all() and (data.contact.friction[:, 0] == 1).all()


def test_a_batch_steps_as_single_ones_do_however_it_is_split():
    def run(count: int, threads: int, beside: bool) -> torch.Tensor:
        may = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(may)[:threads])
        ants = AntMaze(num_envs=count)
        os.sched_setaffinity(0, may)
        ants.reset(seed=0)
        ants.physics.qpos[:], ants.physics.qvel[:] = start[0][:count], start[1][:count]
        for torques in actions:
            if beside:
                ants.step_async(torques[:count])
                ants.step_wait()
            else:
                ants.step(torques[:count])
        ants.close()
        return ants.physics.qpos.clone()

    first = AntMaze(num_envs=5)
    first.reset(seed=0)
    start = first.physics.qpos.clone(), first.physics.qvel.clone()
    actions = torch.rand(20, 5, 8, generator=torch.Generator().manual_seed(0)) * 60 - 30
    whole = run(5, 1, beside=False)
    assert torch.equal(run(5, 2, beside=True), whole)
    assert torch.equal(run(1, 1, beside=False), whole[:1])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])])
@pytest.mark.parametrize("maze", ["Maze", "Push", "Fall"])
@pytest.mark.parametrize(("physics", "module"), [("mjx", "mujoco.mjx"), ("warp", "mujoco_warp")])
def test_simulators_for_a_gpu_make_the_same_step(physics, module, maze, device):
    """Equal up to rounding in the air, and nearly equal in contact, where they solve for forces differently."""
    pytest.importorskip(module)
    here, there = AntMaze(8, maze=maze), AntMaze(8, device, maze=maze, physics=physics)
    for ants in (here, there):
        ants.reset(seed=0)
    torques = torch.rand(40, 8, 8, generator=torch.Generator().manual_seed(0)) * 60 - 30
    apart = []
    for now in torques:
        there.physics.qpos.copy_(here.physics.qpos), there.physics.qvel.copy_(here.physics.qvel)
        seen, theirs = (ants.step(now.to(ants.device))[0]["observation"].cpu() for ants in (here, there))
        apart.append((seen - theirs).abs())
    apart = torch.stack(apart)
    assert apart[0].max() < 1e-4  # all begin in the air
    assert apart[..., :15].max() < 0.05 and apart[..., 15:].mean() < 0.1


def test_a_jax_without_the_gpu_that_torch_has_is_reported():
    jax = pytest.importorskip("jax")
    pytest.importorskip("mujoco.mjx")
    if jax.default_backend() == "gpu":
        pytest.skip("jax has one")
    with pytest.raises(ImportError, match=r"physics=mjx needs .*jax\[cuda12\]"):
        AntMaze(physics="mjx", device="cuda")


def test_mjx_multiplies_in_full_precision():
    """By default, a GPU would use fewer bits than a float32 has."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("mujoco.mjx")
    physics = AntMaze(num_envs=1, physics="mjx").physics
    state = [jax.numpy.asarray(x.numpy()) for x in (physics.qpos, physics.qvel, physics._warmstart)]
    program = str(jax.make_jaxpr(physics._advance)(*state, jax.numpy.zeros((1, 8))))
    assert "Precision.HIGHEST" in program and "precision=None" not in program
