"""Unreliable gradients through an inner optimisation, gradients without backpropagation, and the examples."""

import runpy
from pathlib import Path

import pytest
import torch
from test_nested import EXACT, LAM, RATE, A, close, f64, miss, valley

from hrl.nested import (
    PES,
    SGD,
    ConjugateGradient,
    Descent,
    Evolution,
    FiniteDifference,
    Guard,
    Implicit,
    Iteration,
    Longer,
    Neumann,
    Outer,
    Unrolled,
)
from hrl.nested.evolution import antithetic_gradient
from hrl.types import UserError

# -- what cannot be trusted ----------------------------------------------------------------------------------


def test_an_implicit_gradient_for_a_learning_rate_raises_an_error():
    with pytest.raises(UserError, match=r"lr.*Use Unrolled, or PES"):
        Implicit(Descent(lambda w, m, step: w.square(), SGD(lambda m: m)), 10)


def test_a_hilltop_and_a_saddle_raise_an_error():
    for curve in (f64(-1.0, -1.0), f64(1.0, -0.5)):
        inner = Descent(lambda w, lam, step, c=curve: 0.5 * (c * (w - lam).square()).sum(), SGD(RATE))
        estimator = Implicit(inner, 0)
        with pytest.raises(UserError, match="with positive curvature"):
            estimator(lambda w, lam: w.square().sum(), estimator.begin(f64(0.3, 0.4)), f64(0.3, 0.3))


def test_a_hilltop_is_named_as_the_cause_also_where_the_solver_did_not_converge():
    inner = Descent(lambda w, lam, step: 0.5 * (f64(-1.0, -0.3) * (w - lam).square()).sum(), SGD(RATE))
    estimator = Implicit(inner, 0, ConjugateGradient(1))
    with pytest.raises(UserError, match="with positive curvature"):
        estimator(lambda w, lam: w.square().sum(), estimator.begin(f64(0.3, 0.4)), f64(0.3, 0.3))


def test_a_bellman_backup_needs_neumann():
    # v = r + γ P v: dv/dr = (I - γP)⁻¹, which is not symmetric.
    chain, gamma = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.2, 0.8], [0.5, 0.0, 0.5]], dtype=torch.float64), 0.9
    inner = Iteration(lambda v, r, step: r + gamma * chain @ v)
    weights = f64(1.0, 2.0, -1.0)
    exact = torch.linalg.solve((torch.eye(3, dtype=torch.float64) - gamma * chain).T, weights)
    estimator = Implicit(inner, 400, Neumann(400))
    estimate = estimator(lambda v, r: weights @ v, estimator.begin(torch.zeros(3, dtype=torch.float64)), f64(1, 0, 2))
    torch.testing.assert_close(estimate.gradient, exact, rtol=EXACT, atol=0)
    assert float(estimate.metrics["contraction"]) == pytest.approx(gamma, abs=1e-3)
    wrong = Implicit(inner, 400, ConjugateGradient(3))
    with pytest.raises(UserError, match="Neumann"):
        wrong(lambda v, r: weights @ v, wrong.begin(torch.zeros(3, dtype=torch.float64)), f64(1, 0, 2))


def test_the_error_of_evolution_is_relative_to_its_gradient():
    noise, losses = torch.tensor([[1.0, 0.0], [0.0, 4.0]]), torch.tensor([3.0, 1.0, 1.0, 0.0])
    gradient, metrics = antithetic_gradient(noise, losses, sigma=0.5)  # of the pairs: (2, 0) and (0, 4)
    assert gradient.tolist() == [1.0, 2.0] and float(metrics["outer_gradient"]) == pytest.approx(5**0.5)
    # The variances are 1 and 4, of a mean of two pairs (1 + 4) / 2.
    assert float(metrics["relative_error"]) == pytest.approx((5 / 2) ** 0.5 / 5**0.5)


def test_a_map_that_neither_grows_nor_contracts_raises_an_error():
    shift = Iteration(lambda w, lam, step: w + lam)
    with pytest.raises(UserError, match="does not contract"):
        Implicit(shift, 0, Neumann(20))(lambda w, lam: w, shift.begin(f64(0.3)), f64(0.3))


def test_a_map_that_does_not_contract_raises_an_error():
    steep = Descent(lambda w, lam, step: 0.5 * A * (w - lam).square(), SGD(1.5))  # 1 - ηa = -2
    estimator = Implicit(steep, 0, Neumann(20))
    with pytest.raises(UserError, match="does not contract"):
        estimator(miss, estimator.begin(f64(LAM)), f64(LAM))


def test_twice_the_horizon_distinguishes_short_and_long_ones():
    # Two meta-parameters whose influence comes at different speeds: a short horizon sees only the quick one.
    inner = Descent(lambda w, lam, step: 0.5 * (f64(2.0, 0.02) * (w - lam).square()).sum(), SGD(0.1))
    outer = lambda w, lam: (w - f64(1.0, 5.0)).square().sum()  # noqa: E731
    state, lam = inner.begin(f64(0.0, 0.0)), f64(0.3, 0.3)

    def agreement(steps: int) -> float:
        estimator = Unrolled(inner, steps)
        estimate = estimator(outer, state, lam)
        return float(Longer(Unrolled(inner, 2 * steps))(estimator, outer, state, lam, estimate))

    assert agreement(20) < 0.99 < agreement(2000)


def test_finite_differences_detect_a_wrong_gradient():
    estimator = Unrolled(valley(), 10)
    state = estimator.begin(f64(LAM))
    right = estimator(miss, state, f64(LAM))
    assert float(FiniteDifference()(estimator, miss, state, f64(LAM), right)) < 1e-6
    short = Unrolled(valley(), 10, last=1)
    wrong = short(miss, state, f64(LAM))
    assert float(FiniteDifference()(short, miss, state, f64(LAM), wrong)) > 0.5


def test_an_invalid_outer_gradient_is_skipped_and_the_inner_state_stays():
    meta = f64(1.0).requires_grad_()
    # The inner loss has no finite gradient once the meta-parameter is met.
    inner = Descent(lambda w, lam, step: (w - lam).sqrt(), SGD(RATE))
    estimator = Unrolled(inner, 2)
    outer = Outer(estimator, lambda w, lam: w.square(), meta, torch.optim.SGD([meta], 0.1), Guard(limit=1.0))
    state = estimator.begin(f64(1.0))
    after, metrics = outer.step(state)
    assert after is state and float(meta.detach()) == 1.0 and metrics["skipped"] == 1 and metrics["clipped"] == 0

    steep = Outer(Unrolled(valley(), 50), lambda w, lam: 1e3 * w, meta, torch.optim.SGD([meta], 0.1), Guard(limit=1.0))
    _, metrics = steep.step(estimator.begin(f64(0.0)))
    assert metrics["clipped"] == 1 and float(meta.detach()) == pytest.approx(0.9)


# -- without backpropagation ---------------------------------------------------------------------------------


def test_evolution_estimates_the_gradient_of_a_quadratic():
    # On a quadratic the smoothed loss has the gradient of the loss itself: K steps from the optimum, as above.
    exact = -0.7 * (1 - 0.8**5)
    estimator = Evolution(valley(), 5, sigma=0.1, pairs=40_000)
    estimate = estimator(miss, estimator.begin(f64(LAM)), f64(LAM))
    assert float(estimate.gradient) == pytest.approx(exact, rel=0.03)
    assert float(estimate.metrics["relative_error"]) < 0.02
    close(estimate.params, LAM)


def test_persistent_evolution_sees_beyond_its_window():
    # The sum over windows of J after each: unbiased over the whole run, where plain evolution sees one window.
    windows, steps = 5, 2
    lam = f64(LAM)
    exact = sum(-0.7 * (1 - 0.8 ** (steps * (w + 1))) for w in range(windows))
    short = windows * -0.7 * (1 - 0.8**steps)
    estimator = PES(valley(), steps, horizon=windows * steps, sigma=0.05, pairs=40_000)
    state = estimator.begin(lam)
    total = f64(0.0)
    for _ in range(windows):
        estimate = estimator(miss, state, lam)
        total, state = total + estimate.gradient, estimate.state
    assert float(total) == pytest.approx(exact, rel=0.05)
    assert abs(float(total) - short) > 0.5
    assert state.step == 0  # the horizon is over: the next window starts again


def test_an_outer_loop_resumes_exactly_and_checks_do_not_move_its_noise():
    def loop(check_every: int) -> tuple[Outer, torch.Tensor]:
        meta = f64(0.3).requires_grad_()
        estimator = Evolution(valley(), 5, pairs=4)
        checks = {"finite_difference": FiniteDifference()}
        return Outer(estimator, miss, meta, torch.optim.Adam([meta], 0.1), None, checks, check_every), meta

    (whole, meta), (part, _), (onward, resumed) = loop(1), loop(0), loop(0)
    state = again = whole.estimator.begin(f64(LAM))
    for step in range(6):
        state, _ = whole.step(state)
        if step == 3:  # the other process dies
            onward.load_state_dict(part.state_dict())
            part = onward
        again, _ = part.step(again)
    assert torch.equal(meta, resumed) and float(meta.detach()) != 0.3 and onward.steps == 6


@pytest.mark.parametrize("make", [
    lambda: Unrolled(valley(), 0), lambda: Unrolled(valley(), 3, last=5),
    lambda: Unrolled(valley(), 3, last=0), lambda: Implicit(valley(), -1),
    lambda: Evolution(valley(), 5, sigma=0.0), lambda: PES(valley(), 5, horizon=3),
])  # fmt: skip
def test_invalid_options_raise_a_clear_error(make):
    with pytest.raises(UserError, match="needs"):
        make()


# -- examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"), [("ridge_penalty", "step 60: penalty 1."), ("bandit_reward", "policy (1.00")]
)
def test_the_examples_learn(name, word, capsys):
    runpy.run_path(str(Path(__file__).parent.parent / "examples" / f"{name}.py"))
    assert word in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_answers_on_a_gpu():
    on_gpu = lambda x: f64(x).cuda()  # noqa: E731
    exact = -0.7 * (1 - 0.8**10)
    for estimator, expected in (
        (Unrolled(valley(), 10), exact), (Unrolled(valley(), 10, recompute=True), exact),
        (Implicit(valley(), 0, Neumann(10)), exact), (Implicit(valley(), 0), -0.7),
    ):  # fmt: skip
        gradient = estimator(miss, estimator.begin(on_gpu(LAM)), on_gpu(LAM)).gradient
        assert gradient.is_cuda
        close(gradient.cpu(), expected)
    noisy = Evolution(valley(), 5, pairs=40_000)
    assert float(noisy(miss, noisy.begin(on_gpu(LAM)), on_gpu(LAM)).gradient) == pytest.approx(-0.470624, rel=0.03)
