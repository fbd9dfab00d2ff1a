"""Networks of options: one output vector for each option, of which the active option's vector is used."""

import torch
from torch import Tensor, nn


class OptionNet(nn.Sequential):
    """Layers with K output vectors, one for each option: inputs [..., D + K] -> [..., O] of the active option.

    The last K inputs are the active option, one-hot. Policies of options, their terminations and their values have
    this form, in levels (hrl/hierarchy) and in policies over options (hrl/policies/options.py).
    """

    def __init__(self, layers: nn.Sequential, options: int, outputs: int, common: bool = False) -> None:
        """`layers` map states [..., D] to [..., K * O], or to [..., (K + 1) * O] with `common` outputs, to which the
        outputs of each option are added. Options that rarely act then learn from the others."""
        super().__init__(*layers)
        self.options, self.outputs, self.common = options, outputs, common

    def each(self, state: Tensor) -> Tensor:
        """The outputs [..., K, O] of all options at states [..., D]."""
        if not self.common:
            return super().forward(state).unflatten(-1, (self.options, self.outputs))
        own, common = (
            super().forward(state).unflatten(-1, (self.options + 1, self.outputs)).split((self.options, 1), -2)
        )
        return own + common

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., D + K] states and one-hot options -> [..., out] of the active option."""
        state, option = split_option(inputs, self.options)
        return (self.each(state) * option.unsqueeze(-1)).sum(-2)


def split_option(inputs: Tensor, options: int) -> tuple[Tensor, Tensor]:
    """The state [..., D] and the one-hot option [..., K] in inputs [..., D + K]."""
    return inputs[..., :-options], inputs[..., -options:]


def ends_now(chance: Tensor, noise: Tensor | None) -> Tensor:
    """Whether [...] an option ends that ends with this probability, for uniform noise [...]; the more likely outcome
    without noise."""
    return chance > (0.5 if noise is None else noise)


def draw_end(chance: Tensor, generator: torch.Generator | None) -> Tensor:
    """`ends_now` with noise from a generator, if there is one."""
    noise = None if generator is None else torch.rand(chance.shape, generator=generator, device=chance.device)
    return ends_now(chance, noise)
