"""What every stochastic policy answers, as a function of its parameters, and what several of them need.

Each is a module, called through `torch.func.functional_call` and `vmap`, so that many tasks have parameters of their
own. What is drawn at random comes in as noise: uniform numbers in (0, 1).
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hrl.types import Observation, Spec, UserError


class StochasticPolicy(Protocol):
    """What a policy answers. E episodes, T steps of each."""

    noise_dim: int
    """Uniform numbers that a decision uses up."""
    closed_form: bool
    """Whether it has a divergence."""

    def start(self, episodes: int, device: torch.device) -> Any:
        """What it remembers before the first step; a tree of tensors with leading dimension E."""

    def act(self, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """(state [E, D], memory, noise [E, noise_dim]) -> (action, memory). Without noise: the likeliest."""

    def log_prob(self, state: Tensor, action: Tensor, memory: Any) -> Tensor:
        """log π of what was drawn at t [T, E], of state [T, E, D], action [T, E, ...] and memory after the step."""

    def divergence(self, state: Tensor, old: Any) -> Tensor:
        """KL(old ‖ this) [T, E]; `old` is what `shape` gave."""

    def shape(self, state: Tensor) -> Any:
        """The distributions' parameters at states [T, E, D]."""

    def entropy(self, state: Tensor, memory: Any) -> Tensor:
        """Of the actions [T, E]."""


def choose(log_probs: Tensor, noise: Tensor | None) -> Tensor:
    """[...] numbers drawn from log-probabilities [..., K], or the likeliest."""
    if noise is None:
        return log_probs.argmax(-1)
    return (noise.unsqueeze(-1) > log_probs.exp().cumsum(-1)[..., :-1]).sum(-1)


def gather_actions(values: Tensor, number: Tensor) -> Tensor:
    """The entry [...] of values [..., K] that the number says."""
    return values.gather(-1, number.unsqueeze(-1)).squeeze(-1)


def num_actions(spec: Spec) -> int:
    """How many numbered actions there are. Raises UserError where actions are something else."""
    if not hasattr(spec.action_space, "n"):
        raise UserError(f"This needs numbered (Discrete) actions, but {spec.env_id} has {spec.action_space}.")
    return int(spec.action_space.n)


def policy_input(obs: Observation) -> Tensor:
    """What a policy is shown of observations: state, and desired goal where there is one."""
    return torch.cat([obs.state, obs.goal], -1) if obs.goal.shape[-1] else obs.state


def xavier(net: nn.Sequential) -> nn.Sequential:
    """With Glorot's uniform weights and no biases."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net
