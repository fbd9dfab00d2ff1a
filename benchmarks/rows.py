"""Rows of the speed table about learning: updates, training loop, levels and memory."""

import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import torch
from measuring import EPISODIC, Noise, Options, Row, built, paired, rate, rolling, sb3, tuned
from stable_baselines3 import TD3, HerReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from hrl.agents.flat import FlatConfig, FlatTD3
from hrl.agents.hiro import HIROConfig
from hrl.envs import EnvConfig, make_env
from hrl.run.config import updated


def updates(options: Options, row: str, config: type[FlatConfig], peer: type[OffPolicyAlgorithm]) -> Iterator[Row]:
    """Gradient updates per second including sampling, from full replays in rounds of 16."""
    for hidden, batch in ((300, 128), (256, 256)):
        env = make_env(EnvConfig("Noise-v0", num_envs=8), options.device)
        agent = built(
            config.of(hidden=(hidden, hidden), batch_size=batch, buffer_size=20_000, learning_rate=1e-3), env, options
        )
        collect = rolling(agent, env, learn=False)
        for _ in range(2000):
            collect()
        (level,) = agent.levels
        model = sb3(
            peer, Noise(), options.device, batch_size=batch, learning_rate=1e-3, buffer_size=20_000,
            policy_kwargs={"net_arch": [hidden, hidden]},
        )  # fmt: skip
        model.learn(1, reset_num_timesteps=False)
        rng = np.random.default_rng(0)
        for _ in range(16_000):
            obs = rng.standard_normal((2, 1, 35), np.float32)
            model.replay_buffer.add(
                obs[0], obs[1], rng.uniform(-1, 1, (1, 8)), rng.standard_normal(1), np.zeros(1), [{}]
            )
        sides = paired(
            options,
            rate(lambda level=level, agent=agent: level.learning.update(16, 0.0, agent.generator), options, 16),
            rate(lambda model=model, batch=batch: model.train(gradient_steps=16, batch_size=batch), options, 16),
        )
        flops = update_flops(35, 8, hidden, batch, stochastic=row == "b")
        yield Row(
            row, f"{config.__name__.removeprefix('Flat')} updates, {hidden}², batch {batch}", **sides,
            unit="updates/s", bar={"a": "≥ 1.3", "b": "≥ 1.5"}[row] if options.device == "cpu" else "≥ 10",
            floor=f"{peak_flops(options.device) / flops:,.0f} by arithmetic",
        )  # fmt: skip


def update_flops(obs: int, act: int, hidden: int, batch: int, stochastic: bool) -> float:
    """Multiplications and additions of one update, averaged over TD3's delay of two."""
    critic = 2 * ((obs + act) * hidden + hidden * hidden + hidden)
    actor = obs * hidden + hidden * hidden + hidden * act * (2 if stochastic else 1)
    step = actor + critic + 3 * critic  # target, then forward and backward of both twins
    step += (3 * actor + 2 * critic) if stochastic else (3 * actor + critic) / 2
    return 2.0 * batch * step


def peak_flops(device: str) -> float:
    """Floating-point operations per second, measured with a large matrix product."""
    a = torch.randn(2048, 2048, device=device)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(4):
            a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * 2048**3 / (time.perf_counter() - started))
    return best


def full_loop(options: Options) -> Iterator[Row]:
    """The whole training loop with usual settings: ours with its preset, TD3 + HER with one update per step."""
    env_id = "PointMaze_Large-v3"
    env = make_env(EnvConfig(env_id, EPISODIC, num_envs=32), options.device)
    agent = built(tuned(env_id), env, options)
    step = rolling(agent, env, learn=True)
    while agent.steps < 4000:
        step()
    single = gym.make(env_id, **EPISODIC)
    model = sb3(
        TD3, single, options.device, replay_buffer_class=HerReplayBuffer, learning_starts=1000, batch_size=256,
        policy_kwargs={"net_arch": [256, 256]}, buffer_size=100_000,
    )  # fmt: skip
    model.learn(1200)
    sides = paired(
        options,
        rate(step, options, 32),
        rate(lambda: model.learn(50, reset_num_timesteps=False), options, 50),
    )
    bar = "≥ 10" if options.device == "cpu" else "≥ 100 (batched maze)"
    yield Row("d", "training, HIRO preset ÷ SB3 TD3 + HER, PointMaze_Large-v3", **sides, unit="steps/s", bar=bar)


def levels(options: Options) -> Iterator[Row]:
    """Two levels relative to one with equal learner, networks and number of updates, with and without relabelling."""
    env_id = "hrl/PointMaze_Large-v0"
    shared = {"hidden": [128, 128], "batch_size": 256, "tau": 0.02}
    for relabelled in (False, True):
        share = 0.8 if relabelled else 0.0
        two = tuned(
            env_id,
            low={**shared, "train_freq": 32, "hindsight": share, "reward": "sparse"},
            high={**shared, "train_freq": 32, "hindsight": share, "correction": False, "hindsight_actions": 0.0},
        )
        one = updated(FlatTD3(), {**shared, "train_freq": 16, "hindsight": share}, "one level")
        sides = []
        for config in (two, one):
            env = make_env(EnvConfig(env_id, EPISODIC, num_envs=32), options.device)
            step = rolling(built(config, env, options), env, learn=True)
            for _ in range(400):
                step()
            sides.append(rate(step, options, 32))
        result = paired(options, sides[1], sides[0])  # a ratio of times: the rate of one level over that of two
        name = f"time a step, two levels ÷ one, {'with' if relabelled else 'without'} relabelling"
        result["ours"], result["peer"] = result["peer"], result["ours"]
        yield Row("e", name, **result, unit="steps/s", bar="≤ 1.3")


def memory(options: Options) -> Iterator[Row]:
    """Bytes per stored transition relative to the minimum: its own entries, stored once, and its episode."""
    env = make_env(EnvConfig("AntMaze_UMaze-v4", EPISODIC, num_envs=8), "cpu")
    agent = built(HIROConfig(), env, Options())
    flat = built(FlatTD3(), env, Options())
    state, goal, action, episode = env.spec.state_dim, env.spec.goal_dim, env.spec.action_dim, 4
    held = {
        "low": (agent.levels[0], 4 * (state + 2 + action) + episode),
        "high": (agent.levels[1], 4 * (state + goal + 2 + 1) + 4 + episode),
        "flat": (flat.levels[0], 4 * (state + goal + action + 1) + episode),
    }
    for name, (level, least) in held.items():
        ours = level.memory.row_bytes
        yield Row("g", f"bytes a transition ÷ least, {name}", ours, least, "bytes", ours / least, 0, 0, "≤ 1.1", "1.0")
