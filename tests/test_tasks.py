"""Our own tasks, compared with MuJoCo, with Gymnasium's contract, and with values computed by hand."""

import warnings

import gymnasium as gym
import gymnasium_robotics
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.maze import maps
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from hrl.envs import EnvConfig, make_env
from hrl.envs.tasks.classic import MountainCarGoal, PendulumGoal
from hrl.envs.tasks.grids import FourRooms, KeyDoor, four_rooms_place
from hrl.envs.tasks.layouts import walls
from hrl.envs.tasks.point_maze import Map, PointMaze, moved

gym.register_envs(gymnasium_robotics)
IDS = ["hrl/PointMaze_UMaze-v0", "hrl/PointMaze_LargeDense-v0", "hrl/FourRooms-v0", "hrl/FourRoomsGoals-v0",
       "hrl/KeyDoor-v0", "hrl/Navigation-v0", "hrl/Taxi-v0", "hrl/MountainCarGoal-v0",
       "hrl/PendulumGoal-v0"]  # fmt: skip


def test_layouts_are_those_of_gymnasium_robotics():
    theirs = {"UMaze": maps.U_MAZE, "Open": maps.OPEN, "Medium": maps.MEDIUM_MAZE, "Large": maps.LARGE_MAZE}
    for name, layout in theirs.items():
        assert walls(name).int().tolist() == layout
        ours, real = gym.spec(f"hrl/PointMaze_{name}-v0"), gym.spec(f"PointMaze_{name}-v3")
        assert ours.max_episode_steps == real.max_episode_steps


def test_the_giant_maze_is_connected_and_has_ogbenchs_size():
    free = ~walls("Giant")
    assert free.shape == (12, 16) and free.sum() == 86 and gym.spec("hrl/PointMaze_Giant-v0").max_episode_steps == 1000
    assert not free[[0, -1]].any() and not free[:, [0, -1]].any()
    reached = torch.zeros_like(free)
    reached[1, 1] = True
    for _ in range(86):
        moved = [reached.roll(shift, axis) for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1))]
        reached = (reached | moved[0] | moved[1] | moved[2] | moved[3]) & free
    assert torch.equal(reached, free)


def test_a_maze_turns_to_the_left():
    turned = PointMaze(turned=1).walls
    assert ["".join("#" if cell else "." for cell in row) for row in turned.tolist()] == [
        "#####", "#...#", "#.#.#", "#.#.#", "#####",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", ["UMaze", "Large"])
def test_a_point_mazes_step_is_mujocos(layout):
    """They agree to float64 precision, also at walls, in corners and on the boundary between two cells."""
    real = gym.make(f"PointMaze_{layout}-v3").unwrapped
    real.reset(seed=0)
    rng = np.random.default_rng(0)
    rows, touching, action = [], [], np.zeros(2)
    for t in range(1500):
        if t % 15 == 0:
            action = rng.uniform(-1.5, 1.5, 2)
        if t % 300 == 299:
            real.reset(seed=t)
        before = np.concatenate([real.data.qpos, real.data.qvel])
        real.step(action)
        rows.append((before, action, np.concatenate([real.data.qpos, real.data.qvel])))
        touching.append(sum(0 not in (c.geom1, c.geom2) for c in real.data.contact))  # 0 is the ground
    before, action, after = (torch.tensor(np.array(x)) for x in zip(*rows, strict=True))
    maze = Map.of(walls(layout), "cpu", torch.float64)
    assert {0, 1, 2} <= set(touching) and sum(n > 0 for n in touching) > 200
    assert (moved(before, action, maze) - after).abs().max() < 1e-9


def test_the_real_mazes_reward_and_end_are_ours():
    for kind in ("sparse", "dense"):
        real = gym.make("PointMaze_UMaze-v3", continuing_task=False, reward_type=kind).unwrapped
        ours = gym.make("hrl/PointMaze_UMaze-v0", continuing_task=False, reward_type=kind).unwrapped
        achieved = np.array([[0.0, 0.0], [0.0, 0.44], [0.3, 0.35]], dtype=np.float32)
        desired = np.zeros((3, 2), dtype=np.float32)
        rewards = ours.compute_reward(achieved, desired, {})
        assert np.allclose(rewards, real.compute_reward(achieved, desired, {}), atol=1e-6)
        for a, d in zip(achieved, desired, strict=True):
            assert ours.compute_terminated(a, d, {}) == real.compute_terminated(a, d, {})


def test_starts_and_goals_lie_in_two_different_free_cells_with_noise():
    maze = PointMaze(20_000, layout="UMaze")
    maze.reset(seed=0)
    start, goal = maze.state[:, :2], maze.goal
    cells = [(start - maze.origin) * torch.tensor([1.0, -1.0]), (goal - maze.origin) * torch.tensor([1.0, -1.0])]
    (sx, sy), (gx, gy) = ((c.floor().long().unbind(-1)) for c in cells)
    assert not maze.walls[sy, sx].any() and not maze.walls[gy, gx].any()
    assert ((sx != gx) | (sy != gy)).all()
    counts = torch.bincount(sy * 5 + sx)
    assert (counts > 0).sum() == 7 and counts[counts > 0].float().std() < 0.1 * 20_000 / 7
    inside = cells[0] % 1 - 0.5
    assert inside.abs().max() <= 0.25 + 1e-5 and inside.std() == pytest.approx(0.5 / 12**0.5, rel=0.02)


@pytest.mark.parametrize("env_id", IDS)
def test_single_and_batched_forms_step_alike(env_id):
    """Side by side from the same states: same observations, rewards and ends."""
    many = gym.make_vec(env_id, num_envs=6, **({"slip": 0.0} if "Four" in env_id else {}))
    many.reset(seed=3)
    singles = [gym.make(env_id, **({"slip": 0.0} if "Four" in env_id else {})).unwrapped for _ in range(6)]
    state = [name for name, x in vars(many).items() if isinstance(x, torch.Tensor) and len(x) == 6]
    state += ["places"] if "Key" in env_id else []
    many.action_space.seed(0)
    for i, single in enumerate(singles):
        single.reset(seed=0)
        for name in state:
            value = getattr(many, name)
            value = value[:, i : i + 1] if name == "places" else value[i : i + 1]
            getattr(single.batch, name).copy_(value)
    for _ in range(30):
        actions = torch.as_tensor(many.action_space.sample())
        following, reward, terminated, _, info = many.step(actions)
        for i, single in enumerate(singles):
            obs, r, end, _, _ = single.step(actions[i].numpy())
            final = info.get("final_obs", following)
            seen = {k: v[i] for k, v in final.items()} if isinstance(final, dict) else {"": final[i]}
            for key, value in seen.items():
                theirs = obs[key] if key else obs
                assert np.allclose(value.numpy(), theirs, atol=1e-6), key
            assert r == pytest.approx(float(reward[i]), abs=1e-6) and end == bool(terminated[i])
        if bool(terminated.any()):
            break


@pytest.mark.parametrize(("task", "theirs", "torque"), [
    (MountainCarGoal, "MountainCarContinuous-v0", 1), (PendulumGoal, "Pendulum-v1", 2),
])  # fmt: skip
def test_a_goal_tasks_step_is_gymnasiums(task, theirs, torque):
    real, rng = gym.make(theirs).unwrapped, np.random.default_rng(0)
    real.reset(seed=0)
    states = rng.uniform([-1.2, -0.07], [0.6, 0.07], (300, 2)) if torque == 1 else rng.uniform(-8, 8, (300, 2))
    actions, after = rng.uniform(-1, 1, 300), []
    for state, action in zip(states, actions, strict=True):
        real.state = state.copy()
        real.step(np.array([torque * action]))
        after.append(real.state)
    ours = task(300).moved(torch.tensor(states), torch.tensor(actions))
    assert torque == 2 or (ours[:, 0] <= -1.2).any()  # also at the wall
    assert np.abs(ours.numpy() - np.array(after)).max() < 1e-6


def test_a_goal_tasks_goal_is_a_state_within_its_tolerance_and_ends_the_episode():
    car, pendulum = MountainCarGoal(3), PendulumGoal(4)
    at = torch.tensor([[0.451, 0.001], [0.449, 0.01], [0.5, 0.081]])
    reward, ended = car.task_reward(at, car.goal)
    assert reward.tolist() == [0, -1, -1] and ended.tolist() == [True, False, False]
    angle, speed = torch.tensor([0.17, -0.17, 0.18, 0.0, torch.pi]), torch.tensor([0.9, -0.9, 0.0, -1.1, 0.0])
    at = pendulum.achieved(torch.stack([angle, speed], -1))  # angles from below, a turn minus 3.14 and so on
    assert at[[0, 1, 4], 0].tolist() == pytest.approx([0.17 - np.pi, np.pi - 0.17, 0.0], abs=1e-6)
    assert pendulum.task_reward(at, pendulum.goal)[0].tolist() == [0, 0, -1, -1, -1]
    car.reset(seed=0)
    assert car.state[:, 0].min() >= -0.6 and car.state[:, 0].max() <= -0.4 and not car.state[:, 1].any()
    car.state[1] = torch.tensor([0.44, 0.03])
    _, reward, terminated, _, info = car.step(torch.zeros(3, 1))
    assert reward.tolist() == [-1, 0, -1] and terminated.tolist() == [False, True, False]
    assert info["success"].tolist() == [False, True, False] and car.state[1, 0] <= -0.4


def test_an_ended_episode_restarts_and_its_true_final_observation_is_kept():
    maze = PointMaze(3, max_episode_steps=5, layout="Open", continuing_task=False)
    maze.reset(seed=0)
    maze.state[1, :2] = maze.goal[1] - 0.5
    there = maze.goal[1] - torch.tensor([0.2, 0.2])
    maze.state[1, :2] = there
    obs, reward, terminated, truncated, info = maze.step(torch.zeros(3, 2))
    assert terminated.tolist() == [False, True, False] and reward.tolist() == [0.0, 1.0, 0.0]
    assert torch.allclose(info["final_obs"]["achieved_goal"][1], there)
    assert (obs["achieved_goal"][1] - there).norm() > 0.01 and maze.elapsed.tolist() == [1, 0, 1]
    assert torch.equal(obs["observation"][0], info["final_obs"]["observation"][0])
    for _ in range(4):
        *_, truncated, info = maze.step(torch.zeros(3, 2))
    assert truncated.tolist() == [True, False, True]


def test_a_continuing_maze_gives_a_new_goal_where_one_is_reached():
    maze = PointMaze(2, layout="UMaze", reset_target=True)
    maze.reset(seed=0)
    maze.state[0, :2] = maze.goal[0]
    before = maze.goal.clone()
    _, reward, terminated, *_ = maze.step(torch.zeros(2, 2))
    assert reward.tolist() == [1.0, 0.0] and not terminated.any()
    assert (maze.goal[0] - maze.state[0, :2]).norm() > 0.45 and torch.equal(maze.goal[1], before[1])


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_and_sb3s_checkers_pass(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|GoalEnv|contains NaN).*")
        check_env(gym.make(env_id, render_mode="rgb_array").unwrapped)
        check_env_for_sb3(gym.make(env_id).unwrapped)


def test_the_bridge_hands_tensors_through_without_a_copy():
    bridge = make_env(EnvConfig("hrl/PointMaze_UMaze-v0", num_envs=4))
    given = []
    step = bridge.env.step
    bridge.env.step = lambda actions: given.append(step(actions)) or given[-1]
    bridge.reset(0)
    result = bridge.step(torch.zeros(4, 2))
    raw = given[0][0]
    assert bridge.tensors and result.obs.state.data_ptr() == raw["observation"].data_ptr()
    assert result.reward.data_ptr() == given[0][1].data_ptr() and result.taken == 4


def test_four_rooms_slips_a_third_of_the_time_and_walls_stop():
    rooms = FourRooms(30_000)
    assert len(rooms.cells) == 104 and rooms.cells[62].tolist() == [7, 9]  # the east hallway
    rooms.reset(seed=0)
    middle = int((rooms.cells == torch.tensor([2, 3])).all(-1).nonzero())
    rooms.cell.fill_(middle)
    rooms.advance(torch.zeros(30_000, dtype=torch.int64))  # up
    where = {tuple(c): float((rooms.cell == i).float().mean()) for i, c in enumerate(rooms.cells.tolist())}
    assert where[1, 3] == pytest.approx(2 / 3, abs=0.01)
    assert [where[c] for c in ((2, 4), (3, 3), (2, 2))] == pytest.approx([1 / 9] * 3, abs=0.01)
    sure = FourRooms(1, slip=0.0)
    sure.reset(seed=0)
    sure.cell.fill_(0)  # the upper left corner
    sure.advance(torch.tensor([0]))
    assert sure.cell.item() == 0


def test_larger_four_rooms_begin_at_their_start_and_have_wider_hallways():
    rooms = FourRooms(2, scale=3, start=0, slip=0.0)
    rooms.reset(seed=0)
    assert len(rooms.cells) == 9 * 104 and rooms.cells[rooms.goal].tolist() == [[21, 27]] * 2
    assert rooms.cells[rooms.cell].tolist() == [[3, 3]] * 2
    column = rooms.walls[:, 19]  # through the wall between left and right: two hallways of three cells
    assert (~column).nonzero().flatten().tolist() == [9, 10, 11, 30, 31, 32]
    observed = torch.eye(936)[[0, 935]]
    assert four_rooms_place(observed).tolist() == [[3.0, 3.0], [35.0, 35.0]]
    assert four_rooms_place(torch.eye(104)[[62]]).tolist() == [[7.0, 9.0]]


def test_the_goal_never_moves_to_the_start():
    rooms = FourRooms(400, start=103, moves_after=1, max_episode_steps=2)  # the last cell, in the lower right room
    rooms.reset(seed=0)
    for _ in range(6):
        rooms.step(torch.zeros(400, dtype=torch.int64))
    assert (rooms.goal != 62).all() and (rooms.goal != 103).all()


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"scale": 0}, "scale of FourRooms must be a whole number of at least 1, not 0"),
        ({"scale": 1.5}, "scale of FourRooms must be a whole number of at least 1, not 1.5"),
        ({"start": 104}, "start of FourRooms must be a whole number from 0 to 103, not 104"),
        ({"start": -1}, "start of FourRooms must be a whole number from 0 to 103, not -1"),
        ({"goal": "g"}, "goal of FourRooms must be a whole number from 0 to 103, not g"),
        ({"start": 62}, "start and goal of FourRooms must be different cells, but both are 62"),
    ],
)
def test_four_rooms_refuses_impossible_values(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        FourRooms(1, **kwargs)


def test_key_and_door_slips_as_often_as_asked():
    grid = KeyDoor(30_000, size=8, slip=0.3)
    grid.reset(seed=0)
    grid.places.copy_(torch.tensor([[3, 3], [1, 1], [1, 5], [1, 6]]).view(4, 1, 2).expand(4, 30_000, 2))
    grid.advance(torch.ones(30_000, dtype=torch.int64))  # right
    where = [float((grid.agent == torch.tensor(c)).all(-1).float().mean()) for c in ((3, 4), (2, 3), (4, 3), (3, 2))]
    assert where == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.01)


def test_the_door_opens_only_for_the_key():
    grid = KeyDoor(1, size=6)
    grid.reset(seed=0)
    grid.places.copy_(torch.tensor([[[1, 1]], [[2, 1]], [[1, 3]], [[1, 4]]]))  # agent, key, door, goal
    up, right, down = (torch.tensor([a]) for a in (0, 1, 2))
    walk = lambda *moves: [(bool(grid.advance(m)[1]), grid.agent[0].tolist())[1] for m in moves]  # noqa: E731
    assert walk(right, right) == [[1, 2], [1, 2]]  # the door is shut
    assert walk(torch.tensor([3]), down) == [[1, 1], [2, 1]] and grid.held.item()
    assert walk(up, right, right) == [[1, 1], [1, 2], [1, 3]] and grid.opened.item()
    reward, ended, _ = grid.advance(right)
    assert reward.item() == 1.0 and ended.item()
    assert grid.observe()[0].tolist() == pytest.approx([0.2, 0.8, 0.4, 0.2, 0.2, 0.6, 0.2, 0.8, 1, 1])
    grid = KeyDoor(1, size=6, observe_status=False)
    assert grid.reset(seed=0)[0].shape == (1, 8) and grid.single_observation_space.shape == (8,)
