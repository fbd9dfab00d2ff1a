"""HAC: its three kinds of transition at two and three levels, by hand, and a clock that counts decisions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import everything, roll, setting
from hrl_scripts import train
from runs import LINE, same_state, trained

from hrl.agents.hac import EndGoal, HACConfig, HACLevel, SubgoalTests, per_decision
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace, Select
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level
from hrl.learners import Batch
from hrl.memory.ring import Rows
from hrl.memory.transitions import Transitions, read_transitions
from hrl.training.policy import HierarchyPolicy

H = 3
PATH = (0.0, 1.0, 3.0, 3.5, 4.5)
"""x at the decisions of an episode that then ends. Places from -5 to 5 are subgoals, reached within .5."""
ISSUED = (0.4, 0.6, 0.2, 0.9)
"""The subgoals, in half-ranges: x = 2, 3, 1 and 4.5; the second and the last are reached."""
LEVELS = pytest.mark.parametrize(("levels", "number"), [(2, 1), (3, 1), (3, 2)])
"""Number of levels, and the level that is looked at."""


def hac(levels: int = 2, period: int = H, **changes: object) -> HACConfig:
    """A HAC with few units on a line that does not learn by itself."""
    quiet = HACLevel.of(hidden=(8,), train_freq=10**9, hindsight=0.0, batch_size=16)
    quiets: dict[str, object] = {"low": quiet, "middle": quiet, "high": quiet}
    given: dict[str, object] = {**quiets, "testing": 0.0, "hindsight_actions": 1.0, **changes}
    goal = GoalConfig(low=(-5.0,), high=(5.0,), relative=False, threshold=0.5)
    return HACConfig(levels=levels, period=(period,), goal=goal, learning_starts=0, **given)  # type: ignore[arg-type]


def level_of(levels: int, number: int, cut_short: bool = False, **changes: object) -> Level:
    """A level whose memory holds the path: all its subgoals were tested, for H decisions of the level below each, or
    one less."""
    env = make_env(EnvConfig("GoalLine-v0", num_envs=1))
    level = hac(levels, **changes).make(setting(env)).levels[number]
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    goal = torch.tensor([[9.0]])
    spent = H - cut_short
    for i, (x, after) in enumerate(pairwise(PATH)):
        count = lambda k: {name: torch.tensor([k * spent]) for name in ("first", "below")}  # noqa: E731
        row = {"state": torch.tensor([[i / 10, x]]), "target": goal, "action": torch.tensor([[ISSUED[i]]])}
        following = {"state": torch.tensor([[i / 10 + 0.1, after]]), **count(i + 1)}
        level.memory.write(row, following, {**count(i), "tested": yes}, yes, yes if i == 3 else no, no)
    return level


def learned(level: Level, seed: int = 0, copies: int = 1) -> tuple[Transitions, Batch]:
    """The path's transitions, `copies` times, and their batch, as relabelled."""
    rows = Rows(torch.zeros(4 * copies, dtype=torch.int64), torch.arange(4).repeat(copies))
    t = read_transitions(level.memory, rows, False)
    generator = torch.Generator().manual_seed(seed)
    for relabel in level.relabels:
        t = relabel(t, generator)
    return t, level.batch(t)


# -- the three kinds of transition ---------------------------------------------------------------------------


@LEVELS
def test_a_hindsight_action_is_the_state_that_was_reached(levels, number):
    t, batch = learned(level_of(levels, number))
    torch.testing.assert_close(t.action.flatten(), torch.tensor([0.2, 0.6, 0.7, 0.9]))  # x = 1, 3, 3.5, 4.5
    assert batch.reward.tolist() == [-1] * 4  # the goal at 9 was not reached
    torch.testing.assert_close(batch.discount, torch.full((4,), 0.98))  # a decision, however long


@LEVELS
def test_a_hindsight_goal_is_a_state_that_was_reached_later_and_its_reward_follows(levels, number):
    always = HACLevel.of(hidden=(8,), train_freq=10**9, hindsight=1.0, batch_size=16)
    level = level_of(levels, number, middle=always, high=always)
    seen = set()
    t, batch = learned(level, copies=60)
    for row in range(240):
        i, goal = row % 4, float(t.target[row])
        reached = abs(goal - PATH[i + 1]) <= (0.25 if number == levels - 1 else 0.5)
        assert float(t.action[row]) == pytest.approx(PATH[i + 1] / 5)
        assert float(batch.reward[row]) == (0 if reached else -1)
        assert float(batch.discount[row]) == pytest.approx(0 if reached else 0.98)
        seen.add((i, goal))
    horizon = 3 if number < levels - 1 else 4  # below the top level, goals lie at most H decisions ahead
    assert seen == {(i, PATH[j]) for i in range(4) for j in range(i + 1, min(i + horizon, 4) + 1)}


@LEVELS
def test_a_missed_test_costs_h_in_a_part_of_the_batch_and_a_reached_one_nothing(levels, number):
    half = HACLevel.of(hidden=(8,), train_freq=10**9, hindsight=0.5, batch_size=16)  # k = 1
    level = level_of(levels, number, testing=0.3, middle=half, high=half)
    t, batch = learned(level, copies=400)
    cost, issued = t.penalty > 0, torch.tensor(ISSUED).repeat(400)
    # The top level of two has four decisions in the twelve steps of an episode.
    assert (batch.reward[cost] == (-4 if (levels, number) == (2, 1) else -H)).all() and (
        batch.discount[cost] == 0
    ).all()
    assert torch.equal(t.action[cost].flatten(), issued[cost]) and (t.target[cost] == 9).all()
    assert torch.allclose(t.action[~cost].flatten(), (torch.tensor(PATH[1:]) / 5).repeat(400)[~cost])
    share = cost.view(400, 4).float().mean(0)
    assert share[1] == 0 and share[3] == 0  # these were reached
    assert share[[0, 2]].tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.08)  # beside one action and one goal


@LEVELS
def test_a_subgoal_that_had_fewer_than_h_decisions_is_not_penalised(levels, number):
    t, _ = learned(level_of(levels, number, cut_short=True, testing=0.3))
    assert not (t.penalty > 0).any()


def test_a_missed_test_is_one_transition_next_to_one_action_and_k_goals():
    config = hac(testing=0.3, high=HACLevel.of(hidden=(8,), hindsight=0.75))  # k = 3
    level = config.make(setting(make_env(EnvConfig("GoalLine-v0", num_envs=1)))).levels[1]
    (tests,) = (relabel for relabel in level.relabels if isinstance(relabel, SubgoalTests))
    assert tests.share == pytest.approx(1 / 5) and level.relabels[-1] is per_decision


# -- values, goals and clocks --------------------------------------------------------------------------------


def agent_on_the_line(levels: int, seed: int = 0, steps: int = 60, **changes: object) -> Hierarchy:
    env = make_env(EnvConfig("GoalLine-v0", num_envs=4))
    agent = hac(levels, **changes).make(setting(env, seed))
    roll(agent, env, steps, seed)
    return agent


def test_values_lie_between_minus_h_and_0():
    agent = agent_on_the_line(3, steps=1)
    for level in agent.levels:
        assert level.learner.value_range == (-H, 0)
        assert level.learner.bound(torch.tensor([-9.0, -1.0, 4.0])).tolist() == [-3, -1, 0]
    assert agent_on_the_line(2, steps=1).levels[1].learner.value_range == (-4, 0)  # twelve steps an episode


def test_the_end_goal_is_reached_where_the_environment_rewards_it():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=1))
    command = EndGoal(env.spec, GoalConfig(), 5, torch.device("cpu"))
    state, goal = torch.tensor([[0.0, 1.0], [0.0, 1.3]]), torch.ones(2, 1)  # within .25
    assert command.reward(state, state, goal).tolist() == [0, -1]
    assert command.ended(state, goal).tolist() == [True, False] and command.ends_early and not command.extrinsic


@pytest.mark.parametrize("levels", [2, 3])
def test_during_a_test_all_levels_below_act_without_exploration(levels):
    agent = agent_on_the_line(levels, testing=0.5)
    top = everything(agent, levels - 1)
    counter = lambda n, t: agent.levels[n].memory.count(t.rows, "tested") > 0  # noqa: E731
    tested = counter(levels - 1, top)
    assert tested.any() and not tested.all()
    below = everything(agent, 0)
    greedy = agent.levels[0].decide(below.state, below.target)
    plain = (below.action == greedy).all(-1)
    for i in range(len(top.state)):
        inside = (below.rows.env == top.steps.env[i]) & (below.rows.row >= top.steps.row[i])
        inside &= below.rows.row < top.steps.row[i] + top.length[i]
        if tested[i]:
            assert plain[inside].all()
    assert not plain.all()
    if levels == 3:  # what the high level tests, the middle level tests too
        middle = everything(agent, 1)
        acted = (middle.action == agent.levels[1].decide(middle.state, middle.target)).all(-1)
        for i in torch.where(tested)[0].tolist():
            inside = (middle.rows.env == top.below.env[i]) & (middle.rows.row >= top.below.row[i])
            inside &= middle.rows.row < top.below.row[i] + top.below_length[i]
            assert acted[inside].all() and counter(1, middle)[inside].all()


def test_a_subgoal_lasts_h_decisions_of_the_level_below_although_those_end_early():
    agent = agent_on_the_line(3, steps=200)
    high, middle = everything(agent, 2), everything(agent, 1)
    assert int(high.below_length.max()) == H and int(middle.length.max()) == H
    full = high.below_length == H
    assert (high.length[full] < H * H).any()  # ended after fewer steps, since subgoals below were reached early
    reached = agent.commands[1].ended(high.next_state, agent.commands[1].issue(high.state, high.action))
    last = torch.isin(high.steps.row + high.length, agent.levels[0].memory.cursor)  # still open at the end
    ended = torch.stack([agent.levels[2].memory.is_final(high.rows.later(1)), reached, full, last]).any(0)
    assert ended.all()


def test_predict_and_evaluation_count_decisions_alike():
    """Step by step, what `predict` does is what `decide` and `after` do."""
    env = make_env(EnvConfig("GoalLine-v0", num_envs=3))
    agent = agent_on_the_line(3)
    policy = HierarchyPolicy(agent, env)
    obs, memory, packed = env.reset(5), agent.initial_state(3), None
    starts = torch.ones(3, dtype=torch.bool)
    for _ in range(40):
        state, goal = obs.state.numpy(), obs.goal.numpy()
        raw = {"observation": state, "achieved_goal": state[:, 1:], "desired_goal": goal}
        theirs, packed = policy.predict(raw, packed, starts.numpy())
        actions, memory, _ = policy.decide(obs, memory)
        assert np.allclose(theirs, env.to_action(actions.numpy()))
        step = env.step(actions)
        memory, _ = policy.after(memory, step)
        starts = step.terminated | step.truncated
        obs = step.obs


def test_a_distance_in_half_ranges_weighs_every_entry_by_its_bounds():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.2])
    space = GoalSpace(Select(torch.arange(2)), low, high, relative=False, distance="scaled")
    a, b = torch.tensor([[0.0, 0.1], [0.0, 0.1]]), torch.tensor([[0.05, 0.13], [0.2, 0.11]])
    torch.testing.assert_close(space.distance(a, b), torch.tensor([0.3, 0.2]))
    assert space.threshold == 0.1 and not space.same(GoalSpace(space.project, low, high, False, 0.1, "linf"))
    command = Subgoal(space, "sparse")
    assert command.reached(torch.tensor([[0.05, 0.105], [0.05, 0.12]]), a).tolist() == [True, False]


# -- whole runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", ["2", "3"])
def test_a_run_that_is_resumed_is_the_same(levels, tmp_path):
    line = ["--levels", levels, "--period", "3"]
    line += [f"--{level}.train-freq=32" for level in ("low", "middle", "high")]
    whole = trained(tmp_path / "whole", *line, algorithm="hac")
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm="hac")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--levels", "3", "--period", "3", "4", "5"], "or one for each of 2 upper levels, not 3 4 5."),
        (["--testing", "1.5"], "--testing must be between 0 and 1"),
        (["--goal.cells", "4"], "subgoals are vectors"),
        (["--low.learner", "ppo"], "relabels a replay, but low.learner ppo has none"),
        (["--high.hindsight-strategy", "random"], "cannot be random"),
        (["--subgoal-scale", "0"], "must be positive"),
    ],
)
def test_unsupported_options_of_hac_raise_a_clear_error(options, sentence, tmp_path, capsys):
    assert train.main(["hac", *LINE, "--log-dir", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in " ".join(error.split()) and "Traceback" not in error


def test_an_environment_without_goals_raises_a_clear_error(tmp_path, capsys):
    line = ["hac", "--env", "tasks:Ledger-v0", "--preset", "debug", "--progress", "False", "--log-dir", str(tmp_path)]
    assert train.main([*line, "--goal.low", "-1", "--goal.high", "1"]) == 2
    assert "needs a goal environment with a two-valued reward" in " ".join(capsys.readouterr().err.split())
