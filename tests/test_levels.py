"""Laws at every level of three: relabelling addresses the level directly below, with its own rows and lengths."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import everything, roll, setting, small_hiro, stack
from hrl_scripts import train
from runs import same_state, trained
from tasks import LENGTHS
from test_replay import transition

from hrl.agents.hiro import High, HIROConfig, Low, Middle
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.clock import Period
from hrl.hierarchy.commands import Direction, GridSubgoal, Latent, Skill, Subgoal, Task
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace, Select
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level
from hrl.hierarchy.memories import make_memory, steps_held
from hrl.hierarchy.relabelling.correction import OffPolicyCorrection
from hrl.hierarchy.relabelling.hindsight import HindsightActions, SubgoalTesting
from hrl.hierarchy.warm_start import warm_start
from hrl.memory.ring import Replay, Rows
from hrl.types import UserError

CPU = torch.device("cpu")


def ledger(num_envs: int = 2, **options):
    env = make_env(EnvConfig("Ledger-v0", num_envs=num_envs))
    agent = stack(env, **options)
    roll(agent, env, 40)
    return agent


def test_each_decision_says_where_those_of_the_level_below_begin_and_how_many_there_are():
    """Episodes of 7 steps: the low level decides 7 times, the middle 4 times (2 2 2 1), the high one twice (4 3)."""
    agent = ledger()
    middle, high = everything(agent, 1), everything(agent, 2)
    seven = (high.state[:, 0] % 4 == 1) & (high.rows.env == 0)
    assert high.length[seven].tolist()[:2] == [4, 3] and high.below_length[seven].tolist()[:2] == [2, 2]
    low_memory, middle_memory = agent.levels[0].memory, agent.levels[1].memory
    assert torch.equal(low_memory.get(high.steps, "state"), high.state)
    assert torch.equal(middle_memory.get(high.below, "state"), high.state)
    last = high.below.later(high.below_length)
    assert torch.equal(middle_memory.get(last, "state"), high.next_state)
    assert torch.equal(middle.below_length, middle.length)  # above the lowest level, decisions are steps
    assert int(high.below_length.max()) == 2 and set(high.length.tolist()) <= {1, 2, 3, 4}


def test_the_rows_below_stay_right_where_episodes_are_truncated():
    agent, env = stack(make_env(EnvConfig("Ledger-v0", num_envs=2))), make_env(EnvConfig("Ledger-v0", num_envs=2))
    obs = env.reset(1)  # an episode of seven steps in the first environment, of five in the second
    for _ in range(3):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    agent.truncate_episodes(obs)
    high = everything(agent, 2)
    assert high.length.tolist() == [3, 3] and high.below_length.tolist() == [2, 2]
    assert torch.equal(agent.levels[1].memory.get(high.below.later(high.below_length), "state"), high.next_state)
    roll(agent, env, 20, seed=3)
    high = everything(agent, 2)
    assert torch.equal(agent.levels[1].memory.get(high.below.later(high.below_length), "state"), high.next_state)


def test_the_high_levels_correction_reads_the_middle_levels_decisions():
    agent = ledger(noise=0.3)
    middle, t = agent.levels[1], everything(agent, 2)
    correction = OffPolicyCorrection(agent.commands[1], middle.memory, middle.log_likelihood, 2, 5)
    options = torch.cat([t.action.unsqueeze(1), torch.rand(len(t.action), 4, 2) * 2 - 1], 1)
    scores = correction.scores(t, options)
    for b in range(len(t.length)):
        for k in range(5):
            target, total = agent.commands[1].issue(t.state[b], options[b, k]), 0.0
            for i in range(int(t.below_length[b])):
                rows = Rows(t.below.env[b : b + 1], t.below.row[b : b + 1] + i)
                state, action = middle.memory.get(rows, "state"), middle.memory.get(rows, "action")
                total -= 0.5 * float((action - middle.decide(state, target.unsqueeze(0))).square().sum())
            assert float(scores[b, k]) == pytest.approx(total, abs=1e-4)


def test_the_high_levels_hindsight_actions_are_the_goals_reached_at_the_end_of_its_segment():
    agent = ledger()
    t = everything(agent, 2)
    changed = HindsightActions(agent.commands[1], 1.0)(t, torch.Generator().manual_seed(0))
    moved = (t.next_state - t.state).clamp(-1, 1)
    torch.testing.assert_close(changed.action, moved)


def test_a_missed_subgoal_costs_the_middle_level_its_penalty_in_place_of_its_reward():
    agent = ledger(testing=1.0)
    middle, t = agent.levels[1], everything(agent, 1)
    changed = SubgoalTesting(agent.commands[0], middle.memory, 2.0, 2)(t, torch.Generator())
    missed = changed.penalty > 0
    assert missed.any()
    left = torch.tensor(LENGTHS)[t.state[:, 0].long() % 4] - t.state[:, 1].long()  # steps of the episode
    assert torch.equal(missed, left > 2)  # no subgoal is reached, and the last one of an episode is cut short
    batch, plain = middle.batch(changed), middle.batch(t)
    assert (batch.reward[missed] == -2).all() and (batch.discount[missed] == 0).all()
    assert torch.equal(batch.reward[~missed], plain.reward[~missed])


def test_a_missed_subgoal_of_the_middle_level_costs_as_many_decisions_as_it_has_itself():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = HIROConfig(
        levels=3, low=Low.of(hidden=(4,)), middle=Middle.of(hidden=(4,), period=5, testing=0.3),
        high=High.of(hidden=(4,), period=2), goal=GoalConfig(low=(-1.0,), high=(1.0,)),
    )  # fmt: skip
    (tests,) = (x for x in config.make(setting(env)).levels[1].relabels if isinstance(x, SubgoalTesting))
    assert (tests.penalty, tests.decisions) == (2.0, 5)


def test_only_the_last_subgoal_of_an_episode_is_cut_short_at_the_high_level():
    """Episodes of 7 steps: the high level decides twice, each time for two decisions, the last of which is short."""
    agent = ledger(testing=1.0)
    high, t = agent.levels[2], everything(agent, 2)
    changed = SubgoalTesting(agent.commands[1], high.memory, 2.0, 2)(t, torch.Generator())
    seven = t.state[:, 0] % 4 == 1
    assert t.below_length[seven].tolist() == [2] * int(seven.sum())
    assert torch.equal(changed.penalty[seven] > 0, t.state[seven, 1] == 0)


@pytest.mark.parametrize("reward", ["sparse", "progress"])
def test_the_end_of_the_task_costs_and_ends_a_level_with_a_termination_cost(reward):
    """Episodes of 3 and 5 steps are truncated, and those of 7 and 1 terminate."""
    env, options = make_env(EnvConfig("Ledger-v0", num_envs=2)), {"hidden": (4,), "gamma": 0.9, "reward": reward}
    goal, high = GoalConfig(low=(-1.0,), high=(1.0,)), High.of(hidden=(4,), period=3)
    free, costly = (
        HIROConfig(low=Low.of(termination_cost=cost, **options), high=high, goal=goal).make(setting(env))
        for cost in (0.0, 2.5)
    )
    roll(costly, env, 40)
    t = everything(costly, 0)
    fallen = (t.state[:, 0] % 2 == 1) & (t.next_state[:, 1] == torch.tensor(LENGTHS)[t.state[:, 0].long() % 4])
    assert fallen.any() and torch.equal(fallen, t.terminated)
    batch, plain = costly.levels[0].batch(t), free.levels[0].batch(t)
    torch.testing.assert_close(batch.reward, plain.reward - 2.5 * fallen)
    torch.testing.assert_close(batch.discount, torch.where(fallen, 0.0, 0.9))
    assert (plain.discount == 0.9).all()
    # Values of the sparse reward: at least -1 / (1 - .9) = -10, or -1 - cost.
    ranges = [costly.levels[0].command.value_range(0.9), replaced(costly.levels[0].command, 20.0).value_range(0.9)]
    assert ranges == ([pytest.approx((-10.0, 0.0)), pytest.approx((-21.0, 0.0))] if reward == "sparse" else [None] * 2)


def replaced(command: Subgoal, cost: float) -> Subgoal:
    return Subgoal(command.goals, command.kind, command.scale, command.ends_early, cost)


def test_a_row_that_is_not_written_yet_raises_an_error():
    agent = ledger()
    memory = agent.levels[0].memory
    newest = Rows(torch.tensor([0]), memory.cursor[:1])
    memory.get(newest, "state")
    with pytest.raises(IndexError, match="not been written yet"):
        memory.get(newest.later(1), "state")
    assert torch.equal(memory.within(newest.later(5)).row, newest.row)


@pytest.mark.parametrize("learner", ["td3", "ppo"])
def test_three_levels_resume_exactly(learner, tmp_path):
    ppo = ["n-steps", "20", "n-epochs", "1"] if learner == "ppo" else ["train-freq", "8", "hidden", "8"]
    line = ["--levels", "3", "--middle.period", "3", "--high.period", "2"]
    for level in ("low", "middle", "high"):
        line += [f"--{level}.learner", learner, *(f"--{level}.{x}" if i % 2 == 0 else x for i, x in enumerate(ppo))]
    whole = trained(tmp_path / "whole", *line)
    part = trained(tmp_path / "part", *line, "--total-steps", "500")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)


def test_three_levels_nest_their_periods_and_their_goal_spaces():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = HIROConfig(
        levels=3, low=Low.of(hidden=(4,)), middle=Middle.of(hidden=(4,), period=3),
        high=High.of(hidden=(4,), period=4, subgoal_scale=2.5), goal=GoalConfig(low=(-1.0,), high=(1.0,)),
    )  # fmt: skip
    agent = config.make(setting(env))
    assert [level.period.mean for level in agent.levels] == [1, 3, 12]
    assert agent.commands[0].goals.high.tolist() == [1, 1] and agent.commands[1].goals.high.tolist() == [2.5, 2.5]


# -- commands ------------------------------------------------------------------------------------------------


def test_a_skill_is_its_number_and_says_when_it_ends_and_where_it_can_begin():
    ends = lambda state, target: (state[..., 0] > 5) & (target[..., 2] == 1)  # noqa: E731
    available = lambda state: torch.stack([state[..., 0] < 9, torch.ones_like(state[..., 0]), state[..., 0] > 1], -1)  # noqa: E731
    skill = Skill(3, reward=lambda s, after, z: after[..., 0] * z[..., 1], available=available, ends=ends)
    state = torch.tensor([[6.0], [0.0]])
    target = skill.issue(state, torch.tensor([[2.0], [1.0]]))
    assert target.tolist() == [[0, 0, 1], [0, 1, 0]] and not skill.extrinsic
    assert skill.ended(state, target).tolist() == [True, False]
    assert skill.available(state).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert skill.reward(state, state + 1, target).tolist() == [0, 1]
    assert Skill(3).extrinsic and Latent(4).space.shape == (4,)
    assert Latent(4, scale=0.5).scale_reward(torch.tensor([3.0])).tolist() == [1.5]


@pytest.mark.parametrize("relative", [True, False])
def test_a_target_lies_in_the_cell_whose_number_issued_it(relative):
    low, high = torch.tensor([-3.0, 0.0]), torch.tensor([3.0, 9.0])
    command = GridSubgoal(GoalSpace(Select(torch.arange(2)), low, high, relative), 3, "sparse")
    state, numbers = torch.tensor([0.5, 1.0, 7.0]).repeat(9, 1), torch.arange(9.0).unsqueeze(-1)
    targets = command.issue(state, numbers)
    start = state[:, :2] if relative else torch.zeros(9, 2)
    centres = torch.tensor([[x, y] for x in (-2.0, 0.0, 2.0) for y in (1.5, 4.5, 7.5)])
    torch.testing.assert_close(targets - start, centres)
    for apart in ((0.0, 0.0), (0.9, -1.4), (-0.9, 1.4)):  # half a cell is 1 along x and 1.5 along y
        assert torch.equal(command.retrace(state, targets + torch.tensor(apart)), numbers)
    outside = start + torch.tensor([50.0, -50.0])
    assert (command.retrace(state, outside) == 6).all()  # the nearest cell


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("relative", [True, False])
def test_random_targets_are_possible_decisions(dims, relative):
    """Of a grid, every cell is sampled; of vectors, places within the bounds."""
    low, high = torch.full((dims,), -3.0), torch.full((dims,), 5.0)
    goals, generator = GoalSpace(Select(torch.arange(dims)), low, high, relative), torch.Generator().manual_seed(0)
    state = torch.tensor([0.5, 1.0, 7.0]).repeat(400, 1)
    start = state[:, :dims] if relative else torch.zeros(400, dims)
    cells = GridSubgoal(goals, 2, "sparse").sample(state, generator) - start
    assert set(cells.flatten().tolist()) == {-1.0, 3.0} and len(cells.unique(dim=0)) == 2**dims
    places = Subgoal(goals, "sparse").sample(state, generator) - start
    assert places.min() >= -3 and places.max() <= 5 and places.min() < -2.9 and places.max() > 4.9


def grid(early: bool) -> GridSubgoal:
    """Four cells, with centres at 1 and 3 along each of two dimensions of places from 0 to 4."""
    low, high = torch.zeros(2), torch.full((2,), 4.0)
    space = GoalSpace(Select(torch.arange(2)), low, high, relative=False, threshold=0.5, distance="linf")
    return GridSubgoal(space, 2, "sparse", ends_early=early)


def test_a_cell_that_is_reached_already_cannot_be_chosen():
    """Otherwise a controller may choose its own cell forever: the loop costs one step, which values barely show."""
    at = torch.tensor([[1.2, 2.9], [2.0, 2.0]])
    mask = grid(early=True).available(at)
    assert mask is not None and mask.tolist() == [[1, 0, 1, 1], [1, 1, 1, 1]]
    assert grid(early=False).available(at) is None


@pytest.mark.parametrize("learner", ["dqn", "ppo"])
def test_available_choices_of_a_command_reach_its_learner(learner):
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    near, task, where = grid(early=True), Task(0), setting(env)
    low, high = (LevelConfig.of(hidden=(8,), learner=kind) for kind in ("td3", learner))
    memories = [
        make_memory(low, near, env.spec.actions, where),
        make_memory(high, task, near.space, where, 2, ("first",)),
    ]
    below = Level("low", low, near, env.spec.actions, memories[0], where)
    above = Level("high", high, task, near.space, memories[1], where, 2, steps=memories[0], issues=near)
    agent = Hierarchy([below, above], where)
    t = transition(
        state=torch.tensor([[1.0, 3.0]]), next_state=torch.tensor([[3.0, 3.0]]), target=torch.zeros(1, 0),
        next_target=torch.zeros(1, 0), action=torch.tensor([[2.0]]), length=torch.tensor([1]),
    )  # fmt: skip
    batch = agent.levels[1].batch(t)
    assert batch.mask.tolist() == [[1, 0, 1, 1]] and batch.next_mask.tolist() == [[1, 1, 1, 0]]
    with pytest.raises(ValueError, match="must issue the command"):
        Hierarchy([below, Level("high", high, task, near.space, memories[1], where, 2)], where)


@pytest.mark.parametrize(
    ("total_steps", "num_envs", "held"),
    [(None, 4, 4 * (16 + 2) * 3), (201, 4, 4 * (16 + 2) * 3), (None, 2, 2 * (20 + 2) * 3), (200, 4, 0), (0, 4, 0)],
)
def test_the_low_levels_memory_holds_the_steps_of_all_stored_decisions(total_steps, num_envs, held):
    """40 decisions of all environments, at least 16 of each, and 2 more of each; of at most 3 steps."""
    low, high = LevelConfig.of(buffer_size=400), LevelConfig.of(buffer_size=40)
    where = replace(setting(make_env(EnvConfig("Ledger-v0", num_envs=num_envs))), total_steps=total_steps)
    assert steps_held(low, high, Period.of((1, 3)), where) == held


def test_a_direction_rewards_the_cosine():
    two = torch.tensor([2.0, 1.0])
    command = Direction(GoalSpace(Select(torch.arange(2)), -two, two, relative=True))
    target = command.issue(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(target, torch.tensor([[0.6, 0.8]]))
    moved = command.reward(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), target)  # (1, 0) in half-ranges
    assert float(moved) == pytest.approx(0.6)
    assert command.value_range(0.75) == (-4.0, 4.0)


def test_no_transition_of_three_levels_crosses_an_episode():
    agent = ledger(num_envs=3)
    for number in range(3):
        t = everything(agent, number)
        assert (t.next_state[:, 0] == t.state[:, 0]).all()
        odd = t.state[:, 0] % 2 == 1
        last = t.next_state[:, 1] == torch.tensor(LENGTHS)[t.state[:, 0].long() % 4]
        assert torch.equal(t.terminated, odd & last)
        assert torch.equal(t.length, (t.next_state[:, 1] - t.state[:, 1]).long())


def test_a_ring_of_images_keeps_each_frame_once_and_stacks_them_within_an_episode():
    """Frames of 2 x 1 pixels, three stacked: the row keeps the newest, and reading finds those before."""
    ring = Replay({"state": 1 + 6, "action": 1}, ("state",), (), 40, 1, CPU, pixels=6, frames=3)
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)

    def seen(t: int) -> torch.Tensor:
        frames = [max(t - k, 0) for k in (2, 1, 0)]
        return torch.tensor([[float(t), *(10.0 * f + i for f in frames for i in range(2))]])

    for length in (4, 3):
        for t in range(length):
            row = {"state": seen(t), "action": torch.zeros(1, 1)}
            ring.write(row, {"state": seen(t + 1)}, {}, yes, yes if t + 1 == length else no, no)
    rows = Rows(torch.zeros(9, dtype=torch.int64), torch.arange(9))
    expected = torch.cat([seen(t) for t in (0, 1, 2, 3, 4, 0, 1, 2, 3)])
    assert torch.equal(ring.get(rows, "state"), expected) and torch.equal(ring.read(rows)["state"], expected)
    assert ring.bytes.shape[1] == 2 and ring.width("state") == 7


def test_the_highest_of_three_levels_starts_from_an_earlier_run():
    env, run = make_env(EnvConfig("Ledger-v0")), Path("earlier")
    config = replace(small_hiro(), levels=3)
    earlier = config.make(setting(env, seed=0))
    later = replace(config, high=replace(config.high, init_from=run)).make(setting(env, seed=1))
    warm_start(later, {run: earlier})
    weights = [[level.learner.actor[0].weight for level in agent.levels] for agent in (earlier, later)]
    same = [torch.equal(old, new) for old, new in zip(*weights, strict=True)]
    assert same == [False, False, True]
    wide = replace(config, goal=replace(config.goal, high=(2.0,))).make(setting(env))
    with pytest.raises(UserError, match="uses another goal space"):
        warm_start(later, {run: wide})


# -- features of subgoals ------------------------------------------------------------------------------------


def features_on_a_line(periods: tuple[float, ...] = (4.0,), **high: object) -> Hierarchy:
    """A HIRO whose subgoals are displacements of x by up to 2, with features of period 4."""
    env = make_env(EnvConfig("GoalLine-v0", num_envs=2))
    level = High.of(**{"hidden": (4,), "subgoal_features": True, **high})
    goal = GoalConfig(low=(-2.0,), high=(2.0,), periods=periods)
    return HIROConfig(low=Low.of(hidden=(4,)), high=level, goal=goal).make(setting(env))


@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_the_critic_sees_the_sine_and_cosine_of_the_position_to_which_a_subgoal_leads(learner):
    level = features_on_a_line(learner=learner).levels[1]
    state = torch.tensor([[0.0, 0.5], [0.0, 2.0], [0.0, 1.5]])  # x is the second entry
    action = torch.tensor([[0.25], [0.5], [-0.25]])  # displacements of .5, 1 and -.5, so x = 1, 3 and 1
    inputs = level.inputs(state, torch.zeros(3, 1))
    critic = level.learner.critic
    assert critic.layers[0].weight.shape[1] == inputs.shape[1] + 1 + 2
    with torch.no_grad():
        critic.layers[0].weight[:, :-2] = 0  # nothing but the features: the quarter and three quarters of a period
        expected = lambda sine: (sine * critic.layers[0].weight[:, -2] + critic.layers[0].bias[:, 0]).relu()  # noqa: E731
        q = critic(inputs, action)
        for row, sine in enumerate((1.0, -1.0, 1.0)):
            value = (expected(sine) * critic.layers[-1].weight[:, 0]).sum(-1) + critic.layers[-1].bias[:, 0]
            assert torch.allclose(q[:, row], value, atol=1e-5)
        assert torch.allclose(critic.first(inputs, action), q[0], atol=1e-6)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"periods": ()}, "high.subgoal_features needs the periods"),
    ({"normalize_observations": True}, "needs the position in its unit"),
    ({"masked_entries": (1,)}, "needs the position in its unit"),
    ({"learner": "ppo"}, "which ppo does not have"),
])  # fmt: skip
def test_features_of_subgoals_need_a_position_their_periods_and_a_critic_of_vectors(options, sentence):
    with pytest.raises(UserError, match=sentence):
        features_on_a_line(**options)
