"""HIQL: hierarchical implicit Q-learning (Park 2023, arXiv:2307.11949), offline.

A dataset of trajectories trains one value V(s, g) without actions. Two policies are extracted from it by
advantage-weighted regression (AWR). The reward is -1 per step until the goal is reached, then 0:

    value  L_V = E ℓ(r + γ V'(s_{t+1}, g) - V(s_t, g)),    ℓ(x) = |κ - 1(x < 0)| x²    expectile regression
    high   A_h = V(s_{t+k}, g) - V(s_t, g),                maximise E exp(α A_h) log π_h(φ(s_t, s_{t+k}) | s_t, g)
    low    A_l = V(s_{t+1}, w) - V(s_t, w),                maximise E exp(α A_l) log π_l(a_t | s_t, φ(s_t, w))

The subgoal w is the state k steps ahead, and a goal is the part of a state that the environment reports as achieved.
V(s, g) = v(s, φ(s, g)) trains the representation φ; the policies only read it. To act, the high policy outputs the
representation of a subgoal at every step, and the low policy acts towards it.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hrl.agents.parts.offline import OfflineConfig
from hrl.hierarchy.commands.goals import sinusoids
from hrl.learners.adam import FlatAdam
from hrl.memory.dataset import Dataset
from hrl.memory.goal_sampling import GoalShares, draw_transitions, steps_ahead, trajectory_goals, value_goals
from hrl.networks.distributions import distribution
from hrl.networks.goal_value import GoalValue, on_sphere
from hrl.networks.layers import mlp, polyak_update
from hrl.planning.distance import steps_of_value
from hrl.run.session import Session
from hrl.state import Stateful
from hrl.training.offline import OfflineLearner
from hrl.types import Spec, UserError

MOST_WEIGHT = 100.0
"""Maximum weight exp(α A) of a transition in a policy's loss."""
FARTHEST = 1e-6
"""Minimum γ^d of a distance d. Longer distances are clamped to this d."""


@dataclass
class HIQLConfig(OfflineConfig):
    """HIQL: one value and two policies, learned offline from a dataset; steps are gradient steps (Park 2023)."""

    essential: ClassVar[tuple[str, ...]] = ("dataset", "batch_size", "hidden", "gamma", "subgoal_steps")
    learning_rate: float = 3e-4
    """Learning rate of all networks (published: 3e-4)."""
    batch_size: int = 1024
    """Transitions per gradient step (published: 1024)."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Units of the hidden layers of every network, with GELU (published: 512 512 512)."""
    layer_norm: bool = True
    """Normalise the outputs of hidden layers (published)."""
    gamma: float = 0.99
    """Discount per environment step (published: .99, and .995 in giant mazes)."""
    tau: float = 0.005
    """Polyak coefficient: the fraction of the value that enters its target at each step (published: .005)."""
    expectile: float = 0.7
    """κ: expectile of the value. Above .5, it favours the better outcomes in the dataset (published: .7)."""
    low_alpha: float = 3.0
    """α of the low policy: inverse temperature of its advantages (published: 3)."""
    high_alpha: float = 3.0
    """α of the high policy (published: 3)."""
    subgoal_steps: int = 25
    """k: environment steps from a state to its subgoal (published: 25)."""
    rep_dim: int = 10
    """Entries of the representation φ of a subgoal (published: 10)."""
    current_goals: float = 0.2
    """Fraction of the value's goals that are the current state (published: .2)."""
    random_goals: float = 0.3
    """Fraction of the value's goals that are random states. The others lie ahead in the trajectory (published: .3)."""
    value_scale: float = 1.0
    """Factor of the value networks' outputs. With a larger factor, values reach their size, at most 1 / (1 - γ), in
    fewer gradient steps (published: 1)."""
    goal_periods: tuple[float, ...] = ()
    """Sine and cosine features of positions and goals with these periods, for every network (published: none)."""

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        for name in ("learning_rate", "batch_size", "subgoal_steps", "rep_dim", "tau", "value_scale"):
            self._require(name, getattr(self, name) > 0, "must be positive, not")
        for name in ("low_alpha", "high_alpha"):
            self._require(name, getattr(self, name) >= 0, "must not be negative, but is")
        for name in ("expectile", "gamma"):
            self._require(name, 0 < getattr(self, name) < 1, "must lie between 0 and 1, not at")
        self._require("tau", self.tau <= 1, "must be at most 1, not")
        self._require("hidden", min(self.hidden, default=0) > 0, "must be one or more positive layer sizes, not")
        self._require("goal_periods", all(p > 0 for p in self.goal_periods), "must be positive, not")
        if min(self.current_goals, self.random_goals) < 0 or self.current_goals + self.random_goals > 1:
            raise UserError(
                "--current-goals and --random-goals must be fractions that add up to at most 1, not "
                f"{self.current_goals} and {self.random_goals}."
            )

    def _require(self, name: str, holds: bool, sentence: str) -> None:
        if not holds:
            raise UserError(f"--{name.replace('_', '-')} {sentence} {getattr(self, name)}.")

    @property
    def longest_hops(self) -> tuple[float, float]:
        """Environment steps of a planner's longest hops: k for the low policy alone, the value's horizon for both."""
        return float(self.subgoal_steps), 1 / (1 - self.gamma)

    def learner(self, spec: Spec, session: Session) -> "HIQL":
        """The untrained networks. Raises UserError if they do not support the environment."""
        if not spec.goal_dim or spec.pixels:
            required = "an environment with observation, achieved_goal and desired_goal, without images"
            raise UserError(f"HIQL needs {required}, which {spec.env_id} is not.")
        torch.manual_seed(session.run.seed)
        return HIQL(self, spec, session.device)


# -- losses ----------------------------------------------------------------------------------------------------


def expectile_loss(advantage: Tensor, error: Tensor, expectile: float) -> Tensor:
    """|κ - 1(A < 0)| error² [...]: errors have the weight 1 - κ where the advantage is negative, and κ elsewhere."""
    return torch.where(advantage < 0, 1 - expectile, expectile) * error.square()


def awr_weight(advantage: Tensor, alpha: float) -> Tensor:
    """exp(α A) [...], at most MOST_WEIGHT."""
    return (alpha * advantage).exp().clamp_max(MOST_WEIGHT)


class Batch(NamedTuple):
    """B transitions with their goals, encoded for the networks: states [B, S] and goals [B, E] with features."""

    state: Tensor
    next_state: Tensor
    action: Tensor
    """[B, A]"""
    value_goal: Tensor
    reached: Tensor
    """[B] 1 where the value's goal is the current state, else 0."""
    subgoal: Tensor
    """The low policy's goal, k steps ahead or at the trajectory's end."""
    high_goal: Tensor
    high_state: Tensor
    """The state k steps ahead, or the state at the high policy's goal if that comes earlier."""
    high_subgoal: Tensor
    """The goal that this state achieves."""


# -- networks --------------------------------------------------------------------------------------------------


class HIQL(OfflineLearner):
    """The value, its target, both policies, and their updates."""

    def __init__(self, config: HIQLConfig, spec: Spec, device: torch.device) -> None:
        self.config, self.spec, self.device = config, spec, device
        self.shares = GoalShares(config.current_goals, config.random_goals)
        self.achieved = torch.tensor(spec.achieved, device=device)
        self.frequencies = torch.tensor([2 * math.pi / p for p in config.goal_periods], device=device)
        features = 2 * spec.goal_dim * len(config.goal_periods)
        state, goal = spec.state_dim + features, spec.goal_dim + features
        body: dict[str, Any] = {"layer_norm": config.layer_norm, "activation": nn.GELU}
        self.distribution = distribution(spec.actions, log_std=0.0).requires_grad_(False).to(device)
        sizes = config.rep_dim, config.hidden, config.layer_norm
        self.value = GoalValue(state, goal, *sizes, config.value_scale).to(device)
        self.high = mlp(state + goal, config.hidden, config.rep_dim, **body).to(device)
        outputs = self.distribution.parameters_needed
        self.low = mlp(state + config.rep_dim, config.hidden, outputs, **body).to(device)
        self.target = deepcopy(self.value).requires_grad_(False)
        self.value_optimiser, self.high_optimiser, self.low_optimiser = (
            FlatAdam(net.parameters(), config.learning_rate) for net in (self.value, self.high, self.low)
        )

    # -- one gradient step -------------------------------------------------------------------------------------

    def update(self, data: Dataset, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step of the value, its target and both policies."""
        batch = self.sample(data, generator)
        value_loss, value_metrics = self.value_loss(batch)
        low_loss, low_metrics = self.low_loss(batch)
        high_loss, high_metrics = self.high_loss(batch)
        self.value_optimiser.minimise(value_loss)
        self.low_optimiser.minimise(low_loss)
        self.high_optimiser.minimise(high_loss)
        polyak_update(self.target, self.value, self.config.tau)
        parts = {"value": value_metrics, "low": low_metrics, "high": high_metrics}
        return {f"{part}/{name}": x for part, metrics in parts.items() for name, x in metrics.items()}

    def sample(self, data: Dataset, generator: torch.Generator) -> Batch:
        """Draw transitions, and goals for the value and for both policies."""
        c = self.config
        rows = draw_transitions(data, c.batch_size, generator)
        value_goal = value_goals(data, rows, self.shares, c.gamma, generator)
        high_goal = trajectory_goals(data, rows, generator)
        ahead = steps_ahead(rows, c.subgoal_steps, high_goal)
        state = lambda at: self.encode(data.state[at])  # noqa: E731
        goal = lambda at: self.encode_goal(data.state[at][:, self.achieved])  # noqa: E731
        return Batch(
            state=state(rows),
            next_state=state(rows + 1),
            action=data.action[rows],
            value_goal=goal(value_goal),
            reached=(value_goal == rows).float(),
            subgoal=goal(steps_ahead(rows, c.subgoal_steps, data.final[rows])),
            high_goal=goal(high_goal),
            high_state=state(ahead),
            high_subgoal=goal(ahead),
        )

    def value_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Σ_i ℓ(r + γ V'_i(s', g) - V_i(s, g)) with r = -1. Where the goal is reached, r = 0 without bootstrapping.

        The sign of the advantage r + γ min_i V'_i(s', g) - mean_i V'_i(s, g) selects the side of ℓ (published code).
        """
        c, goal = self.config, batch.value_goal
        with torch.no_grad():
            ahead = self.target(batch.next_state, goal)
            reward, discount = batch.reached - 1, c.gamma * (1 - batch.reached)
            advantage = reward + discount * ahead.amin(0) - self.target(batch.state, goal).mean(0)
            target = reward + discount * ahead
        value = self.value(batch.state, goal)
        loss = expectile_loss(advantage, target - value, c.expectile).mean(-1).sum()
        return loss, {"loss": loss.detach(), "v_mean": value.detach().mean(), "advantage": advantage.mean()}

    def low_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """-E exp(α (V(s', w) - V(s, w))) log π_l(a | s, φ(s, w))"""
        with torch.no_grad():
            rep = self.value.represent(batch.state, batch.subgoal)
            now, following = self.value.of_rep(batch.state, rep), self.value(batch.next_state, batch.subgoal)
            advantage = (following - now).mean(0)
            weight = awr_weight(advantage, self.config.low_alpha)
        log_prob = self.distribution.log_prob(self.low(torch.cat([batch.state, rep], -1)), batch.action, None)
        loss = -(weight * log_prob).mean()
        return loss, {"loss": loss.detach(), "advantage": advantage.mean(), "weight": weight.mean()}

    def high_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """E exp(α (V(s_{t+k}, g) - V(s, g))) |φ(s, s_{t+k}) - μ_h(s, g)|² / 2: π_h is normal with unit variance."""
        goal = batch.high_goal
        with torch.no_grad():
            advantage = (self.value(batch.high_state, goal) - self.value(batch.state, goal)).mean(0)
            weight = awr_weight(advantage, self.config.high_alpha)
            rep = self.value.represent(batch.state, batch.high_subgoal)
        error = (rep - self.high(torch.cat([batch.state, goal], -1))).square().sum(-1)
        loss = 0.5 * (weight * error).mean()
        metrics = {"advantage": advantage.mean(), "weight": weight.mean(), "error": error.detach().mean()}
        return loss, {"loss": loss.detach(), **metrics}

    # -- acting ------------------------------------------------------------------------------------------------

    def encode(self, state: Tensor) -> Tensor:
        """States [..., D] with features of their positions."""
        return torch.cat([state, sinusoids(state[..., self.achieved], self.frequencies)], -1)

    def encode_goal(self, goal: Tensor) -> Tensor:
        """Goals [..., G] with their features."""
        return torch.cat([goal, sinusoids(goal, self.frequencies)], -1)

    @torch.no_grad()
    def act(self, state: Tensor, goal: Tensor, mask: Tensor | None = None) -> Tensor:
        """The most likely actions [N, A] towards goals [N, G], through the most likely subgoal."""
        state = self.encode(state)
        return self._act(state, on_sphere(self.high(torch.cat([state, self.encode_goal(goal)], -1))), mask)

    @torch.no_grad()
    def act_low(self, state: Tensor, subgoal: Tensor, mask: Tensor | None = None) -> Tensor:
        """The low policy's most likely actions [N, A] towards subgoals [N, G]."""
        state = self.encode(state)
        return self._act(state, self.value.represent(state, self.encode_goal(subgoal)), mask)

    def _act(self, state: Tensor, rep: Tensor, mask: Tensor | None) -> Tensor:
        action = self.distribution.sample(self.low(torch.cat([state, rep], -1)), None, mask)
        return action.clamp(-1.0, 1.0) if self.spec.continuous else action

    @torch.no_grad()
    def distance(self, state: Tensor, goal: Tensor) -> Tensor:
        """Environment steps [...] from states [..., D] to goals [..., G], estimated from the value.

        -V = 1 + γ + ... + γ^(d-1) = (1 - γ^d) / (1 - γ) for d steps.
        """
        shape, gamma = state.shape[:-1], self.config.gamma
        flat = self.encode(state).flatten(0, -2), self.encode_goal(goal).flatten(0, -2)
        value = self.value(*flat).mean(0).reshape(shape)
        return steps_of_value(value, gamma, -1 / (1 - gamma), 0.0).clamp_max(math.log(FARTHEST) / math.log(gamma))

    # -- checkpoint --------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, Stateful]:
        """The value, for planners, and both policies."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def others(self) -> dict[str, Stateful]:
        """The target value and the optimisers."""
        return {
            "target": self.target,
            "value_optimiser": self.value_optimiser,
            "low_optimiser": self.low_optimiser,
            "high_optimiser": self.high_optimiser,
        }
