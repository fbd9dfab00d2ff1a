"""Observations with a history of positions."""

import numpy as np
import pytest
import torch

from hrl.envs import EnvConfig, EnvError, make_env
from hrl.envs.make import make_single


def test_past_positions_are_appended_and_early_steps_repeat_the_first_one():
    env = make_single(EnvConfig("tasks:GoalLine-v0", position_history=(1, 3)))
    obs, _ = env.reset(seed=2)
    way = [obs["achieved_goal"][0]]
    assert obs["observation"][2:].tolist() == [way[0], way[0]]
    assert env.observation_space["observation"].shape == (4,) and env.observation_space.contains(obs)
    for step in range(1, 5):
        obs, *_ = env.step(np.array([0.01 * step], np.float32))
        way.append(obs["achieved_goal"][0])
        assert obs["observation"][2:].tolist() == [way[step - 1], way[max(step - 3, 0)]]
    obs, _ = env.reset(seed=3)
    assert (obs["observation"][2:] == obs["achieved_goal"]).all()


@pytest.mark.parametrize(
    ("env_id", "vectorization"),
    [("tasks:GoalLine-v0", "sync"), ("tasks:GoalLine-v0", "async"), ("hrl/AntPush-v0", "auto")],
)
def test_every_vector_form_keeps_a_history_per_environment(env_id, vectorization):
    kwargs = {"max_episode_steps": 6}
    env = make_env(EnvConfig(env_id, kwargs, 3, vectorization, 1, position_history=(2, 4)))
    plain = env.spec.state_dim - 2 * env.spec.goal_dim
    places = list(env.spec.achieved)
    now = lambda obs: obs.state[:, places]  # noqa: E731
    history = lambda obs: obs.state[:, plain:].unflatten(1, (2, -1))  # noqa: E731
    obs = env.reset(0)
    ways = [[place] for place in now(obs)]
    for _ in range(20):
        step = env.step(torch.full((3, env.spec.action_dim), 0.05))
        for i, way in enumerate(ways):
            way.append(now(step.final)[i])
            expected = torch.stack([way[max(len(way) - 1 - lag, 0)] for lag in (2, 4)])
            assert torch.equal(history(step.final)[i], expected)
            if step.terminated[i] or step.truncated[i]:
                way[:] = [now(step.obs)[i]]
                assert torch.equal(history(step.obs)[i], now(step.obs)[[i, i]])
            else:
                assert torch.equal(step.obs.state[i], step.final.state[i])
    env.close()


def test_the_wrapper_keeps_the_reward_of_the_batched_task():
    plain, wrapped = (make_env(EnvConfig("hrl/AntPush-v0", position_history=lags)).spec for lags in ((), (2,)))
    assert wrapped.reward_range == plain.reward_range and wrapped.achieved == plain.achieved
    assert not getattr(wrapped.task_reward, "requires_host", False)


@pytest.mark.parametrize(
    ("env_id", "lags", "sentence"),
    [
        ("tasks:Ledger-v0", (2,), "--position-history needs a goal environment"),
        ("hrl/FourRooms-v0", (2,), "--position-history needs a goal environment"),
        ("tasks:GoalLine-v0", (2, 0), "--position-history takes numbers of steps of at least 1"),
    ],
)
def test_an_invalid_position_history_raises(env_id, lags, sentence):
    with pytest.raises(EnvError, match=sentence):
        make_env(EnvConfig(env_id, position_history=lags))
    if not env_id.startswith("hrl/Four"):
        with pytest.raises(EnvError, match=sentence):
            make_single(EnvConfig(env_id, position_history=lags))
