"""FeUdal networks (Vezhnevets et al. 2017, arXiv:1703.01161): a manager sets directions in a learned latent space.

At every step, the manager emits a direction g_t in the space of its latent states s_t = f(x_t), which it learns. The
worker acts along the sum of the last c directions (hrl/policies/directions.py contains the networks). The transition
policy gradient moves the manager's directions towards those state changes that had a positive advantage. The worker is
rewarded for moving along the directions:

    manager    ∇g_t = A^M_t ∇_θ cos(s_{t+c} - s_t, g_t(θ))        A^M = R - V^M    with discount γ_M
    reward     r^I_t = 1/c Σ_{i=1..c} cos(s_t - s_{t-i}, g_{t-i})
    worker     ∇π_t = A^D_t ∇_θ log π(a_t | x_t, g_{t-c..t})      A^D = R + α R^I - V^D    with discount γ

No gradient flows from the worker to the directions, or from the transition policy gradient to s. The paper uses
asynchronous advantage actor-critic. Here, both levels learn from segments of `n_steps` of all environments with
generalised advantage estimates, by backpropagation through the segment, in one pass (as in A2C; `--n-epochs 1`) or in
several passes with PPO's clipping. The clipped ratio of the manager is exp(cos_new - cos_old), because the paper
derives its gradient from transitions with probability p(s_{t+c} | s_t, g_t) ∝ exp cos(s_{t+c} - s_t, g_t).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hrl.agents.base import RoundsConfig
from hrl.learners.adam import FlatAdam
from hrl.memory.rollout import advantages
from hrl.networks.encoders import PixelEncoder
from hrl.policies.directions import Directions, Segment, intrinsic_reward, transitions
from hrl.run.session import Session
from hrl.training.actor import Actor
from hrl.training.segments import Experience, SegmentLearner
from hrl.types import Spec, UserError


@dataclass
class FeudalConfig(RoundsConfig):
    """FeUdal networks: a manager sets directions in a learned latent space, a worker follows (Vezhnevets 2017)."""

    horizon: int = 10
    """Number of steps in which a direction is used (c; published: 10)."""
    latent_dim: int = 16
    """Dimensions of the manager's latent space and directions (d; published: 256)."""
    embedding_dim: int = 16
    """Dimensions of the worker's embedding of directions and actions (k; published: 16)."""
    units: int = 64
    """Units of the worker's LSTM (published: 256)."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers that both levels share, after the image encoder if there is one (published: 256)."""
    intrinsic_weight: float = 0.02
    """Weight of the reward for following directions, at most 1 per step, relative to the task's reward (α; published:
    up to 1, with the rewards of Atari games clipped to 1)."""
    random_goals: float = 0.1
    """Probability per step of a random direction."""
    n_steps: int = 64
    """Steps per environment in a segment, through which gradients flow (published: 400)."""
    n_epochs: int = 4
    """Passes over a segment; 1 is A2C, as published except for asynchrony."""
    num_minibatches: int = 4
    """Gradient steps per pass, at most one per environment. Each uses all steps of some of the environments."""
    learning_rate: float = 1e-3
    """Step size of Adam (published: RMSProp)."""
    gamma: float = 0.99
    """The worker's discount per environment step (published: .99)."""
    manager_gamma: float = 0.999
    """The manager's discount per environment step (published: .999)."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation, for both levels (published: 1, n-step returns)."""
    clip_range: float = 0.2
    """Clip range of both levels' probability ratios around 1."""
    normalize_advantage: bool = True
    """Normalise the advantages of a minibatch to mean 0 and standard deviation 1 (published: no)."""
    ent_coef: float = 0.01
    """Weight of the actions' entropy."""
    vf_coef: float = 0.5
    """Weight of both value functions' losses."""
    max_grad_norm: float = 0.5
    """Maximum norm of the gradient. Longer gradients are scaled down."""
    log_std_init: float = 0.0
    """Logarithm of the initial standard deviation of continuous actions, in half-ranges."""

    @property
    def num_envs_required(self) -> None:
        """None: any number of environments."""
        return None

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        sizes = ("horizon", "latent_dim", "embedding_dim", "units", "n_steps", "n_epochs", "num_minibatches")
        rates = ("learning_rate", "clip_range", "max_grad_norm")
        self.require((*sizes, *rates), lambda x: x > 0, "must be positive, not")
        self.require(("intrinsic_weight", "ent_coef", "vf_coef"), lambda x: x >= 0, "must not be negative, but is")
        shares = ("random_goals", "gamma", "manager_gamma", "gae_lambda")
        self.require(shares, lambda x: 0 <= x <= 1, "must be between 0 and 1, not")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"--hidden must be positive layer sizes, not {self.hidden}.")
        if self.n_steps <= self.horizon:
            raise UserError(
                f"--n-steps must be above --horizon ({self.horizon}), because the manager learns from transitions of "
                f"this length, but is {self.n_steps}."
            )

    def learner(self, spec: Spec, session: Session) -> "Feudal":
        """Build the learner."""
        torch.manual_seed(session.run.seed)
        inputs = spec.state_dim + spec.goal_dim
        encoder = PixelEncoder(inputs, spec.state_dim, spec.images) if spec.images else None
        policy = Directions(
            inputs, spec.actions, self.hidden, self.latent_dim, self.embedding_dim, self.units, self.horizon,
            self.random_goals, self.log_std_init, encoder,
        )  # fmt: skip
        return Feudal(self, policy.to(session.device), session.device, session.run.seed)

    def policy(self, learner: "Feudal") -> Actor:
        """The current policy."""
        parameters = lambda: dict(learner.policy.named_parameters())  # noqa: E731
        return Actor(learner.policy, parameters, learner.device, lambda count: learner.generator)


class Targets(NamedTuple):
    """The learning targets of both levels for a segment, all [T, N] except `way`."""

    log_prob: Tensor
    """log π_old(a|s)."""
    worker_advantage: Tensor
    worker_return: Tensor
    """The target for the worker's value."""
    cosine: Tensor
    """cos(s_{t+c} - s_t, g_old)."""
    way: Tensor
    """[T, N, D] s_{t+c} - s_t."""
    manager_advantage: Tensor
    manager_return: Tensor
    """The target for the manager's value."""
    active: Tensor
    """1 where there is a transition."""
    known: Tensor
    """1 where there is a transition and s_{t+c} is known."""

    def at(self, envs: Tensor) -> "Targets":
        """The targets of the environments with these indices [K]."""
        return Targets(*(x[:, envs] for x in self))


class Feudal(SegmentLearner):
    """Trains manager and worker together on segments."""

    def __init__(self, config: FeudalConfig, policy: Directions, device: torch.device, seed: int) -> None:
        super().__init__()
        self.config, self.policy, self.device = config, policy, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.optimiser = FlatAdam(policy.parameters(), config.learning_rate, config.max_grad_norm, eps=1e-5)
        self.steps = 0
        self.metrics: dict[str, float] = {}

    @property
    def n_steps(self) -> int:
        """Steps per environment in a segment."""
        return self.config.n_steps

    def learn(self, experience: Experience, progress: float) -> dict[str, float]:
        """Make `n_epochs` passes over a segment. Advantages and targets are computed before the passes."""
        segment, targets, metrics = self.targets(experience)
        noted, count = [], segment.begins.shape[1]
        for _ in range(self.config.n_epochs):
            order = torch.randperm(count, generator=self.generator, device=self.device)
            for envs in order.tensor_split(min(self.config.num_minibatches, count)):
                loss, parts = self.loss(segment.at(envs), targets.at(envs))
                self.optimiser.minimise(loss)
                noted.append(parts)
        means = torch.stack([torch.stack(list(parts.values())) for parts in noted]).mean(0)
        return metrics | dict(zip(noted[0], means.tolist(), strict=True))

    @torch.no_grad()
    def targets(self, e: Experience) -> tuple[Segment, Targets, dict[str, float]]:
        """The segment, the learning targets of both levels, and metrics."""
        c, segment = self.config, Segment(e.state, e.action, e.note, e.begins, e.memory)
        now, following = self.policy.replay(segment, e.final)
        assert following is not None
        intrinsic = intrinsic_reward(now.latent, e.note, following.latent, e.begins, e.memory)
        reward = e.reward + c.intrinsic_weight * intrinsic
        goes_on, follows = (~e.terminated).float(), ~e.done
        worker = advantages(
            reward, c.gamma * goes_on, now.worker_value, following.worker_value, follows, c.gae_lambda
        )  # fmt: skip
        manager = advantages(
            e.reward, c.manager_gamma * goes_on, now.manager_value, following.manager_value, follows, c.gae_lambda
        )  # fmt: skip
        way, known = transitions(now.latent, following.latent, e.done, c.horizon)
        active = e.active.float()
        mean = lambda x: float((x * active).sum() / active.sum().clamp_min(1.0))  # noqa: E731
        metrics = {
            "low/intrinsic_reward": mean(intrinsic), "low/value_mean": mean(now.worker_value),
            "high/value_mean": mean(now.manager_value),
            "high/transition_length": mean(torch.linalg.vector_norm(way, dim=-1)),
        }  # fmt: skip
        targets = Targets(
            now.log_prob, worker, worker + now.worker_value, cosine_similarity(way, now.own, dim=-1), way, manager,
            manager + now.manager_value, active, active * known,
        )  # fmt: skip
        return segment, targets, metrics

    def loss(self, segment: Segment, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """-E[min(ρ A, clip(ρ) A)] + c_v E[(V - R)²] of both levels - c_e E[H], and its parts by tag."""
        c, t = self.config, targets
        now, _ = self.policy.replay(segment)
        worker = self.surrogate(now.log_prob - t.log_prob, t.worker_advantage, t.active)
        cosine = cosine_similarity(t.way, now.own, dim=-1)
        manager = self.surrogate(cosine - t.cosine, t.manager_advantage, t.known)
        worker_error = weighted_mean((now.worker_value - t.worker_return).square(), t.active)
        manager_error = weighted_mean((now.manager_value - t.manager_return).square(), t.active)
        loss = worker + manager + c.vf_coef * (worker_error + manager_error) - c.ent_coef * now.entropy
        parts = {
            "low/policy_loss": worker, "low/value_loss": worker_error, "low/entropy": now.entropy,
            "high/policy_loss": manager, "high/value_loss": manager_error,
            "high/cosine": weighted_mean(cosine, t.known),
        }  # fmt: skip
        return loss, {name: x.detach() for name, x in parts.items()}

    def surrogate(self, log_ratio: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
        """PPO's loss [] for log ρ and advantages [T, N], with weights of 0 or 1. At ρ = 1, its gradient equals that of
        the actor-critic loss -E[A log π]."""
        if self.config.normalize_advantage:
            mean = weighted_mean(advantage, weight)
            advantage = (advantage - mean) / (weighted_mean((advantage - mean).square(), weight).sqrt() + 1e-8)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.config.clip_range, 1 + self.config.clip_range)
        return -weighted_mean(torch.minimum(ratio * advantage, clipped * advantage), weight)

    def networks(self) -> dict[str, Tensor]:
        """The tensors of both levels' networks."""
        return self.policy.state_dict()

    def momenta(self) -> dict[str, Tensor]:
        """The optimiser's moments."""
        return {f"optimiser.{name}": x for name, x in self.optimiser.state_dict().items()}


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean [] of values [T, N] with these weights [T, N]; 0 if all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1.0)
