"""LIRPG: learning intrinsic rewards for policy gradient (Zheng, Oh, Singh 2018, arXiv:1804.06459), over many lifetimes
of agents (What can learned intrinsic rewards capture?, Zheng et al. 2020, arXiv:1912.05500).

In each round, an agent takes a policy-gradient step on the task's advantage plus a learned reward r_η(s, a). On the
episodes after the step, the gradient of the task's return through the step trains r_η. After each lifetime, the agent
is reinitialised and r_η is kept, so that the next agent learns faster. `--reward task` is the same agent without r_η.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hrl.agents.base import RoundsConfig
from hrl.learners.adam import FlatAdam
from hrl.nested.inner import Descent, State, parameters
from hrl.nested.levels.reward import IntrinsicReward
from hrl.nested.optimisers import FunctionalAdam
from hrl.nested.trees import norm
from hrl.nested.unrolled import Unrolled
from hrl.networks.functional import call
from hrl.networks.layers import mlp
from hrl.policies import num_actions, policy_for
from hrl.policies.policy_gradient import Trajectories, advantages, normalised, score
from hrl.report.episodes import Finished, finished
from hrl.run.session import Session
from hrl.state import gather
from hrl.training.actor import Actor
from hrl.training.collecting import rollout, time_limit, uniform_noise
from hrl.training.rounds import RoundLearner
from hrl.types import Spec, UserError

QUIET = 0.01
"""Factor of the last layer's initial weights, so that initial actions are near 0."""
BIRTH = 1_000_003
"""Difference between the seeds of two consecutive lifetimes."""


@dataclass
class LIRPGConfig(RoundsConfig):
    """LIRPG: a policy-gradient agent with an intrinsic reward, learned from the task's return (Zheng 2018, 2020)."""

    reward: Literal["learned", "task"] = "learned"
    """Learn from the task's advantage plus a learned reward, or from the task's advantage alone."""
    episodes: int = 16
    """Episodes per round, in parallel."""
    lifetime: int = 10
    """Rounds per lifetime of an agent; 0 for a single lifetime (Zheng 2018)."""
    hidden: tuple[int, ...] = (32, 32)
    """Units of the hidden layers of policy and value."""
    std: float = 0.6
    """Initial standard deviation of continuous actions, in half-ranges."""
    learning_rate: float = 0.015
    """The policy's learning rate of Adam, with one step per round."""
    value_learning_rate: float = 3e-3
    """The value's learning rate."""
    value_updates: int = 5
    """Steps of the value per round."""
    weight: float = 10.0
    """Weight of the learned reward relative to the task's normalised advantage (λ)."""
    reward_hidden: tuple[int, ...] = (32, 32)
    """Units of the learned reward's hidden layers."""
    reward_learning_rate: float = 3e-3
    """The learned reward's learning rate."""
    reward_updates: int = 10
    """Steps of the learned reward per round (published: 1)."""
    penalty: float = 1.0
    """Weight of the learned reward's mean square (published: none)."""
    gamma: float = 0.99
    """Discount per environment step."""
    lam: float = 0.95
    """λ of generalised advantage estimation."""

    @property
    def num_envs_required(self) -> tuple[int, str]:
        """One environment per episode."""
        return self.episodes, "--episodes"

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        self.require(
            ("episodes", "std", "learning_rate", "value_learning_rate", "reward_learning_rate"),
            lambda x: x > 0,
            "must be positive, not",
        )
        weights = ("lifetime", "value_updates", "reward_updates", "weight", "penalty")
        self.require(weights, lambda x: x >= 0, "must not be negative, but is")
        self.require(("gamma", "lam"), lambda x: 0 <= x <= 1, "must be between 0 and 1, not")
        if min((*self.hidden, *self.reward_hidden), default=1) < 1:
            raise UserError(f"--hidden must be positive layer sizes, not {self.hidden} and {self.reward_hidden}.")

    def learner(self, spec: Spec, session: Session) -> "Lifetimes":
        """Build the learner of agents and of their reward."""

        def policy() -> nn.Module:
            made = policy_for(spec, self.hidden, self.std, smooth=True)
            with torch.no_grad():
                for parameter in made.net[-1].parameters():
                    parameter.mul_(QUIET)
            return made

        return Lifetimes(self, policy, spec, session.device, session.run.seed)

    def policy(self, learner: "Lifetimes") -> Actor:
        """The current agent's policy."""
        noise = lambda count: uniform_noise(count, learner.policy.noise_dim, learner.generator)  # noqa: E731
        return Actor(learner.policy, lambda: learner.agent.params, learner.device, noise)


class Lifetimes(RoundLearner):
    """An agent that learns by policy gradient in rounds, and is reinitialised after each lifetime.

    All lifetimes share the learned reward r_η(s, a), which is added to the task's advantage:

        inner    θ' = Adam step along ∇_θ E[A_t log π_θ(a_t|s_t)],     A = norm(norm(A_task) + λ r_η)
        outer    u_t = ∂ J(θ') / ∂A_t on the episodes that θ' collects,    η ← η + β ∇_η E[u r_η - c/2 r_η²]

    J is only the task's objective. The outer gradient is Σ_t u_t ∂A_t/∂η; it ignores A's normalisation and λ, and u is
    normalised to unit size. c keeps r_η small.
    """

    counted = ("steps", "life", "age")

    def __init__(
        self, config: LIRPGConfig, policy: Callable[[], Any], spec: Spec, device: torch.device, seed: int
    ) -> None:
        time_limit(spec)
        self.config, self.make_policy, self.spec, self.device, self.seed = config, policy, spec, device, seed
        self.generator = torch.Generator(device).manual_seed(seed)
        self.rule = FunctionalAdam(config.learning_rate, through_scale=False)
        self.inputs = spec.state_dim + spec.goal_dim
        self.actions = spec.action_dim if spec.continuous else num_actions(spec)
        self.steps = self.life = self.age = 0
        self.metrics: dict[str, float] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reward = IntrinsicReward(self.inputs, self.actions, 1.0, config.reward_hidden, smooth=True).to(device)
        self.teacher = FlatAdam(self.reward.parameters(), config.reward_learning_rate)
        self.new_agent()

    def new_agent(self) -> None:
        """Initialise a new agent."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + BIRTH * (self.life + 1))
            self.policy: Any = self.make_policy().to(self.device)
            self.value = mlp(self.inputs, self.config.hidden, 1, smooth=True).to(self.device)
        self.agent = State(parameters(self.policy), self.rule.begin(parameters(self.policy)), 0)
        self.critic = FlatAdam(self.value.parameters(), self.config.value_learning_rate)
        self.episodes: Trajectories | None = None

    # -- a round ---------------------------------------------------------------------------------------------

    def round(self, env: Any, progress: float) -> Finished:
        """Update the agent on its current episodes, collect new episodes, and train the reward on the new ones."""
        before = self.episodes if self.episodes is not None else self._next_episodes(env)
        intrinsic = self.intrinsic_reward(before)
        credit = normalised(before.advantage + self.config.weight * intrinsic, before.keep)
        inner, state = self._inner(before), self.agent
        self.agent = inner.step(state, credit).detached()
        after = self._next_episodes(env)
        self.metrics = {"life/age": self.age, "life/number": self.life, "life/return": float(after.returns())}
        if self.config.reward == "learned":
            self.metrics |= self._teach(Unrolled(inner, 1), state, credit, before, after)
        self.episodes, self.age = after, self.age + 1
        if self.age == self.config.lifetime:
            self.life, self.age = self.life + 1, 0
            self.new_agent()
        return finished(after)

    def _inner(self, data: Trajectories) -> Descent:
        """The agent's update, as a function of each step's credit [T, E]."""
        return Descent(lambda p, credit, step: -data.mean(self.log_prob(p, data) * credit), self.rule)

    def _teach(
        self, estimator: Unrolled, state: State, credit: Tensor, before: Trajectories, after: Trajectories
    ) -> dict[str, float]:
        """Train the reward with the gradient of the task's return with respect to each step's credit."""
        estimate = estimator(lambda p, credit: score(self.log_prob(p, after), after), state, credit)
        direction = -estimate.gradient * before.keep
        direction = direction / (direction.square().sum() / before.keep.sum()).sqrt().clamp_min(1e-12)
        for _ in range(self.config.reward_updates):
            rewards = self._rewards(before)
            loss = -before.mean(direction * rewards) + 0.5 * self.config.penalty * before.mean(rewards.square())
            self.teacher.minimise(loss)
        return {"reward/spread": float(rewards.detach().std()), "reward/gradient": float(norm(estimate.gradient))}

    def log_prob(self, params: dict[str, Tensor], data: Trajectories) -> Tensor:
        """log π(a|s) [T, E]."""
        return call(self.policy, "log_prob", params, data.state, data.action, data.memory)

    @torch.no_grad()
    def intrinsic_reward(self, data: Trajectories) -> Tensor:
        """The learned reward [T, E], initially 0."""
        return self._rewards(data)

    def _rewards(self, data: Trajectories) -> Tensor:
        given = data.action.clamp(-1.0, 1.0) if self.spec.continuous else one_hot(data.action, self.actions).float()
        return self.reward(data.state, given) * data.keep

    # -- collecting episodes ---------------------------------------------------------------------------------

    def _next_episodes(self, env: Any) -> Trajectories:
        """Collect episodes of the current agent. Advantages use its value before the value learns from them."""
        data = self.collect(env)
        value = self.value(data.state).squeeze(-1)
        gain = advantages(data.reward, value.detach(), value.new_zeros(data.keep.shape[-1]), data.keep,
                          self.config.gamma, self.config.lam)  # fmt: skip
        target = value.detach() + gain
        for _ in range(self.config.value_updates):
            self.critic.minimise(data.mean((self.value(data.state).squeeze(-1) - target).square()))
        return data._replace(advantage=normalised(gain, data.keep))

    def collect(self, env: Any) -> Trajectories:
        """Collect one episode of every environment, up to its end or time limit."""
        collected = rollout(env, self.policy, partial(call, self.policy, "act", self.agent.params), self.generator)
        self.steps += int(collected.keep.sum())
        reward = collected.reward * collected.keep
        return Trajectories(
            collected.state,
            collected.action,
            reward,
            collected.keep,
            collected.reward,
            collected.success,
            collected.keep.sum(),
            collected.memory,
        )

    # -- checkpoint ------------------------------------------------------------------------------------------

    def drop_episodes(self) -> None:
        """Drop the current episodes, because a checkpoint does not store them."""
        self.episodes = None

    def networks(self) -> dict[str, Tensor]:
        """The current agent's policy and the learned reward."""
        tensors = {f"policy.{name}": x for name, x in self.agent.params.items()}
        return tensors | {f"reward.{name}": x for name, x in self.reward.state_dict().items()}

    def momenta(self) -> dict[str, Tensor]:
        """The value and every optimiser's moments."""
        memory: Any = self.agent.memory
        tensors = {f"memory.{part}.{name}": x for part in ("mean", "square") for name, x in memory[part].items()}
        return (
            gather({"value": self.value, "teacher": self.teacher, "critic": self.critic})
            | tensors
            | {"memory.count": memory["count"]}
        )
