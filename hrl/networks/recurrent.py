"""A dilated LSTM over segments of experience. Episodes can start at any step.

A segment's `age` [T, N] is the number of steps since the start of the episode. Where the episode is older than the
segment, it is the number of steps since the start of the segment, plus at least the dilation. A step may use at most
this number of previous steps.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""(h, c), each [N, r, H]: the states after the last r steps, oldest first; zeros from before the start of an
episode."""


def ages(begins: Tensor, before: int) -> Tensor:
    """The age [T, N] of each step, for the mask [T, N] of steps that start an episode. In an episode that started
    before the segment, the age of a step is its number in the segment plus `before`."""
    step = torch.arange(len(begins), device=begins.device).unsqueeze(-1).expand_as(begins)
    return step - torch.where(begins, step, -before).cummax(0).values


def recent_sum(history: Tensor, age: Tensor, count: int) -> Tensor:
    """Σ_{i<count} x_{t-i} [T, N, D] over steps of the same episode, for age [T, N].

    `history` [R + T, N, D] also contains the R steps before the segment, with R ≥ count - 1.
    """
    total = torch.cat([torch.zeros_like(history[:1]), history]).cumsum(0)
    after = len(history) - len(age) + 1  # total[after + t] is the sum up to and including step t
    step = torch.arange(len(age), device=age.device).unsqueeze(-1)
    before = after + step - (age + 1).clamp_max(count)
    return total[after:] - total.gather(0, before.unsqueeze(-1).expand(*age.shape, total.shape[-1]))


class Unrolled(NamedTuple):
    """A segment's outputs and states."""

    output: Tensor
    """[T, N, H]"""
    h: Tensor
    """[r + T, N, H] the hidden states, including the last r before the segment."""
    c: Tensor
    """[r + T, N, H] the cell states."""


class DilatedLSTM(nn.Module):
    """r LSTM cores with shared weights take turns: each updates every r steps (Vezhnevets 2017, section 3.4).

        h_t, c_t = LSTM(x_t, h_{t-r}, c_{t-r})        output_t = 1/r Σ_{i<r} h_{t-i}

    With r = 1, this is an ordinary LSTM.
    """

    def __init__(self, inputs: int, units: int, dilation: int = 1) -> None:
        super().__init__()
        self.cell, self.units, self.dilation = nn.LSTMCell(inputs, units), units, dilation

    def start(self, count: int, device: torch.device) -> State:
        """The state [count, r, H] at the start of episodes: zeros."""
        zeros = torch.zeros(count, self.dilation, self.units, device=device)
        return zeros, zeros

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: x [N, I] -> output [N, H], and the state, with the oldest core updated."""
        new = self.cell(x, (state[0][:, 0], state[1][:, 0]))
        h, c = (torch.cat([old[:, 1:], x.unsqueeze(1)], 1) for old, x in zip(state, new, strict=True))
        return h.mean(1), (h, c)

    def unroll(self, x: Tensor, age: Tensor, state: State) -> Unrolled:
        """Process the steps x [T, N, I] of a segment, from the state [N, r, H] before it."""
        keep = (age >= self.dilation).unsqueeze(-1).to(x.dtype)
        cell = self.cell
        inputs = nn.functional.linear(x, cell.weight_ih, cell.bias_ih + cell.bias_hh)
        h, c = _Cells.apply(inputs, cell.weight_hh, keep, *(past.transpose(0, 1) for past in state))
        return Unrolled(recent_sum(h, age, self.dilation) / self.dilation, h, c)

    def peek(self, x: Tensor, age: Tensor, past: Unrolled) -> Tensor:
        """The outputs [T, N, H] that inputs x [T, N, I] would give one step after each step of the segment."""
        steps = len(x)
        keep = (age + 1 >= self.dilation).unsqueeze(-1)
        old = (s[1 : steps + 1] * keep for s in (past.h, past.c))
        h, _ = self.cell(x.flatten(0, 1), tuple(s.flatten(0, 1) for s in old))
        h = h.unflatten(0, x.shape[:2])
        if self.dilation == 1:
            return h
        return (h + recent_sum(past.h, age, self.dilation - 1)) / self.dilation


class _Cells(torch.autograd.Function):
    """The recurrence of a dilated LSTM over T steps. Its explicit backward pass is several times faster than autograd
    through the cells, because all terms that do not depend on the next step are computed for all steps at once.

        i, f, g, o = σ, σ, tanh, σ (x_t + W k_t h_{t-r})        c_t = f k_t c_{t-r} + i g        h_t = o tanh(c_t)

    x [T, N, 4H] are the projected inputs, W [4H, H] the weights, k [T, N, 1] is 0 where the episode is younger than r
    steps and 1 elsewhere, and h, c [r, N, H] are the states before the segment. Returns all states [r + T, N, H]; only
    those of h are differentiable, and only in x and W.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, keep: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        steps, r, gates = len(x), len(h), x.clone()
        hs, cs = (torch.cat([past, x.new_empty(steps, *past.shape[1:])]) for past in (h, c))
        for t in range(0, steps, r):
            new = slice(t, min(t + r, steps))
            old_h, old_c, gate = hs[new] * keep[new], cs[new] * keep[new], gates[new]
            gate += old_h @ weight.t()
            i, f, g, o = gate.chunk(4, -1)
            i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
            there = slice(r + t, r + new.stop)
            torch.addcmul(old_c.mul_(f), i, g, out=cs[there])
            torch.mul(o, cs[there].tanh(), out=hs[there])
        ctx.save_for_backward(gates, weight, keep, hs, cs)
        ctx.mark_non_differentiable(cs)
        return hs, cs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gates, weight, keep, hs, cs = ctx.saved_tensors
        steps, r = len(gates), len(hs) - len(gates)
        i, f, g, o = gates.chunk(4, -1)
        squashed = cs[r:].tanh()
        # Derivatives of c_t by the inputs of the four gates (of h_t by that of o), of h_t by c_t, and of c_t by
        # c_{t-r}.
        slopes = torch.stack([
            g * i * (1 - i), cs[:steps] * keep * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o),
        ], -2)  # fmt: skip
        through, stays = o * (1 - squashed * squashed), f * keep
        dh, dc, dx = gradients[0].clone(), torch.zeros_like(hs), torch.empty_like(slopes)
        for t in reversed(range(0, steps, r)):
            old = slice(t, min(t + r, steps))
            new = slice(r + t, r + old.stop)
            by_h = dh[new]
            by_c = torch.addcmul(dc[new], by_h, through[old])
            torch.mul(by_c.unsqueeze(-2), slopes[old][..., :3, :], out=dx[old][..., :3, :])
            torch.mul(by_h, slopes[old][..., 3, :], out=dx[old][..., 3, :])
            dh[old] += (dx[old].flatten(-2) @ weight) * keep[old]
            torch.mul(by_c, stays[old], out=dc[old])
        flat = dx.flatten(-2)
        by_weight = flat.flatten(0, 1).t() @ (hs[:steps] * keep).flatten(0, 1)
        return flat, by_weight, None, None, None
