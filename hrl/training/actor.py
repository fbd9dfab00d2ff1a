"""A stochastic policy for evaluations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hrl.networks.functional import call
from hrl.policies import policy_input
from hrl.types import Observation, Step


class Actor:
    """A policy that acts with the current result of `parameters()`."""

    def __init__(
        self,
        policy: Any,
        parameters: Callable[[], dict[str, Tensor]],
        device: torch.device,
        randomness: Callable[[int], Any],
    ) -> None:
        """`randomness(N)` returns the argument of the policy's `act` with which N environments sample actions."""
        self.policy, self.parameters, self.device, self.randomness = policy, parameters, device, randomness

    def start(self, num_envs: int) -> Any:
        """The policy's initial memory."""
        return self.policy.start(num_envs, self.device)

    def decide(self, obs: Observation, memory: Any, deterministic: bool = True) -> tuple[Tensor, Any, list[Tensor]]:
        """The most likely or sampled actions [N, ...], the memory, and no subgoals."""
        randomness = None if deterministic else self.randomness(len(obs.state))
        action, memory = call(self.policy, "act", self.parameters(), policy_input(obs), memory, randomness)
        return action, memory, []

    def place(self, state: Tensor) -> Tensor | None:
        """None: there is no goal space."""
        return None

    def after(self, memory: Any, step: Step) -> tuple[Any, dict[str, Tensor]]:
        """The memory after a step, reset where the episode ended; no metrics."""
        done = step.terminated | step.truncated
        again = lambda x, y: torch.where(done.view(-1, *(1,) * (x.dim() - 1)), y, x)  # noqa: E731
        return torch.utils._pytree.tree_map(again, memory, self.start(len(done))), {}
