"""Gradients through an inner optimisation, against answers worked out by hand (float64)."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from hrl.nested import (
    SGD,
    ConjugateGradient,
    Descent,
    FiniteDifference,
    FunctionalAdam,
    Implicit,
    Iteration,
    Neumann,
    RMSprop,
    Unrolled,
    parameters,
)

EXACT = 1e-6
A, RATE, LAM, C = 2.0, 0.1, 0.3, 1.0


def f64(*values: float) -> Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def close(value: Tensor, *expected: float, error: float = EXACT) -> None:
    torch.testing.assert_close(value, f64(*expected), rtol=error, atol=1e-12)


def valley() -> Descent:
    """½ a (w - λ)²"""
    return Descent(lambda w, lam, step: 0.5 * A * (w - lam).square(), SGD(RATE))


def miss(w: Tensor, lam: Tensor) -> Tensor:
    """½ (w - c)²"""
    return 0.5 * (w - C).square()


# -- a valley whose floor is the meta-parameter --------------------------------------------------------------


@pytest.mark.parametrize("solver", [ConjugateGradient(1), ConjugateGradient(5), Neumann(200)])
def test_implicit_at_the_optimum_is_exact(solver):
    estimator = Implicit(valley(), 0, solver)
    estimate = estimator(miss, estimator.begin(f64(LAM)), f64(LAM))
    close(estimate.gradient, -0.7)
    assert float(estimate.metrics["inner_residual"]) == 0


@pytest.mark.parametrize(("steps", "expected"), [(1, -0.14), (5, -0.470624), (10, -0.6248381733), (50, -0.6999900)])
def test_unrolling_from_the_optimum_is_a_neumann_sum(steps, expected):
    exact = -0.7 * (1 - (1 - RATE * A) ** steps)
    assert exact == pytest.approx(expected, rel=1e-5)
    ways = [
        Unrolled(valley(), steps),
        Unrolled(valley(), steps, recompute=True),
        Unrolled(valley(), 200, last=steps),
        Unrolled(valley(), 200, last=steps, recompute=True),
        Implicit(valley(), 0, Neumann(steps)),
    ]
    for estimator in ways:
        close(estimator(miss, estimator.begin(f64(LAM)), f64(LAM)).gradient, exact)


def test_first_order_is_biased_as_predicted():
    # As if each step went on from a constant: K times the first term of the sum.
    for steps in (1, 7):
        estimator = Unrolled(valley(), steps, first_order=True)
        close(estimator(miss, estimator.begin(f64(LAM)), f64(LAM)).gradient, -0.7 * steps * RATE * A)


def test_first_order_treats_each_map_as_a_shift():
    """Two applications of T(w) = λ w from 2 with λ = 3 give 18. The exact derivative is 2 λ w₀ = 12. With dT/dw = 1, it
    is the sum of dT/dλ along the way, 2 + 6."""
    scaled = Iteration(lambda w, lam, step: lam * w)
    for first_order, expected in ((False, 12.0), (True, 8.0)):
        estimator = Unrolled(scaled, 2, first_order=first_order)
        estimate = estimator(lambda w, lam: w, estimator.begin(f64(2.0)), f64(3.0))
        close(estimate.gradient, expected)
        close(estimate.loss, 18.0)


def test_implicit_after_too_few_steps_is_biased_as_predicted():
    # From w0 = 0 the optimum is missed by (λ - w0) (1 - ηa)^K; the theorem is used at the place that was reached.
    estimator = Implicit(valley(), 10, ConjugateGradient())
    estimate = estimator(miss, estimator.begin(f64(0.0)), f64(LAM))
    reached = LAM * (1 - 0.8**10)
    close(estimate.gradient, reached - C)
    close(estimate.metrics["inner_residual"], RATE * A * (LAM - reached) / reached)


def test_contraction_and_residual_are_reported():
    estimator = Implicit(valley(), 0, Neumann(5))
    metrics = estimator(miss, estimator.begin(f64(LAM)), f64(LAM)).metrics
    close(metrics["contraction"], 0.8)
    close(metrics["solver_residual"], 0.8**5)


# -- MAML on a quadratic -------------------------------------------------------------------------------------


def test_maml_first_order_and_implicit_maml():
    inner = Descent(lambda w, meta, step: 0.5 * A * (w - C).square(), SGD(RATE))
    loss = lambda w, meta: 0.5 * A * (w - C).square()  # noqa: E731
    for options, expected in (({}, -1.28), ({"recompute": True}, -1.28), ({"first_order": True}, -1.6)):
        estimator = Unrolled(inner, 1, **options)
        close(estimator(loss, estimator.begin(f64(0.0)), ()).initial, expected)

    proximal = Descent(lambda w, theta, step: 0.5 * A * (w - C).square() + 1.5 * (w - theta).square(), SGD(RATE))
    estimator = Implicit(proximal, 200)
    close(estimator(loss, estimator.begin(f64(0.0)), f64(0.0)).gradient, -0.72)


def test_a_batch_of_tasks_is_each_task():
    targets = torch.linspace(-1, 1, 5, dtype=torch.float64)

    def of_task(target: Tensor, estimator) -> Tensor:
        start = estimator.begin({"w": f64(0.2)})
        return estimator(lambda p, lam: (p["w"] - target).square(), start, f64(LAM)).gradient

    inner = Descent(lambda p, lam, step: 0.5 * A * (p["w"] - lam).square(), FunctionalAdam(0.1))
    still = Descent(lambda p, lam, step: 0.5 * A * (p["w"] - lam).square(), SGD(0.1))
    for estimator in (Unrolled(inner, 4), Unrolled(inner, 4, recompute=True), Implicit(still, 100)):
        together = torch.func.vmap(lambda t, e=estimator: of_task(t, e))(targets)
        torch.testing.assert_close(together, torch.stack([of_task(t, estimator) for t in targets]))


def test_in_a_batch_a_task_that_raises_an_error_becomes_nan():
    def of_task(curvature: Tensor) -> Tensor:
        inner = Descent(lambda w, lam, step: 0.5 * curvature * (w - lam).square(), SGD(RATE))
        return Implicit(inner, 0)(miss, inner.begin(f64(LAM)), f64(LAM)).gradient

    gradients = torch.func.vmap(of_task)(f64(2.0, -1.0))
    close(gradients[0], -0.7)
    assert bool(gradients[1].isnan())


# -- a learned reward for a bandit (LIRPG) -------------------------------------------------------------------

BANDITS = [
    ((0.0, 0.0), (0.0, 0.0), (1.0, 0.0), 1.0, (0.125, -0.125)),
    ((0.3, -0.1, 0.2), (0.1, 0.4, -0.2), (1.0, 0.2, -0.5), 0.5, (0.0524824, -0.0043812, -0.0481012)),
]


@pytest.mark.parametrize(("theta", "eta", "task", "rate", "expected"), BANDITS)
def test_a_reward_learned_for_a_bandit(theta, eta, task, rate, expected):
    theta, eta, task = f64(*theta), f64(*eta), f64(*task)
    inner = Descent(lambda theta, eta, step: -(theta.softmax(0) @ eta), SGD(rate))
    gain = lambda theta, eta: theta.softmax(0) @ task  # noqa: E731

    def jacobian(theta: Tensor) -> Tensor:
        pi = theta.softmax(0)
        return pi.diag() - pi.outer(pi)

    after = theta + rate * jacobian(theta) @ eta
    exact = rate * jacobian(theta) @ jacobian(after) @ task
    for estimator in (Unrolled(inner, 1), Unrolled(inner, 1, recompute=True), Unrolled(inner, 1, first_order=True)):
        gradient = estimator(gain, estimator.begin(theta), eta).gradient
        torch.testing.assert_close(gradient, exact, rtol=EXACT, atol=0)
        torch.testing.assert_close(gradient, f64(*expected), rtol=0, atol=6e-8)


# -- the short-horizon bias on a noisy quadratic -------------------------------------------------------------

CURVE, HORIZON = f64(1.0, 0.01), 250


def noisy_quadratic() -> Iteration:
    """E θ² ← (1 - α h)² E θ² + α² h² σ², with a learning rate for each step as the meta-parameters."""
    return Iteration(lambda square, lr, step: _after(square, lr if lr.dim() == 0 else lr[step]))


def _after(square: Tensor, lr: Tensor) -> Tensor:
    return (1 - lr * CURVE).square() * square + (lr * CURVE).square()


def loss_of(square: Tensor, lr: Tensor) -> Tensor:
    return 0.5 * (CURVE * square).sum()


def test_greedy_rates_are_where_one_unrolled_step_has_no_gradient():
    inner = noisy_quadratic()
    estimator, state = Unrolled(inner, 1), inner.begin(f64(100.0, 100.0))
    greedy = []
    for _ in range(HORIZON):
        square = state.params
        lr = (CURVE.square() * square).sum() / (CURVE**3 * (square + 1)).sum()
        estimate = estimator(loss_of, state._replace(step=0), lr)
        assert abs(float(estimate.gradient)) < 1e-9
        greedy.append(float(lr))
        state = estimate.state
    assert greedy[:3] == pytest.approx([0.9902, 0.5024, 0.3387], abs=1e-4)
    assert float(loss_of(state.params, lr)) == pytest.approx(0.4227, abs=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_whole_horizon_finds_the_best_constant_rate(recompute):
    inner = noisy_quadratic()
    estimator = Unrolled(inner, HORIZON, recompute=recompute)
    low, high = f64(0.1), f64(0.9)
    while float(high - low) > 1e-4:
        middle = (low + high) / 2
        estimate = estimator(loss_of, estimator.begin(f64(100.0, 100.0)), middle)
        low, high = (low, middle) if estimate.gradient > 0 else (middle, high)
    assert float(middle) == pytest.approx(0.377, abs=5e-4)
    assert float(estimate.loss) == pytest.approx(0.1918, abs=1e-4)


def test_the_whole_horizon_finds_a_schedule_far_better_than_greedy():
    # One long step settles the flat direction, 1/t averages the noise of the steep one: better than any constant rate.
    rates = torch.cat([f64(100.0).view(1), 1 / torch.arange(1, HORIZON, dtype=torch.float64)])
    schedule = rates.log().requires_grad_()
    inner = Iteration(lambda square, log_lr, step: _after(square, log_lr[step].exp()))
    estimator = Unrolled(inner, HORIZON)
    optimiser = torch.optim.LBFGS([schedule], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        estimate = estimator(loss_of, estimator.begin(f64(100.0, 100.0)), schedule.detach())
        schedule.grad = estimate.gradient
        return estimate.loss

    assert float(optimiser.step(closure)) == pytest.approx(0.0064, abs=1e-4)
    assert float(closure()) <= 0.0046


# -- optimisers ----------------------------------------------------------------------------------------------

PAIRS = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (FunctionalAdam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
    (RMSprop(0.05), lambda p: torch.optim.RMSprop(p, 0.05)),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_optimisers_take_torchs_steps_on_a_modules_parameters(ours, theirs):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    inner = Descent(lambda p, meta, step: (functional_call(module, p, x) - y).square().mean(), ours)
    state = inner.begin(parameters(module))
    optimiser = theirs(module.parameters())
    for _ in range(5):
        state = inner.step(state, ())
        optimiser.zero_grad()
        (module(x) - y).square().mean().backward()
        optimiser.step()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(state.params[name], parameter.detach(), rtol=1e-10, atol=1e-12)


def test_an_entry_without_gradient_has_a_derivative_under_adam():
    inner = Descent(lambda w, lam, step: (w[0] - lam).square() + 0 * w[1], FunctionalAdam(0.1))
    estimator = Unrolled(inner, 3)
    estimate = estimator(lambda w, lam: w.sum(), estimator.begin(f64(0.0, 0.0)), f64(1.0))
    assert bool(estimate.gradient.isfinite()) and bool(estimate.initial.isfinite().all())


def adam_towards_1(calls: list[int]) -> Descent:
    """Adam on Σ (w - λ)², which notes every evaluation of the loss."""

    def loss(w: Tensor, lam: Tensor, step: int) -> Tensor:
        calls.append(step)
        return (w - lam).square().sum()

    return Descent(loss, FunctionalAdam(0.1))


@pytest.mark.parametrize("recompute", [False, True])
def test_an_estimate_ends_where_plain_steps_end_and_continues_with_the_optimisers_memory(recompute):
    inner = adam_towards_1(calls := [])
    state = inner.begin(f64(0.0, 3.0))
    for _ in range(5):
        state = inner.step(state, f64(1.0)).detached()
    whole = Unrolled(inner, 5, last=3, recompute=recompute)
    once = whole(lambda w, lam: w.sum(), whole.begin(f64(0.0, 3.0)), f64(1.0))
    part, rest = Unrolled(inner, 3, recompute=recompute), Unrolled(inner, 2, recompute=recompute)
    half = part(lambda w, lam: w.sum(), part.begin(f64(0.0, 3.0)), f64(1.0))
    twice = rest(lambda w, lam: w.sum(), half.state, f64(1.0))
    for end in (once.state, twice.state):
        assert end.step == 5
        torch.testing.assert_close(end.params, state.params, rtol=1e-12, atol=0)
    calls.clear()
    part(lambda w, lam: w.sum(), part.begin(f64(0.0, 3.0)), f64(1.0))
    assert len(calls) == (6 if recompute else 3)  # recomputation evaluates every step twice


@pytest.mark.parametrize(
    "optimiser", [SGD(lambda m: m.exp(), 0.5), FunctionalAdam(lambda m: m.exp()), RMSprop(lambda m: m.exp())]
)
def test_a_learning_rate_has_its_gradient(optimiser):
    inner = Descent(lambda w, log_lr, step: (w - 1).square().sum() * (1 + 0.1 * step), optimiser)
    estimator, meta = Unrolled(inner, 6), f64(-3.0)
    start = estimator.begin(f64(0.0, 3.0))
    outer = lambda w, meta: (w - 1.5).square().sum()  # noqa: E731
    estimate = estimator(outer, start, meta)
    assert float(FiniteDifference(1e-5)(estimator, outer, start, meta, estimate)) < 1e-6
    again = Unrolled(inner, 6, recompute=True)
    torch.testing.assert_close(again(outer, start, meta).gradient, estimate.gradient, rtol=1e-12, atol=0)
