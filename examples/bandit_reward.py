"""An outer level learns a reward for a bandit's policy, to maximise the task's reward (LIRPG).

python examples/bandit_reward.py
"""

import torch

from hrl.nested import SGD, Descent, Outer, Unrolled

task = torch.tensor([1.0, 0.2, -0.5])  # the rewards of the arms, which the policy does not observe
reward = torch.zeros(3, requires_grad=True)


def inner(theta: torch.Tensor, reward: torch.Tensor, step: int) -> torch.Tensor:
    """The negative expected learned reward of the policy."""
    return -(theta.softmax(0) @ reward)


def outer(theta: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    """The negative expected task reward of the policy."""
    return -(theta.softmax(0) @ task)


# These lines are the same as in ridge_penalty.py and hierarchical_reward.py.
estimator = Unrolled(Descent(inner, SGD(0.5)), steps=1)
level = Outer(estimator, outer, reward, torch.optim.Adam([reward], 0.05))
state = estimator.begin(torch.zeros(3))
for step in range(200):
    state, metrics = level.step(state)
    if step % 40 == 39:
        policy = ", ".join(f"{p:.2f}" for p in state.params.softmax(0))
        print(f"step {step + 1}: learned reward {[round(r, 2) for r in reward.tolist()]}, policy ({policy}), "
              f"expected reward {-metrics['outer_loss']:.3f}")  # fmt: skip
