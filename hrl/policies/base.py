"""The interface of stochastic policies as functions of their parameters, and shared functions.

Each policy is a module, called through `torch.func.functional_call` and `vmap`, so that many tasks can have separate
parameters. The caller passes random numbers as noise, uniform in (0, 1).
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hrl.types import Observation, Spec, UserError


class StochasticPolicy(Protocol):
    """The interface of a stochastic policy, for E episodes of T steps."""

    noise_dim: int
    """Number of uniform random numbers per decision."""
    closed_form: bool
    """Whether `divergence` has a closed form."""

    def start(self, episodes: int, device: torch.device) -> Any:
        """The initial memory: a tree of tensors with leading dimension E."""

    def act(self, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """(state [E, D], memory, noise [E, noise_dim]) -> (action, memory). Without noise, the most likely action."""

    def log_prob(self, state: Tensor, action: Tensor, memory: Any) -> Tensor:
        """log π [T, E] of the samples at each step, from states [T, E, D], actions [T, E, ...] and memories after
        them."""

    def divergence(self, state: Tensor, old: Any) -> Tensor:
        """KL(old ‖ this) [T, E]; `old` is the result of `shape`."""

    def shape(self, state: Tensor) -> Any:
        """The distributions' parameters at states [T, E, D]."""

    def entropy(self, state: Tensor, memory: Any) -> Tensor:
        """Entropy [T, E] of the actions."""


def choose(log_probs: Tensor, noise: Tensor | None) -> Tensor:
    """Choices [...] sampled from log-probabilities [..., K], or the most likely choices without noise."""
    if noise is None:
        return log_probs.argmax(-1)
    return (noise.unsqueeze(-1) > log_probs.exp().cumsum(-1)[..., :-1]).sum(-1)


def gather_actions(values: Tensor, number: Tensor) -> Tensor:
    """The entries [...] of values [..., K] with these numbers [...]."""
    return values.gather(-1, number.unsqueeze(-1)).squeeze(-1)


def num_actions(spec: Spec) -> int:
    """The number of discrete actions. Raises UserError for other action spaces."""
    if not hasattr(spec.action_space, "n"):
        raise UserError(
            f"The policy needs discrete actions, but {spec.env_id} has {spec.action_space}: choose another algorithm."
        )
    return int(spec.action_space.n)


def policy_input(obs: Observation) -> Tensor:
    """The policy's input [N, D + G]: the state, and the desired goal if there is one."""
    return torch.cat([obs.state, obs.goal], -1) if obs.goal.shape[-1] else obs.state


def xavier(net: nn.Sequential) -> nn.Sequential:
    """Initialise linear layers with Glorot's uniform weights and zero biases, in place."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net
