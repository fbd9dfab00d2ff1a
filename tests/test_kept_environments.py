"""The environments of evaluations: kept between evaluations if that changes nothing, and paused once they are done."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import fresh, setting, small_hiro

from hrl.envs import EnvConfig, make_env
from hrl.envs.bridge import Bridge
from hrl.report.evaluation import evaluate
from hrl.run.kept import KeptEnvironments
from hrl.training.policy import HierarchyPolicy


def kept(env_id: str, made: list[Bridge], **kwargs: Any) -> KeptEnvironments:
    """Kept environments, and a list of all that were made."""

    def make(num_envs: int) -> Bridge:
        made.append(make_env(EnvConfig(env_id, kwargs, num_envs=num_envs), evaluation=True))
        return made[-1]

    return KeptEnvironments(make)


def policy(env_id: str, **kwargs: Any) -> HierarchyPolicy:
    return HierarchyPolicy(small_hiro().make(setting(make_env(EnvConfig(env_id, kwargs)))))


@pytest.mark.parametrize("env_id", ["GoalLine-v0", "hrl/PointMaze_UMaze-v0", "PointMaze_UMaze-v3", "FetchReach-v4"])
def test_kept_environments_give_the_same_episodes_as_new_ones(env_id: str):
    made: list[Bridge] = []
    environments, learned = kept(env_id, made), policy(env_id)
    first = evaluate(learned, environments, 4, num_envs=3, keep_paths=2, max_steps=12)
    second = evaluate(learned, environments, 4, num_envs=3, keep_paths=2, max_steps=12)
    new = evaluate(learned, fresh(env_id), 4, num_envs=3, keep_paths=2, max_steps=12)
    assert len(made) == 1
    assert first.summary() == second.summary() == new.summary()
    for a, b in zip(second.paths, new.paths, strict=True):
        assert np.array_equal(np.stack(a.places), np.stack(b.places))
    environments.close()


def test_environments_whose_episodes_depend_on_earlier_ones_are_not_kept():
    class Curriculum(gym.Env[np.ndarray, np.ndarray]):
        """Every episode begins further away than the one before."""

        def __init__(self) -> None:
            self.observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
            self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
            self.episodes = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.episodes, self.t = self.episodes + 1, 0
            return np.array([self.episodes], np.float32), {}

        def step(self, action: np.ndarray) -> Any:
            self.t += 1
            return np.array([self.episodes], np.float32), float(self.episodes), False, self.t == 2, {}

    gym.register("Curriculum-v0", Curriculum)
    try:
        made: list[Bridge] = []
        environments, learned = kept("Curriculum-v0", made), policy("Curriculum-v0")
        first, second = (evaluate(learned, environments, 2).summary() for _ in range(2))
        assert first == second and len(made) == 2
        environments.close()
    finally:
        del gym.registry["Curriculum-v0"]


def test_environments_with_state_that_outlasts_episodes_are_not_kept():
    made: list[Bridge] = []
    environments = kept("hrl/FourRooms-v0", made, moves_after=3)
    for _ in range(2):
        with environments(2) as env:
            env.reset(0)
    assert len(made) == 2 and made[0].lasting()


def test_environments_are_made_again_after_an_error_and_for_another_number():
    made: list[Bridge] = []
    environments = kept("GoalLine-v0", made)
    with pytest.raises(RuntimeError), environments(2):
        raise RuntimeError
    for number in (2, 2, 3):
        with environments(number) as env:
            assert env.num_envs == number
    assert [env.num_envs for env in made] == [2, 2, 3]
    environments.close()


def counted(make: Callable[[], Bridge]) -> tuple[Bridge, list[int]]:
    """The environments, and the steps that each of them took."""
    env, steps = make(), [0] * 3
    for i, single in enumerate(env.env.envs):  # type: ignore[attr-defined]
        inner = single.env.env
        step = inner.step

        def count(action: Any, i: int = i, step: Callable[[Any], Any] = step) -> Any:
            steps[i] += 1
            return step(action)

        inner.step = count
    return env, steps


def test_only_environments_with_an_episode_to_finish_are_stepped():
    """Ledger's episodes 0 to 3 have 3, 7, 5 and 1 steps: the first environment runs 0 and then 3."""
    env, steps = counted(lambda: make_env(EnvConfig("Ledger-v0", num_envs=3), evaluation=True))
    learned = policy("Ledger-v0")
    result = evaluate(learned, lambda _: nullcontext(env), 4, seed=100, num_envs=3)
    assert [e.length for e in result.episodes] == [3, 7, 5, 1]
    assert steps == [4, 7, 5]


def test_a_reset_ends_the_pause():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=2), evaluation=True)
    env.reset(0)
    env.pause(np.array([True, False]))
    before, step = env.reset(0).state.clone(), env.step(torch.ones(2, 1))
    assert step.active.tolist() == [True, True] and not torch.equal(step.final.state[0], before[0])
    env.pause(np.array([True, False]))
    paused = env.step(torch.ones(2, 1))
    assert paused.active.tolist() == [False, True]
    assert torch.equal(paused.final.state[0], step.final.state[0])
