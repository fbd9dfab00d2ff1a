"""The datasets of mazes that benchmarks/datasets.py collects: ways by hand, and what each kind promises."""

import signal
import sys

import numpy as np
import pytest
import torch
from runs import ROOT, trained

handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
sys.path.insert(0, str(ROOT / "benchmarks"))
import ant_datasets  # noqa: E402
import datasets  # noqa: E402
from ways import NEAR, Ways  # noqa: E402

import hrl  # noqa: E402
from hrl.envs.tasks.point_maze import REACH, PointMaze  # noqa: E402

for number, handler in handlers.items():
    signal.signal(number, handler)


def paths(kind: datasets.Kind, layout: str, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Positions [N, T + 1, 2] of trajectories, and the arrays of the dataset."""
    data = datasets.collect(kind, layout, count * datasets.LENGTHS[kind])
    return data["qpos"].reshape(count, -1, 2), data


def test_the_expert_follows_the_shortest_way():
    """UMaze's cells are 0 1 2 in the upper corridor, 3 between, and 4 5 6 in the lower one."""
    maze = PointMaze(1, layout="UMaze")
    ways = Ways(maze.map)
    way = [0]
    while way[-1] != 4:
        way.append(int(ways.following[way[-1], 4]))
    assert way == [0, 1, 2, 3, 6, 5, 4] and int(ways.distance[0, 4]) == 6
    assert ways.cell(maze.cells).tolist() == list(range(7)) and torch.equal(ways.cells, maze.cells)


def test_the_rows_are_those_of_ogbench():
    _, data = paths("stitch", "UMaze", 3)
    assert data["observations"].shape == (3 * 201, 4) and data["actions"].shape == (3 * 201, 2)
    assert np.flatnonzero(data["terminals"]).tolist() == [200, 401, 602]
    assert np.array_equal(data["observations"], np.hstack([data["qpos"], data["qvel"]]))
    assert np.abs(data["actions"]).max() <= 1 and not data["actions"][data["terminals"]].any()
    maze = PointMaze(3, layout="UMaze")
    first = np.arange(3) * 201
    maze.state.copy_(torch.as_tensor(data["observations"][first]))
    maze.advance(torch.as_tensor(data["actions"][first]))
    np.testing.assert_allclose(maze.state.numpy(), data["observations"][first + 1], atol=1e-6)


@pytest.mark.parametrize("layout", ["Medium", "Large"])
def test_short_trajectories_stay_near_their_start(layout):
    places, _ = paths("stitch", layout, 50)
    ways = Ways(PointMaze(1, layout=layout).map)
    start, end = (ways.cell(torch.as_tensor(places[:, i])) for i in (0, -1))
    apart = ways.distance[start, end]
    assert float(apart.max()) <= NEAR + 1 and float(apart.mean()) > 1  # noise may carry it a cell further


def test_long_trajectories_reach_goal_after_goal(monkeypatch):
    maze = PointMaze(20, layout="Medium")
    maze.reset(seed=0)
    expert, goals = datasets.Expert(maze), 0
    for _ in range(1000):
        goals += int(((maze.state[:, :2] - expert.traveller.goal).norm(dim=-1) <= REACH).sum())
        maze.advance(expert.go(onward=True))
    assert goals >= 20 * 3  # a way is at most some 400 steps long


def test_exploring_trajectories_hold_a_direction():
    data = datasets.collect("explore", "Open", 4 * 500, noise=0.0)
    action = data["actions"].reshape(4, 501, 2)[:, :500].reshape(4, 50, 10, 2)
    assert np.array_equal(action, np.broadcast_to(action[:, :, :1], action.shape))
    assert len(np.unique(action[..., 0, 0])) == 200


def test_an_ants_dataset_has_the_rows_of_its_trajectories_in_their_order(tmp_path):
    run = hrl.load(trained(tmp_path, "--env", "AntMaze_UMaze-v4", "--total-steps", "200", "--eval-freq", "0"))
    data = ant_datasets.collect("stitch", run, transitions=400, num_envs=2, noise=0.2)
    assert data["observations"].shape[0] == 2 * 201 and data["actions"].shape == (2 * 201, 8)
    assert np.flatnonzero(data["terminals"]).tolist() == [200, 401]
    assert not data["actions"][data["terminals"]].any() and np.abs(data["actions"]).max() <= 1
    steps = np.linalg.norm(np.diff(data["observations"][:, :2], axis=0), axis=-1)
    assert 0 < steps[:200].mean() < 0.2 and steps[:200].max() < 1  # an ant does not jump within a trajectory


def test_an_ants_goals_are_at_most_two_ahead():
    walker = ant_datasets.Walker(None, None, 4.0, torch.Generator())  # type: ignore[arg-type]
    goals = walker._goal(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 3.0], [0.25, 0.0]]))
    assert goals.tolist() == [[4.0, 6.0], [5.0, 4.0]]
