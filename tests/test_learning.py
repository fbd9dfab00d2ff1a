"""Learning on real tasks, with the commands that a user types."""

import json
from pathlib import Path

import pytest
from hrl_scripts import evaluate, train


def success(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> float:
    options = ["--eval-freq", "0", "--save-freq", "0", "--threads", "1", "--log-dir", str(tmp_path)]
    assert train.main([*arguments, *options]) == 0
    (run,) = (p.parent for p in tmp_path.rglob("config.json"))
    capsys.readouterr()
    assert evaluate.main([str(run), "--episodes", "100", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["success_rate_any"]


def test_hiro_learns_a_maze_in_half_a_minute(tmp_path, capsys):
    assert success(tmp_path, capsys, "hiro", "--env", "PointMaze_UMaze-v3", "--total-steps", "16000") >= 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("maze", "bar"), [("UMaze", 0.9), ("Medium", 0.9), ("Large", 0.85)])
def test_hiro_solves_the_mazes(maze, bar, tmp_path, capsys):
    assert success(tmp_path, capsys, "hiro", "--env", f"PointMaze_{maze}-v3") >= bar


@pytest.mark.slow
def test_sac_swings_the_pendulum_up(tmp_path, capsys):
    assert train.main(["sac", "--env", "Pendulum-v1", "--log-dir", str(tmp_path)]) == 0
    (run,) = (p.parent for p in tmp_path.rglob("config.json"))
    capsys.readouterr()
    assert evaluate.main([str(run), "--episodes", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_reward"] > -250
