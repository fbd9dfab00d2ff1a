"""The bonus for rarely visited positions: counts of cells by hand, its place in rewards and targets, and whole runs."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import everything, roll, setting, small_hiro
from hrl_scripts import train
from runs import same_state, trained

from hrl.agents.hiro import High
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.relabelling.count_bonus import BITS, CountBonus
from hrl.memory.ring import Replay
from hrl.run.checkpoint import Checkpoints
from hrl.types import UserError

CPU = torch.device("cpu")
ONE = torch.tensor([True])


def walk(memory: Replay, *path: float) -> None:
    """Write decisions of one environment along the path, which starts where the last one stopped."""
    for before, after in pairwise(path):
        row = {"state": torch.tensor([[9.0, before]])}
        memory.write(row, {"state": torch.tensor([[9.0, after]])}, {}, ONE, ~ONE, ~ONE)


def on_a_line(pause: int = 1, starts: int = 0, capacity: int = 100) -> tuple[CountBonus, Replay]:
    """A bonus of weight 2 for positions x, the second of two state entries, in cells of width .5."""
    memory = Replay({"state": 2}, ("state",), (), capacity, 1, CPU)
    return CountBonus(lambda state: state[..., 1:], memory, 2.0, 0.5, pause, starts), memory


def bonuses(bonus: CountBonus, *x: float) -> list[float]:
    return bonus(torch.tensor([[0.0, one] for one in x])).tolist()


def test_the_bonus_falls_with_the_square_root_of_the_visits_to_a_cell():
    bonus, memory = on_a_line()
    walk(memory, 0.0, 0.1, 0.4, 0.6, -0.1, 0.49)
    metrics = bonus.keep_up(None, 5, torch.Generator())
    # Cells: [0, .5) has 0.1, 0.4 and 0.49; [.5, 1) has 0.6; [-.5, 0) has -0.1; [2, 2.5) has none.
    expected = [2 / math.sqrt(3), 2.0, 2.0, 2.0]
    assert bonuses(bonus, 0.2, 0.7, -0.3, 2.2) == pytest.approx(expected) and metrics["visited_cells"] == 3
    walk(memory, 0.49, 0.7, 0.8, 0.9)
    bonus.keep_up(None, 8, torch.Generator())
    assert bonuses(bonus, 0.2, 0.7, 2.2) == pytest.approx([2 / math.sqrt(3), 1.0, 2.0])  # each visit counts once


def test_positions_are_counted_every_pause_after_the_start_and_at_most_once_around_the_ring():
    bonus, memory = on_a_line(pause=10, starts=20, capacity=16)
    walk(memory, 0.0, 0.1)
    assert bonus.keep_up(None, 9, torch.Generator()) == {} and not bonus.counts.any()
    bonus.keep_up(None, 10, torch.Generator())
    assert not bonus.counts.any()  # before the start, when the level does not store its decisions
    walk(memory, 0.1, *[0.6] * 40)
    bonus.keep_up(None, 20, torch.Generator())
    assert bonuses(bonus, 0.1, 0.7) == pytest.approx([2.0, 0.5])  # 16 visits are left in the ring, and none of 0.1


def test_neighbouring_cells_of_several_coordinates_do_not_share_an_entry():
    bonus = CountBonus(lambda state: state, Replay({"state": 4}, ("state",), (), 16, 1, CPU), 1.0, 1.0, 1)
    cells = torch.cartesian_prod(*[torch.arange(-3.0, 4.0)] * 4)
    entries = bonus.entry(cells)
    assert entries.min() >= 0 and entries.max() < 2**BITS
    # Of 2,401 random entries out of 65,536, 43 are expected to be taken before.
    assert len(entries.unique()) > len(cells) - 100


def small(**high: object) -> Hierarchy:
    env = make_env(EnvConfig("GoalLine-v0", num_envs=2))
    agent = small_hiro(count_bonus=3.0, count_cell=0.5, **high).make(setting(env))
    roll(agent, env, 40)
    return agent


def test_the_level_adds_the_bonus_of_the_next_state_to_the_reward_and_widens_the_range_of_its_values():
    agent = small(reward_offset=-1.0)
    high, t = agent.levels[1], everything(agent, 1)
    bonus = high.bonus
    assert bonus is not None and bonus in high.models
    bonus.keep_up(high, 80, torch.Generator())
    batch, other = high.batch(t), high.batch(t, outer=True)
    assert torch.allclose(batch.reward, t.reward + bonus(t.next_state)) and bonus(t.next_state).min() > 0
    assert len(bonus(t.next_state).unique()) > 2  # several cells of the achieved goal, not of the observation's time
    assert torch.allclose(other.reward, t.reward)  # an outer level's objective is the task
    assert high.learner.value_range == pytest.approx((-1 / (1 - 0.9), 3.0 / (1 - 0.9)))


def test_a_run_with_a_bonus_resumes_exactly(tmp_path):
    options = ["--high.count-bonus", "1", "--high.count-cell", "0.25", "--high.random-warmup", "300"]
    whole = trained(tmp_path / "whole", *options)
    part = trained(tmp_path / "part", *options, "--total-steps", "500")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)
    counts = Checkpoints(whole / "checkpoints").last().tensors["high.model0.counts"]
    assert counts.sum() > 20 and (counts > 0).sum() > 3


def test_a_bonus_needs_a_replay(tmp_path):
    with pytest.raises(UserError, match="count_bonus need a replay, but ppo"):
        High.of(learner="ppo", count_bonus=1.0, hindsight_actions=0.0).check("high.")
