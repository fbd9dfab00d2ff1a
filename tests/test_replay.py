"""The ring and the relabelling of its samples, against values worked out by hand."""

from typing import Any

import pytest
import torch
from conftest import CPU, all_rows, everything, roll, setting, small_hiro

from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands import Subgoal, Task
from hrl.hierarchy.commands.goals import GoalSpace, Select
from hrl.hierarchy.relabelling.correction import OffPolicyCorrection
from hrl.hierarchy.relabelling.hindsight import (
    HindsightActions,
    HindsightGoals,
    HindsightTask,
    SubgoalTesting,
    later_states,
)
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions


def ring(capacity: int = 40, num_envs: int = 1) -> Replay:
    return Replay({"state": 1, "action": 1}, ("state",), (), capacity, num_envs, CPU)


def fill(replay: Replay, lengths: list[int], terminated: bool = False) -> None:
    """Episodes whose states count 0, 1, 2 … over everything, final observations included, in every environment."""
    n, yes = replay.num_envs, torch.ones(replay.num_envs, dtype=torch.bool)
    value = int(replay.cursor[0])
    for length in lengths:
        for t in range(length):
            row = {"state": torch.full((n,), float(value)), "action": torch.full((n,), -float(value))}
            last = t == length - 1
            replay.write(row, {"state": row["state"] + 1}, {}, yes, yes if last else ~yes, yes if terminated else ~yes)
            value += 1
        value += 1


def test_next_observations_are_derived_and_final_ones_kept():
    replay = ring()
    fill(replay, [3, 2])
    rows = all_rows(replay)
    assert replay.get(rows, "state").flatten().tolist() == [0, 1, 2, 4, 5]
    assert replay.get(rows.later(1), "state").flatten().tolist() == [1, 2, 3, 5, 6]
    assert replay.end(rows).tolist() == [3, 3, 3, 6, 6]


def test_the_oldest_rows_are_written_over_and_the_rest_stays_whole():
    replay = ring(capacity=20)
    fill(replay, [3, 5, 2] * 20)
    rows = all_rows(replay)
    state, following = (replay.get(r, "state").flatten() for r in (rows, rows.later(1)))
    assert (following == state + 1).all()
    assert state.max() == replay.cursor[0] - 2 and len(state) >= 14
    ends = replay.end(rows)
    assert (ends > rows.row).all() and (ends - rows.row <= 5).all()
    assert replay.holds(rows).all() and not replay.holds(Rows(torch.tensor([0]), torch.tensor([3])))


def test_an_open_episode_without_rows_since_clearing_is_not_truncated():
    replay, yes = ring(), torch.ones(1, dtype=torch.bool)
    replay.write({"state": torch.zeros(1), "action": torch.zeros(1)}, {"state": torch.ones(1)}, {}, yes, ~yes, ~yes)
    replay.clear()
    replay.truncate_episodes()
    assert len(replay) == 0  # nothing to sample: the open row has no transition
    fill(replay, [2])
    rows = replay.draw(20, torch.Generator().manual_seed(0))
    assert not replay.is_final(rows).any()


def test_cleared_rows_are_neither_sampled_nor_stored_and_an_open_episode_continues():
    replay = ring(capacity=40)
    fill(replay, [3, 5])  # rows 0 to 9
    yes = torch.ones(replay.num_envs, dtype=torch.bool)
    write = lambda value, ended: replay.write(  # noqa: E731
        {"state": torch.full_like(yes, value, dtype=torch.float32), "action": torch.zeros(1)},
        {"state": torch.full_like(yes, value + 1, dtype=torch.float32)}, {}, yes, yes if ended else ~yes, ~yes,
    )  # fmt: skip
    write(10, False)
    replay.clear()
    assert len(replay) == 0 and not replay.holds(Rows(torch.tensor([0]), torch.tensor([10])))
    write(11, False), write(12, True)
    again = ring(capacity=40)
    again.load_state_dict(replay.state_dict())
    for one in (replay, again):
        rows = one.draw(100, torch.Generator().manual_seed(0))
        assert sorted(set(rows.row.tolist())) == [11, 12] and one.holds(rows).all() and (one.end(rows) == 13).all()
        assert (one.get(rows.later(1), "state") == one.get(rows, "state") + 1).all()
    fill(replay, [3] * 40)
    assert replay.holds(replay.draw(100, torch.Generator().manual_seed(0))).all() and len(replay) == replay.length - 2


def test_draws_are_uniform_over_transitions_and_never_final():
    replay = ring(capacity=400, num_envs=3)
    fill(replay, [1, 4, 9])
    rows = replay.draw(90_000, torch.Generator().manual_seed(0))
    assert not replay.is_final(rows).any()
    counts = torch.bincount(rows.env * 20 + rows.row, minlength=60)
    drawn = counts[counts > 0].double()
    assert len(drawn) == 3 * 14
    expected = 90_000 / len(drawn)
    assert ((drawn - expected) ** 2 / expected).sum() < 80  # chi-squared, 41 degrees of freedom


def test_draws_from_a_full_ring_of_short_episodes_are_all_held():
    replay = ring(capacity=21)
    fill(replay, [1] * 40)
    rows = replay.draw(20_000, torch.Generator().manual_seed(0))
    assert replay.holds(rows).all() and not replay.is_final(rows).any()
    assert (replay.get(rows.later(1), "state") == replay.get(rows, "state") + 1).all()


def test_only_the_tasks_end_is_a_termination():
    replay = ring()
    fill(replay, [2], terminated=True)
    fill(replay, [2], terminated=False)
    fill(replay, [1], terminated=True)
    assert replay.terminated(all_rows(replay)).tolist() == [False, True, False, False, True]


def test_later_states_stay_in_the_episode_so_far():
    replay = ring(num_envs=2)
    fill(replay, [4, 6])
    n, yes = 2, torch.ones(2, dtype=torch.bool)
    for value in (12.0, 13.0):  # an episode that still runs
        replay.write({"state": torch.full((n,), value), "action": torch.zeros(n)},
                     {"state": torch.full((n,), value + 1)}, {}, yes, ~yes, ~yes)  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    rows = replay.draw(3000, generator)
    state = replay.get(rows, "state").flatten()
    for horizon, most in ((None, 6), (2, 2)):
        later = later_states(replay, rows, "future", horizon, generator).flatten()
        end = torch.where(state < 4.5, 4.0, torch.where(state < 11.5, 11.0, 14.0))
        assert (later > state).all() and (later <= end).all() and (later - state).max() == most
    assert (later_states(replay, rows, "final", None, generator).flatten() == end).all()


def test_a_row_uses_only_the_memory_of_its_content():
    # PointMaze at the low level: state 4, subgoal 2, action 2, of 4 bytes; the number of its episode, of 4 bytes; and
    # half a row of 5 bytes in the episode tables.
    low = Replay({"state": 4, "target": 2, "action": 2}, ("state",), (), 100_000, 1, CPU)
    assert low.row_bytes == pytest.approx(8 * 4 + 4 + 2.5, rel=1e-3)
    flat = Replay({"state": 4, "target": 2, "action": 2, "reward": 1}, ("state", "target"), (), 100_000, 1, CPU)
    assert flat.row_bytes == pytest.approx(9 * 4 + 4 + 2.5, rel=1e-3)
    # The high level: also the row of its first step, from which its length follows.
    fields = {"state": 4, "target": 2, "action": 2, "reward": 1}
    high = Replay(fields, ("state", "target"), ("first",), 100_000, 1, CPU)
    assert high.row_bytes == pytest.approx(9 * 4 + 4 + 4 + 2.5, rel=1e-3)
    # Of two stacked images of 6 x 6 pixels, only the newest, of one byte per pixel.
    seen = Replay({"state": 4 + 72, "action": 2}, ("state",), (), 10_000, 1, CPU, pixels=72, frames=2)
    assert seen.row_bytes == pytest.approx(6 * 4 + 36 + 4 + 2.5, rel=1e-3)


def test_the_ring_resumes_from_its_tensors():
    replay, other = ring(num_envs=2), ring(num_envs=2)
    fill(replay, [3, 2])
    other.load_state_dict({name: x.clone() for name, x in replay.state_dict().items()})
    fill(replay, [4])
    fill(other, [4])
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in replay.state_dict().items())


# -- relabelling -------------------------------------------------------------------------------------------


def line(relative: bool = True, half: float = 2.0) -> Subgoal:
    one = torch.tensor([half])
    return Subgoal(GoalSpace(Select(torch.tensor([0])), -one, one, relative, threshold=0.25), "sparse")


def transition(**fields: torch.Tensor) -> Transitions:
    defaults = {
        "rows": Rows(torch.tensor([0]), torch.tensor([0])), "steps": Rows(torch.tensor([0]), torch.tensor([0])),
        "state": torch.tensor([[1.0]]), "target": torch.tensor([[0.0]]), "action": torch.tensor([[0.5]]),
        "reward": torch.tensor([0.0]), "next_state": torch.tensor([[2.5]]), "next_target": torch.tensor([[0.0]]),
        "length": torch.tensor([3]), "terminated": torch.tensor([False]),
    }  # fmt: skip
    given: dict[str, Any] = {**defaults, **fields}
    return Transitions(**{"below": given["steps"], "below_length": given["length"], **given})


def test_hindsight_actions_are_the_reached_goals_in_units_of_the_decision():
    changed = HindsightActions(line(), share=1.0)(transition(), torch.Generator())
    assert changed.action.tolist() == [[0.75]]  # moved by 1.5 of at most 2
    absolute = HindsightActions(line(relative=False), share=1.0)(
        transition(next_state=torch.tensor([[-1.0]])), torch.Generator()
    )
    assert absolute.action.tolist() == [[-0.5]]
    clipped = HindsightActions(line(), share=1.0)(transition(next_state=torch.tensor([[9.0]])), torch.Generator())
    assert clipped.action.tolist() == [[1.0]]


def test_hindsight_goals_change_their_share_and_the_reward_follows():
    agent = _line_agent(hindsight=0.0)
    low = agent.levels[0]
    t = everything(agent, 0)
    relabel = HindsightGoals(low.command, low.memory, share=0.5, horizon=1)
    changed = relabel(t, torch.Generator().manual_seed(0))
    moved = (changed.target != t.target).any(-1)
    assert 0.3 < moved.float().mean() < 0.7
    assert torch.equal(changed.target, changed.next_target)
    # Within one row, what is reached later is the very next state: the sparse reward is 0 there.
    assert (low.batch(changed).reward[moved] == 0).all()
    assert torch.equal(changed.target[moved], low.command.project(t.next_state)[moved])


def test_random_subgoals_lie_anywhere_around_where_they_are_set():
    agent = _line_agent(hindsight=0.0)
    low = agent.levels[0]
    t = everything(agent, 0)
    relabel = HindsightGoals(low.command, low.memory, share=1.0, strategy="random")
    changed = relabel(t, torch.Generator().manual_seed(0))
    raw = (changed.target - low.command.project(t.state)) / low.command.goals.half
    assert raw.abs().max() <= 1.00001 and raw.mean().abs() < 0.2 and raw.std() == pytest.approx(3**-0.5, abs=0.1)
    assert torch.equal(changed.target, changed.next_target)


def test_random_goals_of_the_task_are_those_of_other_decisions():
    agent = _line_agent(hindsight=0.8)
    (relabel,) = agent.levels[1].relabels
    assert isinstance(relabel, HindsightTask)
    relabel.strategy, relabel.share = "random", 1.0
    t = everything(agent, 1)
    changed = relabel(t, torch.Generator().manual_seed(0))
    kept = ~relabel.steps.holds(t.steps)
    assert torch.equal(changed.target[1:][~kept[1:]], t.target[:-1][~kept[1:]])
    again = relabel.goal_rewards(t, changed.target)[0]
    paid = (again * relabel.gamma ** torch.arange(relabel.period)).sum(-1)
    assert torch.allclose(changed.reward[~kept], paid[~kept])


def test_hindsight_on_the_task_recomputes_every_reward_and_ends_at_the_goal():
    class Steps:
        """A ring. Its row k contains the state k / 10."""

        def holds(self, rows: Rows) -> torch.Tensor:
            return torch.ones_like(rows.row, dtype=torch.bool)

        def get(self, rows: Rows, name: str) -> torch.Tensor:
            return rows.row.unsqueeze(-1) / 10

        def within(self, rows: Rows) -> Rows:
            return rows

    def task_reward(achieved: torch.Tensor, desired: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        near = (achieved - desired).abs().squeeze(-1) < 0.05
        return near.float(), near

    one = torch.ones(1)
    space = GoalSpace(Select(torch.tensor([0])), -one, one, relative=False)
    task = Task(1, space, task_reward, (0.0, 1.0), scale=2.0, offset=-1.0)
    relabel = HindsightTask(task, None, Steps(), 1.0, gamma=0.5, period=4)  # type: ignore[arg-type]
    t = transition(steps=Rows(torch.tensor([0]), torch.tensor([10])), length=torch.tensor([3]))
    # States 1.1, 1.2, 1.3 follow. Goal 1.2: rewards -2, then 0 and the end. Goal 1.3: -2, -2, 0. Goal 1.4 lies beyond
    # the segment, though not beyond the period.
    for goal, paid, reached in ((1.2, [-2, 0, 0, 0], True), (1.3, [-2, -2, 0, 0], True), (1.4, [-2, -2, -2, 0], False)):
        assert [x.tolist() for x in relabel.goal_rewards(t, torch.tensor([[goal]]))[:2]] == [[paid], [reached]]
    # They are added up by the discount of .5: -2 - 1 - .5.
    later = {"end": lambda self, rows: rows.row + 1, "get": lambda self, rows, name: torch.tensor([[1.4]])}
    relabel.replay = type("Later", (), later)()  # type: ignore[assignment]
    assert relabel(t, torch.Generator()).reward.item() == -3.5


def test_relabelled_task_transitions_agree_with_the_environment():
    """Relabelling with the original goal gives the environment's own reward and end."""
    agent = _line_agent(hindsight=0.8)
    high = agent.levels[1]
    t = everything(agent, 1)
    (relabel,) = high.relabels
    assert isinstance(relabel, HindsightTask)
    paid, reached, _ = relabel.goal_rewards(t, t.target)
    reward = (paid * relabel.gamma ** torch.arange(relabel.period)).sum(-1)
    assert t.terminated.any() and (~t.terminated).any()
    assert torch.allclose(reward, t.reward, atol=1e-5)
    assert torch.equal(reached, t.terminated)


def test_subgoal_testing_punishes_only_tested_subgoals_that_were_missed():
    class Tested:
        def count(self, rows: Rows, name: str) -> torch.Tensor:
            return rows.row % 2

        def over(self, rows: Rows) -> torch.Tensor:
            return rows.row == 9

        def get(self, rows: Rows, name: str) -> torch.Tensor:
            return torch.full((len(rows.row), 1), 0.5)

    t = transition(
        rows=Rows(torch.zeros(6, dtype=torch.int64), torch.tensor([0, 1, 3, 5, 7, 9])), state=torch.zeros(6, 1),
        action=torch.tensor([[0.5], [0.5], [0.5], [-0.5], [0.5], [0.5]]),
        next_state=torch.tensor([[0.0], [0.0], [0.9], [0.0], [0.0], [0.0]]), length=torch.tensor([3, 3, 3, 3, 2, 3]),
    )  # fmt: skip
    testing = SubgoalTesting(line(), Tested(), penalty=7.0, decisions=3)  # type: ignore[arg-type]
    changed = testing(t, torch.Generator())
    # Not tested; missed; reached within .25; missed, but another subgoal than the one that was tested; cut short, by a
    # level above and by the episode's end.
    assert changed.penalty.tolist() == [0.0, 7.0, 0.0, 0.0, 0.0, 0.0]


def test_correction_finds_the_subgoal_that_explains_the_actions():
    """A low level that acts straight towards its subgoal: the candidate nearest to what it did must win."""
    replay = Replay({"state": 1, "target": 1, "action": 1}, ("state",), (), 100, 1, CPU)
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    command = line()
    policy = lambda state, target: (target - state).clamp(-1, 1)  # noqa: E731
    x = torch.tensor([[0.0]])
    true_target = torch.tensor([[1.6]])
    for _ in range(3):
        action = policy(x, true_target)
        after = x + 0.25 * action
        replay.write({"state": x, "target": true_target, "action": action}, {"state": after}, {}, yes, no, no)
        x = after
    likelihood = lambda state, target, action: -0.5 * (action - policy(state, target)).square().sum(-1)  # noqa: E731
    correction = OffPolicyCorrection(command, replay, likelihood, span=5, candidates=400)
    t = transition(state=torch.tensor([[0.0]]), action=torch.tensor([[-0.9]]), next_state=x, length=torch.tensor([3]))
    options = command.candidates(t.state, t.next_state, t.action, 400, torch.Generator().manual_seed(0))
    assert options.shape == (1, 400, 1) and options[0, 0] == -0.9 and options[0, 1] == x / 2
    # By hand for the stored one: target -1.8, so the policy would have said -1 three times.
    actions = [1.0, 1.0, 1.0]
    actions = replay.get(Rows(torch.zeros(3, dtype=torch.int64), torch.arange(3)), "action").flatten().tolist()
    by_hand = -0.5 * sum((a + 1) ** 2 for a in actions)
    assert correction.scores(t, options)[0, 0] == pytest.approx(by_hand)
    corrected = correction(t, torch.Generator().manual_seed(0))
    assert corrected.action.item() == pytest.approx(0.8, abs=0.02)
    # Steps that have left the ring leave the decision as it was.
    gone = t.changed(below=Rows(torch.tensor([0]), torch.tensor([-1])))
    assert correction(gone, torch.Generator().manual_seed(0)).action.item() == pytest.approx(-0.9)


def _line_agent(hindsight: float):
    env = make_env(EnvConfig("GoalLine-v0", num_envs=4))
    config = small_hiro(period=3, hindsight=hindsight)
    config.high.correction = False
    config.low.learner.random_actions = (0.5, 1.0)
    agent = config.make(setting(env))
    roll(agent, env, 100)
    return agent
