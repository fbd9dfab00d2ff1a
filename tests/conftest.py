"""Helpers that the tests share: agents on the tiny tasks, and every transition of a ring."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tasks  # noqa: F401
from runs import stop_all, trained

from hrl.agents.hiro import High, HIROConfig, Low
from hrl.envs import EnvConfig, make_env
from hrl.envs.bridge import Bridge
from hrl.hierarchy.commands import Subgoal, Task
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace, Select
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.setting import Setting
from hrl.learners import SAC, TD3, Build, Learner, SACConfig, TD3Config
from hrl.memory.dataset import Dataset, read_dataset
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions, read_transitions
from hrl.report.evaluation import opened
from hrl.spaces import unit_box

torch.set_num_threads(1)
CPU = torch.device("cpu")


def no_run(path: Path) -> None:
    raise AssertionError(path)


read_line = partial(read_dataset, load_agent=no_run, device=CPU)
"""Read a dataset that is not the replay of a run."""


def setting(env: Bridge, seed: int = 0) -> Setting:
    """The setting that an agent is built for, with bounds measured in the same environment."""
    torch.manual_seed(seed)
    measure: Callable[[], Bridge] = lambda: make_env(EnvConfig(env.spec.env_id, num_envs=2))  # noqa: E731
    return Setting(env.spec, env.num_envs, CPU, seed, measure)


def made(
    kind: type[Learner], inputs: int, actions: int, value_range: Any = None, count: int = 1, **options: Any
) -> Any:
    """A learner that decides on vectors, with the given number of tasks and those of the options that it has."""
    config = {TD3: TD3Config, SAC: SACConfig}[kind]
    known = {name: x for name, x in options.items() if name in config.__dataclass_fields__}
    return kind(Build(inputs, unit_box(actions), tasks=count, value_range=value_range), config(**known))


def small_hiro(period: int = 3, **high: object) -> HIROConfig:
    """A HIRO with few units that acts without exploration and does not learn by itself."""
    return HIROConfig(
        low=Low.of(
            hidden=(8,),
            action_noise=(0.0,),
            random_actions=(0.0, 0.0),
            buffer_size=4000,
            batch_size=32,
            train_freq=10**9,
            reward="distance",
            hindsight=0.0,
        ),
        high=High.of(
            **{
                "hidden": (8,),
                "action_noise": (0.0,),
                "random_actions": (0.0, 0.0),
                "buffer_size": 4000,
                "batch_size": 32,
                "train_freq": 10**9,
                "period": period,
                "gamma": 0.9,
                "reward_scale": 1.0,
                "reward_offset": 0.0,
                "hindsight": 0.0,
                "hindsight_actions": 0.0,
                "correction": True,
                **high,
            }
        ),  # type: ignore[arg-type]
        goal=GoalConfig(low=(-1.0,), high=(1.0,)),
        learning_starts=0,
    )


def stack(env: Bridge, testing: float = 0.0, early: bool = False, noise: float = 0.0, **options: Any) -> Hierarchy:
    """Three levels on the ledger, with periods 1, 2 and 4."""
    one = torch.ones(2)
    space = GoalSpace(Select(torch.arange(2)), -one, one, relative=True, threshold=50.0 if early else 0.1)
    given = {"hidden": (8,), "action_noise": (noise,), "gamma": 0.9, "buffer_size": 1000, **options}
    config, where = LevelConfig.of(**given), setting(env)
    near, far, task = Subgoal(space, "sparse", ends_early=early), Subgoal(space, "distance", ends_early=early), Task(0)
    counters = ("first", "below", "tested")
    memories = [
        make_memory(config, near, env.spec.actions, where),
        make_memory(config, far, near.space, where, 2, counters),
        make_memory(config, task, far.space, where, 4, counters),
    ]
    upper: dict[str, Any] = {"steps": memories[0], "testing": testing}
    low = Level("low", config, near, env.spec.actions, memories[0], where)
    middle = Level("middle", config, far, near.space, memories[1], where, 2, issues=near, **upper)
    high = Level("high", config, task, far.space, memories[2], where, 4, issues=far, **upper)
    return Hierarchy([low, middle, high], where)


def fresh(env_id: str, **kwargs: Any) -> Callable[[int], AbstractContextManager[Bridge]]:
    """New environments for each evaluation."""
    return lambda n: opened(make_env(EnvConfig(env_id, kwargs, num_envs=n), evaluation=True))  # type: ignore[return-value]


def roll(agent: Hierarchy, env: Bridge, steps: int, seed: int = 0) -> None:
    """Act and observe."""
    obs = env.reset(seed)
    for _ in range(steps):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs


def all_rows(replay: Replay) -> Rows:
    """Every transition that a ring holds."""
    places = [
        (env, row)
        for env in range(replay.num_envs)
        for row in range(max(0, int(replay.cursor[env]) - replay.length + 2), int(replay.cursor[env]))
    ]
    env, row = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
    rows = Rows(env, row)
    keep = ~replay.is_final(rows)
    return Rows(env[keep], row[keep])


def everything(agent: Hierarchy, level: int) -> Transitions:
    """Every transition of a level, as stored."""
    chosen = agent.levels[level]
    return read_transitions(chosen.memory, all_rows(chosen.memory), chosen.command.extrinsic)


@pytest.fixture
def ledger() -> Callable[..., tuple[Hierarchy, Bridge]]:
    """A small HIRO and Ledger environments."""

    def make(num_envs: int = 3, period: int = 3, **high: object) -> tuple[Hierarchy, Bridge]:
        env = make_env(EnvConfig("Ledger-v0", num_envs=num_envs))
        return small_hiro(period, **high).make(setting(env)), env

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 1,000 steps with checkpoints at 500 and 1,000."""
    return trained(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def two() -> Dataset:
    """Two trajectories, of rows 0 to 4 and 5 to 9."""
    ends = [i in (4, 9) for i in range(10)]
    return Dataset.of(np.arange(20).reshape(10, 2), np.zeros((10, 1)), ends, CPU)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Stop whatever a test started when it ends, even if it fails."""
    yield
    stop_all()
