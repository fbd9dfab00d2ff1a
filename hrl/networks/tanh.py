"""Perceptrons with tanh whose backward pass is written out, for on-policy learners."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class TanhMLP(nn.Sequential):
    """The layers of `mlp(…, smooth=True)`: linear layers with tanh between them, [..., I] -> [..., O].

    Its backward pass is written out, which halves the time of small networks, where most of it is autograd's own. The
    result cannot be differentiated twice.
    """

    def forward(self, x: Tensor) -> Tensor:
        linear = [layer for layer in self if isinstance(layer, nn.Linear)]
        parameters = [p for layer in linear for p in (layer.weight, layer.bias)]
        flat: Tensor = _Layers.apply(x.reshape(-1, x.shape[-1]), *parameters)
        return flat.view(*x.shape[:-1], flat.shape[-1])


def fast_tanh(x: Tensor) -> Tensor:
    """tanh, in place. On a CPU it is 1 - 2 σ(-2x), which takes a third of the time and differs by 1e-7 at most."""
    return x.tanh_() if x.is_cuda else torch.rsub(x.mul_(-2).sigmoid_(), 1, alpha=2)


class _Layers(torch.autograd.Function):
    """h_k = tanh(h_{k-1} W_kᵀ + b_k), without tanh in the last layer. x [B, I], then the W_k [out, in] and b_k [out] of
    all layers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        hidden = [x]
        for weight, bias in zip(weights[:-1], biases, strict=False):
            hidden.append(fast_tanh(torch.addmm(bias, hidden[-1], weight.t())))
        ctx.save_for_backward(*hidden, *weights)
        return torch.addmm(biases[-1], hidden[-1], weights[-1].t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        hidden, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        by_parameters: list[Tensor] = []
        for k in reversed(range(len(weights))):
            by_parameters[:0] = (gradient.t() @ hidden[k], gradient.sum(0))
            if k or ctx.needs_input_grad[0]:
                gradient = gradient @ weights[k]
            if k:
                gradient = torch.ops.aten.tanh_backward(gradient, hidden[k])
        return gradient if ctx.needs_input_grad[0] else None, *by_parameters
