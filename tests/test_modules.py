"""`hrl.nested` checks the module and the numbers that it is given."""

import pytest
import torch
from conftest import CPU, made
from torch import nn
from torch.func import functional_call

from hrl.learners.sac import SAC
from hrl.nested import (
    SGD,
    ConjugateGradient,
    Descent,
    Evolution,
    Implicit,
    Iteration,
    Neumann,
    Unrolled,
    parameters,
)
from hrl.types import UserError


def test_a_frozen_parameter_stays_as_it_is():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[0].weight.requires_grad_(False)
    before, x = net[0].weight.clone(), torch.randn(8, 2)
    trained = parameters(net)
    assert set(trained) == {"0.bias", "1.weight", "1.bias"}
    inner = Descent(lambda w, m, step: functional_call(net, w, (x,)).square().mean() * m, SGD(0.1))
    estimate = Unrolled(inner, 3)(
        lambda w, m: functional_call(net, w, (x,)).mean(), inner.begin(trained), torch.ones(())
    )
    assert torch.equal(net[0].weight, before) and not torch.equal(estimate.params["1.weight"], net[1].weight)


def test_running_statistics_raise_an_error_and_evaluation_mode_is_not():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(UserError, match=r"1 \(BatchNorm1d\) keeps running statistics"):
        parameters(net)
    assert len(parameters(net.eval())) == 4


def test_parameters_that_share_memory_raise_an_error_and_one_that_stands_twice_is_one():
    class Tied(nn.Module):
        def __init__(self, copy: bool) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = nn.Parameter(self.a.weight.detach().t()) if copy else self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    with pytest.raises(UserError, match=r"a\.weight and b\.weight share memory"):
        parameters(Tied(copy=True))
    net = Tied(copy=False)
    (name,) = trained = parameters(net)
    moved = {name: trained[name] + 1.0}
    x = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(functional_call(net, moved, (x,)), x @ moved[name].t() @ moved[name].t())


def test_the_toolkits_own_flat_parameters_are_no_ties():
    learner = made(SAC, 3, 2, hidden=(4,))
    assert len(parameters(learner.actor)) == 4


def test_numbers_without_gradients_raise_an_error():
    inner = Descent(lambda w, m, step: (w["x"] * m).sum())
    with pytest.raises(UserError, match=r"inner parameters\['n'\] must be floating-point tensors.*not int64"):
        inner.begin({"x": torch.ones(2), "n": torch.ones(2, dtype=torch.int64)})
    with pytest.raises(UserError, match="inner values must be floating-point"):
        Iteration(lambda v, m, step: v).begin(torch.ones(2, dtype=torch.bool))
    state = inner.begin({"x": torch.ones(2)})
    for estimator in (Unrolled(inner, 2), Implicit(inner, 2), Evolution(inner, 2)):
        with pytest.raises(UserError, match="meta-parameters must be floating-point tensors"):
            estimator(lambda w, m: w["x"].sum(), state, torch.tensor(3))


def test_an_outer_loss_that_stands_still_has_a_gradient_of_zero():
    inner = Descent(lambda w, lam, step: (w - lam).square().sum(), SGD(0.1))
    for solver in (Neumann(20), ConjugateGradient(20)):
        estimate = Implicit(inner, 50, solver)(
            lambda w, lam: 0.0 * w.sum() + (lam**2).sum(), inner.begin(torch.zeros(3)), torch.ones(3)
        )
        assert estimate.gradient.tolist() == [2, 2, 2]
    batched = torch.func.vmap(
        lambda lam: (
            Implicit(inner, 50, Neumann(20))(lambda w, m: 0.0 * w.sum(), inner.begin(torch.zeros(3)), lam).gradient
        )
    )(torch.ones(2, 3))
    assert batched.tolist() == [[0, 0, 0]] * 2


def test_a_series_that_is_no_number_raises_an_error():
    inner = Iteration(lambda w, lam, step: w * float("nan") + lam)
    with pytest.raises(UserError, match="does not contract"):
        Implicit(inner, 0, Neumann(5))(lambda w, lam: w.sum(), inner.begin(torch.ones(2)), torch.ones(2))


def test_a_rate_of_zero_raises_a_clear_error():
    with pytest.raises(UserError, match="positive inner learning rate, not 0"):
        Implicit(Descent(lambda w, lam, step: (w - lam).square().sum(), SGD(0.0)), 5)


def test_conjugate_gradients_let_no_wrong_gradient_through():
    """Inner maps w ← w - η (A w - λ) with A symmetric positive definite plus .3 of a skew part."""
    generator = torch.Generator(CPU).manual_seed(0)
    wrong = passed = 0
    for _ in range(200):
        m, skew = (torch.randn(8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
        a = m @ m.T / 8 + 0.5 * torch.eye(8, dtype=torch.float64) + 0.3 * (skew - skew.T)
        step = 0.1
        inner = Iteration(lambda w, lam, k, a=a, step=step: w - step * (a @ w - lam))
        target = torch.randn(8, generator=generator, dtype=torch.float64)
        start = torch.linalg.solve(a, torch.ones(8, dtype=torch.float64))
        exact = torch.linalg.solve(a.T, target)
        try:
            estimate = Implicit(inner, 0, ConjugateGradient(30))(
                lambda w, lam, target=target: target @ w, inner.begin(start), torch.ones(8, dtype=torch.float64)
            )
        except UserError:
            continue
        passed += 1
        wrong += float((estimate.gradient - exact).norm() / exact.norm()) > 0.5
    assert wrong == 0, f"{wrong} of {passed} that passed"


def test_without_entropy_sac_has_no_bonus():
    learner = made(SAC, 2, 1, hidden=(8,), ent_coef=0.0)
    assert float(learner.log_alpha.exp()) == 0
    from hrl.learners.base import Batch

    batch = Batch(torch.randn(4, 2), torch.zeros(4, 1), torch.ones(4), torch.randn(4, 2), torch.zeros(4))
    assert learner.target(batch, torch.randn(4, 1)).tolist() == [1, 1, 1, 1]
    learner.update(batch, 0, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(x).all() for x in learner.actor.parameters())
