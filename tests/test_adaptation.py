"""Policies as functions, the policy gradient and adaptation to tasks, by hand; and that meta-learning learns."""

import itertools
import json

import gymnasium as gym
import pytest
import torch
from conftest import fresh
from hrl_scripts import evaluate, train
from runs import run_of, same_state
from torch import Tensor

import hrl
from hrl.envs import EnvConfig, make_env
from hrl.envs.tasks.taxi import ABOARD, HELD_OUT, LOAD, Taxi, number
from hrl.nested.levels.adaptation import Adaptation
from hrl.nested.trust_region import trust_region_step
from hrl.policies import Categorical, Gaussian
from hrl.policies.policy_gradient import Credit, Trajectories, advantages, baseline, dice, discounted, score
from hrl.report.episodes import finished


def episodes(state: Tensor, action: Tensor, reward: Tensor, advantage: Tensor) -> Trajectories:
    keep = torch.ones_like(reward)
    return Trajectories(state, action, reward, keep, advantage, torch.zeros_like(reward), keep.sum((-2, -1)))


# -- the policy gradient -------------------------------------------------------------------------------------


def test_returns_are_discounted_from_each_step_on():
    reward = torch.tensor([[[1.0], [2.0], [4.0]]])  # one task, three steps, one episode
    assert discounted(reward, 0.5).flatten().tolist() == [1 + 1 + 1, 2 + 2, 4]


def test_the_baseline_is_exact_where_returns_are_linear_in_its_features():
    state = torch.randn(2, 30, 4, 3)
    time = torch.arange(30).view(1, 30, 1) / 100
    returns = 2 * state[..., 0] - state[..., 1].square() + 3 * time + 1
    keep = torch.ones_like(returns)
    keep[:, 20:, 0] = 0
    found, tail = baseline(state, returns, keep, Credit())
    torch.testing.assert_close(found * keep, returns * keep, rtol=0, atol=1e-3)
    assert bool((tail == 0).all())
    final = torch.randn(2, 4, 3)
    _, tail = baseline(state, returns, keep, Credit(), final)
    length = keep.sum(1) / 100
    torch.testing.assert_close(tail, 2 * final[..., 0] - final[..., 1].square() + 3 * length + 1, rtol=0, atol=2e-3)


def test_for_discrete_states_the_value_is_a_mean_with_additional_visits_of_return_0():
    state = torch.tensor([[[[1.0, 0]], [[1, 0]], [[0, 1]]]])  # one task, three steps of one episode
    returns, keep = torch.tensor([[[5.0], [3.0], [2.0]]]), torch.ones(1, 3, 1)
    value, tail = baseline(state, returns, keep, Credit(powers=False, ridge=2.0), torch.tensor([[[0.0, 1]]]))
    assert value.flatten().tolist() == pytest.approx([8 / 4, 8 / 4, 2 / 3]) and float(tail) == pytest.approx(2 / 3)


def test_generalised_advantages_match_calculated_values():
    reward, value = torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[[0.5], [1.0], [9.0]]])
    keep, tail = torch.tensor([[[1.0], [1.0], [0.0]]]), torch.tensor([[4.0]])
    # γ = .5, λ = .5: δ₁ = 2 + .5 · 4 - 1 = 3, δ₀ = 1 + .5 · 1 - .5 = 1, so the advantages are 1 + .25 · 3 and 3.
    assert advantages(reward, value, tail, keep, 0.5, 0.5).flatten().tolist() == [1.75, 3.0, 0.0]
    # λ = 1 and nothing after the end: returns minus the values.
    assert advantages(reward, value, 0 * tail, keep, 0.5, 1.0).flatten().tolist() == [1 + 1 - 0.5, 2 - 1, 0.0]


def test_advantages_are_normalised_over_valid_steps():
    keep = torch.ones(1, 10, 3)
    keep[:, 4:, 0] = 0
    data = Trajectories.with_advantages(
        torch.randn(1, 10, 3, 2), torch.zeros(1, 10, 3, 1), torch.randn(1, 10, 3), keep, keep, Credit(0.9)
    )
    assert float(data.mean(data.advantage)) == pytest.approx(0, abs=1e-5)
    assert float(data.mean(data.advantage.square())) == pytest.approx(1, abs=1e-4)
    assert bool((data.advantage[keep == 0] == 0).all()) and bool((data.reward[keep == 0] == 0).all())


def test_score_and_dice_have_the_policy_gradient():
    # A bandit of two arms: d/dθ -(log π(0) A₀ + log π(1) A₁) / 2 = -(A₀ (1 - π₀, -π₁) + A₁ (-π₀, 1 - π₁)) / 2
    theta, gains = torch.tensor([0.3, -0.2]), torch.tensor([[2.0, -1.0]])
    data = episodes(torch.zeros(1, 2, 1), torch.tensor([[0, 1]]), gains, gains)
    log_prob = lambda theta: theta.log_softmax(0)[data.action]  # noqa: E731
    pi = theta.softmax(0)
    by_hand = -torch.stack([2 * (1 - pi[0]) + pi[0], -2 * pi[1] - (1 - pi[1])]) / 2
    for loss in (score, dice):
        torch.testing.assert_close(torch.func.grad(lambda t, f=loss: f(log_prob(t), data))(theta), by_hand)


def test_only_dice_has_the_correct_second_derivative():
    # Two steps, two arms. The last step pays r(arm); the advantage of both steps is that return minus a constant.
    reward, constant = torch.tensor([1.0, -2.0]).double(), 0.3
    theta = torch.tensor(0.4, dtype=torch.float64)
    arms = lambda t: torch.stack([t, torch.zeros_like(t)]).log_softmax(-1)  # noqa: E731
    value = lambda t: -(arms(t).exp() @ reward)  # noqa: E731
    exact = torch.func.grad(value)(theta), torch.func.hessian(value)(theta)
    found = {}
    for loss in (score, dice):
        first, second = 0.0, 0.0
        for one, two in itertools.product(range(2), repeat=2):
            action = torch.tensor([[one], [two]])
            gain = torch.full((2, 1), float(reward[two]) - constant, dtype=torch.float64)
            data = episodes(torch.zeros(2, 1, 1), action, gain, gain)
            chance = float(arms(theta)[action].sum().exp())
            of = lambda t, d=data, f=loss: f(arms(t)[d.action], d)  # noqa: E731
            first += chance * 2 * float(torch.func.grad(of)(theta))  # the mean is over two steps
            second += chance * 2 * float(torch.func.hessian(of)(theta))
        found[loss] = first, second
    assert found[score][0] == pytest.approx(float(exact[0])) and found[dice][0] == pytest.approx(float(exact[0]))
    assert found[dice][1] == pytest.approx(float(exact[1])) and abs(found[score][1] - float(exact[1])) > 0.05


def test_success_is_that_of_the_environment():
    keep = torch.tensor([[[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]]])  # the first episode lasts three steps, the second one
    success = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    data = Trajectories(torch.zeros(1, 3, 2, 1), torch.zeros(1, 3, 2), keep, keep, keep, success, keep.sum((-2, -1)))
    assert finished(data).values.tolist() == [[3, 3, 1, 0], [1, 1, 0, 0]]  # return, length, at any step, at the last


# -- adaptation ----------------------------------------------------------------------------------------------


def test_a_step_of_adaptation_is_the_policy_gradients():
    policy = Categorical(1, 2, ())
    policy.net[0].weight.data.zero_()
    adaptation = Adaptation(policy, lambda name: name.endswith("bias"), lr=0.5)
    assert set(adaptation.shared) == {"net.0.weight"}
    gains = torch.tensor([[[2.0, -1.0]]])
    data = episodes(torch.zeros(1, 1, 2, 1), torch.tensor([[[0, 1]]]), gains, gains)
    after = adaptation.adapted(adaptation.spread(1), data)["net.0.bias"][0]
    # π = (½, ½): the gradient of -(2 log π₀ - log π₁) / 2 is -(2 · ½ + ½, -2 · ½ - ½) / 2 = (-.75, .75).
    assert after.tolist() == pytest.approx([0.375, -0.375])


def test_before_the_outer_step_the_divergence_is_zero_and_the_first_order_gradient_differs():
    torch.manual_seed(0)
    full, none = torch.ones(3, 6, 4), torch.zeros(3, 6, 4)
    drawn = lambda *width: torch.randn(3, 6, 4, *width)  # noqa: E731
    *way, last = (Trajectories.with_advantages(drawn(2), drawn(1), drawn(), full, none, Credit(0.9)) for _ in range(3))
    policy = Gaussian(2, 1, (8,))
    gradients = []
    for first_order in (False, True):
        adaptation = Adaptation(policy, lambda name: True, 0.1, first_order)
        objective = adaptation.objective(way, last)
        params = (adaptation.initial, adaptation.shared)
        assert float(objective(params)[1]) == pytest.approx(0, abs=1e-6)
        gradients.append(torch.func.grad(lambda p, o=objective: o(p)[0])(params)[0]["net.2.weight"])
    assert not torch.allclose(*gradients, rtol=1e-3)


def test_steps_after_an_episodes_end_have_no_part_in_the_divergence():
    torch.manual_seed(0)
    full, none = torch.ones(2, 6, 4), torch.zeros(2, 6, 4)
    short = full.clone()
    short[:, 2:] = 0
    drawn = lambda *width: torch.randn(2, 6, 4, *width)  # noqa: E731
    before = Trajectories.with_advantages(drawn(2), drawn(1), drawn(), full, none, Credit(0.9))
    last = Trajectories.with_advantages(drawn(2), drawn(1), drawn(), short, none, Credit(0.9))
    other = last._replace(state=torch.where(short.unsqueeze(-1) > 0, last.state, 9.0))
    adaptation = Adaptation(Gaussian(2, 1, (8,)), lambda name: True, 0.1)
    moved = ({name: x + 0.1 for name, x in adaptation.initial.items()}, adaptation.shared)
    found = [adaptation.objective([before], end)(moved)[1] for end in (last, other)]
    torch.testing.assert_close(*found)
    assert float(found[0]) > 1e-4


def test_a_trust_region_step_goes_as_far_as_the_divergence_allows():
    # Loss a·x under divergence ½ xᵀDx <= δ: the best step is -D⁻¹a √(2δ / aᵀD⁻¹a).
    a, curve = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])
    objective = lambda x: (a @ x, 0.5 * (curve * x.square()).sum())  # noqa: E731
    moved, metrics = trust_region_step(torch.zeros(2), objective, limit=0.01)
    best = -(a / curve) * (0.02 / (a * a / curve).sum()).sqrt()
    assert float(metrics["divergence"]) == pytest.approx(0.01, rel=1e-3) and float(metrics["gain"]) > 0
    torch.testing.assert_close(moved, best, rtol=1e-3, atol=0)
    # A divergence q + 50 q² is .015 after the whole step, and .0084 after .8 of it.
    steeper = lambda x: (objective(x)[0], objective(x)[1] * (1 + 50 * objective(x)[1]))  # noqa: E731
    torch.testing.assert_close(trust_region_step(torch.zeros(2), steeper)[0], 0.8 * best, rtol=1e-3, atol=0)
    stuck = lambda x: ((x * 0).sum(), 0.5 * (curve * x.square()).sum())  # noqa: E731
    assert trust_region_step(torch.ones(2), stuck)[0].tolist() == [1, 1]


# -- families of tasks ---------------------------------------------------------------------------------------


def test_taxis_moves_are_gymnasiums():
    ours, theirs = Taxi(25), gym.make("Taxi-v4").unwrapped
    for move in range(4):
        ours.reset(seed=0)
        ours.cell.copy_(torch.arange(25))
        ours.advance(torch.full((25,), move))
        for cell in range(25):
            ((_, after, _, _),) = theirs.P[theirs.encode(cell // 5, cell % 5, 0, 1)][move]
            row, column, *_ = theirs.decode(after)
            assert int(ours.cell[cell]) == number((row, column))


def test_a_passenger_is_fetched_and_delivered_and_a_fifth_of_the_journeys_is_held_out():
    env = Taxi(1)
    env.set_tasks(torch.tensor([[number((2, 0)), number((0, 0)), number((0, 4))]]))
    env.reset(seed=0)
    way = [LOAD, 1, 1, LOAD, LOAD, 0, 0, *[2] * 4, 1, 1, LOAD]  # anywhere else it changes nothing
    rewards = [env.step(torch.tensor([a]))[1].item() for a in way]
    assert rewards == pytest.approx([-0.1] * 13 + [1.9])
    env.set_tasks(torch.tensor([[number((0, 2)), ABOARD, number((0, 4))]]))
    env.reset(seed=0)
    assert env.observe().tolist() == [2 * 2 + 1]
    assert [env.step(torch.tensor([a]))[1].item() for a in (2, 2, LOAD)] == pytest.approx([-0.1, -0.1, 1.9])
    generator = torch.Generator().manual_seed(0)
    train_tasks = {tuple(t) for t in env.sample_tasks(200, generator).tolist()}
    held_out = {tuple(t) for t in env.sample_tasks(200, generator, held_out=True).tolist()}
    assert len(train_tasks) == 48 and len(held_out) == 60 // HELD_OUT and not train_tasks & held_out


def test_environment_i_has_task_i_through_the_bridge():
    env = make_env(EnvConfig("hrl/Navigation-v0", num_envs=3))
    goals = torch.tensor([[0.5, 0.0], [0.0, 0.25], [-0.1, 0.0]])
    env.set_tasks(goals)
    env.reset(0)
    step = env.step(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))  # in half-ranges: .1
    torch.testing.assert_close(step.reward, torch.tensor([-0.4, -0.15, 0.0]))
    assert step.terminated.tolist() == [False, False, True]
    assert not make_env(EnvConfig("Pendulum-v1")).is_family


# -- whole runs ----------------------------------------------------------------------------------------------

NAVIGATION = ["--env", "hrl/Navigation-v0", "--tasks", "10", "--episodes", "10", "--hidden", "32",
              "--inner-learning-rate", "0.5", "--eval-episodes", "10", "--threads", "1",
              "--progress", "False"]  # fmt: skip


def test_maml_learns_to_adapt(tmp_path):
    arguments = [*NAVIGATION, "--total-steps", "300000", "--eval-freq", "0", "--log-dir", str(tmp_path)]
    assert train.main(["maml", *arguments]) == 0
    run = run_of(tmp_path)
    before, after = (_evaluated(run, step) for step in (0, 1))
    assert after > before + 5  # unadapted, a point wanders some 40 away in a hundred steps


def _evaluated(run, step: int) -> float:
    policy = hrl.load(run).policy("last")
    result = policy.evaluate(fresh("hrl/Navigation-v0"), 20, seed=0)
    return result.rates[f"return_after_{step}"]


@pytest.mark.parametrize("outer", ["trust-region", "adam"])
def test_meta_learning_resumes_exactly(tmp_path, outer):
    arguments = [*NAVIGATION, "--outer", outer, "--eval-freq", "0", "--save-freq", "40000"]
    assert train.main(["maml", *arguments, "--total-steps", "80000", "--log-dir", str(tmp_path / "whole")]) == 0
    assert train.main(["maml", *arguments, "--total-steps", "40000", "--log-dir", str(tmp_path / "parts")]) == 0
    part = run_of(tmp_path / "parts")
    assert train.main(["--resume", str(part), "--total-steps", "80000", "--progress", "False"]) == 0
    assert same_state(run_of(tmp_path / "whole"), part)


def test_a_controller_over_options_is_trained_and_evaluated(tmp_path, capsys):
    line = ["--env", "hrl/Taxi-v0", "--options", "3", "--adapts", "high", "--outer", "adam", "--tasks", "4"]
    line += ["--episodes", "5", "--hidden", "8", "--total-steps", "8000", "--eval-episodes", "3", "--eval-freq", "4000"]
    assert train.main(["maml", *line, "--log-dir", str(tmp_path), "--progress", "False"]) == 0
    capsys.readouterr()
    assert evaluate.main([str(run_of(tmp_path)), "--episodes", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {f"{kind}_after_{k}" for k in range(4) for kind in ("return", "sampled_return")} <= result.keys()
    run, video = str(run_of(tmp_path)), tmp_path / "taxi.mp4"
    assert evaluate.main([run, "--episodes", "3", "--video", str(video)]) == 0
    assert "return after 3 steps of adaptation" in capsys.readouterr().out and video.stat().st_size > 1000


@pytest.mark.parametrize("adapts", ["high", "low"])
def test_a_controller_that_sets_subgoals_adapts_or_its_low_level_does(tmp_path, adapts):
    line = [*NAVIGATION, "--subgoals", "10", "--goal.low", "-0.5", "--goal.high", "0.5", "--adapts", adapts]
    line += ["--outer", "adam", "--eval-freq", "0", "--total-steps", "30000"]
    assert train.main(["maml", *line, "--log-dir", str(tmp_path)]) == 0
    learner = hrl.load(run_of(tmp_path)).policy("last").learner
    assert {name.split(".")[0] for name in learner.adaptation.initial} == {adapts}
    env = make_env(EnvConfig("hrl/Navigation-v0", num_envs=40))
    tasks, own = env.sample_tasks(4, learner.generator), learner.adaptation.spread(4)
    data = learner.collect(env, tasks, own, learner.generator)
    anew = data.memory[3]
    assert anew[:, ::10].all() and anew[:, 1:10].logical_not().all()
    adapted = learner.adaptation.adapted(own, data)
    assert any((adapted[name] != own[name]).any() for name in own)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--env", "Pendulum-v1"], "Pendulum-v1 was created as a single task"),
    (["--env", "hrl/Taxi-v0", "--adapts", "high"], "needs --options or --subgoals above 0"),
    (["--env", "hrl/Taxi-v0", "--subgoals", "5", "--outer", "adam"], "receives subgoals needs continuous (Box)"),
    (["--env", "hrl/Navigation-v0", "--subgoals", "5", "--outer", "adam"], "set --goal.low and --goal.high"),
    (["--env", "hrl/Navigation-v0", "--subgoals", "5", "--options", "2"], "set only one of"),
    (["--env", "hrl/Navigation-v0", "--subgoals", "5"], "use --outer adam"),
    (["--env", "hrl/Navigation-v0", "--goal.low", "-1", "--goal.high", "1"], "needs --subgoals above 0"),
    (["--env", "hrl/Navigation-v0", "--options", "2", "--outer", "adam"], "needs discrete actions"),
    (["--env", "hrl/Taxi-v0", "--options", "2"], "use --outer adam"),
    (["--env", "hrl/Taxi-v0", "--options", "-1"], "--options and --subgoals must not be negative"),
    (["--env", "hrl/Taxi-v0", "--tasks", "0"], "--tasks must be positive"),
    (["--env", "hrl/Navigation-v0", "--reward-delay", "3"], "without --vectorization and --reward-delay"),
    (["--env", "hrl/Navigation-v0", "--fixed-start", "True"], "there is nothing to learn"),
    (["--env", "hrl/Taxi-v0", "--inner-learning-rate", "0"], "--inner-learning-rate must be positive"),
    (["--env", "hrl/Taxi-v0", "--num-envs", "8"], "set these options instead of --num-envs"),
    (["--env", "hrl/Taxi-v0", "--entropy", "-1"], "--entropy must not be negative"),
])  # fmt: skip
def test_unsupported_options_of_maml_raise_a_clear_error(arguments, sentence, tmp_path, capsys):
    assert train.main(["maml", *arguments, "--log-dir", str(tmp_path)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
