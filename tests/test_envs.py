"""The bridge: any Gymnasium environment as batched tensors."""

import ast
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tasks import Ledger

from hrl.envs import EnvConfig, EnvError, EnvironmentFault, make_env
from hrl.envs.goals import find_achieved, ignored_goals, is_goal_space
from hrl.envs.make import make_single
from hrl.envs.spaces.flatten import flat_dim, flatten_batch
from hrl.envs.wrappers.repeat import ActionRepeat
from hrl.envs.wrappers.workers import WorkerEnv


def test_dictionaries_numbers_and_vectors_are_flattened():
    env = make_env(EnvConfig("Mixed-v0", num_envs=2))
    state = env.reset(0).state
    assert state.shape == (2, 3 + 4 + 2 + 3) == (2, env.spec.state_dim) and flat_dim(env.spec.observation_space) == 12
    # a = 2 of {1, 2, 3}; b row by row; c = (1 of 2, 2 of 3).
    expected = [0, 1, 0, 0.1, 0.2, 0.3, 0.4, 0, 1, 0, 0, 1]
    assert state[0].tolist() == pytest.approx(expected)
    assert env.spec.state_low.tolist() == [0.0] * 12 and env.spec.state_high.tolist() == [1.0] * 12


def test_observations_are_copies():
    env = make_env(EnvConfig("Ledger-v0", num_envs=1))
    first = env.reset(1).state
    env.step(torch.zeros(1, 1))
    assert first.tolist() == [[1, 0]]


def test_actions_are_scaled_to_bounds_and_to_the_limit_where_there_are_none():
    env = make_env(EnvConfig("Ledger-v0", num_envs=3))
    assert env.to_action(np.array([[-1.0], [0.0], [1.0]])).tolist() == [[-2.0], [1.0], [4.0]]
    unbounded = make_env(EnvConfig("Mixed-v0", num_envs=1, action_limit=5.0))
    assert unbounded.to_action(np.array([[-1.0, 0.5]])).tolist() == [[[-5.0], [2.5]]]
    unbounded.reset(0)
    assert unbounded.step(torch.tensor([[1.0, 0.5]])).reward.tolist() == [7.5]


def test_a_fraction_of_the_action_range_is_used_around_its_midpoint():
    third = EnvConfig("Ledger-v0", num_envs=3, action_scale=1 / 3)
    assert make_env(third).to_action(np.array([[-1.0], [0.5], [7.0]])).tolist() == [[0.0], [1.5], [2.0]]
    assert make_single(third).action_space == gym.spaces.Box(0.0, 2.0, (1,))
    ants = make_env(EnvConfig("hrl/AntMaze-v0", num_envs=1, action_scale=0.5))
    ants.reset(0)
    ants.step(torch.full((1, 8), 2.0))
    assert (ants.env.physics._control == 15).all()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_success_and_the_true_final_observation_come_from_the_step_that_ended_the_episode(vectorization):
    env = make_env(EnvConfig("tasks:Ledger-v0", num_envs=2, vectorization=vectorization))
    env.reset(0)  # episodes of 3 and of 7 steps
    for t in range(1, 8):
        step = env.step(torch.zeros(2, 1))
        assert step.active.all() and step.taken == 2
        assert step.final.state[1].tolist() == [1, t]
        assert step.success.tolist()[1] == (t == 7) and step.terminated.tolist()[1] == (t == 7)
        assert step.truncated.tolist()[0] == (t == 3)
        if t == 3:
            assert step.final.state[0].tolist() == [0, 3] and step.obs.state[0].tolist() == [1, 0]
    env.close()


def test_a_next_step_reset_is_no_step():
    env = make_env(EnvConfig("Ledger-v0", num_envs=1), autoreset=AutoresetMode.NEXT_STEP)
    env.reset(0)
    steps = [env.step(torch.zeros(1, 1)) for _ in range(5)]
    assert [bool(s.active) for s in steps] == [True, True, True, False, True]
    assert [s.taken for s in steps] == [1, 1, 1, 0, 1]
    assert steps[3].obs.state.tolist() == [[1, 0]]


def test_episodes_can_be_given_their_seeds():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2), evaluation=True)
    obs = env.reset(10)
    assert obs.state[:, 0].tolist() == [10, 11]
    starts = []
    for _ in range(7):
        step = env.step(torch.zeros(2, 1))
        starts += step.obs.state[step.obs.state[:, 1] == 0][:, 0].tolist()
    assert starts == [12, 13, 14]


def test_the_achieved_goal_is_found_in_the_observation_or_added_to_it():
    inside = make_env(EnvConfig("GoalLine-v0"))
    assert inside.spec.achieved == (1,) and inside.spec.state_dim == 2
    apart = make_env(EnvConfig("GoalLine-v0", {"apart": True}))
    assert apart.spec.achieved == (2,) and apart.spec.state_dim == 3
    obs = apart.reset(3)
    assert obs.state[0, 2] == pytest.approx(float(obs.state[0, 1]) / 2) and obs.goal.shape == (1, 1)


def test_an_ambiguous_or_constant_achieved_goal_is_not_guessed():
    moving, still = np.arange(6.0)[:, None], np.zeros((6, 1))
    assert find_achieved(np.hstack([still, moving]), moving) == (1,)
    assert find_achieved(np.hstack([moving, moving]), moving) is None
    assert find_achieved(np.hstack([still, moving]), still) is None


NUMBER, PIXELS = [0.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 2 + [200.0] + [0.0] * 69
"""The place 2 of `GoalSeen`, as a number and as an image."""


@pytest.mark.parametrize(("form", "state"), [
    ("number", [*NUMBER, 1.0]), ("image", [1.0, *PIXELS]), ("both", [*NUMBER, 1.0, *PIXELS]),
    ("beside", [*NUMBER, 1.0, *PIXELS]), ("unnamed", [*NUMBER, 1.0, *PIXELS]),
])  # fmt: skip
def test_a_goal_environment_may_observe_numbers_and_images(form, state):
    env = make_env(EnvConfig("GoalSeen-v0", {"form": form}, num_envs=2))
    env.reset(0)
    obs = env.step(torch.tensor([1, 0])).final
    assert obs.state[0].tolist() == state and env.spec.state_dim == len(state)
    assert obs.state[:, list(env.spec.achieved)].tolist() == [[1.0], [0.5]]
    assert env.spec.images == (() if form == "number" else ((1, 8, 9),))
    raw = env.raw(obs)
    assert raw["achieved_goal"].tolist() == [[1.0], [0.5]] and raw["desired_goal"].tolist() == obs.goal.tolist()
    named = raw if form == "unnamed" else raw["observation"]
    seen = named["number"] if form in ("both", "unnamed") else named
    assert seen.shape == (2, 8, 9, 1) if form == "image" else seen.tolist() == [2, 1]


@pytest.mark.parametrize("form", ["number", "image", "both", "beside", "unnamed"])
def test_other_libraries_see_goal_environments_as_vectors(form):
    env = make_single(EnvConfig("GoalSeen-v0", {"form": form}))
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs) and obs["achieved_goal"].tolist() == [0.5]
    assert obs["observation"].shape == {"number": (5,), "image": (72,)}.get(form, (77,))


@pytest.mark.parametrize(
    "goals",
    [[spaces.Box(0, 255, (8, 8, 1), np.uint8)] * 2, [spaces.Discrete(3)] * 2, [spaces.MultiBinary(n) for n in (2, 3)]],
)
def test_only_vectors_of_the_same_shape_are_goals(goals):
    space = spaces.Dict(observation=spaces.Discrete(3), achieved_goal=goals[0], desired_goal=goals[1])
    assert not is_goal_space(space)
    assert f"only vectors can be goals: achieved_goal is {goals[0]} and desired" in ignored_goals(space)
    assert not ignored_goals(space["observation"]) and not ignored_goals(spaces.Dict(desired_goal=goals[0]))


def test_the_task_reward_is_that_of_the_environment_and_marks_the_end_of_episodes():
    spec = make_env(EnvConfig("GoalLine-v0")).spec
    reward, ends = spec.task_reward(torch.tensor([[0.0], [0.0]]), torch.tensor([[0.2], [0.3]]))
    assert reward.tolist() == [1, 0] and ends.tolist() == [True, False] and spec.reward_range == (0, 1)
    maze = make_env(EnvConfig("PointMaze_UMaze-v3", {"continuing_task": True})).spec
    reward, ends = maze.task_reward(torch.zeros(2, 2), torch.tensor([[0.4, 0.0], [0.5, 0.0]]))
    assert reward.tolist() == [1, 0] and not ends.any() and maze.achieved == (0, 1)
    dense = make_env(EnvConfig("PointMaze_UMazeDense-v3", {"continuing_task": False})).spec
    assert dense.reward_range is None
    assert float(dense.task_reward(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]))[0]) == pytest.approx(np.exp(-2))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"fault": "raise"}, "Environment 0 of Ledger-v0 raised RuntimeError in step() at its step 4: the simulator"),
        ({"fault": "nan"}, "Environment 0 of Ledger-v0 returned an observation that is NaN or infinite"),
        ({"fault": "inf"}, "Environment 0 of Ledger-v0 returned a reward that is NaN or infinite"),
    ],
)  # fmt: skip
def test_faults_name_the_environment_and_the_step(kwargs, words):
    env = make_env(EnvConfig("Ledger-v0", {"fail_at": 4, **kwargs}, num_envs=2))
    env.reset(1)
    for _ in range(3):
        env.step(torch.zeros(2, 1))
    with pytest.raises(EnvironmentFault, match="^" + re.escape(words)):
        env.step(torch.zeros(2, 1))


def test_invalid_environments_raise_a_clear_error():
    for config, words in (
        (EnvConfig("PointMaze_Umaze-v3"), "Did you mean PointMaze_UMaze-v3"),
        (EnvConfig("no_such_module:X-v0"), "no_such_module"),
        (EnvConfig("Ledger-v0", frame_stack=4), "stacks images"),
        (EnvConfig("Ledger-v0", {"colour": 1}), "colour"),
        (EnvConfig("Ledger-v0", num_envs=0), "at least 1"),
        (EnvConfig("Ledger-v0", action_repeat=0), "--action-repeat must be at least 1, not 0"),
    ):
        with pytest.raises(EnvError, match=words):
            make_env(config)


def test_a_repeated_action_adds_up_rewards_until_the_episode_ends():
    env = make_env(EnvConfig("Ledger-v0", action_repeat=3))
    env.reset(1)  # episode 1 has seven steps, with rewards 1 to 7, and ends with success
    steps = [env.step(torch.zeros(1, 1)) for _ in range(3)]
    assert [float(s.reward) for s in steps] == [1 + 2 + 3, 4 + 5 + 6, 7]
    assert [bool(s.terminated) for s in steps] == [False, False, True] == [bool(s.success) for s in steps]
    assert steps[-1].final.state.tolist() == [[1, 7]]


def test_a_repeated_action_in_a_goal_environment_gives_the_last_reward():
    env = make_env(EnvConfig("GoalLine-v0", action_repeat=2))
    start, goal = env.reset(3).state[0, 1], env.reset(3).goal[0, 0]
    step = env.step(torch.tensor([[0.5]]))
    assert step.final.state[0].tolist() == pytest.approx([0.2, float(start) + 2 * 0.25])
    assert float(step.reward) == float(abs(step.final.state[0, 1] - goal) <= 0.25)
    dense = make_env(EnvConfig("PointMaze_UMazeDense-v3", {"continuing_task": False}, action_repeat=7))
    assert dense.spec.max_episode_steps == 43  # 300 / 7
    dense.reset(0)
    step = dense.step(torch.zeros(1, 2))
    reward, _ = dense.spec.task_reward(step.final.state[:, :2], step.final.goal)
    assert float(step.reward) == pytest.approx(float(reward))


def test_a_success_within_a_repeated_action_counts():
    class Blink(Ledger):
        def step(self, action: np.ndarray) -> Any:
            return *super().step(action)[:4], {"success": self.t == 1}

    env = ActionRepeat(Blink(), 2)
    env.reset(seed=1)
    assert [env.step(np.zeros(1))[4]["success"] for _ in range(2)] == [True, False]


def test_a_batched_task_repeats_actions_in_single_environments():
    moved = []
    for repeat in (1, 3):
        env = make_env(EnvConfig("hrl/PointMaze_Open-v0", num_envs=2, action_repeat=repeat))
        start = env.reset(5).state
        for _ in range(3 // repeat):
            step = env.step(torch.tensor([[0.7, 0.1], [-0.2, 0.3]]))
        moved.append(step.final.state - start)
    assert torch.allclose(*moved, atol=1e-5) and float(moved[0].abs().min()) > 0


def test_flattening_does_not_depend_on_the_batch():
    space = make_env(EnvConfig("Mixed-v0")).spec.observation_space
    one = {"a": np.array([3]), "b": np.zeros((1, 2, 2)), "c": np.array([[0, 0]])}
    two = {k: np.repeat(v, 2, 0) for k, v in one.items()}
    cpu = torch.device("cpu")
    assert torch.equal(flatten_batch(space, one, cpu)[0], flatten_batch(space, two, cpu)[1])


def test_groups_in_worker_processes_are_one_vector_environment():
    """Five environments in two workers give what five in this process give: seeds, ends, infos, final observations."""
    makers = [lambda: gym.make("GoalLine-v0") for _ in range(5)]
    apart = WorkerEnv(makers, 2, AutoresetMode.SAME_STEP)
    here = gym.vector.SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    assert [g.stop - g.start for g in apart.groups] == [2, 3]
    seen = [env.reset(seed=7)[0] for env in (apart, here)]
    ended = 0
    rng = np.random.default_rng(0)
    for _ in range(40):
        for key in seen[0]:
            assert np.array_equal(seen[0][key], seen[1][key])
        actions = rng.uniform(-1, 1, (5, 1)).astype(np.float32)
        one, other = apart.step(actions), here.step(actions)
        seen = [one[0], other[0]]
        assert all(np.allclose(a, b) for a, b in zip(one[1:4], other[1:4], strict=True))
        done = one[2] | one[3]
        ended += done.sum()
        if done.any():
            for i in np.flatnonzero(done):
                for key, value in other[4]["final_obs"][i].items():
                    assert np.array_equal(one[4]["final_obs"][i][key], value)
            assert np.array_equal(one[4]["_final_obs"], done)
    assert ended > 3
    apart.close(), here.close()
    assert not any(process.is_alive() for process in apart.processes)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_pictures_get_the_outlines_of_a_users_environment(vectorization):
    env = make_env(EnvConfig("tasks:Mapped", num_envs=3, vectorization=vectorization, workers=2))
    assert env.outlines(2) == [(-3.0, -3.0, 6.0, 1.0, "wall"), (1.0, 1.0, 0.5, 0.5, "hazard")]
    assert env.outlines(0) == env.outlines(2)
    env.close()


@pytest.mark.parametrize("bad", [[(0, 0, 1, 1, "lava")], [(0, 0, np.nan, 1, "wall")], [(0, 0, 1)], 5])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_invalid_outlines_are_explained_in_one_sentence(vectorization, bad):
    env = make_env(EnvConfig("tasks:Mapped", {"bad": bad}, num_envs=2, vectorization=vectorization))
    with pytest.raises(EnvironmentFault, match=r"Mapped.outlines .* It must return a list of \(x, y, width"):
        env.outlines(1)
    env.close()


def test_a_worker_that_is_killed_is_named():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=4, vectorization="async", workers=2))
    env.reset(0)
    env.env.processes[1].kill()
    env.env.processes[1].join()
    with pytest.raises(EnvironmentFault, match="A worker process of GoalLine-v0 died"):
        env.step(torch.zeros(4, 1))
    env.close()


def test_a_program_that_ends_without_closing_takes_its_workers_along():
    program = (
        "from hrl.envs import EnvConfig, make_env\n"
        "env = make_env(EnvConfig('tasks:GoalLine-v0', num_envs=4, vectorization='async', workers=2))\n"
        "env.reset(0)\n"
        "raise SystemExit(str([p.pid for p in env.env.processes]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent
    )
    pids = ast.literal_eval(run.stderr.strip().splitlines()[-1])
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_do_not_outlive_a_main_process_that_is_killed():
    program = (
        "import os, signal\n"
        "from hrl.envs import EnvConfig, make_env\n"
        "env = make_env(EnvConfig('tasks:GoalLine-v0', num_envs=4, vectorization='async', workers=2))\n"
        "env.reset(0)\n"
        "print([p.pid for p in env.env.processes], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent)
    pids = ast.literal_eval(run.stdout)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_begin_episodes_only_where_one_ended():
    env = make_env(EnvConfig("tasks:Ledger-v0", num_envs=2, vectorization="async", workers=2), evaluation=True)
    env.reset(20)
    for _ in range(3):
        step = env.step(torch.zeros(2, 1))
    assert step.obs.state.tolist() == [[22, 0], [21, 3]]  # the first episode had three steps
    env.close()


def test_a_negative_number_of_workers_raises_an_error():
    with pytest.raises(EnvError, match="must not be negative, but is -1"):
        make_env(EnvConfig("GoalLine-v0", num_envs=4, vectorization="async", workers=-1))


def test_a_maze_leaves_no_file_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env = make_env(EnvConfig("PointMaze_UMaze-v3", num_envs=2))
    assert not list(tmp_path.iterdir())
    env.reset(0)
    env.step(torch.zeros(2, 2))
    env.close()
