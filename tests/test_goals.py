"""The goal space: declared once, resolved against an environment."""

from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch
from conftest import CPU, setting, small_hiro

from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands import Subgoal, Task
from hrl.hierarchy.commands.building import build_goal_space
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace, Select, sinusoids
from hrl.types import UserError


def build(env_id: str, **declared):
    env = make_env(EnvConfig(env_id, num_envs=4))
    return build_goal_space(GoalConfig(**declared), env.spec, 10, lambda: env, CPU)


def halves(state: torch.Tensor) -> torch.Tensor:
    """A user's own projection."""
    return state[..., :1] / 2


def test_goal_environments_need_no_declaration():
    space = build("GoalLine-v0")
    assert space.project(torch.tensor([[7.0, 3.0]])).tolist() == [[3.0]]
    # Displacements are measured: ten steps of at most .5. Places have the observation space's bounds.
    assert torch.equal(space.low, -space.high) and 1.0 < space.high[0] <= 10 * 0.5 * 1.1
    assert build("GoalLine-v0", relative=False).low.tolist() == [-9.0]
    assert build("GoalLine-v0", bounds="space").high.tolist() == [9.0]


def test_many_entries_are_described_briefly():
    spec = SimpleNamespace(achieved=())
    goal = GoalConfig(indices=(0, 1, 2, 5, 6), low=(-1.0,) * 5, high=(1.0,) * 4 + (2.0,), threshold=0.5)
    assert goal.describe(spec) == (
        "entries 0 to 2, 5, 6 of the observation; subgoals are displacements within ±1 (4 entries), -1 to 2; a subgoal "
        "counts as reached within 0.5."
    )
    many = tuple(float(i) for i in range(1, 101))
    text = GoalConfig(indices=tuple(range(100)), low=tuple(-x for x in many), high=many).describe(spec)
    assert text.startswith(
        "entries 0 to 99 of the observation; subgoals are displacements within 100 different bounds;"
    )


def test_without_goals_subgoals_are_the_moving_entries_with_measured_bounds():
    # Ledger observes its episode's number, which stands still within an episode, and the step.
    space = build("Ledger-v0", relative=False)
    assert space.dim == 1 and space.project(torch.tensor([[3.0, 5.0]])).tolist() == [[5.0]]
    # 4 environments begin with episodes 0 to 3 and count on; no episode is longer than 7 steps.
    assert space.low[0] == pytest.approx(-0.35) and space.high[0] == pytest.approx(7.35)
    moving = build("Ledger-v0")
    assert torch.equal(moving.low, -moving.high) and moving.high[0] == pytest.approx(7 * 1.1)
    assert build("Ledger-v0", low=(-1.0,), high=(1.0,)).dim == 2  # where bounds are given, all of it


def clocked() -> gym.Env:
    """A pendulum that also observes the time, as the fourth entry."""
    return gym.wrappers.TimeAwareObservation(gym.make("Pendulum-v1"))


gym.register("Clocked-v0", clocked)


def test_a_clock_is_no_moving_entry_beside_others():
    spec = make_env(EnvConfig("Clocked-v0", num_envs=2)).spec
    measure = lambda: make_env(EnvConfig("Clocked-v0", num_envs=2))  # noqa: E731
    space = build_goal_space(GoalConfig(), spec, 10, measure, CPU)
    assert spec.state_dim == 4 and space.project(torch.arange(4.0)).tolist() == [0.0, 1.0, 2.0]


def test_a_projection_may_be_a_function():
    space = build("Ledger-v0", projection="test_goals:halves", low=(-1.0,), high=(1.0,))
    assert space.project(torch.tensor([[8.0, 1.0]])).tolist() == [[4.0]] and space.dim == 1


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (
            {"indices": (0, 2)},
            r"goal.indices \[2\] lie outside the observation of Ledger-v0, which has 2 entries \(0 to 1\)",
        ),
        ({"low": (1.0,), "high": (0.0,)}, "must be below"),
        ({"low": (1.0, 1.0, 1.0), "high": (2.0,)}, "goal.low needs 1 or 2 numbers"),
        ({"low": (0.0,), "high": (1.0,), "threshold": 0.0}, "threshold must be positive"),
        ({"low": (0.0,), "high": (1.0,), "periods": (0.0,)}, "periods must be positive"),
        ({"bounds": "space"}, "no bounds for these goals"),
        ({"projection": "nowhere:f"}, "No module named .nowhere"),
        ({"projection": "math:pi"}, "not callable"),
        ({"projection": "test_goals:halves", "indices": (0,)}, "are alternatives: use --goal.projection None"),
    ],
)
def test_declarations_that_do_not_fit_are_reported(declared, words):
    with pytest.raises(UserError, match=words):
        build("Ledger-v0", **declared)


def test_pixels_are_no_moving_entries():
    env = make_env(EnvConfig("Picture-v0", {"kind": "dict"}))  # the vector beside the image never changes
    with pytest.raises(UserError, match="Random steps do not change the observations of Picture-v0"):
        build_goal_space(GoalConfig(), env.spec, 3, lambda: env, CPU)


def space(relative: bool, **more) -> GoalSpace:
    low, high = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 3.0])
    return GoalSpace(Select(torch.tensor([0, 1])), low, high, relative, threshold=0.5, **more)


def test_scaling_and_distances():
    s = space(relative=False)
    assert s.scale(torch.tensor([0.5, -1.0])).tolist() == [1.0, -1.0]
    assert s.unscale(torch.tensor([1.0, 9.0])).tolist() == [0.5, 1.0]
    a, b = torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])
    assert s.distance(a, b) == 5 and space(False, distance="linf").distance(a, b) == 4


def test_subgoals_are_issued_retraced_and_rewarded():
    state = torch.tensor([[1.0, 1.0, 9.0]])
    raw = torch.tensor([[0.5, 0.0]])
    for relative, target in ((True, [2.0, 2.0]), (False, [1.0, 1.0])):
        command = Subgoal(space(relative), "sparse")
        assert command.issue(state, raw).tolist() == [target]
        assert torch.allclose(command.retrace(state, command.issue(state, raw)), raw)
    near, far = torch.tensor([[2.0, 1.6, 0.0]]), torch.tensor([[2.0, 1.4, 0.0]])
    target = torch.tensor([[2.0, 2.0]])
    assert [Subgoal(space(True), "sparse").reward(state, s, target).item() for s in (near, far)] == [0.0, -1.0]
    assert Subgoal(space(True), "distance").reward(state, far, target).item() == pytest.approx(-0.6)
    # From (1, 1) to (2, 1.4) the way to (2, 2) shortens from √2 to .6.
    assert Subgoal(space(True), "progress").reward(state, far, target).item() == pytest.approx(2**0.5 - 0.6)
    assert Subgoal(space(True), "progress", 3.0).reward(state, far, target).item() == pytest.approx(3 * (2**0.5 - 0.6))
    assert Subgoal(space(True), "progress").value_range(0.9) is None
    assert Subgoal(space(True), "sparse", 3.0).value_range(0.9) == (pytest.approx(-30.0), 0.0)
    assert Subgoal(space(True), "sparse").value_range(0.9) == (pytest.approx(-10.0), 0.0)


def test_the_task_reward_is_scaled_and_bounded():
    task = Task(0, reward_range=(0.0, 1.0), scale=0.5, offset=-1.0)
    assert task.scale_reward(torch.tensor([0.0, 1.0])).tolist() == [-0.5, 0.0]
    for offset, scale, result in ((0.0, 1.0, 3.0), (1.0, 1.0, 4.0), (0.0, 2.0, 6.0), (1.0, 2.0, 8.0)):
        assert Task(0, scale=scale, offset=offset).scale_reward(torch.tensor([3.0])).tolist() == [result]
    assert task.value_range(0.9) == (pytest.approx(-5.0), 0.0)
    assert Task(0).value_range(0.9) is None


def test_position_features_are_sines_and_cosines_at_the_declared_periods():
    x = sinusoids(torch.tensor([[1.0, 2.0]]), torch.tensor([torch.pi / 2, torch.pi]))
    # sin(x₁ π/2), sin(x₁ π), sin(x₂ π/2), sin(x₂ π), then the cosines.
    assert x[0].tolist() == pytest.approx([1, 0, 0, 0, 0, -1, -1, 1], abs=1e-6)
    command = Subgoal(space(True, periods=(8.0, 4.0)), "sparse")
    shown = command.encode(torch.zeros(5, 3), torch.zeros(5, 2), torch.zeros(5, 3))
    assert shown.shape == (5, command.input_dim) == (5, 2 + 2 * 2 * 2)


def test_position_features_of_masked_entries_are_hidden():
    env = make_env(EnvConfig("PointMaze_UMaze-v3", num_envs=2))
    config = small_hiro()
    config.goal, config.low.masked_entries = GoalConfig(low=(-1.0,), high=(1.0,), periods=(8.0, 4.0)), (0, 1)
    low, high = config.make(setting(env)).levels
    here, there = torch.zeros(1, 4), torch.tensor([[0.5, -0.7, 0.0, 0.0]])
    way = torch.tensor([[0.25, -0.5]])
    seen = low.inputs(here, here[:, :2] + way)
    assert torch.allclose(seen, low.inputs(there, there[:, :2] + way), atol=1e-6)
    assert seen[0, 4:6].tolist() == [0.25, -0.5]  # the displacement that it observes
    assert not torch.allclose(high.inputs(here, way), high.inputs(there, way))
