"""A controller over options as one stochastic policy, for algorithms that learn in rounds of complete episodes.

Levels of a hierarchy use the same networks for their options (hrl/networks/options.py). There, the command is a `Skill`
(hrl/hierarchy/commands/choices.py), and the learner of the level below decides when it ends.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hrl.networks.layers import mlp
from hrl.networks.options import OptionNet, ends_now
from hrl.policies.base import choose, gather_actions, xavier

SURE = 30.0
"""Log-odds of an event with probability 1 (up to 1e-13)."""


class Options(nn.Module):
    """A controller over options, each with a policy and a termination probability (Sutton 1999).

    `high.*` are the controller's parameters, `low.*` those of the options. The memory contains the active option, and
    whether the controller chose it at this step. With `primitives`, the controller can also choose primitive actions:
    options that take one action and end.
    """

    noise_dim, closed_form = 3, False

    def __init__(
        self, state_dim: int, actions: int, options: int, hidden: tuple[int, ...], primitives: bool = False
    ) -> None:
        super().__init__()
        self.options, self.actions, self.primitives = options, actions, primitives
        # Linear, with equal initial probabilities. No bias: adapting it at one state would change all states.
        self.high = nn.Linear(state_dim, options + actions * primitives, bias=False)
        nn.init.zeros_(self.high.weight)
        act, end = (xavier(mlp(state_dim, hidden, outputs)) for outputs in (options * actions, options))
        self.low = nn.ModuleDict({"act": OptionNet(act, options, actions), "end": OptionNet(end, options, 1)})

    def shape(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the options [..., K], of each option's actions [..., K, A], and of its termination [..., K]."""
        return self.high(state), self._acts(state), self._ends(state)

    def _of(self, part: str) -> OptionNet:
        net = self.low[part]
        assert isinstance(net, OptionNet)
        return net

    def _acts(self, state: Tensor) -> Tensor:
        acts = self._of("act").each(state)
        if not self.primitives:
            return acts
        each = SURE * torch.eye(self.actions, device=state.device, dtype=state.dtype)
        return torch.cat([acts, each.expand(*acts.shape[:-2], -1, -1)], -2)

    def _ends(self, state: Tensor) -> Tensor:
        ends = self._of("end").each(state).squeeze(-1)
        return nn.functional.pad(ends, (0, self.actions), value=SURE) if self.primitives else ends

    def ending(self, state: Tensor, option: Tensor) -> Tensor:
        """β(s, o) [...], the probability that this option ends at this state."""
        return gather_actions(self._of("end").each(state).squeeze(-1), option).sigmoid()

    def _mine(self, acts: Tensor, option: Tensor) -> Tensor:
        """log π(action|s, option) [..., A] of the active option."""
        wide = option[..., None, None].expand(*option.shape, 1, self.actions)
        return acts.gather(-2, wide).squeeze(-2).log_softmax(-1)

    def start(self, episodes: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The memory without an active option: -1."""
        nothing = torch.full((episodes,), -1, dtype=torch.int64, device=device)
        return nothing, torch.zeros(episodes, dtype=torch.bool, device=device)

    def act(self, state: Tensor, memory: tuple[Tensor, Tensor], noise: Tensor | None) -> tuple[Tensor, Any]:
        """Continue or end the active option, choose a new option where it ended, and act."""
        held, _ = memory
        high, acts, ends = self.shape(state)
        chance = gather_actions(ends, held.clamp_min(0)).sigmoid()
        new_option = (held < 0) | ends_now(chance, None if noise is None else noise[..., 0])
        option = torch.where(new_option, choose(high.log_softmax(-1), None if noise is None else noise[..., 1]), held)
        return choose(self._mine(acts, option), None if noise is None else noise[..., 2]), (option, new_option)

    def log_prob(self, state: Tensor, action: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Log-probability of all samples of each step: termination of the previous option, new option, action."""
        option, new_option = memory
        chose = torch.where(new_option, gather_actions(self.high(state).log_softmax(-1), option), 0.0)
        return self.acted(state, action, memory) + chose + self.ended(state, memory)

    def ended(self, state: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """log β(s_t, o_{t-1}) [..., T, E], or log(1 - β) where the previous option continued; 0 at the first step."""
        option, new_option = memory
        odds = gather_actions(self._ends(state)[..., 1:, :, :], option[..., :-1, :])
        drawn = nn.functional.logsigmoid(torch.where(new_option[..., 1:, :], odds, -odds))
        return torch.cat([torch.zeros_like(drawn[..., :1, :]), drawn], -2)

    def acted(self, state: Tensor, action: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """log π(a|s, o) [..., T, E] of the active option's actions."""
        return gather_actions(self._mine(self._acts(state), memory[0]), action)

    def divergence(self, state: Tensor, old: Any) -> Tensor:
        """Raises NotImplementedError: the divergence has no closed form."""
        raise NotImplementedError

    def entropy(self, state: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Entropy [..., T, E] of the active option's actions."""
        mine = self._mine(self._acts(state), memory[0])
        return -(mine.exp() * mine).sum(-1)
