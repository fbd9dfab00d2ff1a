"""The bridge checks once whatever an environment returns; goals keep their shape and dtype."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import roll, setting, small_hiro
from hrl_scripts import train
from runs import ROOT, run_of
from tasks import Said

from hrl.agents.flat import FlatTD3
from hrl.envs import EnvConfig, EnvironmentFault, make_env
from hrl.envs.wrappers.workers import WorkerEnv
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.memory.transitions import read_transitions
from hrl.run.checkpoint import Checkpoints


def stepped(says: dict, steps: int = 4, vectorization: str = "sync"):
    """The last of several steps of two environments that return these values from their third step on."""
    Said.says = says
    env = make_env(EnvConfig("tasks:Said-v0", num_envs=2, vectorization=vectorization, workers=1))
    env.reset(0)
    try:
        for _ in range(steps):
            step = env.step(torch.zeros(2, 1))
    finally:
        env.close()
    return step, env


def test_unambiguous_values_are_accepted():
    step, _ = stepped({"reward": np.array([2.5]), "terminated": np.bool_(False), "truncated": np.array([False])})
    assert step.reward.tolist() == [2.5, 2.5] and not step.terminated.any()
    step, _ = stepped({"reward": np.float64(2), "terminated": np.array(True)}, steps=3)
    assert step.reward.tolist() == [2, 2] and step.terminated.all()
    step, env = stepped({"info": {"success": np.bool_(True), "note": "text"}})
    assert step.success.all() and env.reports_success


def test_success_with_several_entries_needs_all_of_them_and_is_reported(capfd):
    step, _ = stepped({"info": {"is_success": np.array([True, False])}})
    assert not step.success.any()
    assert "counts as a success if all entries are true" in capfd.readouterr().err
    step, _ = stepped({"info": {"is_success": np.array([True, True])}})
    assert step.success.all()


def test_missing_info_in_some_steps_is_accepted():
    Said.says = {"info": {"x": 1}}
    env = make_env(EnvConfig("tasks:Said-v0", num_envs=2))
    env.reset(0)
    for info in ({"x": 1}, {"x": "text"}, {"y": np.zeros(3)}, {"y": np.zeros(2)}, {}, {"is_success": 1}, {}):
        Said.says = {"info": info}
        for _ in range(3):
            step = env.step(torch.zeros(2, 1))
    assert not step.success.any() and env.reports_success


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("says", "words"),
    [
        ({"reward": np.zeros(2)}, "returned a reward that is not a single number: array([0., 0.])"),
        ({"reward": "high"}, "returned a reward that is not a single number: 'high'"),
        ({"terminated": np.zeros(2)}, "returned a terminated flag that is not a single number"),
        ({"obs": np.zeros(4, np.float32)}, "returned an observation of shape (4,), but its space has (3,)"),
        ({"obs": np.zeros(1, np.float32)}, "returned an observation of shape (1,), but its space has (3,)"),
        ({"info": {"is_success": "yes"}}, "reported a success that is not a boolean: 'yes'"),
        ({"info": None}, "returned an info that is not a dictionary: None"),
    ],
)
def test_invalid_values_name_environment_step_and_value(says, words, vectorization):
    with pytest.raises(EnvironmentFault) as fault:
        stepped(says, vectorization=vectorization)
    assert str(fault.value).startswith(f"Environment 0 of Said-v0 {words}") and "at its step 3" in str(fault.value)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_wrong_observation_in_the_middle_of_a_run_saves_it(vectorization, tmp_path, capsys):
    Said.says = {"obs": np.zeros(4, np.float32)}
    arguments = ["hiro", "--env", "tasks:Said-v0", "--env-kwargs", "at=100", "--preset", "debug", "--eval-freq", "0"]
    arguments += ["--vectorization", vectorization, "--goal.low", "-1", "--goal.high", "1", "--log-dir", str(tmp_path)]
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert "shape (4,), but its space has (3,)" in error and error.count("\n") == 1
    assert Checkpoints(run_of(tmp_path) / "checkpoints").last().steps == 2 * 99


def test_a_system_exit_in_an_environment_is_reported(tmp_path, capsys, monkeypatch):
    def leave(self, action):
        raise SystemExit(3)

    monkeypatch.setattr(Said, "step", leave)
    arguments = ["sac", "--env", "tasks:Said-v0", "--preset", "debug", "--eval-freq", "0", "--log-dir", str(tmp_path)]
    assert train.main(arguments) == 2
    assert "raised SystemExit in step() at its step 1: 3" in capsys.readouterr().err


def test_an_environment_that_cannot_close_is_reported(tmp_path, capfd, monkeypatch):
    def fail(self):
        raise RuntimeError("stuck")

    Said.says = {}
    monkeypatch.setattr(Said, "close", fail, raising=False)
    arguments = ["sac", "--env", "tasks:Said-v0", "--preset", "debug", "--log-dir", str(tmp_path)]
    assert train.main(arguments) == 0
    assert "raised RuntimeError in close()" in capfd.readouterr().err


def test_a_missing_library_of_mujoco_raises_a_clear_error(tmp_path):
    """MUJOCO_GL=osmesa without OSMesa: MuJoCo cannot be imported at all."""
    (tmp_path / "mujoco.py").write_text("raise AttributeError(\"'NoneType' object has no attribute 'glGetError'\")\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "MUJOCO_GL": "osmesa"}
    for env, words in (
        ("PointMaze_UMaze-v3", "MuJoCo's tasks are not available"),
        ("hrl/AntMaze-v0", "cannot be made"),
    ):
        command = [sys.executable, str(ROOT / "train.py"), "td3", "--env", env, "--log-dir", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert words in done.stderr and "MUJOCO_GL is osmesa: is its library installed?" in done.stderr


# -- goals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "kind"), [((2, 1), "float32"), ((2,), "int64"), ((1, 2), "float64")])
def test_goals_reach_the_users_reward_in_their_shape_and_dtype(shape, kind):
    env = make_env(EnvConfig("tasks:GoalForm-v0", {"shape": shape, "kind": kind}, num_envs=2))
    reward, _ = env.spec.task_reward(torch.zeros(3, 2), torch.tensor([[0.0, 0.0], [0.2, 0.2], [2.0, 0.0]]))
    assert reward.tolist() == [0, 0, -1] and env.spec.reward_range == (-1, 0)
    agent = FlatTD3.of(hidden=(8,), batch_size=16, learning_starts=0).make(setting(env))
    roll(agent, env, 40)
    agent.levels[0].learn(80, 1000, agent.generator)


def test_a_reward_that_reads_info_raises_an_error_with_a_remedy(tmp_path, capsys):
    arguments = ["--env", "tasks:GoalForm-v0", "--env-kwargs", "reads_info=True", "--preset", "debug"]
    arguments += ["--log-dir", str(tmp_path)]
    assert train.main(["td3", *arguments]) == 2
    error = capsys.readouterr().err
    assert "reads info (KeyError: 'bonus')" in error and "--goal.info bonus" in error and "constructor" not in error
    assert train.main(["td3", *arguments, "--hindsight", "0"]) == 0
    assert train.main(["td3", *arguments, "--goal.info", "bonus"]) == 0


@pytest.mark.parametrize("period", [1, 3])
def test_hindsight_computes_rewards_from_the_stored_info(period):
    env = make_env(EnvConfig("tasks:GoalForm-v0", {"reads_info": True}, num_envs=2), info=("bonus",))
    config = small_hiro(period=period, hindsight=1.0)
    config.goal = GoalConfig(low=(-1.0,), high=(1.0,), info=("bonus",))
    agent = config.make(setting(env))
    roll(agent, env, 30)
    high = agent.levels[1]
    rows = high.memory.draw(64, agent.generator)
    plain = read_transitions(high.memory, rows, True)
    changed = high.relabels[-1](plain, agent.generator)
    # The reward of a step is 100 times its number in the episode, plus -1 or 0: t is the first observed entry times 10.
    first = plain.state[:, 0] * 10
    steps = torch.arange(period)
    t = first.unsqueeze(-1) + 1 + steps
    within = steps < plain.length.unsqueeze(-1)
    bonus = (100 * t * within * 0.9**steps).sum(-1)
    off = (changed.reward - bonus).round(decimals=2)
    assert ((off <= 0.01) & (off >= -sum(0.9**k for k in range(period)) - 0.01)).all()
    assert (changed.target != plain.target).any()


def test_a_reward_for_known_goals_is_not_called_with_others(tmp_path, capsys):
    """compute_reward looks goals up in a table: a goal outside the space would be an IndexError."""
    (tmp_path / "table.py").write_text(
        "import numpy as np, gymnasium as gym\nfrom gymnasium import spaces\nfrom tasks import GoalLine\n"
        "class Table(GoalLine):\n    table = np.arange(20)\n    def compute_reward(self, achieved, desired, info):\n"
        "        near = np.linalg.norm(achieved - desired, axis=-1) <= 0.25\n"
        "        self.table[np.rint(desired + 9).astype(int)]\n        return near.astype(float)\n"
        "gym.register('Table-v0', Table, max_episode_steps=12)\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        env = make_env(EnvConfig("table:Table-v0"))
        assert env.spec.task_reward.fault is None and env.spec.reward_range == (0, 1)
        fails = torch.full((1, 1), 1e6)
        with pytest.raises(EnvironmentFault, match="compute_reward of Table-v0 raised IndexError"):
            env.spec.task_reward(fails, fails)
    finally:
        sys.path.remove(str(tmp_path))


def test_a_missing_step_limit_is_none():
    env = make_env(EnvConfig("Pendulum-v1", {"max_episode_steps": -1}))
    assert env.spec.max_episode_steps is None


# -- worker processes ----------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from hrl.envs import EnvConfig, make_env

if __name__ == "__main__":
    config = EnvConfig("tasks:GoalLine-v0", num_envs=3, vectorization="async", workers=2, worker_start=sys.argv[1])
    env = make_env(config)
    obs = env.reset(0)
    for _ in range(20):
        step = env.step(torch.ones(3, 1))
    print("stepped", tuple(step.obs.state.shape), int(step.taken))
    env.close()
"""


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_find_their_memory(start, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(tests=str(__import__("pathlib").Path(__file__).parent)))
    done = subprocess.run([sys.executable, str(script), start], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.split("\n")[0] == "stepped (3, 2) 3", done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_cannot_make_its_environment_reports_the_reason():
    made = []

    def make():
        made.append(1)
        if len(made) > 1:  # the first is the parent's example
            raise RuntimeError("no licence here")
        return __import__("gymnasium").make("GoalLine-v0")

    with pytest.raises(EnvironmentFault, match="no licence here"):
        WorkerEnv([make, make], 1, __import__("gymnasium").vector.AutoresetMode.SAME_STEP)
