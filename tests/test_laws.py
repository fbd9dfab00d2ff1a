"""Invariants of the design: the contents of the replays are correct for any behaviour of the environments."""

import pytest
import torch
from conftest import all_rows, everything, fresh, roll, setting, small_hiro, stack
from gymnasium.vector import AutoresetMode
from tasks import LENGTHS

from hrl.envs import EnvConfig, make_env
from hrl.report.evaluation import evaluate
from hrl.training.policy import HierarchyPolicy
from hrl.types import UserError
from hrl.variants import flat


def rounded(*columns: torch.Tensor) -> list[tuple[float, ...]]:
    """Rows of tensors as sorted tuples, to compare as sets with multiplicity."""
    table = torch.cat([c.reshape(len(c), -1).double() for c in columns], -1)
    return sorted(tuple(round(x, 4) for x in row) for row in table.tolist())


def test_no_transition_crosses_an_episode_and_final_observations_are_true(ledger):
    agent, env = ledger()
    roll(agent, env, 40)
    for level in (0, 1):
        t = everything(agent, level)
        assert len(t.state) > 20
        assert (t.next_state[:, 0] == t.state[:, 0]).all()  # the same episode
        assert (t.next_state[:, 1] == t.state[:, 1] + t.length).all()
        lasts = t.next_state[:, 1] == torch.tensor(LENGTHS)[t.state[:, 0].long() % 4]
        assert lasts.sum() >= 9  # the observation at the episode's length is there, not the reset one


def test_termination_ends_and_truncation_does_not(ledger):
    agent, env = ledger()
    roll(agent, env, 40)
    for level in (0, 1):
        t = everything(agent, level)
        odd, last = (
            t.state[:, 0] % 2 == 1,
            t.next_state[:, 1] == torch.tensor(LENGTHS)[t.state[:, 0].long() % 4],
        )
        assert (t.terminated == (odd & last)).all()
        assert (last & ~odd).any()
        batch = agent.levels[level].batch(t)
        gamma, ended = agent.levels[level].config.gamma, odd & last & (level == 1)  # the task's end is no subgoal's
        assert torch.allclose(batch.discount, torch.where(ended, 0.0, gamma**t.length))


def test_a_high_transition_contains_the_discounted_sum_of_its_segment(ledger):
    agent, env = ledger(num_envs=1, period=3)
    roll(agent, env, 16)  # episodes 0 to 3: 3 steps, 7, 5, 1
    t = everything(agent, 1)
    # Rewards of a segment from t: (t+1) + .9 (t+2) + .81 (t+3); short last segments are kept.
    expected = [
        (0, 0, 3, 1 + 0.9 * 2 + 0.81 * 3),
        (1, 0, 3, 1 + 0.9 * 2 + 0.81 * 3), (1, 3, 3, 4 + 0.9 * 5 + 0.81 * 6), (1, 6, 1, 7),
        (2, 0, 3, 1 + 0.9 * 2 + 0.81 * 3), (2, 3, 2, 4 + 0.9 * 5),
        (3, 0, 1, 1),
    ]  # fmt: skip
    assert rounded(t.state, t.length, t.reward) == [tuple(round(float(x), 4) for x in row) for row in expected]
    batch = agent.levels[1].batch(t)
    ended = t.terminated
    assert torch.allclose(batch.discount[~ended], 0.9 ** t.length[~ended].float())


def test_a_relative_subgoal_is_kept_as_decided_and_transitioned_from_the_true_observation(ledger):
    agent, env = ledger(num_envs=2)
    roll(agent, env, 30)
    low, high = everything(agent, 0), everything(agent, 1)
    command = agent.levels[0].command
    for i in range(len(high.state)):
        goal = command.goals.scale(high.action[i])  # g, as decided at s
        inside = (low.rows.env == high.rows.env[i]) & (low.rows.row >= high.steps.row[i])
        inside &= low.rows.row < high.steps.row[i] + high.length[i]
        assert inside.sum() == high.length[i]
        shown = command.encode(low.state, low.target, low.state)[inside]
        # h: s + g - s' for every later state s' of the segment (half-range 1, so nothing is scaled).
        assert torch.allclose(shown, high.state[i] + goal - low.state[inside], atol=1e-5)
        after = command.encode(low.next_state, low.next_target, low.next_state)[inside]
        assert torch.allclose(after, high.state[i] + goal - low.next_state[inside], atol=1e-5)


def test_many_environments_are_as_many_independent_streams():
    def collected(seeds: list[int], num_envs: int) -> list[list[tuple[float, ...]]]:
        env = make_env(EnvConfig("Ledger-v0", num_envs=num_envs))
        agent = small_hiro().make(setting(env))
        roll(agent, env, 25, seed=seeds[0])
        parts = [everything(agent, level) for level in (0, 1)]
        return [rounded(t.state, t.target, t.action, t.reward, t.next_state, t.length) for t in parts]

    together = collected([0], 4)
    singly = [collected([seed], 1) for seed in range(4)]
    for level in (0, 1):
        assert together[level] == sorted(row for single in singly for row in single[level])


def test_every_autoreset_mode_gives_the_same_transitions():
    found = {}
    for mode in AutoresetMode:
        env = make_env(EnvConfig("Ledger-v0", num_envs=2), autoreset=mode)
        assert env.mode == mode
        agent = small_hiro().make(setting(env))
        roll(agent, env, 60)
        # NEXT_STEP spends calls on resetting, so it gets less far: compare the episodes that all finished.
        rows = [everything(agent, level) for level in (0, 1)]
        first = [(t.state[:, 0] - t.rows.env) < 8 for t in rows]
        found[mode] = [
            rounded(
                *(
                    getattr(t, n)[m]
                    for n in ("state", "target", "action", "reward", "next_state", "length", "terminated")
                )
            )
            for t, m in zip(rows, first, strict=True)
        ]
        assert agent.steps == len(all_rows(agent.levels[0].memory).row)
    assert len(found[AutoresetMode.SAME_STEP][0]) == 2 * 2 * sum(LENGTHS)
    assert found[AutoresetMode.SAME_STEP] == found[AutoresetMode.NEXT_STEP] == found[AutoresetMode.DISABLED]


@pytest.mark.parametrize("learner", ["td3", "sac"])
def test_the_same_seed_gives_the_same_run_bit_for_bit(learner):
    def run() -> dict[str, torch.Tensor]:
        env = make_env(EnvConfig("GoalLine-v0", num_envs=3))
        config = small_hiro(hindsight=0.5, hindsight_actions=0.3, testing=0.3)
        options = {"learner": learner, "train_freq": 5, "action_noise": (0.2,), "random_actions": (0.1, 0.5)}
        config.low, config.high = flat(config.low, options), flat(config.high, options)
        config.learning_starts = 60
        agent = config.make(setting(env))
        obs = env.reset(0)
        for _ in range(80):
            step = env.step(agent.act(obs))
            agent.observe(step)
            agent.learn()
            obs = step.obs
        return agent.tensors()

    first, second = run(), run()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_cutting_ends_every_segment_and_episode_as_truncated(ledger):
    agent, env = ledger(num_envs=1, period=3)
    obs = env.reset(1)  # an episode of 7 steps
    for _ in range(4):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    agent.truncate_episodes(obs)
    low, high = everything(agent, 0), everything(agent, 1)
    assert low.state[:, 1].tolist() == [0, 1, 2, 3] and low.next_state[-1, 1] == 4
    assert high.length.tolist() == [3, 1] and high.reward.tolist() == pytest.approx([1 + 1.8 + 2.43, 4])
    assert not low.terminated.any() and not high.terminated.any()
    roll(agent, env, 3, seed=0)  # what follows is another episode
    assert everything(agent, 0).next_state[3].tolist() == [1, 4]
    assert len(everything(agent, 0).state) == 7


@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_truncation_does_not_change_stored_transitions(ledger, steps):
    """This also holds if a segment has just ended and its last observation belongs to the open row."""
    agent, env = ledger(num_envs=1, period=3)
    obs = env.reset(1)
    for _ in range(steps):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    agent.truncate_episodes(obs)
    for level in (0, 1):
        t = everything(agent, level)
        assert (t.next_state == t.state + torch.stack([torch.zeros_like(t.length), t.length], -1)).all()
        assert t.next_state[-1].tolist() == [1, steps] and int(t.length.sum()) == steps


def test_nothing_is_learned_before_every_level_has_transitions():
    env = make_env(EnvConfig("Ledger-v0", num_envs=6))
    config = small_hiro(period=50)
    config.low.learner.train_freq = config.high.learner.train_freq = 1
    agent = config.make(setting(env))
    obs = env.reset(0)
    for _ in range(60):
        step = env.step(agent.act(obs))
        agent.observe(step)
        agent.learn()
        for level in agent.levels:
            assert level.timescale.done == 0 or len(level.memory) > 0
        obs = step.obs
    assert all(level.timescale.done > 0 for level in agent.levels)


def test_a_frozen_level_acts_but_does_not_learn():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = small_hiro()
    config.low.learner.train_freq = config.high.learner.train_freq = 1
    config.low.frozen = True
    agent = config.make(setting(env))
    before = [[p.clone() for p in level.learner.parameters()] for level in agent.levels]
    roll(agent, env, 10)
    agent.learn()
    same = [
        all(torch.equal(p, q) for p, q in zip(level.learner.parameters(), old, strict=True))
        for level, old in zip(agent.levels, before, strict=True)
    ]
    assert same == [True, False]


def test_three_levels_nest_their_clocks():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    agent = stack(env)
    roll(agent, env, 30)
    middle, high = everything(agent, 1), everything(agent, 2)
    seven = middle.state[:, 0] == 1  # an episode of 7 steps: segments 2 2 2 1 under 4 3
    assert sorted(middle.length[seven & (middle.rows.env == 0)].tolist()) == [1, 2, 2, 2]
    assert sorted(high.length[(high.state[:, 0] == 1) & (high.rows.env == 0)].tolist()) == [3, 4]
    # The middle level's command holds for as long as the high level's decision does.
    for i in range(len(middle.state)):
        above = (high.rows.env == middle.rows.env[i]) & (high.steps.row <= middle.steps.row[i])
        j = int(torch.where(above)[0][high.steps.row[above].argmax()])
        assert torch.allclose(middle.target[i], high.state[j] + high.action[j], atol=1e-5)


def test_evaluation_does_not_change_the_training_state():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=2))
    config = small_hiro()
    config.low.learner.action_noise = (0.3,)
    agent = config.make(setting(env))
    roll(agent, env, 20)
    before = {name: x.clone() for name, x in agent.tensors().items()}
    memory, state = [h.elapsed.clone() for h in agent.memory], torch.get_rng_state()
    make = fresh("GoalLine-v0")
    first = evaluate(HierarchyPolicy(agent), make, 30)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(h.elapsed, m) for h, m in zip(agent.memory, memory, strict=True))
    assert all(torch.equal(x, before[name]) for name, x in agent.tensors().items())
    second = evaluate(HierarchyPolicy(agent), make, 30)
    assert first.summary() == second.summary()
    assert {"success_rate_any", "success_rate_final"} <= set(first.summary())


def test_a_level_does_not_observe_masked_entries(ledger):
    agent, env = ledger(masked_entries=(1,))
    roll(agent, env, 20)
    low, high = agent.levels
    t = everything(agent, 1)
    assert (t.state[:, 1] > 0).any()  # the replay holds it, and rewards and subgoals come from it
    batch = high.batch(t)
    assert (batch.inputs[:, 1] == 0).all() and (batch.next_inputs[:, 1] == 0).all()
    assert torch.equal(batch.inputs[:, 0], t.state[:, 0])
    t = everything(agent, 0)
    assert torch.equal(low.batch(t).inputs[:, :2], t.state)
    with pytest.raises(
        UserError, match=r"high.masked_entries \[7\] do not exist: the observation has 2 entries \(0 to 1\)"
    ):
        ledger(masked_entries=(1, 7))
