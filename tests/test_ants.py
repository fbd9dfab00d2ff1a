"""HIRO's ant tasks: geometry, rewards, goals, pictures."""

import math

import gymnasium as gym
import gymnasium_robotics
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import hrl.envs  # noqa: F401
from hrl.envs import EnvConfig, EnvError, make_env
from hrl.envs.ants.gather import AntGather
from hrl.envs.ants.maze import MAZES, AntMaze
from hrl.envs.ants.worlds import merged
from hrl.envs.scene import outlines

IDS = (
    "AntMaze-v0",
    "AntMazeEval-v0",
    "AntPush-v0",
    "AntFall-v0",
    "AntMazeSparse-v0",
    "AntGather-v0",
    "AntPushMulti-v0",
    "AntFallMulti-v0",
)
STILL = torch.zeros(1, 8)


def ant_at(*place: float, **kwargs) -> AntMaze:
    """One ant, at rest, in a maze."""
    ants = AntMaze(**kwargs)
    ants.reset(seed=0)
    ants.physics.qpos[0], ants.physics.qvel[0] = ants.at_rest, 0.0
    ants.physics.qpos[0, : len(place)] = torch.tensor(place, dtype=torch.float64)
    return ants


def drive(ants: AntMaze, *places: tuple[float, float], speed: float = 4.0, steps: int = 120):
    """Drag the torso along a path by setting its velocity before every step. Returns the result of the last step."""
    for place in places:
        for _ in range(steps):
            way = torch.tensor(place, dtype=torch.float64) - ants.torso[0, :2]
            if way.norm() < 0.5:
                break
            ants.physics.qvel[0, :2] = speed * way / way.norm()
            answer = ants.step(STILL)
            if answer[2]:
                return answer
    return answer


# -- geometry ------------------------------------------------------------------------------------------------


def test_walls_stand_where_hiro_has_them():
    # Its ⊃, corridors 8 wide: start (0, 0), then (16, 0), (16, 16), and (0, 16).
    maze = MAZES["Maze"]
    free = {maze.centre(*cell) for cell in maze.cells("s.")}
    assert free == {(0, 0), (8, 0), (16, 0), (16, 8), (0, 16), (8, 16), (16, 16)}
    assert MAZES["Push"].centre(*MAZES["Push"].cells("B")[0]) == (0, 8)
    assert MAZES["Fall"].centre(*MAZES["Fall"].cells("B")[0]) == (8, 8)
    assert {MAZES["Fall"].centre(*cell) for cell in MAZES["Fall"].cells("~")} == {(0, 16), (8, 16)}
    assert (maze.height, MAZES["Fall"].ground, MAZES["Sparse"].height) == (4, 4, 1)
    assert [maze.top(*at) for at in ((0, 0), (3, 5), (8, 8), (99, 0))] == [0, 4, 4, 4]
    assert [MAZES["Fall"].top(*at) for at in ((0, 0), (0, 16), (-8, 0))] == [4, 0, 8]
    assert len(MAZES["Sparse"].starts) == 50 and max(MAZES["Sparse"].starts) == (14, 14)


def test_boxes_cover_the_walls_once():
    maze = MAZES["Sparse"]
    boxes = merged(maze.cells("#"))
    covered = [(i + a, j + b) for i, j, rows, columns in boxes for a in range(rows) for b in range(columns)]
    assert sorted(covered) == sorted(maze.cells("#")) and len(boxes) < len(covered) / 4


@pytest.mark.parametrize(("way", "axis", "face"), [((-9, 0), 0, -4), ((0, -9), 1, -4), ((0, 9), 1, 4)])
def test_the_ant_cannot_pass_a_wall(way, axis, face):
    ants = ant_at()
    drive(ants, way, steps=60)
    assert 2 < abs(ants.torso[0, axis]) <= abs(face) - 0.2
    drive(ants, (8, 0))  # where there is none it can
    assert ants.torso[0, 0] > 7


def test_the_block_is_pushed_aside_along_the_floor():
    ants = ant_at(maze="Push", goal=(0.0, 19.0))
    block = lambda: ants.block("block B")[0]  # noqa: E731
    drive(ants, (-8, 0), (-8, 8))
    assert torch.allclose(block(), torch.tensor([0.0, 8.0, 2.0], dtype=torch.float64), atol=0.05)
    drive(ants, (4, 8))
    assert block()[0] > 7 and abs(block()[1] - 8) < 0.1 and block()[2] == 2
    drive(ants, (0, 8), (0, 19))  # the way is free
    assert ants.torso[0, 1] > 18 and ants.outcome()[2]
    assert block()[0] < 8.2  # a wall stops it


def test_a_block_pushed_ahead_closes_the_way():
    ants = ant_at(maze="Push", goal=(0.0, 19.0))
    drive(ants, (0, 19), steps=50)
    assert ants.block("block B")[0, 1] > 15.5 and ants.torso[0, 1] < 13


def test_the_gap_is_crossed_over_the_block_alone():
    ants = ant_at(maze="Fall", goal=(0.0, 27.0, 4.5))
    assert 4.5 < ants.torso[0, 2] < 5
    drive(ants, (0, 8), (0, 16), steps=60)
    assert ants.torso[0, 2] < 1.5  # it fell
    drive(ants, (0, 27), steps=40)
    assert ants.torso[0, 1] < 20
    ants = ant_at(maze="Fall", goal=(0.0, 27.0, 4.5))
    drive(ants, (8, 0), (8, 11.5))
    for _ in range(30):  # it falls
        ants.step(STILL)
    block = ants.block("block B")[0]
    assert block[0] == 8 and abs(block[1] - 16) < 0.2 and block[2] < 2.1  # in the gap: y and z have changed, x not
    drive(ants, (8, 27), (0, 27), speed=5.0)
    assert ants.outcome()[2] and ants.torso[0, 2] > 4


def test_a_steered_body_reaches_the_goals_of_the_mazes():
    ants = ant_at(goal=(0.0, 16.0))
    assert not ants.outcome()[2]
    drive(ants, (16, 0), (16, 16), (0, 16))
    assert ants.outcome()[2] and ants.outcome()[0] > -1
    sparse = ant_at(maze="Sparse", goal=(2.0, 9.0), reach=1.0, reward_type="sparse")
    _, reward, ended, _, info = drive(sparse, (13, 1), (13, 7), (2, 8), (2, 9))
    assert reward == 1 and ended and info["success"]


# -- the task ------------------------------------------------------------------------------------------------


def test_rewards_and_success_match_calculated_values():
    ants = ant_at(3.0, 4.0, goal=(0.0, 0.0))
    assert ants.outcome()[0] == -5 and ants.outcome()[2]
    ants.physics.qpos[0, 0] = 3.1
    assert not ants.outcome()[2]
    single = gym.make("hrl/AntFall-v0").unwrapped
    goals = np.array([[0.0, 27.0, 4.5], [0.0, 23.0, 1.5]])
    assert np.allclose(single.compute_reward(goals, goals[[1, 0]], {}), [-5, -5])


def test_training_goals_fill_the_square_and_evaluation_has_one():
    ants = gym.make_vec("hrl/AntMaze-v0", 2000, "vector_entry_point")
    goal = ants.reset(seed=0)[0]["desired_goal"]
    assert goal.amin() < -3.9 and goal.amax() > 19.9 and ((goal > -4) & (goal < 20)).all()
    assert goal.mean(0).sub(8).abs().amax() < 0.6
    ants = gym.make_vec("hrl/AntMazeEval-v0", 3, "vector_entry_point")
    assert (ants.reset(seed=0)[0]["desired_goal"] == torch.tensor([0.0, 16.0])).all()


def test_random_goals_have_the_range_of_hiros_code():
    boxes = {"AntPushMulti-v0": ((-16, -4), (16, 20)), "AntFallMulti-v0": ((-4, -4, 0), (12, 28, 5))}
    for name, (low, high) in boxes.items():
        ants = gym.make_vec(f"hrl/{name}", 400, "vector_entry_point")
        goals = ants.reset(seed=0)[0]["desired_goal"].double()
        size = torch.tensor(high) - torch.tensor(low)
        assert ((goals.amin(0) - torch.tensor(low)).abs() < size / 50).all()
        assert ((goals.amax(0) - torch.tensor(high)).abs() < size / 50).all()
        ants.close()


def test_observations_are_hiros():
    env = gym.make("hrl/AntMaze-v0")
    obs, _ = env.reset(seed=3)
    assert obs["observation"].shape == (30,) and (obs["observation"][:2] == obs["achieved_goal"]).all()
    assert np.abs(obs["observation"][:2]).max() <= 0.1 and 0.65 <= obs["observation"][2] <= 0.85
    for _ in range(3):
        obs, *_ = env.step(env.action_space.sample())
    assert obs["observation"][29] == np.float32(0.003)
    assert make_env(EnvConfig("hrl/AntMaze-v0")).spec.reward_range == (-math.inf, 0.0)
    assert gym.make("hrl/AntPush-v0", observe_blocks=True).reset()[0]["observation"].shape == (33,)


def test_sparse_episodes_begin_all_over_the_maze():
    ants = gym.make_vec("hrl/AntMazeSparse-v0", 500, "vector_entry_point")
    place = ants.reset(seed=0)[0]["achieved_goal"]
    cells = {(round(float(x) / 2), round(float(y) / 2)) for x, y in place}
    assert cells == {(round(x / 2), round(y / 2)) for x, y in MAZES["Sparse"].starts}


@pytest.mark.parametrize("env_id", IDS)
def test_checkers_pass(env_id):
    env = gym.make(f"hrl/{env_id}")
    check_env(env.unwrapped, skip_render_check=True)
    check_env_sb3(env.unwrapped, skip_render_check=True)


def test_the_time_limit_is_500_steps():
    env = gym.make_vec("hrl/AntMaze-v0", 2, "vector_entry_point")
    env.reset(seed=0)
    env.unwrapped.elapsed += 498
    assert not env.step(torch.zeros(2, 8))[3].any()
    obs, _, terminated, truncated, info = env.step(torch.zeros(2, 8))
    assert truncated.all() and not terminated.any()
    assert (info["final_obs"]["observation"][:, 29] == 0.5).all() and (obs["observation"][:, 29] == 0).all()


# -- gathering -----------------------------------------------------------------------------------------------


def gathering(*objects: tuple[float, float], apples: int = 1) -> AntGather:
    """An ant at the origin that faces along x."""
    ants = AntGather(apples=apples, bombs=len(objects) - apples)
    ants.reset(seed=0)
    ants.physics.qpos[0], ants.physics.qvel[0] = ants.at_rest, 0.0
    ants.objects[0] = torch.tensor(objects, dtype=torch.float64)
    return ants


def test_objects_are_seen_by_direction_and_nearness():
    # Ten directions of 36° each, from -180° on: ahead is the sixth, to the left (90°) the eighth.
    ants = gathering((3.0, 0.1), (0.0, 1.5), (5.0, 0.1), (7.0, 0.0), apples=1)
    apple, bomb = ants.readings()[0]
    assert apple.tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0], abs=1e-3)
    assert bomb.tolist() == pytest.approx([0, 0, 0, 0, 0, 1 - 5.001 / 6, 0, 0.75, 0, 0], abs=1e-3)  # 7 is too far
    half = math.sqrt(0.5)
    ants.physics.qpos[0, 3:7] = torch.tensor([half, 0, 0, half])  # turned to the left by 90°
    assert ants.readings()[0, 0].nonzero().flatten().tolist() == [2]  # at -88°
    assert ants.readings()[0, 1, 5] == pytest.approx(0.75)
    assert (ants.observe()[0, 29:49] == ants.readings().flatten().float()).all() and ants.observe().shape == (1, 50)


def test_apples_give_a_reward_bombs_a_cost_and_both_vanish():
    ants = gathering((0.5, 0.0), (0.0, 0.5), (0.0, -0.9), (2.0, 0.0), apples=1)
    reward, ended, success = ants.outcome()
    assert reward == 1 - 2 and not ended and success
    assert ants.left[0].tolist() == [False, False, False, True] and ants.outcome()[0] == 0
    ants.objects[0, 3] = 0.0
    reward, ended, _ = ants.outcome()
    assert reward == -1 and ended  # nothing is left


def test_a_fallen_ant_has_a_cost_and_ends_the_episode():
    ants = gathering((0.5, 0.0), (4.0, 4.0))
    ants.physics.qpos[0, 2] = 1.2
    reward, ended, _ = ants.outcome()
    assert reward == -10 and ended and ants.left.all()


def test_objects_lie_at_distinct_even_positions_except_the_start():
    ants = AntGather(num_envs=400)
    ants.reset(seed=0)
    places = {tuple(p) for p in ants.objects.flatten(0, 1).tolist()}
    assert len(places) == 99 and (0.0, 0.0) not in places and max(places) == (8, 8) and min(places) == (-10, -10)
    assert all(len({tuple(p) for p in row}) == 16 for row in ants.objects.tolist())


# -- maps, nonsense, pictures ---------------------------------------------------------------------------------


def test_a_map_custom():
    ants = AntMaze(maze="1111/10s1/1111", scale=4.0, goal=(-4.0, 0.0), reach=1.0)
    assert [ants.physics.model.geom(g).type[0] for g in range(ants.physics.model.ngeom)].count(6) == 4  # boxes
    assert ants.maze.cells(".") == [(1, 1)] and ants.maze.centre(1, 1) == (-4, 0)
    for wrong in ("####/#..#/####", "###/#s.#/###", "####/#sX#/####"):
        with pytest.raises(ValueError, match="a map must have rows of equal length"):
            AntMaze(maze=wrong)
    with pytest.raises(EnvError, match=r"maze must be Maze, Push, Fall, Sparse or a map such as .* not Mase"):
        make_env(EnvConfig("hrl/AntMaze-v0", {"maze": "Mase"}))


@pytest.mark.parametrize(
    ("env_id", "kwargs", "sentence"),
    [
        ("AntMaze-v0", {"reward_type": "spares"}, "reward_type must be dense or sparse, not spares"),
        ("AntMaze-v0", {"reach": 0}, "reach, the distance that counts as success, must be a positive number, not 0"),
        ("AntMaze-v0", {"goal": "north"}, r"goal must be a position \[x, y\] or .* not north"),
        ("AntMaze-v0", {"goal": [1, 2, 3, 4]}, r"goal must be a position .* not \[1, 2, 3, 4\]"),
        ("AntMaze-v0", {"scale": -2}, "scale, the width of a maze's cell, must be a positive number, not -2"),
        ("AntMaze-v0", {"scale": "wide"}, "scale, .* must be a positive number, not wide"),
        ("AntGather-v0", {"apples": 90, "bombs": 20}, "apples and bombs together at most 99, not 90 and 20"),
        ("AntGather-v0", {"apples": 0}, "apples must be at least 1, .* not 0 and 8"),
        ("AntGather-v0", {"span": 0}, "span, the angle of view, must be a positive number, not 0"),
        ("AntGather-v0", {"dying_cost": "dear"}, "dying_cost must be a number, not dear"),
        ("AntMaze-v0", {"observe_blocks": "some"}, "observe_blocks must be True or False, not some"),
        ("AntMaze-v0", {"maze": [1]}, r"maze must be Maze, .* not \[1\]"),
    ],
)
def test_invalid_options_raise_a_clear_error(env_id, kwargs, sentence):
    with pytest.raises(EnvError, match=sentence):
        make_env(EnvConfig(f"hrl/{env_id}", kwargs))


def test_pictures_get_the_outlines_of_a_maze():
    ants = ant_at(maze="Push", goal=(0.0, 19.0))
    ants.physics.qpos[0, 15] = 2.0
    by_kind = {kind: [o for o in ants.outlines(0) if o.kind == kind] for kind in ("wall", "gap", "block")}
    assert len(by_kind["wall"]) == 19 and not by_kind["gap"]
    assert by_kind["block"] == [(-2.0, 4.0, 8.0, 8.0, "block")]
    assert len([o for o in ant_at(maze="Fall", goal=(0.0, 27.0, 4.5)).outlines(0) if o.kind == "gap"]) == 2


def test_pictures_get_the_objects_that_are_not_caught():
    ants = gathering((4.0, 2.0), (0.5, 0.0), (-6.0, 0.0), apples=2)
    objects = [o for o in ants.outlines(0) if o.kind != "wall"]
    assert objects[:2] == [(3.0, 1.0, 2.0, 2.0, "reward"), (-0.5, -1.0, 2.0, 2.0, "reward")]
    assert objects[2:] == [(-7.0, -1.0, 2.0, 2.0, "hazard")]
    ants.step(torch.zeros(1, 8))  # the ant stands within 1 of the second apple
    assert [o for o in ants.outlines(0) if o.kind != "wall"] == [objects[0], objects[2]]


def test_our_point_mazes_have_the_walls_of_gymnasium_robotics():
    gym.register_envs(gymnasium_robotics)
    ours = outlines(gym.make_vec("hrl/PointMaze_Medium-v0", 2, "vector_entry_point"), 1)
    theirs = outlines(gym.make_vec("PointMaze_Medium-v3", 2, "sync"), 1)
    assert len(ours) == len(theirs) > 30 and set(ours) == set(theirs)


def test_a_picture_shows_ant_goal_and_subgoal():
    """Checks the pictures that MuJoCo draws, if it can draw here."""
    ants = AntMaze(render_mode="rgb_array", goal=(16.0, 0.0))
    ants.reset(seed=0)
    try:
        mujoco.Renderer(ants.physics.model).close()
    except Exception as error:
        pytest.skip(f"MuJoCo draws nothing here: {error}")
    plain = ants.render()[0].astype(int)
    ants.marks = torch.tensor([[8.0, 8.0]])  # in a wall, so it is drawn on top
    changed = np.abs(ants.render()[0].astype(int) - plain).max(-1) > 40
    red, green, _ = plain.transpose(2, 0, 1)
    goal = np.argwhere(green > red + 60)
    where = np.argwhere(changed)
    # From above, north on top: the goal lies to the east, the subgoal north-west of it.
    assert len(goal) > 20 and len(where) > 20
    assert where[:, 0].mean() < goal[:, 0].mean() - 20 and where[:, 1].mean() < goal[:, 1].mean() - 20
