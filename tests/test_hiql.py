"""HIQL: its losses and its batches by hand, and runs from a dataset that resume exactly."""

import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CPU, read_line
from hrl_scripts import evaluate, train
from runs import LINE, await_checkpoint, run_of, same_state, start, trained
from tasks import GoalLine

import hrl
from hrl.agents.hiql import HIQL, Batch, HIQLConfig, awr_weight, expectile_loss
from hrl.agents.parts.goal_policy import GoalPolicy
from hrl.envs import EnvConfig, make_env
from hrl.memory.dataset import Dataset
from hrl.planning.config import PlannerConfig
from hrl.planning.exploring import Commanded as Seen
from hrl.planning.landmarks import Landmarks
from hrl.planning.offline import GoalReacher, PolicyDistance, VisitedRows, achieved_goals
from hrl.planning.travelled import TravelledDistance
from hrl.run.checkpoint import Checkpoints

LINE_ENV = "tasks:GoalLine-v0"


def learner(**options: Any) -> HIQL:
    """An untrained learner for GoalLine, whose states are [t / 10, x], and goals x."""
    torch.manual_seed(0)
    env = make_env(EnvConfig(LINE_ENV))
    return HIQL(HIQLConfig(**{"hidden": (8,), "batch_size": 32, "gamma": 0.9, **options}), env.spec, CPU)


def batch(**values: Any) -> Batch:
    """Two transitions from x = 0, to x = .5 and to x = -.25, with these changes."""
    state = torch.zeros(2, 2)
    fields = {
        "state": state, "next_state": torch.tensor([[0.1, 0.5], [0.1, -0.25]]),
        "action": torch.tensor([[1.0], [-1.0]]), "value_goal": torch.ones(2, 1), "reached": torch.zeros(2),
        "subgoal": torch.ones(2, 1), "high_goal": torch.ones(2, 1), "high_state": state,
        "high_subgoal": torch.ones(2, 1),
    }  # fmt: skip
    return Batch(**{**fields, **values})


@torch.no_grad()
def constant(net: Any, first: float, second: float) -> None:
    """Make both values of a value network constant."""
    net.heads[-1].weight.zero_()
    net.heads[-1].bias.copy_(torch.tensor([[first], [second]]))


@torch.no_grad()
def linear(net: Any, first: float, second: float) -> None:
    """Make the values of a network without hidden layers first · x and second · x."""
    constant(net, 0.0, 0.0)
    net.heads[-1].weight[:, 0, 1] = torch.tensor([first, second])


# -- losses ----------------------------------------------------------------------------------------------------


def test_the_expectile_loss_and_the_weights_by_hand():
    found = expectile_loss(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([2.0, 2.0, 3.0]), 0.7)
    assert found.tolist() == pytest.approx([0.3 * 4, 0.7 * 4, 0.7 * 9])
    assert awr_weight(torch.tensor([-1.0, 0.0, 0.5, 10.0]), 2.0).tolist() == pytest.approx(
        [math.exp(-2), 1, math.e, 100]
    )


def test_the_value_is_regressed_on_minus_one_a_step_until_the_goal():
    agent = learner()
    constant(agent.target, -3.0, -5.0)
    constant(agent.value, -2.0, -4.5)
    loss, metrics = agent.value_loss(batch(reached=torch.tensor([0.0, 1.0])))
    # On the way, A = -1 + .9 (-5) + (3 + 5) / 2 = -1.5, and the targets are -1 + .9 (-3) = -3.7 and -5.5.
    way = 0.3 * (1.7**2 + 1.0**2)
    # At the goal, A = 0 + 4, and the targets are 0.
    goal = 0.7 * (2.0**2 + 4.5**2)
    assert float(loss) == pytest.approx((way + goal) / 2, rel=1e-5)
    assert float(metrics["advantage"]) == pytest.approx((4 - 1.5) / 2, rel=1e-5)


def test_the_scale_of_values_multiplies_them():
    one, ten = learner(), learner(value_scale=10.0)
    state, goal = torch.ones(3, 2), torch.ones(3, 1)
    assert torch.equal(ten.value(state, goal), 10 * one.value(state, goal))


def test_both_advantages_and_policy_losses_by_hand():
    agent = learner(hidden=(), low_alpha=2.0, high_alpha=1.0, rep_dim=3)
    linear(agent.value, 1.0, 3.0)  # V = 2 x
    for policy in (agent.low, agent.high):
        for x in policy.parameters():
            x.data.zero_()
    loss, metrics = agent.low_loss(batch())
    # V(s') - V(s) = 1 and -.5; log N(±1; 0, 1) = -1/2 - log(2π) / 2.
    assert float(metrics["weight"]) == pytest.approx((math.exp(2) + math.exp(-1)) / 2, rel=1e-5)
    cost = 0.5 + 0.5 * math.log(2 * math.pi)
    assert float(loss) == pytest.approx(float(metrics["weight"]) * cost, rel=1e-5)
    loss, metrics = agent.high_loss(batch(high_state=torch.tensor([[1.0, 0.75], [1.0, 0.25]])))
    # V(s_{t+k}) - V(s) = 1.5 and .5; φ has the length √3, and the policy's mean is 0.
    assert float(metrics["advantage"]) == pytest.approx(1.0)
    assert float(loss) == pytest.approx((math.exp(1.5) + math.exp(0.5)) / 2 * 0.5 * 3, rel=1e-5)


def test_only_the_values_loss_trains_the_representation():
    agent = learner()
    for name in ("low_loss", "high_loss"):
        loss, _ = getattr(agent, name)(batch())
        gradients = torch.autograd.grad(loss, list(agent.value.parameters()), allow_unused=True)
        assert all(x is None for x in gradients)
    loss, _ = agent.value_loss(batch())
    assert all(bool(x.abs().sum() > 0) for x in torch.autograd.grad(loss, list(agent.value.rep.parameters())))


def test_the_value_is_a_distance_in_steps():
    agent = learner()
    constant(agent.value, -(1 + 0.9 + 0.81), -(1 + 0.9 + 0.81))
    at = torch.zeros(4, 3, 2)
    assert agent.distance(at, torch.zeros(4, 3, 1)).flatten().tolist() == pytest.approx([3.0] * 12, rel=1e-4)
    constant(agent.value, -11.0, -11.0)  # below what any number of steps costs
    assert bool(agent.distance(at, torch.zeros(4, 3, 1)).isfinite().all())


def test_the_low_policy_alone_sees_the_representation_of_its_goal():
    agent = learner()
    state, goal = torch.zeros(2, 2), torch.tensor([[1.0], [-1.0]])
    low = agent.low(torch.cat([state, agent.value.represent(state, goal)], -1))
    assert torch.equal(GoalPolicy(agent, levels=1).act(Seen(state, goal, None), (), "greedy")[0], low.clamp(-1, 1))
    assert not torch.equal(agent.act(state, goal), agent.act_low(state, goal))


# -- planning --------------------------------------------------------------------------------------------------


def test_landmarks_of_a_dataset_with_a_policys_own_distance(two):
    """Edges lead forwards only, up to 4 units away, at 2 steps a unit; places are the second entries of states."""

    def steps(state: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        ahead = goal[:, 0] - state[:, 1]
        return torch.where(ahead >= 0, 2 * ahead, torch.inf)

    env = make_env(EnvConfig(LINE_ENV))
    reacher = GoalReacher(GoalPolicy(learner(), env), steps, two, longest=8.0)
    distance = PolicyDistance(reacher, achieved_goals(env.spec, CPU))
    landmarks = Landmarks(distance, env.spec, PlannerConfig(landmarks=8), 8.0)
    landmarks.refresh(VisitedRows(two), torch.Generator().manual_seed(0))
    number = {int(x): i for i, x in enumerate(landmarks.place[:, 0])}
    assert set(number) <= {1, 3, 5, 7, 11, 13, 15, 17} and len(number) == 8  # the rows that are not final
    between = landmarks.between
    assert float(between[number[1], number[7]]) == 12 and between[number[7], number[1]].isinf()
    assert float(between[number[7], number[11]]) == 8  # from one trajectory to the other
    goal = torch.tensor([[17.0]])
    route = landmarks.route(torch.tensor([[0.0, 1.0]]), goal, landmarks.to_goal(goal))
    assert bool(route.connected) and float(route.place) in (3.0, 5.0) and float(route.steps) in (4.0, 8.0)


def test_steps_as_trajectories_travelled_and_edges_that_they_confirm(two):
    """Every row is 2 units further, so that a unit takes half a step. No trajectory goes from 9 to 11."""
    env = make_env(EnvConfig(LINE_ENV))
    goals = achieved_goals(env.spec, CPU)
    distance = TravelledDistance(goals, goals.threshold, CPU)
    landmarks = Landmarks(distance, env.spec, PlannerConfig(landmarks=8), 2.0, confirmed=True)
    landmarks.refresh(VisitedRows(two), torch.Generator().manual_seed(0))
    assert float(distance.slowness) == pytest.approx(0.5)
    number = {int(x): i for i, x in enumerate(landmarks.place[:, 0])}
    between = landmarks.between
    assert float(between[number[1], number[7]]) == pytest.approx(3) == float(between[number[7], number[1]])
    assert between[number[7], number[11]].isinf() and landmarks.facts["components"] == 2


def test_a_batch_belongs_together():
    agent = learner(subgoal_steps=2)
    x = torch.arange(10.0)  # t / 10 counts rows, x is three times as much
    rows = torch.stack([x, 3 * x], -1)
    data = Dataset.of(rows, torch.zeros(10, 1), [i in (4, 9) for i in range(10)], CPU)
    b = agent.sample(data, torch.Generator().manual_seed(0))
    row = b.state[:, 0]
    final = torch.where(row < 5, 4.0, 9.0)
    assert torch.equal(b.next_state[:, 0], row + 1)
    assert torch.equal(b.subgoal[:, 0], 3 * torch.minimum(row + 2, final))
    assert torch.equal(b.high_state[:, 1], torch.minimum(3 * (row + 2), b.high_goal[:, 0]))
    assert torch.equal(b.high_subgoal[:, 0], b.high_state[:, 1])
    assert torch.equal(b.reached, (b.value_goal[:, 0] == 3 * row).float())


# -- runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random walks on GoalLine, whose steps are twice as long on average in one direction of each trajectory."""
    rng = np.random.default_rng(0)
    action = np.clip(rng.uniform(-1, 1, (60, 21, 1)) + rng.choice([-0.4, 0.4], (60, 1, 1)), -1, 1)
    x = np.cumsum(np.concatenate([rng.uniform(-1, 1, (60, 1, 1)), 0.5 * action[:, :-1]], 1), 1)
    time_ = np.broadcast_to(np.arange(21)[:, None] / 10, x.shape)
    terminals = np.broadcast_to(np.arange(21) == 20, (60, 21))
    file = tmp_path_factory.mktemp("walks") / "walks.npz"
    np.savez(
        file, observations=np.concatenate([time_, x], -1).reshape(-1, 2), actions=action.reshape(-1, 1),
        terminals=terminals.reshape(-1),
    )  # fmt: skip
    return file


def test_a_run_learns_to_go_towards_goals_and_a_planner_leads_it(walks, tmp_path, capsys):
    more = ["--hidden", "32", "32", "--batch-size", "128", "--learning-rate", "3e-3", "--tau", "0.05"]
    more += ["--gamma", "0.9", "--subgoal-steps", "4", "--total-steps", "400", "--eval-freq", "0", "--save-freq", "0"]
    run = trained(tmp_path, "--dataset", str(walks), *more, algorithm="hiql")
    policy = hrl.load(run, trust=True).policy("last")
    state, goal = torch.zeros(2, 2), torch.tensor([[2.0], [-2.0]])
    action = policy.learner.act(state, goal)
    assert float(action[0]) > 0.2 and float(action[1]) < -0.2
    near, far = policy.distance(state, torch.tensor([[0.5], [2.0]])).tolist()
    assert 0 < near < far
    assert evaluate.main([str(run), "--episodes", "10", "--json", "--trust"]) == 0
    seen = {"observation": state.numpy(), "achieved_goal": state[:, 1:].numpy(), "desired_goal": goal.numpy()}
    predicted, memory = policy.predict(seen)
    assert memory == () and np.allclose(predicted, action.numpy())
    for word in ("0", "1"):  # the low policy alone, and both
        line = [str(run), "--planner", "graph", "--planner.landmarks", "12", "--planner.level", word]
        assert evaluate.main([*line, "--episodes", "5", "--json", "--trust"]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["landmarks"] > 1 and found["max_hop"] == pytest.approx((4.0, 10.0)[int(word)])
    for wrong, sentence in (("level=2", "level 2 does not exist"), ("explore=9", "takes landmarks from the dataset")):
        name, value = wrong.split("=")
        assert evaluate.main([str(run), "--planner", "graph", f"--planner.{name}", value, "--trust"]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_run_that_is_resumed_equals_one_that_went_on(walks, tmp_path):
    given = ["--dataset", str(walks), "--total-steps"]
    whole = trained(tmp_path / "whole", *given, "40", "--save-freq", "20", "--eval-freq", "20", algorithm="hiql")
    part = trained(tmp_path / "part", *given, "20", "--save-freq", "20", "--eval-freq", "20", algorithm="hiql")
    assert train.main(["--resume", str(part), "--total-steps", "40", "--progress", "False", "--trust"]) == 0
    assert same_state(part, whole)
    assert Checkpoints(whole / "checkpoints").last().numbers["steps"] == 40
    changed = dict(np.load(walks))
    changed["observations"] = changed["observations"] + 1.0
    content = walks.read_bytes()
    try:
        np.savez(walks, **changed)
        assert train.main(["--resume", str(part), "--total-steps", "60", "--progress", "False", "--trust"]) == 2
    finally:
        walks.write_bytes(content)


class Numbered(GoalLine):
    """GoalLine with the actions left, stay and right, numbered from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(3, start=1)  # type: ignore[assignment]

    def step(self, action: Any) -> Any:
        return super().step(np.array([float(action) - 2]))


gym.register("NumberedLine-v0", Numbered, max_episode_steps=12)


def test_the_low_policy_chooses_among_numbered_actions(tmp_path):
    env = make_env(EnvConfig("NumberedLine-v0"))
    actions = np.array([1, 3, 2, 3, 1, 1])
    np.savez(tmp_path / "a.npz", observations=np.zeros((6, 2)), actions=actions, terminals=np.arange(6) == 5)
    data = read_line(str(tmp_path / "a.npz"), env)
    assert data.action.flatten().tolist() == [0, 2, 1, 2, 0, 0]
    agent = HIQL(HIQLConfig(hidden=(8,), batch_size=16), env.spec, CPU)
    assert all(bool(x.isfinite()) for x in agent.update(data, torch.Generator().manual_seed(0)).values())
    obs = env.reset(0)
    chosen = agent.act(obs.state, obs.goal)
    assert chosen.shape == (1, 1) and chosen.item() in (0, 1, 2)
    assert abs(float(env.step(chosen).obs.state[0, 1] - obs.state[0, 1])) == pytest.approx(abs(chosen.item() - 1) / 2)


def test_a_request_to_stop_is_obeyed_and_saved(walks, tmp_path):
    given = ["--dataset", str(walks), "--total-steps", "1000000", "--eval-freq", "0", "--save-freq", "20"]
    process = start("hiql", *LINE, *given, "--log-dir", str(tmp_path))
    await_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 4 and process.returncode == 143 and "saved" in out and "Traceback" not in err
    assert Checkpoints(run_of(tmp_path) / "checkpoints").steps >= 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "HIQL learns from a dataset: give --dataset"),
        (["--env", "Pendulum-v1", "--dataset", "x.npz"], "HIQL needs an environment with observation, achieved_goal"),
        (["--dataset", "x.npz"], "x.npz cannot be read as an npz file"),
        (["--dataset", "x.npz", "--expectile", "1"], "--expectile must lie between 0 and 1, not at 1.0"),
        (["--dataset", "x.npz", "--current-goals", "0.8"], "fractions that add up to at most 1"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(tmp_path, capsys, words, sentence):
    assert train.main(["hiql", *LINE, *words, "--log-dir", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_steps_are_named_as_gradient_steps(walks, tmp_path, capsys):
    trained(tmp_path, "--dataset", str(walks), "--total-steps", "10", "--eval-freq", "0", algorithm="hiql")
    assert "10 / 10 gradient steps" in capsys.readouterr().out
