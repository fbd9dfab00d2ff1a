"""A value of states and goals with a representation of the goal."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hrl.networks.layers import EnsembleValue, ensemble_layers, mlp


class GoalValue(nn.Module):
    """Two heads V_i(s, g) = v_i(s, φ(s, g)) on a representation φ of constant length, with GELU. Inputs are encoded
    states [..., S] and goals [..., E]."""

    def __init__(
        self, state_dim: int, goal_dim: int, rep_dim: int, hidden: tuple[int, ...], layer_norm: bool, scale: float
    ) -> None:
        """`scale` multiplies the outputs."""
        super().__init__()
        body: dict[str, Any] = {"layer_norm": layer_norm, "activation": nn.GELU}
        self.rep = mlp(state_dim + goal_dim, hidden, rep_dim, **body)
        self.scale, sizes = scale, (state_dim + rep_dim, *hidden)
        self.heads = nn.Sequential(*ensemble_layers(2, sizes, layer_norm, nn.GELU), EnsembleValue(2, sizes[-1]))

    def represent(self, state: Tensor, goal: Tensor) -> Tensor:
        """φ(s, g) [..., R]"""
        return on_sphere(self.rep(torch.cat([state, goal], -1)))

    def of_rep(self, state: Tensor, rep: Tensor) -> Tensor:
        """Both values [2, B] of goals given by their representations."""
        x = torch.cat([state, rep], -1)
        return self.scale * self.heads(x.expand(2, *x.shape))

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Both values [2, B]."""
        return self.of_rep(state, self.represent(state, goal))


def on_sphere(x: Tensor) -> Tensor:
    """x [..., R], normalised to the length √R."""
    return normalize(x, dim=-1) * math.sqrt(x.shape[-1])
