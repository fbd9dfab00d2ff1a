"""Policies outside our loop, statistics across runs, and the boundaries between the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import fresh, roll, setting, small_hiro
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import hrl
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.report.episodes import EpisodeCounter
from hrl.report.evaluation import evaluate, interval
from hrl.report.statistics import Band, Curve, bootstrap_interval, interquartile_mean
from hrl.training.policy import HierarchyPolicy

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("early", [False, True])
def test_stable_baselines3_evaluates_our_policies_to_the_same_returns(early):
    bridge = make_env(EnvConfig("GoalLine-v0", num_envs=2))
    config = small_hiro(period=4, early=early)
    config.goal = GoalConfig(low=(-0.3,), high=(0.3,), threshold=0.4)  # many a subgoal is reached early
    agent = config.make(setting(bridge, seed=3))
    roll(agent, bridge, 20)
    policy = HierarchyPolicy(agent, bridge)
    ours = evaluate(policy, fresh("GoalLine-v0"), 8)
    theirs = []
    for episode in range(8):
        env = make_vec_env("GoalLine-v0", n_envs=1, seed=10_000_000 + episode)
        rewards, lengths = evaluate_policy(policy, env, 1, return_episode_rewards=True, warn=False)  # type: ignore[arg-type]
        theirs.append((rewards[0], lengths[0]))
    assert [(e.reward, e.length) for e in ours.episodes] == theirs
    assert len({length for _, length in theirs}) > 1 or theirs[0][1] == 12


def test_prediction_keeps_each_environments_own_clock():
    bridge = make_env(EnvConfig("Ledger-v0", num_envs=2))
    agent = small_hiro(period=3).make(setting(bridge))
    policy = HierarchyPolicy(agent, bridge)
    obs = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    _, state = policy.predict(obs, None, np.array([True, True]))
    first = state[0].copy()
    for t in (1, 2):
        _, state = policy.predict(obs + t, state, np.array([False, t == 2]))
    # Environment 0 keeps its subgoal for 3 steps; environment 1 began an episode at t = 2 and decided again.
    assert np.array_equal(state[0][0], first[0]) and not np.array_equal(state[0][1], first[1])
    assert state[1].tolist() == [2, 0]  # steps since each subgoal was issued
    _, state = policy.predict(obs + 3, state, np.array([False, False]))
    assert not np.array_equal(state[0][0], first[0]) and state[1].tolist() == [0, 1]


def test_prediction_takes_single_observations_and_explores_when_asked_to():
    bridge = make_env(EnvConfig("GoalLine-v0", num_envs=1))
    config = small_hiro()
    config.low.learner.action_noise, config.low.learner.random_actions, config.low.learner.random_hold = (
        (0.5,),
        (0.5, 1.0),
        3.0,
    )
    agent = config.make(setting(bridge))
    policy = HierarchyPolicy(agent, bridge)
    one, _ = gym.make("GoalLine-v0").reset(seed=0)
    batch = {key: value[None] for key, value in one.items()}
    (single, _), (batched, _) = policy.predict(one), policy.predict(batch)
    assert single.shape == (1,) and np.array_equal(batched, single[None])
    assert len({float(policy.predict(one, deterministic=False)[0][0]) for _ in range(5)}) > 1
    four = {key: value[None].repeat(4, 0) for key, value in one.items()}
    near = policy.predict(four, deterministic=False)[0] - policy.predict(four)[0]
    assert near.shape == (4, 1) and np.unique(near).size == 4  # noise of its own for each


@pytest.mark.parametrize("agent", ["ppo", "feudal", "lirpg", "sb3-ppo"])
def test_stochastic_evaluations_sample_actions(agent, tmp_path):
    """CartPole falls at other times, because untrained policies are nearly uniform."""
    run = hrl.train(agent, env="CartPole-v1", preset="debug", total_steps=64, log_dir=tmp_path, progress=False)
    greedy, sampled = (
        [[e.length for e in run.evaluate(8, deterministic=how).episodes] for _ in range(2)] for how in (True, False)
    )
    assert greedy[0] == greedy[1] and sampled[0] == sampled[1] != greedy[0]


def test_policies_that_adapt_have_no_stochastic_evaluation(tmp_path):
    run = hrl.train("maml", env="hrl/Navigation-v0", preset="debug", log_dir=tmp_path, progress=False)
    with pytest.raises(hrl.UserError, match="--eval-explore"):
        run.evaluate(1, deterministic=False)


def test_intervals_are_those_of_the_textbooks():
    low, high = interval([1.0] * 8 + [0.0] * 2, proportion=True)
    wilson = stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert (low, high) == (pytest.approx(wilson.low, abs=1e-4), pytest.approx(wilson.high, abs=1e-4))
    assert interval([1.0, 3.0], proportion=False) == pytest.approx((2 - 1.96, 2 + 1.96), abs=1e-3)


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    assert interquartile_mean([0.0, 1.0, 2.0, 100.0]) == pytest.approx(1.5)
    # Five values: the second and fourth count 3/4, the middle one 1.
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0, 0.0]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)
    even = [0.1, 0.4, 0.5, 0.9, 0.2, 0.3, 0.7, 0.8]
    assert interquartile_mean(even) == pytest.approx(stats.trim_mean(even, 0.25))
    low, high = bootstrap_interval(even)
    assert low < interquartile_mean(even) < high


def test_curves_cover_the_whole_range_of_their_runs():
    curves = [
        Curve(np.array([0.0, 10.0]), np.array([0.0, 1.0])),
        Curve(np.array([2.0, 6.0]), np.array([1.0, 1.0])),
        Curve(np.array([4.0]), np.array([0.7])),  # evaluated once
    ]
    band = Band.of(curves)
    assert band.steps.tolist() == [0, 2, 4, 6, 10] and band.complete.tolist() == [False, False, True, False, False]
    assert band.low.tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 1.0])
    assert band.high.tolist() == pytest.approx([0.0, 1.0, 1.0, 1.0, 1.0])
    assert band.middle[0] == 0 and band.middle[1] == pytest.approx(0.6)
    assert band.middle[2] == pytest.approx(0.7)  # of .4, .7 and 1 the middle half


def test_nothing_imports_upward():
    rooms = {
        "hrl": ("hrl.agents", "hrl.envs", "hrl_scripts"),
        "envs": ("hrl.agents", "hrl_scripts"),
        "agents": ("hrl.envs", "hrl_scripts"),
    }
    for room, forbidden in rooms.items():
        files = [file for file in (ROOT / room).rglob("*.py") if not {"api", "cli"} & {*file.parts}]  # above all rooms
        for file in files:
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert not name.startswith(forbidden), f"{file}:{node.lineno} imports {name}"
                    if room == "envs" and name.startswith("hrl"):
                        assert name.startswith("hrl.envs"), f"{file}:{node.lineno} imports {name}"
                    if "learners" in file.parts:
                        assert not name.startswith("hrl.hierarchy"), f"{file} imports {name}"


def test_a_users_own_packages_called_agents_and_envs_are_theirs(tmp_path):
    for package in ("agents", "envs", "train", "evaluate"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"WHOSE = 'the user: {package}'\n")
    (tmp_path / "envs" / "mine.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gym.register('Mine-v0', PendulumEnv, max_episode_steps=20)\n"
    )
    (tmp_path / "agents" / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from hrl.agents.flat import FlatSAC\n\n"
        "@dataclass\nclass Mine(FlatSAC):\n    '''An agent of my own.'''\n    starts: int = 50\n"
    )
    script = Path(sys.executable).with_name("hrl-train")
    command = [str(script), "agents.mine:Mine", "--env", "envs.mine:Mine-v0", "--total-steps", "60",
               "--eval-episodes", "1", "--hidden", "8"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (p.parent for p in tmp_path.rglob("config.json"))
    evaluated = subprocess.run(
        [str(script.with_name("hrl-evaluate")), str(run), "--episodes", "1", "--json", "--trust"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    whose = "import agents, envs, train; print(agents.WHOSE, envs.WHOSE, train.WHOSE)"
    out = subprocess.run([sys.executable, "-c", whose], cwd=tmp_path, capture_output=True, text=True).stdout
    assert out.strip() == "the user: agents the user: envs the user: train"


def test_success_at_any_step_and_at_the_final_step_are_distinguished():
    counter, no, yes = EpisodeCounter(2, torch.device("cpu")), torch.tensor([False] * 2), torch.tensor([True] * 2)
    # Environment 0 is there at the first step and leaves again; environment 1 arrives at the last.
    for success, end in (([True, False], no), ([False, True], yes)):
        finished = counter.add(torch.ones(2), torch.tensor(success), end, yes).episodes()
    assert [(e.success_any, e.success_final) for e in finished] == [(True, False), (True, True)]
    assert [(e.reward, e.length) for e in finished] == [(2.0, 2), (2.0, 2)]


def test_evaluated_episodes_are_those_of_their_seeds():
    agent = small_hiro().make(setting(make_env(EnvConfig("Ledger-v0"))))
    result = evaluate(HierarchyPolicy(agent), fresh("Ledger-v0"), 4).summary()
    # Seeds 10,000,000 + i begin with episode i: 3 steps cut, 7 ended, 5 cut, 1 ended; the end is the success.
    assert result["mean_ep_length"] == 4 and result["success_rate_any"] == result["success_rate_final"] == 0.5
    assert result["mean_reward"] == (6 + 28 + 15 + 1) / 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_runs_on_a_gpu(tmp_path):
    from hrl_scripts import train

    arguments = ["hiro", "--env", "tasks:GoalLine-v0", "--preset", "debug", "--device", "cuda"]
    assert train.main([*arguments, "--log-dir", str(tmp_path)]) == 0


def test_real_mujoco_tasks_pass_through_the_bridge():
    for env_id in ("AntMaze_UMaze-v4", "FetchReach-v4"):
        env = make_env(EnvConfig(env_id, num_envs=1))
        obs = env.reset(0)
        step = env.step(torch.zeros(1, env.spec.action_dim))
        assert step.final.state.shape == obs.state.shape == (1, env.spec.state_dim)
        raw = gym.make(env_id).observation_space
        width = raw["observation"].shape[0]  # type: ignore[index]
        assert env.spec.state_dim in (width, width + len(env.spec.achieved))
        env.close()
