"""Stochastic policies as functions of their parameters, for learning on-policy: Gaussian, categorical, options.

Each is a module, called through `torch.func.functional_call` and `vmap`, so that many tasks have parameters of their
own. What is drawn at random comes in as noise: uniform numbers in (0, 1).
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hrl.networks import mlp
from hrl.types import Observation, Spec, UserError

LEAST_STD = 1e-6
SURE = 30.0
"""Log-odds of what is certain: chances of 1 but for 1e-13."""


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


class Gaussian(nn.Module):
    """A normal distribution with a state's own mean and one standard deviation an action entry."""

    closed_form = True

    def __init__(
        self, state_dim: int, action_dim: int, hidden: tuple[int, ...], log_std: float = 0.0, smooth: bool = False
    ) -> None:
        super().__init__()
        self.net = _xavier(mlp(state_dim, hidden, action_dim, smooth=smooth))
        self.log_std = nn.Parameter(torch.full((action_dim,), log_std))
        self.noise_dim = action_dim

    def shape(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log standard deviation)"""
        mean = self.net(state)
        return mean, self.log_std.clamp_min(torch.tensor(LEAST_STD).log().item()).expand_as(mean)

    def start(self, episodes: int, device: torch.device) -> tuple[()]:
        """Nothing."""
        return ()

    def act(self, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """Its own draw, by the inverse of the normal distribution function."""
        mean, log_std = self.shape(state)
        return mean if noise is None else mean + log_std.exp() * torch.special.ndtri(noise), memory

    def log_prob(self, state: Tensor, action: Tensor, memory: Any = ()) -> Tensor:
        """Of a normal distribution, summed over action entries."""
        mean, log_std = self.shape(state)
        z = (action - mean) / log_std.exp()
        return -(0.5 * z.square() + log_std + 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(-1)

    def entropy(self, state: Tensor, memory: Any = ()) -> Tensor:
        """Σ (log σ + (1 + log 2π) / 2)"""
        return (self.shape(state)[1] + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)

    def divergence(self, state: Tensor, old: tuple[Tensor, Tensor]) -> Tensor:
        """KL of two normal distributions."""
        (mean, log_std), (old_mean, old_log_std) = self.shape(state), old
        moved = (2 * old_log_std).exp() + (old_mean - mean).square()
        return (log_std - old_log_std + moved / (2 * (2 * log_std).exp()) - 0.5).sum(-1)


class Categorical(nn.Module):
    """A choice among numbered actions."""

    noise_dim, closed_form = 1, True

    def __init__(self, state_dim: int, actions: int, hidden: tuple[int, ...], smooth: bool = False) -> None:
        super().__init__()
        self.net = _xavier(mlp(state_dim, hidden, actions, smooth=smooth))

    def shape(self, state: Tensor) -> Tensor:
        """log π(·|s)"""
        return self.net(state).log_softmax(-1)

    def start(self, episodes: int, device: torch.device) -> tuple[()]:
        """Nothing."""
        return ()

    def act(self, state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        """By the inverse of the distribution function."""
        return choose(self.shape(state), None if noise is None else noise[..., 0]), memory

    def log_prob(self, state: Tensor, action: Tensor, memory: Any = ()) -> Tensor:
        """Of the action taken."""
        return picked(self.shape(state), action)

    def entropy(self, state: Tensor, memory: Any = ()) -> Tensor:
        """-Σ_a π log π"""
        log_probs = self.shape(state)
        return -(log_probs.exp() * log_probs).sum(-1)

    def divergence(self, state: Tensor, old: Tensor) -> Tensor:
        """Σ_a π_old (log π_old - log π)"""
        return (old.exp() * (old - self.shape(state))).sum(-1)


def choose(log_probs: Tensor, noise: Tensor | None) -> Tensor:
    """[...] numbers drawn from log-probabilities [..., K], or the likeliest."""
    if noise is None:
        return log_probs.argmax(-1)
    return (noise.unsqueeze(-1) > log_probs.exp().cumsum(-1)[..., :-1]).sum(-1)


def policy_for(spec: Spec, hidden: tuple[int, ...], std: float, smooth: bool = False) -> Gaussian | Categorical:
    """Gaussian for vectors, with this standard deviation at first; categorical for numbered actions."""
    inputs = spec.state_dim + spec.goal_dim
    if spec.continuous:
        return Gaussian(inputs, spec.action_dim, hidden, math.log(std), smooth)
    return Categorical(inputs, numbered(spec), hidden, smooth)


def numbered(spec: Spec) -> int:
    """How many numbered actions there are. Raises UserError where actions are something else."""
    if not hasattr(spec.action_space, "n"):
        raise UserError(f"This needs numbered (Discrete) actions, but {spec.env_id} has {spec.action_space}.")
    return int(spec.action_space.n)


def seen(obs: Observation) -> Tensor:
    """What a policy is shown of observations: state, and desired goal where there is one."""
    return torch.cat([obs.state, obs.goal], -1) if obs.goal.shape[-1] else obs.state


def _xavier(net: nn.Sequential) -> nn.Sequential:
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


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
            {"act": _xavier(mlp(state_dim, hidden, options * actions)), "end": _xavier(mlp(state_dim, hidden, options))}
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
        return picked(self.low["end"](state), option).sigmoid()

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
        chance = picked(ends, held.clamp_min(0)).sigmoid()
        anew = (held < 0) | (chance > (0.5 if noise is None else noise[..., 0]))
        option = torch.where(anew, choose(high.log_softmax(-1), None if noise is None else noise[..., 1]), held)
        return choose(self._mine(acts, option), None if noise is None else noise[..., 2]), (option, anew)

    def log_prob(self, state: Tensor, action: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Of all that was drawn at each step: whether the option before ended, which came then, what it did."""
        option, anew = memory
        chose = torch.where(anew, picked(self.high(state).log_softmax(-1), option), 0.0)
        return self.acted(state, action, memory) + chose + self.ended(state, memory)

    def ended(self, state: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """log β(s_t, o_{t-1}), or log(1 - β) where the option before went on [..., T, E]; 0 at the first step."""
        option, anew = memory
        odds = picked(self._ends(state)[..., 1:, :, :], option[..., :-1, :])
        drawn = nn.functional.logsigmoid(torch.where(anew[..., 1:, :], odds, -odds))
        return torch.cat([torch.zeros_like(drawn[..., :1, :]), drawn], -2)

    def acted(self, state: Tensor, action: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """log π(a|s, o) [..., T, E] of what the option in force did."""
        return picked(self._mine(self._acts(state), memory[0]), action)

    def divergence(self, state: Tensor, old: Any) -> Tensor:
        """Over actions it has none in closed form."""
        raise NotImplementedError

    def entropy(self, state: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Of the actions of the option in force."""
        mine = self._mine(self._acts(state), memory[0])
        return -(mine.exp() * mine).sum(-1)


def picked(values: Tensor, number: Tensor) -> Tensor:
    """The entry [...] of values [..., K] that the number says."""
    return values.gather(-1, number.unsqueeze(-1)).squeeze(-1)
