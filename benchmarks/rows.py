"""What the speed table measures: a function a row, and what they share."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC, TD3, HerReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from hrl.agents.base import Setting
from hrl.agents.flat import FlatConfig, FlatSAC, FlatTD3
from hrl.agents.hiro import HIROConfig
from hrl.agents.presets import preset
from hrl.envs import Bridge, EnvConfig, make_env
from hrl.execution import pick_execution
from hrl.hierarchy import Hierarchy
from hrl.training.config import updated

EPISODIC = {"continuing_task": False}


@dataclass
class Options:
    """Measure and print."""

    rows: tuple[str, ...] = ("a", "b", "c", "d", "e", "f", "g", "i")
    """Rows of the table."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where our networks, replays and batched tasks live."""
    repeats: int = 5
    """Times each side of a ratio is measured."""
    seconds: float = 3.0
    """Least time of one measurement."""
    threads: int = 0
    """Threads torch uses on a CPU; 0 leaves it to torch."""


@dataclass
class Row:
    """One line of the table. `sides` are rates (calls of a function give one each), or ready figures."""

    row: str
    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    least: float
    most: float
    bar: str = ""
    floor: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def paired(options: Options, ours: Callable[[], float], peer: Callable[[], float]) -> dict[str, float]:
    """A B A B: medians of both rates, and median and range of their ratios."""
    ours(), peer()  # warm
    pairs = [(ours(), peer()) for _ in range(options.repeats)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"ours": a, "peer": b, "ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}


def rate(function: Callable[[], Any], options: Options, per_call: float = 1.0) -> Callable[[], float]:
    """Calls a second, times what a call counts for."""

    def measure() -> float:
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < options.seconds:
            for _ in range(4):
                function()
            calls += 4
        if options.device == "cuda":
            torch.cuda.synchronize()
        return calls * per_call / (time.perf_counter() - started)

    return measure


# -- what is measured ----------------------------------------------------------------------------------------


class Noise(gym.Env[np.ndarray, np.ndarray]):
    """Random observations of a given size: what a learner's speed is measured on."""

    def __init__(self, observation: int = 35, action: int = 8) -> None:
        self.observation_space = gym.spaces.Box(-10, 10, (observation,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (action,), np.float32)

    def reset(self, **_: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return self.np_random.standard_normal(self.observation_space.shape, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs = self.np_random.standard_normal(self.observation_space.shape, np.float32)
        return obs, float(obs[0]), bool(obs[1] > 3), False, {}


gym.register("Noise-v0", Noise, max_episode_steps=200)


def built(config: Any, env: Bridge, options: Options) -> Hierarchy:
    """An agent for these environments, on the device."""
    device = torch.device(options.device)
    apart = EnvConfig(env.spec.env_id, EPISODIC, 8)  # goal bounds that are not given are measured in it
    agent = config.build(Setting(env.spec, env.num_envs, device, 0, lambda: make_env(apart, device)))
    agent.execute(pick_execution("auto", device))
    return agent


def rolling(agent: Hierarchy, env: Bridge, learn: bool) -> Callable[[], None]:
    """One step of every environment, as the training loop does it."""
    obs = env.reset(0)

    def step() -> None:
        nonlocal obs
        env.send(agent.act(obs))
        if learn:
            agent.learn(0.0)
        seen = env.receive()
        agent.observe(seen)
        obs = seen.obs

    return step


def tuned(env_id: str, **changes: Any) -> HIROConfig:
    """HIRO by its preset."""
    values = {k: v for k, v in preset("hiro", env_id, "auto").items() if k in HIROConfig.__dataclass_fields__}
    return updated(HIROConfig(), {**values, **changes}, "preset")


def sb3(algorithm: type[OffPolicyAlgorithm], env: Any, device: str, **kwargs: Any) -> OffPolicyAlgorithm:
    """A model of stable-baselines3 that logs nothing."""
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
    model = algorithm(policy, env, device=device, **kwargs)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


# -- rows ----------------------------------------------------------------------------------------------------


def updates(options: Options, row: str, config: type[FlatConfig], peer: type[OffPolicyAlgorithm]) -> Iterator[Row]:
    """Gradient updates a second, sampling included, from full replays; rounds of 16."""
    for hidden, batch in ((300, 128), (256, 256)):
        env = make_env(EnvConfig("Noise-v0", num_envs=8), options.device)
        agent = built(config(hidden=(hidden, hidden), batch_size=batch, replay=20_000, lr=1e-3), env, options)
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
            rate(lambda level=level, agent=agent: level.update(16, 0.0, agent.generator), options, 16),
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
    """Measured: a large matrix product."""
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


def collecting(options: Options) -> Iterator[Row]:
    """Both levels act and all buffers are written, over bare stepping with random actions."""
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


def full_loop(options: Options) -> Iterator[Row]:
    """The whole training loop, each at its own usual setting: ours by its preset, TD3 + HER at one update a step."""
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


def overlap(options: Options) -> Iterator[Row]:
    """Training where the environments step in worker processes while the levels learn, over one after the other."""
    env_id = "AntMaze_UMaze-v4"
    sides = []
    for workers in (1, 2, 0):
        config = EnvConfig(env_id, EPISODIC, 16, "async" if workers else "sync", workers)
        env = make_env(config, options.device)
        agent = built(updated(HIROConfig(), {"low": {"every": 4}, "high": {"every": 40}}, "overlap"), env, options)
        step = rolling(agent, env, learn=True)
        while agent.steps < 3200:
            step()
        sides.append(rate(step, options, 16))
    for workers, ours in ((1, sides[0]), (2, sides[1])):
        name = f"training, {env_id} ×16, {workers} worker{'s' * (workers > 1)} beside learning ÷ none"
        yield Row("i", name, **paired(options, ours, sides[2]), unit="steps/s", bar="> 1")


def levels(options: Options) -> Iterator[Row]:
    """Two levels over one of the same learner, nets and number of updates; with and without relabelling."""
    env_id = "hrl/PointMaze_Large-v0"
    shared = {"hidden": [128, 128], "batch_size": 256, "tau": 0.02}
    for relabelled in (False, True):
        share = 0.8 if relabelled else 0.0
        two = tuned(
            env_id,
            low={**shared, "every": 32, "hindsight": share, "reward": "sparse"},
            high={**shared, "every": 32, "hindsight": share, "correction": False, "hindsight_actions": 0.0},
        )
        one = updated(FlatTD3(), {**shared, "every": 16, "hindsight": share}, "one level")
        sides = []
        for config in (two, one):
            env = make_env(EnvConfig(env_id, EPISODIC, num_envs=32), options.device)
            step = rolling(built(config, env, options), env, learn=True)
            for _ in range(400):
                step()
            sides.append(rate(step, options, 32))
        result = paired(options, sides[1], sides[0])  # times: the rate of one level over that of two
        name = f"time a step, two levels ÷ one, {'with' if relabelled else 'without'} relabelling"
        result["ours"], result["peer"] = result["peer"], result["ours"]
        yield Row("e", name, **result, unit="steps/s", bar="≤ 1.3")


def throughput(options: Options) -> Iterator[Row]:
    """Steps a second over the number of batched mazes, with and without learning."""
    for learn in (False, True):
        curve = {}
        for count in (1, 4, 16, 64, 256, 1024, 4096, 16384):
            env = make_env(EnvConfig("hrl/PointMaze_Large-v0", EPISODIC, num_envs=count), options.device)
            # One update of each level in 16 vector steps, whatever the number of environments.
            every = {"every": 16 * count, "replay": max(200_000, 64 * count)}
            config = tuned("PointMaze_Large-v3")
            config = updated(config, {"low": every, "high": every, "starts": 40 * count}, "throughput")
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


def memory(options: Options) -> Iterator[Row]:
    """Bytes a stored transition over the least for what it holds: its own entries, once, and its bookkeeping."""
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
        ours = level.replay.row_bytes
        yield Row("g", f"bytes a transition ÷ least, {name}", ours, least, "bytes", ours / least, 0, 0, "≤ 1.1", "1.0")


ROWS: dict[str, Callable[[Options], Iterator[Row]]] = {
    "a": lambda o: updates(o, "a", FlatTD3, TD3),
    "b": lambda o: updates(o, "b", FlatSAC, SAC),
    "c": collecting,
    "d": full_loop,
    "e": levels,
    "f": throughput,
    "g": memory,
    "i": overlap,
}
