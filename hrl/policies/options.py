"""A controller over options."""

from typing import Any

import torch
from torch import Tensor, nn

from hrl.networks.layers import mlp
from hrl.policies.base import choose, gather_actions, xavier

SURE = 30.0
"""Log-odds of what is certain: chances of 1 but for 1e-13."""


class Options(nn.Module):
    """A controller over options: each a policy of its own, with its own chance to end at a state (Sutton 1999).

    `high.*` are the controller's parameters, `low.*` the options'. What happened inside is remembered: the option in
    force, and whether the controller chose it at this step. With `primitives` the controller chooses from the actions
    too, as from further options: each takes its action and ends.
    """

    noise_dim, closed_form = 3, False

    def __init__(
        self, state_dim: int, actions: int, options: int, hidden: tuple[int, ...], primitives: bool = False
    ) -> None:
        super().__init__()
        self.options, self.actions, self.primitives = options, actions, primitives
        # Linear, and every option alike at first. No bias: adapting at one state would move all others with it.
        self.high = nn.Linear(state_dim, options + actions * primitives, bias=False)
        nn.init.zeros_(self.high.weight)
        self.low = nn.ModuleDict(
            {"act": xavier(mlp(state_dim, hidden, options * actions)), "end": xavier(mlp(state_dim, hidden, options))}
        )

    def shape(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-odds [..., K] of the options, [..., K, A] of each one's actions, [..., K] of its end."""
        return self.high(state), self._acts(state), self._ends(state)

    def _acts(self, state: Tensor) -> Tensor:
        acts = self.low["act"](state).unflatten(-1, (self.options, self.actions))
        if not self.primitives:
            return acts
        each = SURE * torch.eye(self.actions, device=state.device, dtype=state.dtype)
        return torch.cat([acts, each.expand(*acts.shape[:-2], -1, -1)], -2)

    def _ends(self, state: Tensor) -> Tensor:
        ends = self.low["end"](state)
        return nn.functional.pad(ends, (0, self.actions), value=SURE) if self.primitives else ends

    def ending(self, state: Tensor, option: Tensor) -> Tensor:
        """β(s, o) [...], the chance that this option ends at this state."""
        return gather_actions(self.low["end"](state), option).sigmoid()

    def _mine(self, acts: Tensor, option: Tensor) -> Tensor:
        """log π(action|s, option) [..., A] of the option in force."""
        wide = option[..., None, None].expand(*option.shape, 1, self.actions)
        return acts.gather(-2, wide).squeeze(-2).log_softmax(-1)

    def start(self, episodes: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """No option in force: -1."""
        nothing = torch.full((episodes,), -1, dtype=torch.int64, device=device)
        return nothing, torch.zeros(episodes, dtype=torch.bool, device=device)

    def act(self, state: Tensor, memory: tuple[Tensor, Tensor], noise: Tensor | None) -> tuple[Tensor, Any]:
        """End the option or go on, choose anew where it ended, act."""
        held, _ = memory
        high, acts, ends = self.shape(state)
        chance = gather_actions(ends, held.clamp_min(0)).sigmoid()
        anew = (held < 0) | (chance > (0.5 if noise is None else noise[..., 0]))
        option = torch.where(anew, choose(high.log_softmax(-1), None if noise is None else noise[..., 1]), held)
        return choose(self._mine(acts, option), None if noise is None else noise[..., 2]), (option, anew)

    def log_prob(self, state: Tensor, action: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Of all that was drawn at each step: whether the option before ended, which came then, what it did."""
        option, anew = memory
        chose = torch.where(anew, gather_actions(self.high(state).log_softmax(-1), option), 0.0)
        return self.acted(state, action, memory) + chose + self.ended(state, memory)

    def ended(self, state: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """log β(s_t, o_{t-1}), or log(1 - β) where the option before went on [..., T, E]; 0 at the first step."""
        option, anew = memory
        odds = gather_actions(self._ends(state)[..., 1:, :, :], option[..., :-1, :])
        drawn = nn.functional.logsigmoid(torch.where(anew[..., 1:, :], odds, -odds))
        return torch.cat([torch.zeros_like(drawn[..., :1, :]), drawn], -2)

    def acted(self, state: Tensor, action: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """log π(a|s, o) [..., T, E] of what the option in force did."""
        return gather_actions(self._mine(self._acts(state), memory[0]), action)

    def divergence(self, state: Tensor, old: Any) -> Tensor:
        """Over actions it has none in closed form."""
        raise NotImplementedError

    def entropy(self, state: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Of the actions of the option in force."""
        mine = self._mine(self._acts(state), memory[0])
        return -(mine.exp() * mine).sum(-1)
