"""The reports of a run, and comparisons of runs."""

import json
import shutil

import gymnasium as gym
import gymnasium_robotics
import numpy as np
import pytest
import torch
from conftest import CPU, fresh, setting, small_hiro
from hrl_scripts import evaluate, train
from matplotlib.collections import PatchCollection
from runs import trained
from scipy import stats

from hrl.cli import training
from hrl.envs import EnvConfig, make_env
from hrl.envs.scene import Outline
from hrl.report.episodes import Episode, EpisodeCounter, Finished, Recent
from hrl.report.evaluation import Evaluation, Path, success_radius
from hrl.report.evaluation import evaluate as evaluated
from hrl.report.groups import Run, grouped
from hrl.report.hparams import comparable
from hrl.report.pictures import trajectory_figure
from hrl.report.statistics import student_interval
from hrl.training.policy import HierarchyPolicy
from hrl.types import UserError


def simulated(recent: Recent, steps: int, num_envs: int, cut_every: int = 0, seed: int = 0) -> list[float]:
    """Success rates shown while episodes run of which half succeed after 5 steps and half fail after 50."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.zeros(num_envs)
    good = torch.rand(num_envs, generator=generator) < 0.5
    counter, shown = EpisodeCounter(num_envs, CPU), []
    yes = torch.ones(num_envs, dtype=torch.bool)
    for t in range(1, steps + 1):
        length += 1
        done = length >= torch.where(good, 5, 50)
        recent.add(counter.add(torch.zeros(num_envs), done & good, done, yes))
        length[done] = 0
        good = torch.where(done, torch.rand(num_envs, generator=generator) < 0.5, good)
        if cut_every and t % cut_every == 0:
            recent.truncate_episodes()
            counter.restart()
            length.zero_()
            good = torch.rand(num_envs, generator=generator) < 0.5
        shown.append(recent.scalars().get("rollout/success_rate", float("nan")))
    return shown


def test_the_success_of_training_is_that_of_all_episodes_that_began():
    """Counting finished episodes alone would show 1.00 at first, since only short, successful ones have ended then."""
    shown = np.array(simulated(Recent(CPU, limit=50), 400, 200))
    assert np.isnan(shown[:49]).all()  # the first are waited for
    later = shown[60:]
    assert np.nanmax(later) < 0.65 and abs(np.nanmean(later) - 0.5) < 0.05


def test_checkpoints_that_truncate_episodes_do_not_raise_the_success_rate():
    """Each cut loses the long, failing episodes; those that began with them and succeeded must not count alone."""
    shown = np.array(simulated(Recent(CPU, limit=50), 1200, 100, cut_every=120))
    assert abs(np.nanmean(shown[130:]) - 0.5) < 0.06
    nothing = np.array(simulated(Recent(CPU, limit=50), 300, 100, cut_every=40))
    assert np.isnan(nothing).all()  # no episode has had its time


def test_without_a_limit_the_longest_episode_determines_the_wait():
    shown = np.array(simulated(Recent(CPU), 2000, 200))
    assert abs(np.nanmean(shown[1000:]) - 0.5) < 0.05


def test_rounds_are_whole_and_a_resumed_window_is_the_same():
    recent = Recent(CPU)
    for k in range(3):
        values = torch.tensor([[float(k), 10.0, 1.0, 1.0], [float(k), 20.0, 0.0, 0.0]])
        recent.add_together(Finished(torch.ones(2, dtype=torch.bool), values))
        assert recent.scalars()["rollout/success_rate"] == 0.5
    assert recent.scalars()["rollout/ep_rew_mean"] == 1.0 and recent.scalars()["rollout/episodes"] == 6
    one, other = Recent(CPU, limit=50), Recent(CPU, limit=50)
    simulated(one, 300, 20)
    one.truncate_episodes()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert torch.equal(one.sums, other.sums) and one.scalars() == other.scalars()
    assert simulated(one, 100, 20, seed=1)[-1] == simulated(other, 100, 20, seed=1)[-1]


@pytest.mark.parametrize("num_envs", [1, 2, 3, 5])
def test_results_of_an_evaluation_do_not_depend_on_the_number_of_environments(num_envs):
    make, bridge = fresh("GoalLine-v0"), make_env(EnvConfig("GoalLine-v0"))
    agent = small_hiro().make(setting(bridge))
    policy = HierarchyPolicy(agent)
    alone, several = (evaluated(policy, make, 7, num_envs=n).summary() for n in (1, num_envs))
    assert set(alone) == set(several) and "subgoal_reach_rate" in alone
    for name, value in alone.items():
        assert several[name] == pytest.approx(value, abs=1e-5), name


def test_environments_that_reset_themselves_are_truncated_and_reset():
    """A batch cannot start single episodes: one that was cut idles until all have, and is not counted."""
    make, bridge = fresh("hrl/PointMaze_UMaze-v0"), make_env(EnvConfig("hrl/PointMaze_UMaze-v0"))
    agent = small_hiro().make(setting(bridge))
    result = evaluated(HierarchyPolicy(agent), make, 7, num_envs=3, max_steps=11)
    assert [e.length for e in result.episodes] == [11] * 7 and result.truncated == 7 and result.limit == 11


def test_episodes_keep_their_seeds_when_one_is_truncated_as_another_ends():
    """Ledger's episodes begin with number seed % 100, of 3, 7, 5 and 1 steps; the limit cuts those of 7 and of 5."""
    make, agent = fresh("Ledger-v0"), small_hiro().make(setting(make_env(EnvConfig("Ledger-v0"))))
    for num_envs in (1, 2, 3):
        result = evaluated(HierarchyPolicy(agent), make, 8, seed=100, num_envs=num_envs, max_steps=4)
        assert [e.length for e in result.episodes] == [3, 4, 4, 1, 3, 4, 4, 1], num_envs


def test_a_step_that_only_resets_measures_no_subgoal():
    from gymnasium.vector import AutoresetMode

    bridge = make_env(EnvConfig("Ledger-v0"), autoreset=AutoresetMode.NEXT_STEP)
    policy = HierarchyPolicy(small_hiro(period=3).make(setting(bridge)), bridge)
    obs, memory, counted = bridge.reset(0), policy.start(1), []
    for _ in range(12):  # episodes of 3 and of 7 steps, and a reset between them
        actions, memory, _ = policy.decide(obs, memory)
        step = bridge.step(actions)
        memory, pairs = policy.after(memory, step)
        counted.append(bool(pairs["subgoal_reach_rate"][1].any()))
        obs = step.obs
    assert counted == [False, False, True, False, False, False, True, False, False, True, True, False]


def test_students_interval_is_the_textbooks_and_needs_three_runs():
    values = [0.7, 0.9, 0.8, 1.0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert student_interval(values) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert student_interval([0.9]) is None and student_interval([0.9, 0.8]) is None
    assert student_interval([1.0, 1.0, 1.0]) is None  # a spread that was not seen
    for n in (3, 10, 31, 60):
        x = np.random.default_rng(n).normal(size=n)
        low, high = stats.t.interval(0.95, n - 1, np.mean(x), stats.sem(x))
        assert student_interval(list(x)) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


# -- groups --------------------------------------------------------------------------------------------------


def run(seed: int, lr: float = 1e-3, algorithm: str = "hiro", label: str | None = None, env: str = "X-v0") -> Run:
    settings = {"env": {"env": env}, "run": {"seed": seed}, "agent": {"low": {"learning_rate": lr, "gamma": 0.9}}}
    return Run(None, env, algorithm, settings, {}, label)  # type: ignore[arg-type]


def test_runs_with_equal_settings_form_a_group_and_groups_are_named_after_differences():
    groups = grouped([run(0), run(1), run(2, lr=0.5), run(0, algorithm="td3")])
    assert {name: len(members) for (_, name), members in groups.items()} == {
        "hiro, low.learning_rate 0.001": 2, "hiro, low.learning_rate 0.5": 1, "td3": 1,
    }  # fmt: skip
    assert list(grouped([run(0), run(1)])) == [("X-v0", "hiro")]
    assert {name for _, name in grouped([run(0, label="A"), run(1, lr=2.0, label="A"), run(2, label="B")])} == {
        "A",
        "B",
    }
    assert {name for _, name in grouped([run(0), run(1, lr=2.0)], ["low.gamma"])} == {"hiro, low.gamma 0.9"}
    assert len(grouped([run(0), run(0, env="Y-v0")])) == 2
    with pytest.raises(UserError, match=r"--group-by low\.wings: none of these runs has that option"):
        grouped([run(0)], ["low.wings"])


def test_runs_are_compared_by_their_settings_on_the_command_line(finished, tmp_path, capsys):
    other = trained(tmp_path / "other", "--low.learning-rate", "0.01")
    assert evaluate.main([str(finished), str(other), "--episodes", "2", "--plot", str(tmp_path / "x.png")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "low.learning_rate 0.001" in out and "low.learning_rate 0.01" in out and f"Written: {tmp_path / 'x.png'}" in out
    )
    assert (
        "[" not in out.split("low.learning_rate 0.001")[1].split("low.learning_rate 0.01")[0]
    )  # no interval of a single run
    assert evaluate.main([str(finished), str(other), "--episodes", "2", "--json", "--label", "slow", "fast"]) == 0
    assert [r["group"] for r in json.loads(capsys.readouterr().out)] == ["fast", "slow"]
    for arguments, words in (
        (["--label", "one"], "needs a name for each of the 2 runs"),
        (["--label", "a", "b", "--group-by", "low.learning_rate"], "give one of them"),
    ):
        assert evaluate.main([str(finished), str(other), *arguments]) == 2
        assert words in capsys.readouterr().err


def test_json_has_the_environments_arguments(tmp_path, capsys):
    one = trained(tmp_path, "--env-kwargs", "apart=True", "--total-steps", "200", "--eval-freq", "0")
    capsys.readouterr()
    assert evaluate.main([str(one), "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env_kwargs"] == {"apart": True}


def test_hyperparameters_have_the_same_columns_for_every_algorithm():
    env, settings = {"env": "X-v0", "num_envs": 4}, {"seed": 1, "total_steps": 10}
    agents = {
        "hiro": {"low": {"learning_rate": 0.1, "hidden": [8, 8]}, "high": {"learning_rate": 0.2, "period": 5}},
        "td3": {"learning_rate": 0.3},
        "maml": {"inner_lr": 0.1},
    }
    rows = {name: comparable(name, {"env": env, "run": settings, "agent": agent}) for name, agent in agents.items()}
    assert len({tuple(row) for row in rows.values()}) == 1
    assert rows["hiro"]["low: hidden layers"] == "8 x 8" and rows["hiro"]["high: period"] == 5
    assert rows["td3"]["low: learning rate"] == 0.3 and rows["td3"]["high: learning rate"] == "-"


# -- pictures ------------------------------------------------------------------------------------------------


def walked(dims: int) -> Evaluation:
    places = [np.arange(dims, dtype=float) + t for t in range(4)]
    path = Path(places, [[places[3]], [places[3]], [places[2]]], None, [[], []])
    return Evaluation([Episode(0, 0.0, 3, False, False)], [path], {})


def test_trajectories_are_drawn_in_two_chosen_dimensions():
    assert trajectory_figure(walked(3)) is None and trajectory_figure(walked(1)) is None
    figure = trajectory_figure(walked(3), dims=(2, 0))
    assert figure is not None
    (ax,) = figure.axes
    (start,) = (line for line in ax.get_lines() if line.get_label() == "start")
    assert (float(start.get_xdata()[0]), float(start.get_ydata()[0])) == (2.0, 0.0)
    assert len(ax.get_xticks()) > 1
    assert trajectory_figure(walked(3), dims=(0, 3)) is None


def test_the_picture_of_a_maze_shows_walls_and_the_radius_of_success(tmp_path):
    make = fresh("PointMaze_UMaze-v3", continuing_task=False)
    bridge = make_env(EnvConfig("PointMaze_UMaze-v3", {"continuing_task": False}))
    agent = small_hiro().make(setting(bridge))
    result = evaluated(HierarchyPolicy(agent), make, 2, keep_paths=2, max_steps=5)
    assert result.radius == pytest.approx(0.45, abs=1e-3)
    figure = trajectory_figure(result)
    assert figure is not None
    ax = figure.axes[0]
    walls = [len(x.get_paths()) for x in ax.collections if isinstance(x, PatchCollection)]
    assert sum(walls) == 18 and [type(patch).__name__ for patch in ax.patches] == ["Circle"]
    assert ax.get_xlim() == (-2.5, 2.5)  # the map's, not the path's


def test_objects_are_dashed_where_they_were_at_first_and_filled_where_they_are_at_last():
    apple, bomb = Outline(1.0, 1.0, 2.0, 2.0, "reward"), Outline(-3.0, 1.0, 2.0, 2.0, "hazard")
    wall = Outline(-4.0, -4.0, 8.0, 1.0, "wall")
    evaluation = walked(2)
    evaluation.paths[0].scene = [[wall, apple, bomb], [wall, bomb]]
    figure = trajectory_figure(evaluation)
    assert figure is not None
    drawn = [c for c in figure.axes[0].collections if isinstance(c, PatchCollection) and c.get_paths()]
    centres = [tuple(np.round(path.get_extents().get_points().mean(0), 6)) for c in drawn for path in c.get_paths()]
    dashed = [c.get_linestyle()[0][1] is not None for c in drawn for _ in c.get_paths()]
    # the apple is gone: only its first position is left
    expected = {((2.0, 2.0), True), ((-2.0, 2.0), True), ((-2.0, 2.0), False), ((0.0, -3.5), False)}
    assert set(zip(centres, dashed, strict=True)) == expected


def test_a_success_radius_is_found_where_the_reward_changes():
    spec = make_env(EnvConfig("GoalLine-v0")).spec
    assert success_radius(spec, torch.tensor([1.0])) == pytest.approx(0.25, abs=1e-4)
    assert success_radius(make_env(EnvConfig("Ledger-v0")).spec, torch.zeros(0)) is None


def test_a_picture_without_two_dimensions_raises_an_error_before_the_evaluation(finished, tmp_path, capsys):
    flat = trained(tmp_path / "flat", "--env", "Pendulum-v1", algorithm="sac")
    capsys.readouterr()
    for one, arguments, words in (
        (finished, [], "this goal space has one dimension"), (flat, [], "this agent has none"),
        (finished, ["--plot-dims", "0", "1"], "has dimensions 0 to 0"),
        (finished, ["--plot-dims", "1", "1"], "must be two dimensions"),
    ):  # fmt: skip
        code = evaluate.main([str(one), "--episodes", "100000", "--plot", str(tmp_path / "x.png"), *arguments])
        assert code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_resolved_choices_are_printed(tmp_path, capsys):
    trained(tmp_path, "--total-steps", "200")
    out = capsys.readouterr().out
    assert "Goal space: achieved_goal (entry 1 of the observation); subgoals are displacements within ±" in out
    assert "Low level: td3, acts every step, sparse reward, hindsight 0.8." in out
    assert "a subgoal every 10 steps, learns on (reward -1) x 0.1, hindsight 0.8" in out


def test_the_papers_settings_are_a_preset():
    agent = training.resolved("hiro", ["--env", "PointMaze_Large-v3", "--preset", "published"])[0].agent
    assert agent.high.correction and agent.low.reward == "distance" and agent.low.learner.hidden == (300, 300)
    assert agent.high.learner.action_l2 == 0 and not agent.goal.low  # nothing of what was tuned on the maze
    _, env, _, hrac = training.resolved("hrac", ["--env", "PointMaze_Large-v3", "--preset", "published"])[0]
    assert hrac.low.learner.batch_size == 128 and hrac.low.gamma == 0.95 and hrac.high.correction
    assert env.env_kwargs == {"continuing_task": False}  # the task is the same


@pytest.mark.parametrize("algorithm", ["hiro", "hrac", "td3"])
def test_all_variants_of_the_packages_ant_mazes_have_a_preset(algorithm):
    gym.register_envs(gymnasium_robotics)
    ids = [name for name in gym.registry if name.startswith("AntMaze_") and not name.endswith("-v3")]
    assert "AntMaze_Medium_Diverse_GRDense-v5" in ids
    for env_id in ids:
        _, env, run, _ = training.resolved(algorithm, ["--env", env_id])[0]
        assert env.action_scale == 0.2 and env.num_envs == 32, env_id
        larger = algorithm != "td3" and ("Medium" in env_id or "Large" in env_id)
        assert env.action_repeat == (2 if larger else 1), env_id
        assert run.total_steps == (2_000_000 if larger and "Large" in env_id else 1_000_000), env_id


@pytest.mark.parametrize("env_id", ["hrl/AntMaze-v0", "hrl/AntPush-v0", "hrl/AntGather-v0"])
def test_no_level_of_these_ants_presets_observes_the_time(env_id):
    ants = gym.make(env_id)
    seen = ants.reset(seed=0)[0], ants.step(np.zeros(8, np.float32))[0]
    before, after = (x["observation"] if isinstance(x, dict) else x for x in seen)
    time = np.isclose(after - before, 0.001).nonzero()[0].tolist()
    assert len(time) == 1
    _, _, _, agent = training.resolved("hiro", ["--env", env_id])[0]
    assert set(time) <= set(agent.low.masked_entries) and set(time) <= set(agent.high.masked_entries)


def test_an_id_of_an_installed_package_is_found(capsys):
    if not shutil.which("python") or __import__("importlib").util.find_spec("highway_env") is None:
        pytest.skip("needs highway-env")
    assert train.main(["hiro", "--env", "parking-v0"]) == 2
    assert "try --env highway_env:parking-v0" in capsys.readouterr().err
