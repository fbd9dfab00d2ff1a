"""Datasets of trajectories: the rows and goals that are drawn from them by hand, and the files that they come from."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, read_line

import hrl
from hrl.api.sessions import load_agent
from hrl.api.trust import Trust
from hrl.envs import EnvConfig, make_env
from hrl.execution.processes import ALONE
from hrl.memory.dataset import read_dataset
from hrl.memory.goal_sampling import GoalShares, draw_transitions, steps_ahead, trajectory_goals, value_goals
from hrl.run.folder import RunConfig
from hrl.types import UserError

LINE_ENV = "tasks:GoalLine-v0"


def shares(goals: torch.Tensor) -> list[float]:
    """The share of every row among goals."""
    return (torch.bincount(goals, minlength=10) / len(goals)).tolist()


def test_the_rows_of_two_trajectories(two):
    assert two.final.tolist() == [4] * 5 + [9] * 5 and two.trajectories == 2
    assert two.transitions.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    drawn = shares(draw_transitions(two, 40_000, torch.Generator().manual_seed(0)))
    assert drawn == pytest.approx([0.125, 0.125, 0.125, 0.125, 0, 0.125, 0.125, 0.125, 0.125, 0], abs=0.01)


def test_the_shares_of_the_values_goals(two):
    rows = torch.full((100_000,), 6)
    found = shares(value_goals(two, rows, GoalShares(0.2, 0.3), 0.6, torch.Generator().manual_seed(0)))
    expected = [0.03] * 10  # .3 anywhere
    expected[6] += 0.2  # the current state
    for row, chance in ((7, 0.4), (8, 0.4 * 0.6), (9, 0.6**2)):  # n = 1, 2, and 3 or more
        expected[row] += 0.5 * chance
    assert found == pytest.approx(expected, abs=0.005)


def test_goals_of_the_trajectory_never_leave_it(two):
    generator = torch.Generator().manual_seed(0)
    rows = draw_transitions(two, 20_000, generator)
    for goals in (value_goals(two, rows, GoalShares(0, 0), 0.99, generator), trajectory_goals(two, rows, generator)):
        assert bool((goals > rows).all()) and bool((goals <= two.final[rows]).all())
    found = shares(trajectory_goals(two, torch.full((40_000,), 1), generator))
    assert found == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0, 0], abs=0.01)
    ahead = steps_ahead(torch.tensor([0, 2, 8]), 3, torch.tensor([4, 4, 9]))
    assert ahead.tolist() == [3, 4, 9]


def write(file: Path, **changes: Any) -> str:
    """A file of two trajectories of Ledger, whose actions are in [-2, 4]."""
    arrays = {
        "observations": np.arange(10, dtype=np.float64).reshape(5, 2), "actions": [[-2.0], [1.0], [0.0], [4.0], [9.0]],
        "terminals": [0, 0, 1, 0, 1], "qpos": np.zeros((5, 2)),
    }  # fmt: skip
    np.savez(file, **{name: x for name, x in {**arrays, **changes}.items() if x is not None})
    return str(file)


def test_a_file_in_ogbenchs_layout(tmp_path):
    env = make_env(EnvConfig("Ledger-v0"))
    data = read_line(write(tmp_path / "data.npz"), env)
    assert data.state.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert data.transitions.tolist() == [0, 1, 3] and data.final.tolist() == [2, 2, 2, 4, 4]
    assert data.action[data.transitions].flatten().tolist() == [-1, 0, 1]
    again = read_line(write(tmp_path / "more.npz", actions=[[-2.0], [1.5], [0.0], [4.0], [9.0]]), env)
    assert again.fingerprint() != data.fingerprint()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"terminals": None}, "must have the arrays observations, actions and terminals"),
        ({"observations": np.zeros((5, 3))}, "observations of 3 and actions of 1 entries, but Ledger-v0 has 2 and 1"),
        ({"terminals": [1, 1]}, "one observation, one action and one terminal per row"),
        ({"terminals": [1] * 5}, "has no transition"),
        ({"observations": np.full((5, 2), np.nan)}, "NaN or infinite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        read_line(write(tmp_path / "data.npz", **changes), make_env(EnvConfig("Ledger-v0")))


def test_actions_keep_their_entries(tmp_path):
    np.savez(tmp_path / "data.npz", observations=np.zeros((2, 4)), actions=[[1.0, -1.0], [0.5, 0.0]], terminals=[0, 1])
    data = read_line(str(tmp_path / "data.npz"), make_env(EnvConfig("hrl/PointMaze_UMaze-v0")))
    assert data.action.tolist() == [[1.0, -1.0], [0.5, 0.0]]


def test_what_is_no_dataset_is_refused(tmp_path):
    env = make_env(EnvConfig("Ledger-v0"))
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match="cannot be read as an npz file"):
        read_line(str(tmp_path / "text.npz"), env)
    with pytest.raises(UserError, match=r"give a run folder.*a file FILE.npz.*or minari:ID"):
        read_line(str(tmp_path), env)


def test_the_replay_of_a_run_holds_its_transitions(finished):
    parts = hrl.load(finished, trust=True).parts
    env = make_env(EnvConfig(LINE_ENV))
    data = read_dataset(str(finished), env, partial(load_agent, RunConfig(threads=1), ALONE, Trust(True)), CPU)
    assert parts.algorithm == "hiro" and len(data.transitions) == parts.run.total_steps and data.trajectories > 50
    rows = data.transitions
    before, after, action = data.state[rows], data.state[rows + 1], data.action[rows, 0]
    torch.testing.assert_close(after[:, 0], before[:, 0] + 0.1)
    torch.testing.assert_close(after[:, 1], before[:, 1] + 0.5 * action, atol=1e-5, rtol=0)


def test_a_dataset_of_minari(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = make_env(EnvConfig(LINE_ENV))
    ways = [0.0, 0.5, 0.75, 0.5], [0.0, 0.5, 0.25]
    minari.create_dataset_from_buffers(
        "line/two-v0", [EpisodeBuffer(**on_the_line(way)) for way in ways],
        observation_space=env.env.single_observation_space, action_space=env.env.single_action_space,
    )  # fmt: skip
    data = read_line("minari:line/two-v0", env)
    assert data.state[:, 1].tolist() == [0, 0.5, 0.75, 0.5, 0, 0.5, 0.25]
    assert data.transitions.tolist() == [0, 1, 2, 4, 5] and data.final.tolist() == [3] * 4 + [6] * 3
    assert data.action[data.transitions].flatten().tolist() == [1, 0.5, -0.5, 1, -0.5]


def on_the_line(way: list[float]) -> dict[str, Any]:
    """Minari's entries of an episode of GoalLine at these positions."""
    x, steps = np.array(way)[:, None], len(way) - 1
    seen = np.hstack([np.arange(len(way))[:, None] / 10, x])
    return {
        "observations": {"observation": seen, "achieved_goal": x, "desired_goal": np.ones_like(x)},
        "actions": np.float32(2 * np.diff(x, axis=0)), "rewards": [0.0] * steps, "terminations": [False] * steps,
        "truncations": [False] * (steps - 1) + [True],
    }  # fmt: skip


def test_without_minari_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match="needs the package minari: pip install"):
        read_line("minari:D4RL/door/human-v2", make_env(EnvConfig("Ledger-v0")))
