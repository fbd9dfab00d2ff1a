"""Discovery of options: their rewards and terminations are learned with the gradient of the tasks' return through the
options' own policy-gradient step (MODAC: Veeriah et al. 2021)."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hrl.learners.adam import FlatAdam
from hrl.nested.inner import Descent, State, parameters
from hrl.nested.levels.adaptation import Adaptation, Params
from hrl.nested.levels.reward import OptionReward
from hrl.nested.optimisers import FunctionalAdam
from hrl.nested.trees import norm
from hrl.nested.unrolled import Unrolled
from hrl.networks.functional import call
from hrl.networks.layers import mlp
from hrl.policies import gather_actions
from hrl.policies.policy_gradient import Credit, Trajectories, option_advantages, score
from hrl.report.episodes import Finished, finished
from hrl.report.evaluation import Watch
from hrl.state import gather
from hrl.training.collecting import rollout_tasks, time_limit
from hrl.training.rounds import RoundLearner
from hrl.types import Spec


class DiscoverySettings(Protocol):
    """The options of discovery (see agents/meta/modac.py)."""

    reward: Any
    options: int
    hidden: tuple[int, ...]
    tasks: int
    episodes: int
    inner_learning_rate: float
    lifetime: int
    switching_cost: float
    learning_rate: float
    entropy: float
    value_learning_rate: float
    value_updates: int
    reward_learning_rate: float
    end_learning_rate: float
    meta_updates: int
    penalty: float
    gamma: float
    lam: float
    eval_steps: int
    eval_shrink: float
    eval_explore: bool

    @property
    def credit(self) -> Credit:
        """How returns become advantages."""


class Lived(NamedTuple):
    """Episodes of M tasks, E per task, with the data that options learn from."""

    data: Trajectories
    """[M, T, E, ...], with the managers' advantages."""
    following: Tensor
    """[M, T, E, D] the true next states."""
    goes_on: Tensor
    """[M, T, E] 1 where the task did not end."""
    mine: Tensor
    """[M, T, E] 1 where a learned option acted, 0 for primitive actions."""
    stays: Tensor
    """[M, T, E] 1 where the same option continues at the next step."""


class Discovery(RoundLearner):
    """Learns managers ω (one per task, reset when new tasks are sampled), options π_θ(a|s, o) that all tasks share, and
    the options' rewards r_η(s, o, a) and terminations β_η(s, o). In each round:

        managers    ω' = ω + α_M ∇_ω Σ_t A_t log π_ω(o_t|s_t)             A: the task's return minus a cost per choice
        options     θ' = θ + α_θ ∇_θ Σ_t A^o_t(η) log π_θ(a_t|s_t, o_t)   A^o: the return of r_η until β_η ends it
        discovery   η' = η + α_η ∇_η J(ω', θ'(η), η)                      on the episodes of ω', θ'

    J is the task's return minus the switching cost. Its gradient reaches r_η and β_η through u_t = ∂J/∂A^o_t and θ' (an
    Adam step with a constant scale), and β_η also through the log-probabilities of the sampled terminations. u is
    normalised, and a penalty on the mean square keeps r_η small, so that r_η follows the current gradient instead of
    accumulating it.
    """

    def __init__(
        self, config: DiscoverySettings, adaptation: Adaptation, spec: Spec, device: torch.device, seed: int
    ) -> None:
        time_limit(spec)
        self.settings, self.adaptation, self.device = config, adaptation, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.steps = self.age = 0
        self.metrics: dict[str, float] = {}
        inputs, policy = spec.state_dim + spec.goal_dim, adaptation.policy
        self.reward = OptionReward(inputs, config.options, policy.actions, config.hidden).to(device)
        self.value: nn.Module = mlp(inputs, config.hidden, config.options, smooth=True).to(device)
        self.critic = FlatAdam(self.value.parameters(), config.value_learning_rate)
        named = adaptation.shared
        self.options: Params = {name: x for name, x in named.items() if name.startswith("low.act.")}
        self.eta = {"end": {name: x for name, x in named.items() if name not in self.options}}
        self.eta["reward"] = parameters(self.reward)
        self.rule = FunctionalAdam(config.learning_rate, through_scale=False)
        self.pace = self.rule.begin(self.options)
        self.teachers = {
            "reward": FunctionalAdam(config.reward_learning_rate),
            "end": FunctionalAdam(config.end_learning_rate),
        }
        self.memory: dict[str, Any] = {part: rule.begin(self.eta[part]) for part, rule in self.teachers.items()}
        self.lived: Lived | None = None
        self.learns = config.options > 0 and config.reward != "none"

    # -- a round ---------------------------------------------------------------------------------------------

    def round(self, env: Any, progress: float) -> Finished:
        """Update managers and options on the current episodes, collect new episodes, and train rewards and terminations
        on the new ones."""
        c = self.settings
        if self.lived is None:
            self.tasks = env.sample_tasks(c.tasks, self.generator)
            self.own, self.age = self.adaptation.spread(c.tasks), 0
            self.lived = self._next_episodes(env)
        before = self.lived
        self.own = self.adaptation.adapted(self.own, before.data)
        learned = self._learn(before, c.entropy * max(1 - 2 * progress, 0.0)) if self.learns else None
        after = self.lived = self._next_episodes(env)
        self.age += 1
        self.metrics = self._metrics_of(after)
        if learned is not None:
            self.metrics |= self._teach(*learned, before, after)
        if self.age == c.lifetime:
            self.lived = None
        return finished(after.data)

    def _learn(self, lived: Lived, entropy: float) -> tuple[Descent, State, Tensor]:
        """Update the options. Returns the update, and the state and the credit before it."""
        inner, state, credit = self._inner(lived, entropy), State(self.options, self.pace, 0), self._credited(lived)
        self.options, self.pace, _ = inner.step(state, credit).detached()
        self.adaptation.shared = self.options | self.eta["end"]
        return inner, state, credit

    def _metrics_of(self, lived: Lived) -> dict[str, float]:
        steps, choices = lived.data.keep.sum(), (lived.data.memory[1] * lived.data.keep).sum()
        return {
            f"discovery/return_after_{self.age}": float(lived.data.returns().mean()),
            "discovery/steps_a_choice": float(steps / choices),
            "discovery/use": float(lived.mine.sum() / steps),
        }

    def _inner(self, lived: Lived, entropy: float) -> Descent:
        """The options' update, as a function of each step's credit [M, T, E]."""
        data = lived.data

        def loss(options: Params, credit: Tensor, step: int) -> Tensor:
            did = call(self.adaptation.policy, "acted", options, data.state, data.action, data.memory)
            spread = call(self.adaptation.policy, "entropy", options, data.state, data.memory)
            return -data.mean((did * credit + entropy * spread) * lived.mine).mean()

        return Descent(loss, self.rule)

    def _teach(self, inner: Descent, state: State, credit: Tensor, before: Lived, after: Lived) -> dict[str, float]:
        """Update η to increase the tasks' return."""
        direction, loss = self.meta_loss(inner, state, credit, before, after)
        for _ in range(self.settings.meta_updates):
            gradient = torch.func.grad(loss)(self.eta)
            for part, rule in self.teachers.items():
                params, memory = rule.step(self.eta[part], gradient[part], self.memory[part], None)
                self.eta[part], self.memory[part] = params, memory
        self.adaptation.shared = self.options | self.eta["end"]
        square = self._mean_square(self.eta["reward"], before)
        return {"discovery/gradient": float(norm(direction)), "discovery/intrinsic_reward": float(square.sqrt())}

    def meta_loss(
        self, inner: Descent, state: State, credit: Tensor, before: Lived, after: Lived
    ) -> tuple[Tensor, Callable[[Any], Tensor]]:
        """u = ∂J/∂A^o [M, T, E], and a loss of η: -dJ/dη divided by u's size, plus the penalty on r_η."""
        c = self.settings
        estimate = Unrolled(inner, 1)(lambda options, credit: self._acted(options, after), state, credit)
        direction, count = -estimate.gradient, before.mine.sum().clamp_min(1.0)
        size = (direction.square().sum() * count).sqrt().clamp_min(1e-12)

        def loss(eta: Any) -> Tensor:
            gain = -self._ended(eta["end"], after)
            if c.reward == "learned":
                gain = gain + (direction * self.credit(eta, before)).sum()
            return -gain / size + 0.5 * c.penalty * self._mean_square(eta["reward"], before)

        return direction, loss

    def _acted(self, options: Params, after: Lived) -> Tensor:
        """The part of -J, the negative return of the tasks, that depends on the options' actions."""
        data = after.data
        return score(call(self.adaptation.policy, "acted", options, data.state, data.action, data.memory), data).mean()

    def _ended(self, ends: Params, after: Lived) -> Tensor:
        """The part of -J that depends on the options' terminations."""
        data = after.data
        return score(call(self.adaptation.policy, "ended", ends, data.state, data.memory), data).mean()

    # -- credit of options -----------------------------------------------------------------------------------

    def _credited(self, lived: Lived) -> Tensor:
        if self.settings.reward != "learned":
            return lived.data.advantage
        with torch.no_grad():
            credit = self.credit(self.eta, lived)
        self._fit_values(lived, credit)
        return credit

    def credit(self, eta: Any, lived: Lived) -> Tensor:
        """A^o_t(η) [M, T, E] of the options' actions, 0 for primitive actions."""
        data, option = lived.data, self._option(lived)
        with torch.no_grad():
            value, following = (gather_actions(self.value(x), option) for x in (data.state, lived.following))
        end = call(self.adaptation.policy, "ending", eta["end"], lived.following, option)
        goes_on = self.settings.gamma * (1 - end) * lived.goes_on
        gained = option_advantages(
            self.intrinsic_reward(eta["reward"], lived), value, following, goes_on, lived.stays, self.settings.lam
        )
        return gained * lived.mine

    def intrinsic_reward(self, reward: Params, lived: Lived) -> Tensor:
        """The options' learned reward r_η [M, T, E]."""
        return call(self.reward, "forward", reward, lived.data.state, self._option(lived), lived.data.action)

    def _mean_square(self, reward: Params, lived: Lived) -> Tensor:
        """Mean square of r_η over the steps of options."""
        return (self.intrinsic_reward(reward, lived).square() * lived.mine).sum() / lived.mine.sum().clamp_min(1.0)

    def _option(self, lived: Lived) -> Tensor:
        return lived.data.memory[0].clamp(0, self.settings.options - 1)

    def _fit_values(self, lived: Lived, credit: Tensor) -> None:
        """Fit V^o to the options' returns."""
        option = self._option(lived)
        with torch.no_grad():
            target = gather_actions(self.value(lived.data.state), option) + credit
        for _ in range(self.settings.value_updates):
            error = (gather_actions(self.value(lived.data.state), option) - target) * lived.mine
            self.critic.minimise(error.square().sum() / lived.mine.sum().clamp_min(1.0))

    # -- collecting episodes ---------------------------------------------------------------------------------

    def collect(
        self, env: Any, tasks: Tensor, own: Params, generator: torch.Generator, explore: bool = True,
        watch: Watch | None = None,
    ) -> Trajectories:  # fmt: skip
        """Collect one episode of every environment; those of a task are adjacent. Rewards exclude the switching
        cost."""
        rollout = rollout_tasks(env, self.adaptation, tasks, own, generator, explore, watch)
        return Trajectories.with_advantages(
            *rollout[:5], self.settings.credit, rollout.final, rollout.truncated, rollout.memory
        )

    def _next_episodes(self, env: Any) -> Lived:
        rollout = rollout_tasks(env, self.adaptation, self.tasks, self.own, self.generator)
        option, new_option = rollout.memory
        cost = self.settings.switching_cost * new_option
        data = Trajectories.with_advantages(
            rollout.state, rollout.action, rollout.reward - cost, rollout.keep, rollout.success, self.settings.credit,
            rollout.final, rollout.truncated, rollout.memory,
        )  # fmt: skip
        self.steps += int(rollout.keep.sum())
        later = torch.cat([rollout.keep[:, 1:], torch.zeros_like(rollout.keep[:, :1])], 1)
        last = rollout.keep - later  # 1 at each episode's last step
        shifted = torch.cat([rollout.state[:, 1:], rollout.state[:, -1:]], 1)
        following = torch.where(last.unsqueeze(-1) > 0, rollout.final.unsqueeze(1), shifted)
        stays = later * ~torch.cat([new_option[:, 1:], new_option[:, -1:]], 1)
        mine = rollout.keep * (option < self.settings.options)
        return Lived(data, following, later + last * rollout.truncated.unsqueeze(1), mine, stays)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def drop_episodes(self) -> None:
        """Drop managers and current episodes, which a checkpoint does not store. The next round samples new tasks."""
        self.lived = None

    def networks(self) -> dict[str, Tensor]:
        """The managers' initial parameters, the options, and their rewards and terminations."""
        policy = {f"policy.{name}": x for name, x in (self.adaptation.initial | self.adaptation.shared).items()}
        return policy | {f"reward.{name}": x for name, x in self.eta["reward"].items()}

    def momenta(self) -> dict[str, Tensor]:
        """The value and every optimiser's moments."""
        tensors = gather({"value": self.value, "critic": self.critic})
        for name, memory in (("pace", self.pace), *self.memory.items()):
            tensors |= {f"memory.{name}.{x}.{key}": y for x in ("mean", "square") for key, y in memory[x].items()}
            tensors[f"memory.{name}.count"] = memory["count"]
        return tensors
