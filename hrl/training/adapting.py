"""Meta-learning on-policy: collects episodes of many tasks, adapts to each, and makes the outer step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hrl.learners.policy_gradient import Trajectories
from hrl.nested.adaptation import Adaptation, Params
from hrl.nested.outer import Guard, slope_error
from hrl.nested.trees import leaves
from hrl.nested.trust_region import trust_region_step
from hrl.training.episodes import Episode, Finished
from hrl.training.evaluation import Evaluation, interval
from hrl.types import BatchedEnv, Observation, Spec, Step, UserError

MakeEnv = Callable[[int, Iterator[int]], BatchedEnv]
Watch = Callable[[BatchedEnv], None]


@dataclass
class MetaSettings:
    """How tasks are met, adapted to, and learned from."""

    tasks: int = 40
    """Tasks a round."""
    episodes: int = 20
    """Episodes of a task before each inner step, and after the last."""
    inner_lr: float = 0.1
    """Step size of adaptation."""
    inner_steps: int = 1
    """Steps of adaptation in training."""
    eval_steps: int = 3
    """Steps of adaptation in evaluation; those after the first are half as long, as published."""
    first_order: bool = False
    """Leave the second derivative out (first-order MAML)."""
    correction: bool = False
    """Differentiate through how the episodes came about (DiCE): unbiased, with more variance."""
    outer: Literal["trust-region", "adam"] = "trust-region"
    """The outer step."""
    divergence: float = 0.01
    """Of a trust-region step, at most."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    gamma: float = 0.99
    """Discount an environment step."""
    clip: float = 10.0
    """Longest outer gradient for Adam; longer ones are cut, and such that cannot be meant skipped."""

    def check(self) -> None:
        """Raise UserError where a value cannot be meant."""
        for name in ("tasks", "episodes", "inner_lr", "inner_steps", "eval_steps", "divergence", "lr", "clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}.")
        if not 0 <= self.gamma <= 1:
            raise UserError(f"--gamma must lie between 0 and 1, not at {self.gamma}.")


class MetaLearner:
    """The outer level: all it learns is where adaptation begins, and what the tasks share."""

    def __init__(
        self, settings: MetaSettings, adaptation: Adaptation, spec: Spec, device: torch.device, seed: int
    ) -> None:
        if not spec.max_episode_steps:
            raise UserError(f"{spec.env_id} has episodes without a limit of steps, so they cannot be met side by side.")
        self.settings, self.adaptation, self.device = settings, adaptation, device
        self.horizon = spec.max_episode_steps
        self.generator = torch.Generator(device).manual_seed(seed)
        self.steps = 0
        self.metrics: dict[str, float] = {}
        self.guard = Guard(settings.clip)
        self.optimiser = torch.optim.Adam(leaves(self._parameters()), settings.lr)

    def _parameters(self) -> tuple[Params, Params]:
        return self.adaptation.initial, self.adaptation.shared

    # -- a round ---------------------------------------------------------------------------------------------

    def round(self, env: Any) -> Finished:
        """Draw tasks, adapt to each, make the outer step; the episodes after adaptation."""
        c = self.settings
        tasks = env.sample_tasks(c.tasks, self.generator)
        own, way = self.adaptation.spread(c.tasks), []
        for _ in range(c.inner_steps):
            way.append(self.collect(env, tasks, own, self.generator))
            own = self.adaptation.adapted(own, way[-1])
        last = self.collect(env, tasks, own, self.generator)
        self.steps += self.horizon * env.num_envs * (c.inner_steps + 1)
        metrics = self._outer_step(way, last)
        for k, data in enumerate([*way, last]):
            metrics[f"return_after_{k}"] = data.returns().mean()
        self.metrics = {f"meta/{name}": float(x) for name, x in metrics.items()}
        return finished(last)

    def _outer_step(self, way: list[Trajectories], last: Trajectories) -> dict[str, Any]:
        objective, c = self.adaptation.objective(way, last), self.settings
        if c.outer == "trust-region":
            moved, metrics = trust_region_step(self._parameters(), objective, c.divergence)
            self._take(moved)
            return dict(metrics)
        gradient, loss = torch.func.grad_and_value(lambda p: objective(p)[0])(self._parameters())
        checked = {}
        if not c.correction:  # DiCE's objective has the gradient of another function than its value
            checked["gradient_error"] = slope_error(lambda p: objective(p)[0], self._parameters(), gradient, 1e-2)
        let_through = self.guard.judge(gradient)
        if let_through is not None:
            for parameter, g in zip(leaves(self._parameters()), leaves(let_through), strict=True):
                parameter.grad = g
            self.optimiser.step()
        return {"loss": loss, "clipped": self.guard.clipped, "skipped": self.guard.skipped, **checked}

    def _take(self, moved: Any) -> None:
        for parameter, value in zip(leaves(self._parameters()), leaves(moved), strict=True):
            parameter.copy_(value)

    def collect(
        self,
        env: Any,
        tasks: Tensor,
        own: Params,
        generator: torch.Generator,
        explore: bool = True,
        watch: Watch | None = None,
    ) -> Trajectories:
        """One episode of every environment; those of a task stand side by side."""
        count, each = len(tasks), env.num_envs // len(tasks)
        env.set_tasks(tasks.repeat_interleave(each, 0))
        obs = env.reset(int(torch.randint(0, 2**31 - 1, (), generator=generator, device=self.device)))
        memory = self.adaptation.policy.start(env.num_envs, self.device)
        memory = torch.utils._pytree.tree_map(lambda x: x.unflatten(0, (count, each)), memory)
        going = torch.ones(count, each, device=self.device)
        seen: list[tuple[Tensor, ...]] = []
        for _ in range(self.horizon):
            state = obs.state.unflatten(0, (count, each))
            shape = count, each, self.adaptation.policy.noise_dim
            noise = torch.rand(shape, generator=generator, device=self.device).clamp_(1e-6, 1 - 1e-6)
            action, memory = self.adaptation.act(own, state, memory, noise if explore else None)
            if watch is not None:
                watch(env)
            step = env.step(action.flatten(0, 1))
            success = step.success.view(count, each).float()
            seen.append((state, action, step.reward.view(count, each), going, success))
            going = going * (~(step.terminated | step.truncated)).view(count, each)
            obs = step.obs
        states, actions, rewards, keep, success = (torch.stack(x, 1) for x in zip(*seen, strict=True))
        return Trajectories.judged(states, actions, rewards, keep, self.settings.gamma, success)

    # -- what a run keeps ------------------------------------------------------------------------------------

    def network_tensors(self) -> dict[str, Tensor]:
        """Everything that is learned."""
        return {f"policy.{name}": x for part in self._parameters() for name, x in part.items()}

    def tensors(self) -> dict[str, Tensor]:
        """That, the outer optimiser, and the random state."""
        tensors = self.network_tensors() | {"generator": self.generator.get_state()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": torch.as_tensor(x) for name, x in state.items()}
        return tensors

    def load_networks(self, tensors: dict[str, Tensor]) -> None:
        """Take over what is learned. Raises UserError where the sizes are others."""
        try:
            for part in self._parameters():
                for name, x in part.items():
                    x.copy_(tensors[f"policy.{name}"])
        except (KeyError, RuntimeError) as error:
            raise UserError("The checkpoint does not fit its configuration or environment.") from error

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        self.load_networks(tensors)
        self.generator.set_state(tensors["generator"].cpu())
        state: dict[int, dict[str, Tensor]] = {}
        for name, x in tensors.items():
            if name.startswith("adam."):
                _, number, entry = name.split(".")
                state.setdefault(int(number), {})[entry] = x
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})

    def counters(self) -> dict[str, Any]:
        """Host numbers."""
        return {"steps": self.steps, "clipped": self.guard.clipped, "skipped": self.guard.skipped}

    def load_counters(self, counters: dict[str, Any]) -> None:
        """Take over what `counters` gave."""
        self.steps = counters["steps"]
        self.guard.clipped, self.guard.skipped = counters["clipped"], counters["skipped"]


def finished(data: Trajectories) -> Finished:
    """Episodes [M, T, E] as the counters of training know them."""
    length = data.keep.sum(-2)
    last = (length.long() - 1).unsqueeze(-2)
    final = data.success.gather(-2, last).squeeze(-2)
    reached = (data.success * data.keep).amax(-2)
    values = torch.stack([x.flatten() for x in (data.reward.sum(-2), length, reached, final)], -1)
    return Finished(torch.ones(len(values), dtype=torch.bool, device=values.device), values)


class AdaptingPolicy:
    """A meta-learned policy. It is judged by how it adapts to held-out tasks; as it stands it acts unadapted."""

    def __init__(self, learner: MetaLearner) -> None:
        self.learner = learner

    def evaluate(self, make: MakeEnv, tasks: int, seed: int, watch: Watch | None = None) -> Evaluation:
        """Adapt to `tasks` held-out tasks; the episodes are those after the last step, by the likeliest actions.

        Rates: `return_after_k`, the mean over tasks after k steps, and `return_after_k_error`, half its 95 % interval;
        `sampled_return_after_k` of the episodes with exploration, on which the next step is made. `watch` sees the
        episodes without: before adaptation, and after each step.
        """
        learner, c = self.learner, self.learner.settings
        generator = torch.Generator(learner.device).manual_seed(seed)
        env: Any = make(tasks * c.episodes, iter([seed] * tasks * c.episodes))
        drawn = env.sample_tasks(tasks, generator, held_out=True)
        own = learner.adaptation.spread(tasks)
        data = learner.collect(env, drawn, own, generator)
        rates: dict[str, float] = {}
        for k in range(c.eval_steps + 1):
            if k:
                own = learner.adaptation.adapted(own, data, c.inner_lr / (1 if k == 1 else 2))
                data = learner.collect(env, drawn, own, generator)
            shown = learner.collect(env, drawn, own, generator, explore=False, watch=watch)
            returns = shown.returns().tolist()
            rates[f"return_after_{k}"] = sum(returns) / tasks
            rates[f"sampled_return_after_{k}"] = float(data.returns().mean())
            if bounds := interval(returns, proportion=False):
                rates[f"return_after_{k}_error"] = (bounds[1] - bounds[0]) / 2
        env.close()
        episodes = [
            Episode(i, reward, int(length), bool(reached), bool(final))
            for i, (reward, length, reached, final) in enumerate(finished(shown).values.tolist())
        ]
        return Evaluation(episodes, [], rates)

    def start(self, num_envs: int) -> Any:
        """Nothing done yet."""
        return self.learner.adaptation.policy.start(num_envs, self.learner.device)

    def decide(self, obs: Observation, memory: Any) -> tuple[Tensor, Any, None]:
        """The likeliest action of the unadapted policy."""
        adaptation = self.learner.adaptation
        params = adaptation.shared | adaptation.initial
        action, memory = adaptation.call("act", params, obs.state, memory, None)
        return action, memory, None

    def place(self, state: Tensor) -> Tensor | None:
        """It has no goal space."""
        return None

    def after(self, memory: Any, step: Step) -> tuple[Any, dict[str, Tensor]]:
        """What it remembers ends with the episode."""
        done = step.terminated | step.truncated
        fresh = self.start(len(done))
        after = torch.utils._pytree.tree_map(lambda x, y: torch.where(done, y, x), memory, fresh)
        return after, {}
