"""Multilayer perceptrons, and ensembles of them that are computed at once."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn


def mlp(
    input_dim: int,
    hidden: Sequence[int],
    output_dim: int,
    tasks: int = 1,
    smooth: bool = False,
    layer_norm: bool = False,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """Linear layers with `activation` between them; by default ReLU, or tanh if `smooth`. With several tasks, the first
    layer has separate biases for each task."""
    chosen = activation or (nn.Tanh if smooth else None)
    layers: list[nn.Module] = []
    for a, b in pairwise((input_dim, *hidden)):
        layers.append(TaskLinear(tasks, a, b) if tasks > 1 and not layers else nn.Linear(a, b))
        layers += normalised(b, layer_norm)
        layers.append(nn.ReLU(inplace=True) if chosen is None else chosen())
    sizes = (input_dim, *hidden)[-1], output_dim
    return nn.Sequential(*layers, TaskLinear(tasks, *sizes) if tasks > 1 and not layers else nn.Linear(*sizes))


def normalised(width: int, layer_norm: bool) -> list[nn.Module]:
    """Layer normalisation (Ba 2016) between a linear layer and its activation, or an empty list. It bounds the values
    of actions far from the data. It has no learned scale; the next layer's weights provide one."""
    return [nn.LayerNorm(width, elementwise_affine=False)] if layer_norm else []


class TaskLinear(nn.Module):
    """A linear layer with separate biases for each task. `task` selects the active ones."""

    task: Tensor

    def __init__(self, tasks: int, input_dim: int, output_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(input_dim)
        self.weight = nn.Parameter(torch.empty(output_dim, input_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(tasks, output_dim).uniform_(-bound, bound))
        self.register_buffer("task", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], with the current task's biases."""
        return nn.functional.linear(x, self.weight, self.bias.index_select(0, self.task).squeeze(0))


class EnsembleLinear(nn.Module):
    """`members` independent linear layers: [members, B, in] -> [members, B, out].

    If x has fewer members, only the first layers are used.
    """

    def __init__(self, members: int, input_dim: int, output_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(input_dim)
        self.weight = nn.Parameter(torch.empty(members, input_dim, output_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, output_dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """[members, B, in] -> [members, B, out]."""
        return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])


class EnsembleValue(nn.Module):
    """An ensemble of linear layers with a single output: [members, B, in] -> [members, B]. It uses a product and a sum,
    which on a CPU take a third of the time of a matrix product with one column."""

    def __init__(self, members: int, input_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(input_dim)
        self.weight = nn.Parameter(torch.empty(members, 1, input_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """[members, B, in] -> [members, B]."""
        return (x * self.weight[: len(x)]).sum(-1) + self.bias[: len(x)]


def ensemble_layers(
    members: int, sizes: Sequence[int], layer_norm: bool, activation: type[nn.Module] | None = None
) -> list[nn.Module]:
    """The hidden layers of independent networks; `sizes` starts with the input. The default activation is ReLU."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        nonlinear = nn.ReLU(inplace=True) if activation is None else activation()
        layers += [EnsembleLinear(members, a, b), *normalised(b, layer_norm), nonlinear]
    return layers


class ActionFeatures(NamedTuple):
    """Features of an action that a critic receives in addition to the action."""

    width: int
    of: Callable[[Tensor, Tensor], Tensor]
    """(inputs [..., I], action [..., A]) -> features [..., width]"""


class Critics(nn.Module):
    """C independent Q functions (two in Fujimoto et al. 2018): inputs [..., I], actions [..., A] -> [C, ...].

    They share the encoder, if there is one, and their loss trains it.
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: bool = False,
        encoder: nn.Module | None = None,
        action_features: ActionFeatures | None = None,
        members: int = 2,
    ) -> None:
        super().__init__()
        self.members = members
        self.encoder = nn.Identity() if encoder is None else encoder
        self.width, self.actions, self.action_features = width_of(encoder, input_dim), action_dim, action_features
        added = 0 if action_features is None else action_features.width
        sizes = (self.width + action_dim + added, *hidden)
        self.layers = nn.Sequential(*ensemble_layers(members, sizes, layer_norm), EnsembleValue(members, sizes[-1]))

    def features(self, inputs: Tensor) -> Tensor:
        """[..., width]"""
        return self.encoder(inputs)

    def forward(self, inputs: Tensor, action: Tensor) -> Tensor:
        """[C, ...]"""
        return self.of_features(self.encoder(inputs), action)

    def of_features(self, features: Tensor, action: Tensor) -> Tensor:
        """All values [C, ...] of encoded inputs."""
        x = self._joined(features, action)
        return self.layers(x.expand(self.members, *x.shape))

    def first(self, features: Tensor, action: Tensor) -> Tensor:
        """Q₁ [...] of encoded inputs, without computing the other values."""
        return self.layers(self._joined(features, action).unsqueeze(0)).squeeze(0)

    def _joined(self, features: Tensor, action: Tensor) -> Tensor:
        parts = [features, action]
        if self.action_features is not None:
            parts.append(self.action_features.of(features, action))
        return torch.cat(parts, -1)


class TwinChoices(nn.Module):
    """Two independent Q functions of K discrete choices: inputs [..., I] -> [2, ..., K]."""

    def __init__(
        self,
        input_dim: int,
        count: int,
        hidden: Sequence[int],
        layer_norm: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.Identity() if encoder is None else encoder
        self.width = width_of(encoder, input_dim)
        sizes = (self.width, *hidden)
        self.layers = nn.Sequential(*ensemble_layers(2, sizes, layer_norm), EnsembleLinear(2, sizes[-1], count))

    def features(self, inputs: Tensor) -> Tensor:
        """[..., width]"""
        return self.encoder(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[2, ..., K]"""
        return self.of_features(self.encoder(inputs))

    def of_features(self, features: Tensor) -> Tensor:
        """[2, ..., K] of encoded inputs."""
        return self.layers(features.expand(2, *features.shape))


def width_of(encoder: nn.Module | None, input_dim: int) -> int:
    """Width of the encoder's features; without an encoder, of the inputs."""
    return input_dim if encoder is None else int(encoder.width)  # type: ignore[arg-type]


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Polyak averaging: θ' ← (1 - τ) θ' + τ θ."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
