"""Planning over landmarks: paths, distances and hops by hand, and a planner over trained runs."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CPU, made, setting, small_hiro
from hrl_scripts import evaluate, train
from runs import LINE, run_of, same_state, trained

import hrl
from hrl.agents.hiro import HIROConfig
from hrl.envs import EnvConfig, make_env
from hrl.envs.spec import Observation
from hrl.hierarchy.clock import FRESH
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.learners import DQN, SAC, TD3, Build, DQNConfig
from hrl.memory.ring import Replay
from hrl.planning.build import landmarks_of, planner_notes
from hrl.planning.config import PlannerConfig
from hrl.planning.distance import Distance, fitted_steps, interpolated, steps_of_value
from hrl.planning.graph import components, farthest_points, shortest_paths
from hrl.planning.landmarks import Landmarks, connected_landmarks
from hrl.planning.planner import FAILED, PlannerPolicy
from hrl.run.checkpoint import Checkpoints
from hrl.training.policy import HierarchyPolicy

LAST = 1 / 9
MAZE = ["--env", "hrl/PointMaze_UMaze-v0"]


# -- the graph -----------------------------------------------------------------------------------------------


def test_shortest_paths_on_a_graph_of_six_nodes():
    edges = {(0, 1): 7.0, (0, 2): 9.0, (0, 5): 14.0, (1, 2): 10.0, (1, 3): 15.0, (2, 3): 11.0, (2, 5): 2.0, (3, 4): 6.0}
    start, end = torch.tensor(list(edges)).T
    paths = shortest_paths(start, end, torch.tensor(list(edges.values())), 6)
    assert paths[0].tolist() == [0, 7, 9, 20, 26, 11]
    assert paths[1].tolist() == [math.inf, 0, 10, 15, 21, 12] and paths[4].isinf().sum() == 5  # one way only
    both = components(torch.cat([start, end]), torch.cat([end, start]), 6)
    assert both.unique().numel() == 1 and components(start, end, 6).unique().numel() == 6


def test_farthest_points_match_calculated_ones():
    points = torch.tensor([[0.0], [1.0], [5.0], [6.0], [10.0], [5.1]])
    assert farthest_points(points, 4).tolist() == [2, 0, 4, 1]  # the mean is 4.52; then 5, 5, and 1 away
    assert farthest_points(points, 6, least=1.0).tolist() == [2, 0, 4]


# -- distances -----------------------------------------------------------------------------------------------


def test_steps_from_a_value_match_calculated_values():
    # -1 a step for 3 steps, then 0: -(1 + .9 + .81); never: -10.
    value = torch.tensor([-2.71, 0.0, -10.0, -11.0, 0.2])
    assert steps_of_value(value, 0.9, -10.0, 0.0).tolist() == pytest.approx([3, 0, math.inf, math.inf, 0], abs=1e-4)
    assert float(steps_of_value(torch.tensor(-2.71), 0.9, -10.0, 0.0)) == pytest.approx(
        math.log(1 + 0.1 * -2.71) / math.log(0.9), abs=1e-4
    )
    # 0 until the end, which pays 1: γ⁴ four steps before.
    assert float(steps_of_value(torch.tensor(0.5**4), 0.5, 0.0, 1.0)) == pytest.approx(4)


def test_a_calibration_is_monotone_and_fits_the_visited_states():
    value, steps = np.array([-1.0, -2.0, -3.0, -4.0]), np.array([1, 4, 2, 9])
    values, fit = fitted_steps(value, steps)
    assert values.tolist() == [-4, -3, -2, -1] and fit.tolist() == [9, 3, 3, 1]  # 4 and 2 are out of order
    curve = torch.tensor(values), torch.tensor(fit)
    asked = torch.tensor([-3.5, -2.5, -1.25, 0.0, -4.1], dtype=torch.float64)
    assert interpolated(asked, *curve).tolist() == [6, 3, 1.5, 1, math.inf]


def test_a_learners_value_is_the_lesser_critics_under_its_own_policy():
    torch.manual_seed(0)
    inputs = torch.randn(5, 3)
    for kind in (TD3, SAC):
        learner = made(kind, 3, 2, hidden=(8,))
        both = learner.critic(inputs, learner.mode(inputs))
        assert torch.equal(learner.value(inputs), torch.minimum(*both)) and not torch.equal(*both)
    dqn = DQN(Build(3, gym.spaces.Discrete(4)), DQNConfig(hidden=(8,)))
    assert torch.equal(dqn.value(inputs), dqn.critic(inputs).max(-1).values)


# -- landmarks on a line -------------------------------------------------------------------------------------


def on_a_line(reward: str = "sparse", **options: Any) -> tuple[Hierarchy, Landmarks]:
    """Landmarks of a low level with γ = 1/2 and V = -|x - g|: 1, 2 and 3 steps at 1, 1.5 and 1.75, never from 2 on.

    The second critic is more hopeful, so that the first one counts. Places are reached within .1; hops of length 1 take
    a step for the other .9, so the last .1 are a ninth of a step."""
    env = make_env(EnvConfig("GoalLine-v0", num_envs=1))
    config: HIROConfig = small_hiro(period=2)
    config.low.reward, config.low.gamma, config.low.learner.hidden = reward, 0.5, (2,)
    agent = config.make(setting(env))
    hidden, _, last = agent.levels[0].learner.critic.layers
    for parameter in (hidden.weight, hidden.bias, last.bias):
        parameter.data.zero_()
    hidden.weight.data[:, 2] = torch.tensor([1.0, -1.0])  # after the two entries of the state, before the action
    last.weight.data[:, 0] = torch.tensor([[-1.0, -1.0], [-0.5, -0.5]])
    return agent, landmarks_of(agent, env.spec, PlannerConfig(**{"landmarks": 12, **options}), False)


def visited(*walks: list[float]) -> Replay:
    """A replay of episodes through these places."""
    ring = Replay({"state": 2}, ("state",), (), 100, 1, CPU)
    always = torch.ones(1, dtype=torch.bool)
    for walk in walks:
        for i, (x, following) in enumerate(pairwise(walk)):
            row, after = ({"state": torch.tensor([[0.0, place]])} for place in (x, following))
            ring.write(row, after, {}, always, always & (i == len(walk) - 2), ~always)
    return ring


def refreshed(landmarks: Landmarks, replay: Replay) -> dict[float, int]:
    """Choose landmarks. Returns their numbers by place."""
    landmarks.refresh(replay, torch.Generator().manual_seed(0))
    return {
        round(float(x), 2): i
        for i, (x, there) in enumerate(zip(landmarks.place, landmarks.there, strict=True))
        if there
    }


def test_edges_are_hops_that_the_value_calls_near():
    agent, landmarks = on_a_line(max_hop=2.0)
    number = refreshed(landmarks, visited([0.0, 1.0, 2.0, 3.0, 3.0], [6.0, 6.0]))
    assert set(number) == {0, 1, 2, 3}  # none leads to 6, so that it is no landmark
    assert landmarks.facts["edges"] == 6 and landmarks.facts["edge_steps"] == pytest.approx(1 + LAST)
    assert [float(landmarks.between[number[0], number[x]]) for x in (0, 1, 2, 3)] == pytest.approx(
        [k * (1 + LAST) for k in range(4)]
    )
    assert (
        landmarks_of(agent, make_env(EnvConfig("GoalLine-v0")).spec, PlannerConfig(), False).max_hop == 2
    )  # 1 / (1-γ)
    _, narrow = on_a_line(max_hop=0.9)  # half a unit takes .4 steps, a whole one takes one
    refreshed(narrow, visited([0.0, 0.5, 1.0, 1.5, 1.5]))
    assert narrow.facts["edges"] == 6


@pytest.mark.parametrize(("most", "count", "is_connected"), [(4, 4, False), (5, 5, False), (100, 16, True)])
def test_landmarks_are_doubled_until_their_graph_is_connected(most, count, is_connected):
    agent, _ = on_a_line()
    spec, replay = make_env(EnvConfig("GoalLine-v0")).spec, visited([float(k) for k in range(14)])
    options = PlannerConfig(landmarks=4, max_landmarks=most, max_hop=2.0)  # a hop is at most one place long
    make = lambda options: landmarks_of(agent, spec, options, False)  # noqa: E731
    landmarks = connected_landmarks(make, options, replay, torch.Generator().manual_seed(0))
    assert len(landmarks.state) == count and (landmarks.share_connected == 1) == is_connected


def test_the_next_landmark_begins_the_shortest_path():
    _, landmarks = on_a_line(max_hop=2.0)
    number = refreshed(landmarks, visited([0.0, 1.0, 2.0, 3.0, 3.0]))
    steps = lambda apart: math.log(1 - 0.5 * apart) / math.log(0.5) + LAST  # noqa: E731
    goal, state = torch.tensor([[3.2]]), torch.tensor([[0.0, 0.2]])
    to_goal = landmarks.to_goal(goal)
    assert float(to_goal[0, number[1]]) == pytest.approx(2 * (1 + LAST) + steps(0.2))  # not over 2
    route = landmarks.route(state, goal, to_goal)
    assert route.node.item() == number[1] and bool(route.connected) and float(route.place) == 1
    assert float(route.steps) == pytest.approx(steps(0.8))
    near = landmarks.route(torch.tensor([[0.0, 2.5]]), goal, to_goal)
    assert near.node.item() == 12 and float(near.place) == pytest.approx(3.2)  # the goal itself
    avoid = torch.zeros(1, 13)
    avoid[0, number[2]] = 1.0
    there = landmarks.route(torch.tensor([[0.0, 0.95]]), goal, to_goal, avoid)
    assert there.node.item() == number[2]  # although it costs more: 1 is reached, within .1
    avoid = torch.zeros(1, 13)
    avoid[0, number[1]] = 5.0
    assert landmarks.route(state, goal, to_goal, avoid).node.item() == number[0]


def test_a_goal_without_a_path_is_reported_and_headed_for():
    _, landmarks = on_a_line(max_hop=2.0)
    refreshed(landmarks, visited([0.0, 1.0, 2.0, 2.0], [7.0, 8.0, 9.0, 9.0]))
    assert landmarks.facts["components"] == 2 and landmarks.facts["largest_component"] == 0.5
    goal = torch.tensor([[8.2], [1.9]])
    route = landmarks.route(torch.tensor([[0.0, 0.2], [0.0, 0.2]]), goal, landmarks.to_goal(goal))
    assert route.connected.tolist() == [False, True]
    assert route.node[0].item() == 12 and float(route.place[0]) == pytest.approx(8.2)
    # Across a gap that the value calls too long, but not endless, the path goes on to its edge.
    number = refreshed(landmarks, visited([0.0, 1.0, 2.0, 2.0], [3.85, 4.85, 5.85, 5.85]))
    goal = torch.tensor([[3.8]])
    route = landmarks.route(torch.tensor([[0.0, 0.2]]), goal, landmarks.to_goal(goal))
    assert not bool(route.connected) and route.node.item() == number[1]


def test_straight_to_the_goal_is_the_last_choice_where_no_hop_is_allowed():
    """The graph calls all ways long, as behind walls. Straight to the goal would be the shortest way."""
    _, landmarks = on_a_line(max_hop=2.0)
    number = refreshed(landmarks, visited([0.0, 1.0, 2.0, 3.0, 3.0]))
    count = len(number)
    landmarks.between[:count, :count] = 50.0 * (1 - torch.eye(count))
    goal, state = torch.tensor([[0.6]]), torch.tensor([[0.0, 0.2]])
    route = landmarks.route(state, goal, landmarks.to_goal(goal))
    assert route.node.item() == number[0] and not bool(route.connected)


def test_edges_that_no_episode_went_along_are_dropped_where_they_must_be_confirmed():
    walks = [0.0, 1.0, 2.0, 1.0, 0.0], [3.0, 4.0, 5.0, 5.0]
    _, landmarks = on_a_line(max_hop=2.0)
    number = refreshed(landmarks, visited(*walks))
    assert float(landmarks.between[number[2], number[3]]) == pytest.approx(1 + LAST)
    _, landmarks = on_a_line(max_hop=2.0, confirmed=True)
    number = refreshed(landmarks, visited(*walks))
    assert landmarks.between[number[2], number[3]].isinf() and landmarks.facts["components"] == 2
    assert float(landmarks.between[number[5], number[4]]) == pytest.approx(1 + LAST)  # also against its direction


def test_edges_lead_to_the_exact_place():
    """The value needs 1 step until a place 1 away counts as reached, and 1 + 1/9 to the place itself."""
    for max_hop, edges in ((1.05, 0), (1.15, 6)):
        _, landmarks = on_a_line(max_hop=max_hop)
        refreshed(landmarks, visited([0.0, 1.0, 2.0, 3.0, 3.0]))
        assert landmarks.facts["edges"] == edges


def test_a_hop_leads_beyond_landmarks_that_are_already_reached():
    """The four nearest landmarks lie within .1."""
    _, landmarks = on_a_line(max_hop=2.0, neighbours=4)
    number = refreshed(landmarks, visited([0.0, 0.02, 0.04, 0.06, 0.08, 1.0, 2.0, 2.0]))
    assert {0, 0.02, 0.04, 0.06, 0.08, 1} <= set(number)
    goal = torch.tensor([[2.0]])
    route = landmarks.route(torch.tensor([[0.0, 0.04]]), goal, landmarks.to_goal(goal))
    assert bool(route.connected) and int(route.node) == number[1]


def test_the_steps_of_a_level_rewarded_for_progress_are_those_of_its_speed():
    """Its value is the same at every distance. The ball moves 1/4 in a step, and subgoals lie at most 1 away."""
    _, landmarks = on_a_line("progress")
    number = refreshed(landmarks, visited([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0], [2.75, 3.0, 3.25]))
    assert float(landmarks.distance.tensors()["slowness"]) == pytest.approx(4)
    side = float(landmarks.distance.goals.half[0])
    assert float(landmarks.max_hop) == pytest.approx(4 * side / 2) == landmarks.facts["max_hop"]
    assert float(landmarks.between[number[0], number[1]]) == pytest.approx(4)
    assert landmarks.between[number[1.75], number[2.75]].isinf()  # no episode went there
    _, valued = on_a_line("progress", distance="calibrated")
    assert isinstance(valued.distance, Distance)


def test_a_hop_ends_when_it_arrives_or_is_late_and_a_late_one_costs():
    agent, landmarks = on_a_line(max_hop=2.0)
    number = refreshed(landmarks, visited([0.0, 1.0, 2.0, 3.0, 3.0]))
    policy = PlannerPolicy(HierarchyPolicy(agent.lowest(1)), landmarks)
    obs = Observation(torch.tensor([[0.0, 0.2], [0.0, 0.2]]), torch.tensor([[3.2], [0.5]]))
    _, plan, (shown,) = policy.decide(obs, policy.start(2))
    assert plan.node.tolist() == [number[1], 12] and shown.flatten().tolist() == pytest.approx([1, 0.5])
    assert plan.budget.tolist() == pytest.approx([2, 2])  # twice a step, the least
    for _ in range(2):
        plan = replace(plan, elapsed=plan.elapsed + 1)
    late, reached, failed = policy._settled(plan, obs.state)
    assert failed.tolist() == [True, True] and not reached.any() and bool((late.elapsed >= FRESH).all())
    assert late.extra[0, number[1]] == FAILED * 2 and late.extra[0].sum() == FAILED * 2
    assert late.extra[1].nonzero().flatten().tolist() == [12]
    arrived, reached, failed = policy._settled(plan, torch.tensor([[0.0, 1.05], [0.0, 0.2]]))
    assert reached.tolist() == [True, False] and arrived.extra[0].sum() == 0


# -- whole runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on a maze."""
    return trained(tmp_path_factory.mktemp("maze"), *MAZE, "--eval-freq", "0", "--total-steps", "600")


def summary(capsys: Any, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert evaluate.main([*arguments, "--planner", "graph", "--episodes", "3", "--max-steps", "60", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_planner_over_a_run_acts_twice_alike_and_says_how_its_hops_went(maze, capsys, tmp_path):
    options = ["--planner.landmarks", "20", "--planner.max-hop", "5"]
    one = summary(capsys, str(maze), *options, "--plot", str(tmp_path / "paths.png"))
    two = summary(capsys, str(maze), *options)
    assert {k: x for k, x in one.items() if k != "planning_seconds"} == {
        k: x for k, x in two.items() if k != "planning_seconds"
    }
    assert one["planner"] == "graph" and one["landmarks"] == 20 and one["max_hop"] == 5 and one["explored"] == 0
    assert {"hop_success_rate", "disconnected_goals", "edges"} <= one.keys() and (tmp_path / "paths.png").exists()
    first, second, *_ = planner_notes(one)
    assert "20 landmarks from the run's data" in first and "Disconnected goals: " in second


def test_a_planner_explores_where_the_run_was_not_trained(maze, capsys):
    options = ["--env", "hrl/PointMaze_Giant-v0", "--planner.explore", "3000", "--planner.landmarks", "30"]
    assert summary(capsys, str(maze), *options)["explored"] == 3000


@pytest.mark.parametrize(
    ("algorithm", "words", "options"),
    [
        ("td3", [], []), ("hiro", ["--levels", "3"], ["--planner.level", "1"]),
        ("hiro", ["--low.reward", "distance"], []),
    ],
)  # fmt: skip
def test_other_levels_and_rewards_are_planned_for_too(algorithm, words, options, tmp_path, capsys):
    run = trained(tmp_path, *MAZE, "--eval-freq", "0", "--total-steps", "300", *words, algorithm=algorithm)
    assert summary(capsys, str(run), "--planner.landmarks", "20", *options)["landmarks"] > 3


def test_prediction_plans_as_an_evaluation_does(maze):
    agent = hrl.load(maze).policy("last").agent
    env = make_env(EnvConfig("hrl/PointMaze_UMaze-v0", num_envs=2))
    landmarks = landmarks_of(agent, env.spec, PlannerConfig(landmarks=20, max_hop=5.0, explore=0), False)
    ring = Replay({"state": 4}, ("state",), (), 2000, 2, CPU)
    obs, off = env.reset(0), torch.zeros(2, dtype=torch.bool)
    for _ in range(200):
        step = env.step(torch.rand(2, 2) * 2 - 1)
        ring.write({"state": obs.state}, {"state": step.final.state}, {}, ~off, off, off)
        obs = step.obs
    landmarks.refresh(ring, torch.Generator().manual_seed(0))
    policy = PlannerPolicy(HierarchyPolicy(agent.lowest(1)), landmarks, env=env)
    obs, memory, state = env.reset(1), policy.start(2), None
    nodes = set()
    for t in range(40):
        action, memory, _ = policy.decide(obs, memory)
        raw = {
            "observation": obs.state.numpy(),
            "achieved_goal": obs.state[:, :2].numpy(),
            "desired_goal": obs.goal.numpy(),
        }
        predicted, state = policy.predict(raw, state, np.array([t == 0] * 2))
        assert np.array_equal(predicted, env.to_action(action.numpy()))
        nodes |= set(memory.node.tolist())
        step = env.step(action)
        memory, _ = policy.after(memory, step)
        obs = step.obs
    assert len(nodes) > 1


# -- training ------------------------------------------------------------------------------------------------


def test_a_planner_in_training_resumes_bit_for_bit_and_decides_by_its_landmarks(tmp_path):
    quick = ["--eval-freq", "0", "--low.train-freq", "16", "--high.train-freq", "16"]
    whole = trained(tmp_path / "whole", *quick, algorithm="landmarks")
    part = trained(tmp_path / "part", *quick, "--total-steps", "500", algorithm="landmarks")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)
    tensors = Checkpoints(whole / "checkpoints").last().tensors
    assert int(tensors["high.planning.rounds"]) == 3 and tensors["high.landmarks.there"].sum() > 10
    level = hrl.load(whole).policy("last").agent.levels[1]
    state, goal = level.landmarks.state[:4], level.landmarks.state[5:9, 1:]
    route = level.landmarks.route(state, goal, level.landmarks.to_goal(goal))
    assert bool(route.connected.any())
    expected = ((route.place - state[:, 1:]) / level.issues.goals.half).clamp(-1, 1)[route.connected]
    assert torch.allclose(level.decide(state, goal)[route.connected], expected, atol=1e-5)
    level.landmarks.there.fill_(False)  # without landmarks, the learner decides
    assert torch.equal(level.decide(state, goal), level.learner.act(level.inputs(state, goal), None))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--graph.landmarks 1", "graph.landmarks must be at least 4"),
        ("--graph.max-hop 0", "graph.max_hop must be positive"),
        ("--graph.every 0", "graph.every must be at least 1"),
        ("--low.learner ppo", "Landmarks are states from a replay"),
        ("--env Pendulum-v1", "A planner needs a goal"),
    ],
)
def test_bad_options_of_training_get_one_sentence(words, sentence, tmp_path, capsys):
    assert train.main(["landmarks", *LINE, "--log-dir", str(tmp_path), *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_bad_options_of_a_planner_get_one_sentence(maze, tmp_path, capsys):
    pendulum = ["--env", "Pendulum-v1", "--total-steps", "300", "--eval-freq", "0"]
    runs = {"td3": trained(tmp_path / "a", *pendulum, algorithm="td3"), "hiro": maze}
    runs["sb3"] = trained(tmp_path / "b", *pendulum, algorithm="sb3-td3")
    cases = [
        ("hiro", "--planner.level 2", "planner.level 2 does not exist"), ("hiro", "--planner.patience 0", "patience"),
        ("hiro", "--planner.max-landmarks 3", "planner.max_landmarks must be at least 4, not 3"),
        ("hiro", "--planner.level 1 --planner.distance value --planner.explore -1", "must not be negative"),
        ("td3", "", "A planner needs a goal"), ("sb3", "", "--planner needs a run of this toolkit with levels"),
    ]  # fmt: skip
    for run, words, sentence in cases:
        capsys.readouterr()
        assert evaluate.main([str(runs[run]), "--planner", "graph", *words.split()]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error


def test_a_calibrated_distance_is_needed_with_an_entropy_bonus(tmp_path, capsys):
    run = trained(tmp_path, *MAZE, "--eval-freq", "0", "--total-steps", "300", algorithm="sac")
    assert run_of(tmp_path) == run
    assert summary(capsys, str(run), "--planner.landmarks", "20")["landmarks"] > 3
    assert evaluate.main([str(run), "--planner", "graph", "--planner.distance", "value"]) == 2
    assert "use calibrated" in capsys.readouterr().err
