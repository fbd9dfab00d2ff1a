"""A learned intrinsic reward (LIRPG: Zheng, Oh, Singh 2018; hierarchical: MODAC, Veeriah 2021), off-policy.

The level learns from its reward plus r_η(s, command, a). Before each update, the outer level computes a differentiable
trial update: the critic's target depends on η, and the actor's step on the critic. The outer level has a separate
critic of the *task's* return, which evaluates the new actor on the next batch:

    φ' = φ - α ∇_φ (Q_φ(s, a) - [r + r_η + γ Q̄(s', π̄(s'))])²      θ' = θ + α ∇_θ Q_φ'(s, π_θ(s))
    η ← η + β ∇_η Q_task(s, π_θ'(s))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hrl.hierarchy.level import Level
from hrl.learners import Metrics
from hrl.learners.actor_critic import DifferentiableActorCritic
from hrl.learners.adam import FlatAdam
from hrl.memory.transitions import Transitions
from hrl.nested.levels.trial import DifferentiableUpdate, OuterCritic, Params, follow, trust
from hrl.networks.layers import mlp
from hrl.state import Stateful, gather, restore
from hrl.types import UserError


@dataclass
class IntrinsicConfig:
    """Options of the learned intrinsic reward."""

    learning_rate: float = 1e-4
    """Learning rate of the reward network (published: 1e-4)."""
    scale: float = 1.0
    """Maximum absolute intrinsic reward of a step."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the reward network's hidden layers (published: 64, 64)."""
    gamma: float = 0.99
    """Discount per environment step of the outer objective, the task's return."""
    horizon: int = 1
    """Environment steps over which the task's rewards are summed before the outer critic bootstraps. Choose more than
    the delay of rewards (published: the whole episode's return)."""
    limit: float = 1.0
    """Maximum norm of the meta-gradient. Longer gradients are scaled down; non-finite gradients are skipped."""
    check_every: int = 500
    """Updates between two checks of the meta-gradient (finite differences, twice the horizon); 0 disables them."""

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        if self.check_every < 0:
            raise UserError(f"--intrinsic.check-every must not be negative, but is {self.check_every}.")
        positive = self.learning_rate > 0 and self.scale > 0 and self.limit > 0 and self.horizon > 0
        if not (positive and 0 < self.gamma < 1):
            raise UserError(
                f"--intrinsic.learning-rate, .scale, .limit and .horizon must be positive and --intrinsic.gamma "
                f"between 0 and 1, not {self.learning_rate}, {self.scale}, {self.limit}, {self.horizon} and "
                f"{self.gamma}."
            )


class IntrinsicReward(nn.Module):
    """r_η(inputs, action) in [-scale, scale], initially 0."""

    def __init__(
        self, input_dim: int, action_dim: int, scale: float, hidden: tuple[int, ...], smooth: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        self.net = mlp(input_dim + action_dim, hidden, 1, smooth=smooth)
        last: Any = self.net[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, inputs: Tensor, action: Tensor) -> Tensor:
        """Rewards [B] of inputs [B, I] and actions [B, A]."""
        return self.scale * self.net(torch.cat([inputs, action], -1)).squeeze(-1).tanh()


class OptionReward(nn.Module):
    """r_η(s, option, action) in [-1, 1] for discrete options and actions, initially 0."""

    def __init__(self, input_dim: int, options: int, actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = mlp(input_dim, hidden, options * actions, smooth=True)
        self.actions = actions
        last: Any = self.net[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, state: Tensor, option: Tensor, action: Tensor) -> Tensor:
        """Rewards [...] of states [..., D], options [...] and actions [...]."""
        place = (option * self.actions + action).unsqueeze(-1)
        return self.net(state).gather(-1, place).squeeze(-1).tanh()


class LearnedReward:
    """Learns a level's intrinsic reward while the level learns from it."""

    def __init__(self, level: Level, config: IntrinsicConfig) -> None:
        self.level, self.config = level, config
        inputs, action = (level.memory.width(name) for name in ("state", "action"))
        with level.gamma.device:
            self.net = IntrinsicReward(inputs + level.command.input_dim, action, config.scale, config.hidden)
        self.optimiser = FlatAdam(self.net.parameters(), config.learning_rate)
        self.trial, self.outer_critic = DifferentiableUpdate(level), OuterCritic(level, config.gamma, config.horizon)
        self.skipped = torch.zeros_like(level.gamma)
        self.intrinsic_reward = self.reward
        self.learner = cast(Any, level.learner)

    @torch.no_grad()
    def reward(self, inputs: Tensor, action: Tensor) -> Tensor:
        """The intrinsic reward [B], which is added to the level's reward."""
        return self.net(inputs, action)

    def step(self, number: int, now: Transitions, following: Transitions, generator: torch.Generator) -> Metrics:
        """Before update `number`: compute a trial update, and move the reward to increase the task's return."""
        noise = torch.randn((2, *now.action.shape), generator=generator, device=now.action.device)
        self.outer_critic.learn(now, generator)
        params = {name: x.detach() for name, x in self.net.named_parameters()}
        with torch.no_grad():  # gradients only of the reward
            outer = lambda params, steps: self._outer(params, now, following, noise, steps)  # noqa: E731
            gradient, loss = torch.func.grad_and_value(lambda params: outer(params, 1))(params)
            checked = {}
            if self.config.check_every and number % self.config.check_every == 0:
                checked = {f"intrinsic_{name}": x for name, x in trust(outer, params, gradient).items()}
        # The gradient is proportional to both learning rates; without this division, it is tiny compared with Adam's ε.
        rates = self.learner.critic_optimiser.lr * self.learner.actor_optimiser.lr
        gradient = {name: g / rates for name, g in gradient.items()}
        usable = follow(self.optimiser, list(gradient.values()), self.config.limit)
        self.skipped += 1 - usable.float()
        reward = self.reward(self.level.inputs(now.state, now.target), now.action)
        norm = torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt()
        return {
            "intrinsic_loss": loss, "intrinsic_gradient": norm, "learned_reward": reward.mean(),
            "learned_reward_spread": reward.std(), "intrinsic_skipped": self.skipped.clone(), **checked,
        }  # fmt: skip

    def _outer(self, params: Params, now: Transitions, following: Transitions, noise: Tensor, steps: int = 1) -> Tensor:
        """The negative task value of the actor after `steps` trial updates with this reward."""
        intrinsic_reward = lambda inputs, action: functional_call(self.net, params, (inputs, action))  # noqa: E731
        _, actor = self.trial.updated(self.level.batch(now, intrinsic_reward=intrinsic_reward), noise, {}, {}, steps)
        batch = self.outer_critic.batch(following)
        return -self.outer_critic(batch, self.trial.call("mode", actor, batch.inputs))

    def state_dict(self) -> Params:
        """The reward network, its optimiser, and the outer critic."""
        parts: dict[str, Stateful] = {"reward": self.net, "adam": self.optimiser, "judge": self.outer_critic}
        return gather(parts) | {"skipped": self.skipped}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        restore({"reward": self.net, "adam": self.optimiser, "judge": self.outer_critic}, state)
        self.skipped.copy_(state["skipped"])


@dataclass(frozen=True)
class LearnsReward:
    """A factory of a level's learned reward."""

    config: IntrinsicConfig
    tunes: tuple[str, ...] = ("reward",)

    def __call__(self, level: Level) -> LearnedReward:
        """Make the learned reward. Raises UserError if the level's learner is not differentiable."""
        if not isinstance(level.learner, DifferentiableActorCritic):
            raise UserError(
                f"The {level.name} level's learned reward needs a learner with differentiable updates: use td3 or sac."
            )
        return LearnedReward(level, self.config)


def learned_reward(config: IntrinsicConfig) -> LearnsReward:
    """A factory of a level's learned reward. Raises UserError for invalid values."""
    config.check()
    return LearnsReward(config)
