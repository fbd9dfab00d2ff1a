"""Measurements of the speed table: paired rates, and shared functions of the rows."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from running import RESULTS
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from hrl.agents.hiro import HIROConfig
from hrl.agents.presets import preset
from hrl.envs import Bridge, EnvConfig, make_env
from hrl.execution.modes import pick_execution
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.setting import Setting
from hrl.run.config import updated

EPISODIC = {"continuing_task": False}


@dataclass
class Options:
    """Measure, and print the table."""

    rows: tuple[str, ...] = ("a", "b", "c", "d", "e", "f", "g", "i", "j", "l", "m", "n", "floor")
    """Rows of the table."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of our networks, replays and batched tasks."""
    repeats: int = 5
    """Number of measurements of each side of a ratio."""
    seconds: float = 3.0
    """Minimum duration of one measurement."""
    threads: int = 0
    """Number of torch's CPU threads; 0 for torch's default."""
    clock: Literal["wall", "cpu"] = "wall"
    """wall: elapsed seconds. cpu: seconds of this process's own computing, for a machine with other work; the time of
    worker processes does not count."""
    out: Path = RESULTS
    """Folder of the results file."""


@dataclass
class Row:
    """One line of the table: the values of both sides, and the median and range of their ratio."""

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
    """Measure A B A B …: medians of both rates, and median and range of their ratios."""
    ours(), peer()  # warm
    pairs = [(ours(), peer()) for _ in range(options.repeats)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"ours": a, "peer": b, "ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}


def rate(function: Callable[[], Any], options: Options, per_call: float = 1.0) -> Callable[[], float]:
    """A function that measures calls per second, times `per_call`."""

    def measure() -> float:
        now = time.perf_counter if options.clock == "wall" else time.process_time
        calls, started = 0, now()
        while now() - started < options.seconds:
            for _ in range(4):
                function()
            calls += 4
        if options.device == "cuda":
            torch.cuda.synchronize()
        return calls * per_call / (now() - started)

    return measure


# -- measured objects ----------------------------------------------------------------------------------------


class Noise(gym.Env[np.ndarray, np.ndarray]):
    """An environment of random observations of a given size, for measuring a learner's speed."""

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
    apart = EnvConfig(env.spec.env_id, EPISODIC, 8)  # for measured goal bounds
    measure, execution = lambda: make_env(apart, device), pick_execution("auto", device)
    return config.make(Setting(env.spec, env.num_envs, device, 0, measure, execution=execution))


def rolling(agent: Hierarchy, env: Bridge, learn: bool) -> Callable[[], None]:
    """A function that takes one step in every environment, as the training loop does."""
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
    """HIRO with its preset and these changes."""
    values = {k: v for k, v in preset("hiro", env_id, "auto").items() if k in HIROConfig.__dataclass_fields__}
    return updated(HIROConfig(), {**values, **changes}, "preset")


def sb3(algorithm: type[OffPolicyAlgorithm], env: Any, device: str, **kwargs: Any) -> OffPolicyAlgorithm:
    """A stable-baselines3 model without logging."""
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
    model = algorithm(policy, env, device=device, **kwargs)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model
