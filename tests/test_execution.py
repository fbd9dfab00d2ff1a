"""Eager, compiled and captured: the same functions with the same results."""

import shutil

import pytest
import torch
from conftest import CPU, made, small_hiro

from hrl.envs import EnvConfig, make_env
from hrl.execution.modes import Captured, Execution, pick_execution
from hrl.execution.processes import Processes
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.setting import Setting
from hrl.learners import SAC, TD3, Batch
from hrl.run.session import pick_device
from hrl.types import UserError

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def a_batch(n: int = 32) -> Batch:
    g = torch.Generator().manual_seed(1)
    r = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return Batch(r(n, 3), r(n, 2).tanh(), r(n), r(n, 3), torch.full((n,), 0.9))


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("kind", [TD3, SAC])
def test_compiled_updates_are_the_eager_ones(kind):
    learners = []
    for mode in ("eager", "compile"):
        torch.manual_seed(0)
        learner = made(kind, 3, 2, hidden=(8, 8))
        execution = pick_execution(mode, CPU)
        for name in learner.formulas:
            setattr(learner, name, execution.formula(getattr(learner, name)))
        generator = torch.Generator().manual_seed(0)
        for number in range(4):
            learner.update(a_batch(), number, generator)
        learners.append(learner)
    eager, compiled = learners
    start = made(kind, 3, 2, hidden=(8, 8))
    for (name, one), other, initial in zip(
        eager.state_dict().items(), compiled.state_dict().values(), start.state_dict().values(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5), name
        assert one.numel() < 4 or not torch.equal(one, initial), name


def test_graphs_without_a_gpu_and_unknown_devices_raise_an_error():
    with pytest.raises(UserError, match="needs --device cuda"):
        pick_execution("graph", CPU)
    assert type(pick_execution("auto", CPU)) is Execution


def test_an_environment_may_overwrite_its_observations():
    env = make_env(EnvConfig("hrl/PointMaze_Open-v0", {"continuing_task": False}, num_envs=4))
    agent = small_hiro().make(Setting(env.spec, 4, CPU, 0, lambda: env))
    obs = env.reset(0)
    agent.act(obs)
    seen = obs.state.clone()
    obs.state.fill_(99.0)
    assert torch.equal(agent.levels[0].segment.state, seen) and torch.equal(agent.levels[1].segment.state, seen)


# -- on a GPU ------------------------------------------------------------------------------------------------


def maze_agent(mode: str) -> tuple[Hierarchy, object]:
    """A hierarchy with learning levels on batched mazes on the GPU."""
    device = torch.device("cuda")
    env = make_env(EnvConfig("hrl/PointMaze_UMaze-v0", {"continuing_task": False}, num_envs=64), device)
    config = small_hiro(hindsight=0.8, hindsight_actions=0.25)
    config.low.learner.train_freq = config.high.learner.train_freq = 64
    config.low.hindsight, config.low.learner.action_noise, config.high.learner.action_noise = 0.8, (0.1,), (0.1,)
    torch.manual_seed(0)
    agent = config.make(Setting(env.spec, 64, device, 0, lambda: env))
    agent.execute(pick_execution(mode, device))
    return agent, env


def roll(agent: Hierarchy, env: object, steps: int) -> None:
    obs = env.reset(0)
    for _ in range(steps):
        env.send(agent.act(obs))
        agent.learn()
        step = env.receive()
        agent.observe(step)
        obs = step.obs


@gpu
@pytest.mark.gpu
def test_captured_training_is_the_eager_one():
    """Same seeds: the same replays, and networks equal up to the order of sums. Random states advance alike."""
    states = []
    for mode in ("eager", "graph"):
        agent, env = maze_agent(mode)
        roll(agent, env, 60)
        states.append(agent.tensors())
    for name, one in states[0].items():
        if "generator" in name:
            continue
        assert torch.allclose(one.double(), states[1][name].double(), atol=1e-3, rtol=1e-3), name


@gpu
@pytest.mark.gpu
def test_two_replays_draw_different_numbers_and_a_changed_learning_rate_takes_effect():
    generator = torch.Generator("cuda").manual_seed(0)
    draw = Captured(lambda n, g: torch.rand(n, generator=g, device="cuda"))
    draws = [draw(5, generator).clone() for _ in range(8)]
    assert len({tuple(d.tolist()) for d in draws}) == 8
    agent, env = maze_agent("graph")
    roll(agent, env, 40)
    level = agent.levels[0]
    level.learner.set_learning_rate(0.0)
    before = level.learner.critic_optimiser.flat.clone()
    level.learning._round(1, 0, agent.generator)
    assert torch.equal(level.learner.critic_optimiser.flat, before)


@gpu
@pytest.mark.gpu
def test_nothing_waits_for_the_host():
    agent, env = maze_agent("graph")
    roll(agent, env, 40)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        roll_on(agent, env)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def roll_on(agent: Hierarchy, env: object) -> None:
    obs = env.observe(env.env.observe())
    for _ in range(10):
        env.send(agent.act(obs))
        agent.learn()
        step = env.receive()
        agent.observe(step)
        obs = step.obs


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert pick_device("auto", Processes(rank=5, size=8, local_rank=1)) == torch.device("cuda", 1)
    assert pick_device("cpu", Processes(rank=5, size=8, local_rank=1)) == torch.device("cpu")
    with pytest.raises(UserError, match="has 2 GPUs, fewer than processes"):
        pick_device("cuda", Processes(rank=2, size=3, local_rank=2))
