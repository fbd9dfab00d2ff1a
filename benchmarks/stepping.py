"""Rows of the speed table about environments: stepping, collecting, and parallel learning."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import cycle, product
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from measuring import EPISODIC, Options, Row, built, paired, rate, rolling, tuned
from running import command

from hrl.agents.hiro import HIROConfig
from hrl.agents.presets import preset
from hrl.envs import EnvConfig, make_env
from hrl.run.config import updated

FORMS = {"batch": "vector_entry_point", "sync": "sync", "async": "async"}


def collecting(options: Options) -> Iterator[Row]:
    """Collecting, with both levels acting and all buffers written, relative to stepping with random actions."""
    ant = EnvConfig("AntMaze_UMaze-v4", EPISODIC, 16)
    mazes = [
        (EnvConfig("PointMaze_Large-v3", EPISODIC, 16), "≥ 0.5"), (ant, "≥ 0.9"),
        (replace(ant, vectorization="async", workers=1), "≥ 0.9"),
        (replace(ant, vectorization="async", workers=2), "≥ 0.9"),
        (EnvConfig("hrl/PointMaze_Large-v0", EPISODIC, 4096), "≥ 0.4" if options.device == "cpu" else "≥ 0.7"),
    ]  # fmt: skip
    for config, bar in mazes:
        env_id, count = config.env, config.num_envs
        device = options.device if env_id.startswith("hrl/") else "cpu"
        env, bare = make_env(config, device), make_env(config, device).env
        agent = built(tuned(env_id), env, Options(**{**asdict(options), "device": device}))
        bare.reset(seed=0)
        drawn: Any = np.random.default_rng(0).uniform(-1, 1, (64, count, env.spec.action_dim)).astype(np.float32)
        actions = cycle(torch.as_tensor(drawn, device=device) if "hrl/" in env_id else drawn)
        sides = paired(
            options,
            rate(rolling(agent, env, learn=False), options, count),
            rate(lambda bare=bare, actions=actions: bare.step(next(actions)), options, count),
        )
        name = f"collecting ÷ stepping, {env_id} ×{count}"
        if config.workers:
            name += f", {config.workers} worker{'s' if config.workers > 1 else ''}"
        env.close(), bare.close()
        yield Row("c", name, **sides, unit="steps/s", bar=bar, floor="1.0")


def overlap(options: Options) -> Iterator[Row]:
    """Training with environments in worker processes that step during learning, relative to sequential training."""
    env_id = "AntMaze_UMaze-v4"
    sides = []
    for workers in (1, 2, 0):
        config = EnvConfig(env_id, EPISODIC, 16, "async" if workers else "sync", workers)
        env = make_env(config, options.device)
        agent = built(
            updated(HIROConfig(), {"low": {"train_freq": 4}, "high": {"train_freq": 40}}, "overlap"), env, options
        )
        step = rolling(agent, env, learn=True)
        while agent.steps < 3200:
            step()
        sides.append(rate(step, options, 16))
    for workers, ours in ((1, sides[0]), (2, sides[1])):
        name = f"training, {env_id} ×16, {workers} worker{'s' * (workers > 1)} beside learning ÷ none"
        yield Row("i", name, **paired(options, ours, sides[2]), unit="steps/s", bar="> 1")


def throughput(options: Options) -> Iterator[Row]:
    """Steps per second for different numbers of batched mazes, with and without learning."""
    for learn in (False, True):
        curve = {}
        for count in (1, 4, 16, 64, 256, 1024, 4096, 16384):
            env = make_env(EnvConfig("hrl/PointMaze_Large-v0", EPISODIC, num_envs=count), options.device)
            # One update of each level per 16 vector steps, for every number of environments.
            every = {"train_freq": 16 * count, "buffer_size": max(200_000, 64 * count)}
            config = tuned("PointMaze_Large-v3")
            config = updated(config, {"low": every, "high": every, "learning_starts": 40 * count}, "throughput")
            step = rolling(built(config, env, options), env, learn)
            for _ in range(64):
                step()
            curve[count] = rate(step, options, count)()
        best = max(curve.values())
        knee = next(n for n, x in curve.items() if x >= 0.5 * best)
        name = f"throughput {'with' if learn else 'without'} learning, batched mazes; knee at {knee}"
        bar = "curve" if options.device == "cpu" else ("≥ 300k" if learn else "≥ 1M")
        extra = {"curve": {str(n): round(x) for n, x in curve.items()}}
        yield Row("f", name, best, curve[1], "steps/s, most ÷ N = 1", best / curve[1], 0, 0, bar, extra=extra)


def ants(options: Options) -> Iterator[Row]:
    """Batched ant mazes, stepping and collecting, relative to Gymnasium's two vector forms of the single maze."""
    env_id = "hrl/AntMaze-v0"
    torch.set_num_threads(preset("hiro", env_id, "auto")["threads"])
    forms = {name: gym.make_vec(env_id, 16, form) for name, form in FORMS.items()}
    sides = {name: rate(acting(env, 16, name == "batch"), options, 16) for name, env in forms.items()}
    with collector(env_id, 16, options) as collect:
        for peer in ("sync", "async"):
            result = paired(options, sides["batch"], sides[peer])
            yield Row("j", f"{env_id} ×16, batch ÷ {peer}", **result, unit="steps/s", bar="≥ 1.7 of the better")
            result = paired(options, collect, sides[peer])
            yield Row("j", f"{env_id} ×16, collecting ÷ {peer}", **result, unit="steps/s", bar="≥ 0.9 of the better")
    for env in forms.values():
        env.close()
    for count in (16, 64, 256):
        batch = gym.make_vec(env_id, count, FORMS["batch"])
        with collector(env_id, count, options) as collect:
            result = paired(options, collect, rate(acting(batch, count, True), options, count))
        batch.close()
        yield Row("j", f"collecting ÷ stepping, {env_id} ×{count}", **result, unit="steps/s", bar="≥ 0.9", floor="1.0")


@contextmanager
def collector(env_id: str, count: int, options: Options) -> Iterator[Callable[[], float]]:
    """A context with the rate of collecting on a CPU, with both levels acting and all buffers written."""
    env = make_env(EnvConfig(env_id, num_envs=count), "cpu")
    agent = built(tuned(env_id), env, replace(options, device="cpu"))
    yield rate(rolling(agent, env, learn=False), options, count)
    env.close()


def training(options: Options) -> Iterator[Row]:
    """Complete training commands on Ant Maze with its preset, relative to the rate of 5M steps in 90 minutes.

    The time includes startup, checkpoints and three evaluations of 50 episodes.
    """
    env_id, steps, required = "hrl/AntMaze-v0", 300_000, 5_000_000 / (90 * 60)
    arguments = ("hiro", "--env", env_id, "--total-steps", str(steps), "--device", options.device)
    rates = []
    for _ in range(options.repeats):
        with TemporaryDirectory() as folder:
            started = time.perf_counter()
            command("train.py", *arguments, "--progress", "False", "--log-dir", folder)
            rates.append(steps / (time.perf_counter() - started))
    ours = statistics.median(rates)
    ratios = [x / required for x in (ours, min(rates), max(rates))]
    yield Row("l", f"training and evaluating, {env_id} ÷ 5M steps in 90 min", ours, required, "steps/s", *ratios, "≥ 1")


def gpu_ants(options: Options) -> Iterator[Row]:
    """Ant mazes with the physics on the device, relative to a batch with MuJoCo's threads on the CPU."""
    env_id = "hrl/AntMaze-v0"
    many = gym.make_vec(env_id, 64, FORMS["batch"])
    theirs = rate(acting(many, 64, True), options, 64)
    counts = (256, 1024, 4096) if options.device == "cuda" else (64,)
    for (physics, name), count in product({"mjx": "MJX", "warp": "Warp"}.items(), counts):
        env = gym.make_vec(env_id, count, FORMS["batch"], physics=physics, device=options.device)
        result = paired(options, rate(acting(env, count, True), options, count), theirs)
        env.close()
        yield Row("k", f"{env_id}, {name} ×{count} ÷ MuJoCo ×64", **result, unit="steps/s", bar="> 1")
    many.close()


def acting(env: Any, count: int, tensors: bool) -> Callable[[], Any]:
    """A function that takes one step with random torques."""
    drawn = torch.rand(64, count, 8, generator=torch.Generator().manual_seed(0)) * 60 - 30
    env.reset(seed=0)
    actions = cycle(drawn if tensors else drawn.numpy())
    return lambda: env.step(next(actions))
