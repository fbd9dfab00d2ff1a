"""An outer level learns a hyperparameter, the penalty of a ridge regression, from the error on validation data.

python examples/ridge_penalty.py
"""

import torch

from hrl.nested import SGD, Descent, Implicit, Outer

torch.manual_seed(0)
x, noise = torch.randn(60, 30, dtype=torch.float64), torch.randn(60, dtype=torch.float64)
y = x[:, :5].sum(1) + 2.0 * noise  # five of thirty inputs matter
log_penalty = torch.tensor(-6.0, dtype=torch.float64, requires_grad=True)


def inner(w: torch.Tensor, log_penalty: torch.Tensor, step: int) -> torch.Tensor:
    """Squared error on 40 training examples plus the penalty."""
    return (x[:40] @ w - y[:40]).square().mean() + log_penalty.exp() * w.square().sum()


def outer(w: torch.Tensor, log_penalty: torch.Tensor) -> torch.Tensor:
    """Squared error on 20 validation examples."""
    return (x[40:] @ w - y[40:]).square().mean()


# These lines are the same as in bandit_reward.py and hierarchical_reward.py.
estimator = Implicit(Descent(inner, SGD(0.05)), steps=200)
level = Outer(estimator, outer, log_penalty, torch.optim.Adam([log_penalty], 0.2))
state = estimator.begin(torch.zeros(30, dtype=torch.float64))
for step in range(60):
    state, metrics = level.step(state)
    if step % 10 == 9:
        print(f"step {step + 1}: penalty {float(log_penalty.detach().exp()):.4f}, "
              f"error on other data {metrics['outer_loss']:.3f}")  # fmt: skip
