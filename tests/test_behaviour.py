"""Behaviour that a small mistake in the code would change. Each test was seen to fail with that mistake."""

import pytest
import torch
from conftest import CPU, everything, made, roll, setting, small_hiro, stack
from gymnasium.vector import AutoresetMode
from test_nested import f64
from test_replay import fill, ring, transition

from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands import Subgoal, Task
from hrl.hierarchy.commands.building import measure_bounds
from hrl.hierarchy.commands.goals import GoalSpace, Select
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.level import Level
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.relabelling.hindsight import HindsightGoals, HindsightTask
from hrl.hierarchy.relabelling.rewards import StepRewards
from hrl.hierarchy.setting import Setting
from hrl.learners.adam import FlatAdam
from hrl.learners.base import Batch
from hrl.learners.td3 import TD3
from hrl.memory.ring import Replay, Rows
from hrl.nested import SGD, ConjugateGradient, Guard, Implicit, Iteration
from hrl.spaces import unit_box
from hrl.types import UserError

# -- acting --------------------------------------------------------------------------------------------------


def noisy_hiro(testing: float):
    env = make_env(EnvConfig("GoalLine-v0", num_envs=4))
    config = small_hiro(testing=testing)
    config.low.learner.action_noise = (0.5,)
    return config.make(setting(env)), env


def test_below_a_subgoal_under_test_nothing_explores_and_elsewhere_everything_does():
    for testing in (1.0, 0.0):
        agent, env = noisy_hiro(testing)
        obs = env.reset(0)
        actions = agent.act(obs)
        low = agent.levels[0]
        greedy = low.decide(obs.state, low.segment.target)
        assert torch.equal(actions, greedy) == (testing == 1.0)
        assert agent.levels[1].segment.tested.all() == (testing == 1.0)


def test_each_level_notes_its_own_tests():
    """A test of the middle level affects that level alone; one of the high level makes those below tests too."""
    env = make_env(EnvConfig("Ledger-v0", num_envs=64))
    agent = stack(env, testing=0.5, noise=0.3)
    agent.act(env.reset(0))
    middle, high = (level.segment.tested for level in agent.levels[1:])
    assert (middle & ~high).any() and not (high & ~middle).any() and (~middle).any()


def test_an_early_end_needs_a_step():
    """With NEXT_STEP, a reset is not a step: it does not end a subgoal, even if the new state fulfils it."""
    env = make_env(EnvConfig("Ledger-v0", num_envs=1), autoreset=AutoresetMode.NEXT_STEP)
    agent = stack(env, early=True)
    obs = env.reset(0)  # an episode of three steps
    for expected in (True, True, True, False, True):
        agent.act(obs)
        step = env.step(torch.zeros(1, 1))
        before = int(agent.levels[1].memory.cursor)
        agent.observe(step)
        assert bool(step.active) == expected
        assert (int(agent.levels[1].memory.cursor) > before) == expected
        obs = step.obs


@pytest.mark.parametrize("early", [True, False])
def test_a_subgoal_that_ends_when_reached_is_terminal_for_the_level_below(early):
    """Its value there is 0, and what follows is under another subgoal. The last of three steps is the task's end."""
    env = make_env(EnvConfig("Ledger-v0", num_envs=1), autoreset=AutoresetMode.SAME_STEP)
    agent = stack(env, early=early)
    roll(agent, env, 40)
    low = agent.levels[0]
    t = low.transitions(64, torch.Generator().manual_seed(0))
    far = t.changed(target=t.target + 100.0)
    assert low.batch(t).discount.eq(0.0).all() == early
    assert low.batch(far).discount.allclose(torch.tensor(0.9))


def test_no_update_before_every_environment_has_ended_a_segment():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=4))
    config = small_hiro(period=5)
    agent = config.make(Setting(env.spec, 4, CPU, 0, lambda: env))
    assert [level.timescale.starts for level in agent.levels] == [4, 20]


# -- memories ------------------------------------------------------------------------------------------------


def test_a_row_of_an_ended_episode_is_not_in_the_one_that_runs():
    replay = ring()
    fill(replay, [3])
    fill(replay, [2])
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    row = {"state": torch.tensor([9.0]), "action": torch.tensor([0.0])}
    replay.write(row, row, {}, yes, no, no)  # an episode that still runs
    rows = Rows(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 4, 7]))
    assert replay.end(rows).tolist() == [3, 6, 8]


def test_a_ring_may_store_more_rows_than_it_samples_from():
    replay = Replay({"state": 1, "action": 1}, ("state",), (), 20, 1, CPU, held=60)
    fill(replay, [5] * 8)  # 48 rows
    rows = Rows(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 20, 47]))
    assert replay.holds(rows).all() and len(replay) == 20
    drawn = replay.draw(500, torch.Generator().manual_seed(0))
    assert int(drawn.row.min()) >= 48 - 20 and replay.holds(drawn).all()
    beyond = Rows(torch.tensor([0]), torch.tensor([48]))
    assert not replay.holds(beyond).any()  # nothing was written there yet


@pytest.mark.parametrize(("before", "after"), [(20, 60), (60, 20), (20, 20)])
@pytest.mark.parametrize("lengths", [[3, 4], [5] * 6])
def test_a_ring_continues_in_one_of_another_length(before, after, lengths):
    old, new = (Replay({"state": 1, "action": 1}, ("state",), (), size, 2, CPU) for size in (2 * before, 2 * after))
    fill(old, lengths, terminated=True)
    new.load_state_dict({name: x.clone() for name, x in old.state_dict().items()})
    fill(old, [2, 3])
    fill(new, [2, 3])
    kept = min(len(old), len(new)) // 2 - 1
    env, back = torch.meshgrid(torch.arange(2), torch.arange(1, kept), indexing="ij")
    rows = Rows(env.flatten(), (old.cursor[env] - back).flatten())
    for read in (lambda r: r.get(rows, "state"), lambda r: r.end(rows), lambda r: r.terminated(rows)):
        assert torch.equal(read(old), read(new))
    assert torch.equal(old.cursor, new.cursor)


def test_short_runs_and_acting_agents_store_only_the_necessary_rows():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=2))
    config = small_hiro(period=10, hindsight=0.5)
    config.low.learner.buffer_size, config.high.learner.buffer_size = 4000, 4000
    sizes = {}
    for total in (1000, 100_000, 0):
        agent = config.make(Setting(env.spec, 2, CPU, 0, lambda: env, total))
        sizes[total] = agent.levels[0].memory.length * 2
    assert sizes[0] < 100 < sizes[1000] < 4100 and sizes[100_000] >= 40_000


def test_the_low_ring_covers_every_decision_of_the_high_one():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = small_hiro(period=3)
    config.low.learner.buffer_size, config.high.learner.buffer_size = 32, 400
    agent = config.make(setting(env))
    roll(agent, env, 700)
    low, high = agent.levels
    assert len(low.memory) == 32 and int(high.memory.cursor.min()) > 200 + 2
    t = everything(agent, 1)
    assert low.memory.holds(t.steps).all()
    high.transitions(64, agent.generator)
    assert high.metrics.pop()["steps_in_reach"] == 1


def test_decisions_with_overwritten_steps_are_reported_and_unchanged():
    env = make_env(EnvConfig("GoalLine-v0", num_envs=1))
    config = small_hiro(period=3, hindsight=1.0, correction=False)
    agent = config.make(setting(env))
    roll(agent, env, 60)
    low, high = agent.levels
    low.memory.clear()  # as if all of it had been written over
    t = everything(agent, 1)
    changed = high.relabels[0](t, torch.Generator().manual_seed(0))
    assert torch.equal(changed.target, t.target) and torch.equal(changed.reward, t.reward)
    high.transitions(16, agent.generator)
    assert high.metrics.pop()["steps_in_reach"] == 0


class Steps:
    """A ring without the rows before `oldest`. Its row k contains the state k / 10 and the reward k."""

    def __init__(self, oldest: int = 0) -> None:
        self.oldest = oldest

    def holds(self, rows: Rows) -> torch.Tensor:
        return rows.row >= self.oldest

    def get(self, rows: Rows, name: str) -> torch.Tensor:
        return rows.row.unsqueeze(-1) / (10 if name == "state" else 1)

    def end(self, rows: Rows) -> torch.Tensor:
        return rows.row + 1

    def within(self, rows: Rows) -> Rows:
        return rows


def near(achieved: torch.Tensor, desired: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    reached = (achieved - desired).abs().squeeze(-1) < 0.05
    return reached.float(), reached


def one_task(penalty: float = 0.0, **more: object) -> Task:
    one = torch.ones(1)
    goals = GoalSpace(Select(torch.tensor([0])), -one, one, relative=False)
    return Task(1, goals, near, (0.0, 1.0), penalty=penalty, **more)  # type: ignore[arg-type]


def test_hindsight_on_the_task_relabels_the_next_goal_and_drops_ends_by_the_old_goal():
    relabel = HindsightTask(one_task(), Steps(), Steps(), 1.0, gamma=0.5, period=3)  # type: ignore[arg-type]
    # The episode ended at state 1.3, because that was the goal; another goal is not reached there.
    t = transition(
        rows=Rows(torch.tensor([0]), torch.tensor([30])), steps=Rows(torch.tensor([0]), torch.tensor([10])),
        length=torch.tensor([3]), target=torch.tensor([[1.3]]), next_target=torch.tensor([[1.3]]),
        next_state=torch.tensor([[1.3]]), terminated=torch.tensor([True]),
    )  # fmt: skip
    changed = relabel(t, torch.Generator().manual_seed(0))
    assert torch.equal(changed.target, changed.next_target) and not torch.equal(changed.target, t.target)
    assert not changed.terminated.any()
    # An end that had nothing to do with the goal stays one.
    fell = t.changed(target=torch.tensor([[8.0]]), next_target=torch.tensor([[8.0]]))
    assert relabel(fell, torch.Generator().manual_seed(0)).terminated.all()


def test_step_rewards_end_with_the_decision():
    rewards = StepRewards(one_task(), Steps(), period=4)  # type: ignore[arg-type]
    t = transition(steps=Rows(torch.tensor([0]), torch.tensor([10])), length=torch.tensor([3]))
    assert rewards(t, torch.Generator()).rewards.tolist() == [[10, 11, 12, 0]]
    overwritten = StepRewards(one_task(), Steps(oldest=11), period=4)  # type: ignore[arg-type]
    t = t.changed(reward=torch.tensor([33.0]))
    assert overwritten(t, torch.Generator()).rewards.tolist() == [[33, 0, 0, 0]]


# -- values --------------------------------------------------------------------------------------------------


def test_the_range_of_values_matches_calculated_values():
    assert one_task(offset=-1.0).value_range(0.9) == pytest.approx((-10.0, 0.0))
    assert one_task().value_range(0.9) == pytest.approx((0.0, 10.0))
    assert one_task(penalty=25.0, offset=-1.0).value_range(0.9) == pytest.approx((-25.0, 0.0))
    assert one_task(scale=2.0).value_range(0.5) == pytest.approx((0.0, 4.0))


@pytest.mark.parametrize("kind", ["sparse", "distance", "progress"])
def test_the_end_of_the_task_is_not_terminal_for_a_subgoal(kind):
    """An end neither avoids negative rewards nor loses later ones: the value of the last state is bootstrapped."""
    one = torch.ones(1)
    command = Subgoal(GoalSpace(Select(torch.tensor([0])), -one, one, relative=False, threshold=0.1), kind)
    env = make_env(EnvConfig("Said-v0", env_kwargs={"width": 1}))
    config, where = LevelConfig.of(hidden=(4,), gamma=0.9, buffer_size=100), setting(env)
    level = Level(
        "low", config, command, env.spec.actions, make_memory(config, command, env.spec.actions, where), where
    )
    t = transition(
        state=torch.tensor([[0.0]]), next_state=torch.tensor([[0.5]]), target=torch.tensor([[1.0]]),
        next_target=torch.tensor([[1.0]]), action=torch.tensor([[0.0]]), length=torch.tensor([1]),
    )  # fmt: skip
    goes_on, ends = (level.batch(t.changed(terminated=torch.tensor([end]))) for end in (False, True))
    assert float(ends.discount) == float(goes_on.discount) == pytest.approx(0.9)
    assert float(ends.reward) == float(goes_on.reward)
    missed = level.batch(t.changed(penalty=torch.tensor([7.0])))
    assert float(missed.discount) == 0 and float(missed.reward) == -7


def test_progress_equals_the_distance_reward_minus_the_cost_of_standing_still():
    """Σ γ^t progress = (1 - γ) Σ γ^t distance + d_0, each including the value after its end, for any path."""
    gamma, generator = 0.9, torch.Generator().manual_seed(0)
    for steps in (1, 4, 9):
        d = torch.rand(steps + 1, generator=generator)
        weights = gamma ** torch.arange(steps)
        progress = (weights * (d[:-1] - d[1:])).sum()
        distance = (weights * -d[1:]).sum() + gamma**steps * -d[-1] / (1 - gamma)
        assert float(progress) == pytest.approx(float((1 - gamma) * distance + d[0]), abs=1e-5)


def test_a_target_action_stays_within_the_actions():
    learner = made(TD3, 2, 1, hidden=(4,), target_noise=10.0, noise_clip=5.0)
    seen = []
    asked = learner.target_critic.of_features
    learner.target_critic.of_features = lambda features, action: (seen.append(action), asked(features, action))[1]
    batch = Batch(torch.randn(64, 2), torch.zeros(64, 1), torch.zeros(64), torch.randn(64, 2), torch.ones(64))
    learner.target(batch, torch.randn(64, 1))
    assert seen[0].abs().max() <= 1 and (seen[0].abs() == 1).any()


def test_adam_is_torchs_adam():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    mine, other = FlatAdam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2)
    for k in range(1, 60):
        x = torch.randn(8, 3) * (0.01 if k > 30 else 10)  # β₂ determines how fast the scale adapts
        mine.minimise(ours(x).square().mean())
        other.zero_grad()
        theirs(x).square().mean().backward()
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("length", "kept"), [(0.4, 0.4), (0.5, 0.5), (3.0, 0.5)])
def test_gradients_are_scaled_down_to_their_maximum_norm_but_never_up(length, kept):
    adam = FlatAdam(torch.nn.Linear(2, 1, bias=False).parameters(), 1e-2, max_norm=0.5)
    adam.places[0].copy_(length * torch.tensor([[0.6, 0.8]]))
    assert float(adam.descend()) == pytest.approx(length)
    torch.testing.assert_close(adam.places[0], kept * torch.tensor([[0.6, 0.8]]), rtol=1e-4, atol=1e-5)


# -- goal spaces ---------------------------------------------------------------------------------------------


def test_measured_bounds_include_downward_movements():
    class Falling:
        """Moves by -1 a step; an episode is 100 steps."""

        num_envs, spec = 1, type("Spec", (), {"actions": unit_box(1)})

        def __init__(self) -> None:
            self.x = 0.0

        def _obs(self):
            return type("Obs", (), {"state": torch.tensor([[self.x]])})()

        def reset(self, seed):
            return self._obs()

        def step(self, action):
            self.x -= 1.0
            no, yes = torch.tensor([False]), torch.tensor([True])
            return type("Step", (), {"final": self._obs(), "obs": self._obs(), "active": yes, "terminated": no,
                                     "truncated": no})()  # fmt: skip

        def close(self) -> None: ...

    bounds = measure_bounds(Falling(), Select(torch.tensor([0])), period=10, relative=True)  # type: ignore[arg-type]
    assert bounds.high.tolist() == pytest.approx([11.0]) and bounds.low.tolist() == pytest.approx([-11.0])


# -- nested --------------------------------------------------------------------------------------------------


def test_a_guard_shortens_long_gradients_and_keeps_their_direction():
    guard = Guard(limit=2.0)
    short = guard.clip({"a": f64(3.0), "b": f64(4.0)})
    assert short is not None and float(short["a"]) == pytest.approx(1.2) and float(short["b"]) == pytest.approx(1.6)
    assert guard.clip({"a": f64(0.3)}) == {"a": f64(0.3)} and (guard.clipped, guard.skipped) == (1, 0)
    assert guard.clip({"a": f64(float("nan"))}) is None and guard.clip({"a": f64(1e9)}) is None


def test_conjugate_gradients_raise_for_a_map_that_is_not_a_gradient_step():
    """A rotation by 37 degrees beside a contraction: solvable, positively curved, and not symmetric."""
    a = torch.tensor([[1.0, 0.75], [-0.75, 1.0]], dtype=torch.float64)
    inner = Iteration(lambda w, lam, step: w - 0.5 * (a @ w - lam))
    start = torch.linalg.solve(a, f64(1.0, 1.0))
    with pytest.raises(UserError):
        Implicit(inner, 0, ConjugateGradient(2, accept=float("inf")))(
            lambda w, lam: (w * f64(1.0, 2.0)).sum(), inner.begin(start), f64(1.0, 1.0)
        )
    symmetric = Iteration(lambda w, lam, step: w - 0.5 * ((a @ a.T) @ w - lam))
    start = torch.linalg.solve(a @ a.T, f64(1.0, 1.0))
    estimate = Implicit(symmetric, 0, ConjugateGradient(2))(
        lambda w, lam: (w * f64(1.0, 2.0)).sum(), symmetric.begin(start), f64(1.0, 1.0)
    )
    torch.testing.assert_close(estimate.gradient, torch.linalg.solve(a @ a.T, f64(1.0, 2.0)))


def test_sgd_takes_gradient_steps():
    weights, memory = SGD(0.5, momentum=0.5).step(f64(1.0), f64(2.0), f64(4.0), None)
    assert float(weights) == 1 - 0.5 * (0.5 * 4 + 2) and float(memory) == 4


def test_hindsight_goals_are_of_the_levels_own_episode():
    replay = ring(num_envs=1)
    fill(replay, [4, 4])
    one = torch.ones(1)
    command = Subgoal(GoalSpace(Select(torch.tensor([0])), -one, one, relative=False), "sparse")
    relabel = HindsightGoals(command, replay, share=1.0)
    rows = Rows(torch.zeros(200, dtype=torch.int64), torch.full((200,), 1))
    t = transition(rows=rows, state=torch.ones(200, 1), target=torch.zeros(200, 1), next_target=torch.zeros(200, 1))
    goals = relabel(t, torch.Generator().manual_seed(0)).target.flatten()
    assert set(goals.tolist()) == {2.0, 3.0, 4.0}
