"""With every algorithm, any Gymnasium space either trains for a few steps or raises a clear error."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hrl_scripts import train
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from runs import run_of
from tasks import Drawn

import hrl
from hrl.envs import EnvConfig, make_env
from hrl.envs.make import make_single
from hrl.envs.spaces.actions import ActionMap, PlainActions

ALGORITHMS = ("hiro", "hrac", "td3", "sac", "sb3-td3", "sb3-sac", "sb3-ppo", "sb3-dqn", "lirpg", "maml")
LARGEST = float(np.finfo(np.float32).max)


@st.composite
def boxes(draw) -> spaces.Box:
    """Boxes of every rank and dtype, with bounds on both sides, one side or none."""
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8", "f2", "i1", "i4", "i8", "u1", "u2"])))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2), (2, 1, 2)]))
    if dtype.kind == "f":
        low = draw(st.sampled_from([-1.0, 0.0, -np.inf, 5.0] + [-LARGEST] * (dtype.itemsize == 4)))
        high = draw(st.sampled_from([5.5, 7.0, np.inf] + [LARGEST] * (dtype.itemsize == 4)))
    else:
        low, high = draw(st.sampled_from([(0, 3), (1, 2), (0, 1), (0, 100)]))
    return spaces.Box(low, high, shape, dtype.type)


plain = st.one_of(
    boxes(),
    st.builds(spaces.Discrete, st.integers(1, 4), start=st.integers(-2, 2)),
    st.sampled_from([
        spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([[2, 3], [4, 2]]),
        spaces.MultiDiscrete([3, 2], start=[-1, 4]), spaces.MultiBinary(3), spaces.MultiBinary([2, 2]),
        spaces.Text(5), spaces.Sequence(spaces.Box(0, 1, (2,))), spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1)]),
        spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)), spaces.Discrete(100_000_000),
    ]),
)  # fmt: skip
nested = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=4,
)


def tried(observed, acted, algorithm, tmp_path, capfd) -> None:
    """Train for a few steps: the run ends well or with one error, and every action is an element of its space."""
    Drawn.observed, Drawn.acted = observed, acted
    Drawn.wrong.clear()
    capfd.readouterr()
    arguments = [algorithm, "--env", "tasks:Drawn-v0", "--preset", "debug", "--eval-freq", "0", "--log-dir"]
    alone = ["--num-envs", "1"] if algorithm in ("lirpg", "maml") else []
    code = train.main([*arguments, str(tmp_path), "--total-steps", "12", "--threads", "1", *alone])
    error = capfd.readouterr().err
    assert code in (0, 2) and "Traceback" not in error, error
    if code == 2:
        sentences = [line for line in error.splitlines() if line.startswith("error: ")]
        assert len(sentences) == 1 and len(sentences[0]) < 1000, error
    assert not Drawn.wrong, (acted, Drawn.wrong[0])


fixtures = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=fixtures)
@given(nested, nested, st.sampled_from(ALGORITHMS))
@example(spaces.Dict(a=spaces.Box(0, 1, ()), mission=spaces.Text(5)), spaces.Discrete(3, start=-1), "sb3-ppo")
@example(spaces.Dict(a=spaces.Box(0, 1, ()), mission=spaces.Text(5)), spaces.Box(0, 3, (2,), np.int32), "hiro")
@example(spaces.Tuple([spaces.Text(5), spaces.Box(0, 1, (2,))]), spaces.Discrete(3, start=-1), "sb3-dqn")
@example(spaces.Box(-1, 1, (2,)), spaces.Box(-LARGEST, LARGEST, (1,)), "td3")
def test_any_space_trains_or_raises_a_clear_error(tmp_path, capfd, observed, acted, algorithm):
    tried(observed, acted, algorithm, tmp_path, capfd)


@pytest.mark.slow
@settings(max_examples=240, deadline=None, suppress_health_check=fixtures)
@given(nested, nested, st.sampled_from(ALGORITHMS))
def test_many_spaces_train_or_raise_a_clear_error(tmp_path, capfd, observed, acted, algorithm):
    tried(observed, acted, algorithm, tmp_path, capfd)


def test_unsupported_entries_are_removed_and_reported(tmp_path, capsys):
    Drawn.observed = spaces.Dict(x=spaces.Box(0, 1, (2,)), inner=spaces.Dict(mission=spaces.Text(5)), k=spaces.Text(3))
    Drawn.acted = spaces.Box(-1, 1, (1,))
    arguments = ["sac", "--env", "tasks:Drawn-v0", "--preset", "debug", "--eval-freq", "0", "--total-steps", "12"]
    assert train.main([*arguments, "--log-dir", str(tmp_path)]) == 0
    assert "Not part of the observation, because no network supports it: inner.mission (Text), k (Text)." in (
        capsys.readouterr().out
    )


# -- the action boundary, by hand ----------------------------------------------------------------------------


def test_discrete_actions_start_at_the_start_of_their_space():
    space = spaces.Discrete(3, start=-1)
    actions = ActionMap(space)
    assert actions.to_env(np.array([0, 1, 2])).tolist() == [-1, 0, 1]
    assert actions.to_env_tensor(torch.tensor([0, 1, 2])).tolist() == [-1, 0, 1]
    assert actions.from_env(np.array([-1, 0, 1])).tolist() == [0, 1, 2]
    assert actions.agents_space() == spaces.Discrete(3)
    two = ActionMap(spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [-2, 0]]))
    assert two.to_env(np.array([[1, 2, 3, 0]])).tolist() == [[[1, 3], [1, 0]]]


def test_every_integer_of_a_box_has_an_equal_share():
    actions = ActionMap(spaces.Box(0, 3, (1,), np.int64))
    unit = np.linspace(-1, 1, 4001)[:, None]
    values, counts = np.unique(actions.to_env(unit), return_counts=True)
    assert values.tolist() == [0, 1, 2, 3] and counts.max() - counts.min() <= 1
    around = ActionMap(spaces.Box(-1, 1, (1,), np.int8))
    values, counts = np.unique(around.to_env(unit), return_counts=True)
    assert values.tolist() == [-1, 0, 1] and counts.max() - counts.min() <= 1
    assert torch.equal(around.to_env_tensor(torch.as_tensor(unit)).long(), torch.as_tensor(around.to_env(unit)).long())
    assert around.to_env(around.from_env(np.array([[-1], [0], [1]]))).tolist() == [[-1], [0], [1]]


def test_bounds_near_the_largest_number_have_a_finite_midpoint():
    actions = ActionMap(spaces.Box(-LARGEST, LARGEST, (1,), np.float32))
    given = actions.to_env(np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]]))
    assert np.isfinite(given).all() and given[2] == 0 and given[3] == pytest.approx(LARGEST / 2, rel=1e-6)
    assert given[0] == -np.float32(LARGEST) and given.dtype == np.float32


def test_a_bound_on_one_side_gives_a_range_on_that_side():
    above = ActionMap(spaces.Box(5.0, np.inf, (1,), np.float32), limit=2.0)
    assert above.to_env(np.array([[-1.0], [0.0], [1.0]])).tolist() == [[5.0], [7.0], [9.0]]
    below = ActionMap(spaces.Box(-np.inf, -3.0, (1,), np.float32))
    assert below.to_env(np.array([[-1.0], [1.0]])).tolist() == [[-5.0], [-3.0]]


def test_actions_have_their_spaces_shape_and_dtype():
    for space in (
        spaces.Box(-1, 1, (2, 3), np.float64), spaces.Box(0, 9, (), np.uint8), spaces.MultiBinary([2, 2]),
        spaces.Discrete(4, start=2), spaces.MultiDiscrete([[2, 3], [4, 2]]),
    ):  # fmt: skip
        actions = ActionMap(space)
        plain = actions.agents_space()
        for _ in range(20):
            given = actions.to_env(np.asarray(plain.sample())[None])[0]
            assert space.contains(given), (space, given)


def test_the_largest_integers_and_a_narrow_share_of_few_are_still_actions():
    for kind in (np.int64, np.uint64):
        space = spaces.Box(np.iinfo(kind).min, np.iinfo(kind).max, (1,), kind)
        given = ActionMap(space).to_env(np.array([[-1.0], [0.0], [0.999], [1.0]]))
        assert given.dtype == kind and all(space.contains(x) for x in given)
        assert (np.diff(given.astype(float), axis=0) > 0)[:2].all()
    narrow = ActionMap(spaces.Box(0, 1, (1,), np.int64), scale=0.2)
    assert np.unique(narrow.to_env(np.linspace(-1, 1, 9)[:, None])).size == 1
    assert np.isfinite(narrow.from_env(np.array([[0]]))).all()


def test_stable_baselines3s_actions_are_the_same_in_training_and_evaluation(tmp_path):
    from runs import trained

    for scale in ("1.0", "0.2"):
        run = trained(
            tmp_path / scale, "--env", "Pendulum-v1", "--action-scale", scale, "--eval-freq", "0", "--total-steps",
            "300", algorithm="sb3-sac",
        )  # fmt: skip
        policy = hrl.load(run).policy()
        obs = policy.env.reset(0)
        native, _ = policy.predict(obs.state.numpy())
        decided, _, _ = policy.decide(obs, None)
        np.testing.assert_allclose(policy.env.to_action(decided.numpy()), native, atol=1e-5)
        assert np.abs(native).max() <= 2.0 * float(scale) + 1e-5


@pytest.mark.parametrize("form", [["shape=[2,1]"], ["shape=[2]", "kind=int64"]])
def test_stable_baselines3_has_hindsight_on_goals_of_any_form(form, tmp_path, capsys):
    arguments = ["sb3-sac", "--env", "tasks:GoalForm-v0", "--env-kwargs", *form, "--preset", "debug", "--log-dir"]
    assert train.main([*arguments, str(tmp_path), "--total-steps", "300"]) == 0, capsys.readouterr().err


def test_a_model_of_another_library_sees_in_evaluations_what_it_saw_in_training(tmp_path):
    words = ["sb3-dqn", "--env", "tasks:GoalSeen-v0", "--env-kwargs", "form=both", "--preset", "debug", "--log-dir"]
    assert train.main([*words, str(tmp_path), "--total-steps", "100", "--eval-freq", "0"]) == 0
    policy = hrl.load(run_of(tmp_path), trust=True).policy()
    obs = policy.env.reset(0)
    one = make_single(EnvConfig("tasks:GoalSeen-v0", {"form": "both"}))
    seen, _ = one.reset(seed=0)
    for key, part in policy._raw(obs).items():  # the achieved goal stands between the number and the image
        assert part.shape[1:] == seen[key].shape and np.array_equal(part[0], seen[key])


def test_other_libraries_decide_in_a_plain_space():
    Drawn.observed, Drawn.acted = spaces.Box(0, 1, (1,)), spaces.Box(0, 3, (2, 1), np.int32)
    env = PlainActions(Drawn(), ActionMap(Drawn.acted))
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,), np.float32)
    env.reset(seed=0)
    env.step(np.array([1.0, -1.0]))
    assert not Drawn.wrong


def test_an_observation_of_no_dimension_is_a_number():
    Drawn.observed, Drawn.acted = spaces.Dict(a=spaces.Box(0, 1, ()), b=spaces.Box(0, 1, (1,))), spaces.Discrete(2)
    env = make_env(EnvConfig("tasks:Drawn-v0", num_envs=3))
    assert env.reset(0).state.shape == (3, 2)
