"""What the tests share: agents on the tiny tasks, and every transition of a ring."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tasks  # noqa: F401
from runs import stop_all, trained

from hrl.agents.base import Setting
from hrl.agents.hiro import High, HIROConfig, Low
from hrl.envs import EnvConfig, make_env
from hrl.envs.bridge import Bridge
from hrl.goals import GoalConfig
from hrl.hierarchy import Hierarchy
from hrl.replay.ring import Replay, Rows
from hrl.replay.transitions import Transitions, sample_transitions

torch.set_num_threads(1)
CPU = torch.device("cpu")


def setting(env: Bridge, seed: int = 0) -> Setting:
    """What an agent is built for, with measured bounds from the same environment."""
    torch.manual_seed(seed)
    measure: Callable[[], Bridge] = lambda: make_env(EnvConfig(env.spec.env_id, num_envs=2))  # noqa: E731
    return Setting(env.spec, env.num_envs, CPU, seed, measure)


def small_hiro(period: int = 3, **high: object) -> HIROConfig:
    """A HIRO of few units that acts without exploration and does not learn by itself."""
    return HIROConfig(
        low=Low(hidden=(8,), noise=(0.0,), random=(0.0, 0.0), replay=4000, batch_size=32, every=10**9,
                reward="distance", hindsight=0.0),
        high=High(**{"hidden": (8,), "noise": (0.0,), "random": (0.0, 0.0), "replay": 4000, "batch_size": 32,
                     "every": 10**9, "period": period, "gamma": 0.9, "reward_scale": 1.0, "reward_offset": 0.0,
                     "hindsight": 0.0, "hindsight_actions": 0.0, "correction": True, **high}),  # type: ignore[arg-type]
        goal=GoalConfig(low=(-1.0,), high=(1.0,)),
        starts=0,
    )  # fmt: skip


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
    return sample_transitions(chosen.replay, all_rows(chosen.replay), chosen.command.extrinsic)


@pytest.fixture
def ledger() -> Callable[..., tuple[Hierarchy, Bridge]]:
    """A small HIRO and Ledger environments."""

    def make(num_envs: int = 3, period: int = 3, **high: object) -> tuple[Hierarchy, Bridge]:
        env = make_env(EnvConfig("Ledger-v0", num_envs=num_envs))
        return small_hiro(period, **high).build(setting(env)), env

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 1,000 steps with checkpoints at 500 and 1,000."""
    return trained(tmp_path_factory.mktemp("finished"))


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """What a test started ends with it, even where it fails."""
    yield
    stop_all()
