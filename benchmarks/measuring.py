"""How the speed table measures: rates side by side, and what the rows share."""

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
    """Measure and print."""

    rows: tuple[str, ...] = ("a", "b", "c", "d", "e", "f", "g", "i", "j", "l")
    """Rows of the table."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where our networks, replays and batched tasks live."""
    repeats: int = 5
    """Times each side of a ratio is measured."""
    seconds: float = 3.0
    """Least time of one measurement."""
    threads: int = 0
    """Threads torch uses on a CPU; 0 leaves it to torch."""
    out: Path = RESULTS
    """Folder of the file that results go to."""


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
    measure, execution = lambda: make_env(apart, device), pick_execution("auto", device)
    return config.make(Setting(env.spec, env.num_envs, device, 0, measure, execution=execution))


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
