"""A controller that sets subgoals: the two levels of HIRO as one stochastic policy."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hrl.hierarchy.commands import Subgoal
from hrl.policies.flat import Gaussian


class Subgoals(nn.Module):
    """A Gaussian controller sets a subgoal every `period` steps; a Gaussian low level observes the displacement to it.

    `high.*` are the controller's parameters, `low.*` those of the low level. The memory contains the target, the
    controller's sample at this step, the steps since the target was set, and whether this step's sample set it.
    """

    closed_form = False

    def __init__(
        self, state_dim: int, inputs: int, action_dim: int, subgoal: Subgoal, period: int, hidden: tuple[int, ...],
        std: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.state_dim, self.subgoal, self.period = state_dim, subgoal, period
        self.high = Gaussian(inputs, subgoal.dim, hidden, math.log(std))
        self.low = Gaussian(state_dim + subgoal.input_dim, action_dim, hidden, math.log(std))
        self.noise_dim = subgoal.dim + action_dim

    def start(self, episodes: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The memory without an active subgoal: the controller is due for a decision."""
        place = torch.zeros(episodes, self.subgoal.dim, device=device)
        elapsed = torch.full((episodes,), self.period, dtype=torch.int64, device=device)
        return place, place, elapsed, torch.zeros(episodes, dtype=torch.bool, device=device)

    def act(self, state: Tensor, memory: tuple[Tensor, ...], noise: Tensor | None) -> tuple[Tensor, Any]:
        """Set a new subgoal where the period of the last one is over, and act."""
        target, _, elapsed, _ = memory
        split = self.subgoal.dim
        new_subgoal = elapsed >= self.period
        drawn, _ = self.high.act(state, (), None if noise is None else noise[..., :split])
        issued = self.subgoal.issue(state[..., : self.state_dim], drawn.clamp(-1.0, 1.0))
        target = torch.where(new_subgoal.unsqueeze(-1), issued, target)
        action, _ = self.low.act(self._shown(state, target), (), None if noise is None else noise[..., split:])
        return action, (target, drawn, torch.where(new_subgoal, 1, elapsed + 1), new_subgoal)

    def _shown(self, state: Tensor, target: Tensor) -> Tensor:
        own = state[..., : self.state_dim]
        return torch.cat([own, self.subgoal.encode(own, target, own)], -1)

    def log_prob(self, state: Tensor, action: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
        """Log-probability of all samples of each step: the action, and the subgoal if one was set."""
        target, raw, _, new_subgoal = memory
        acted = self.low.log_prob(self._shown(state, target), action)
        return acted + torch.where(new_subgoal, self.high.log_prob(state, raw), 0.0)

    def shape(self, state: Tensor) -> Any:
        """Raises NotImplementedError: the distribution over actions has no closed form."""
        raise NotImplementedError

    def divergence(self, state: Tensor, old: Any) -> Tensor:
        """Raises NotImplementedError: the divergence has no closed form."""
        raise NotImplementedError

    def entropy(self, state: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
        """Entropy of the low level's actions."""
        return self.low.entropy(self._shown(state, memory[0]))
