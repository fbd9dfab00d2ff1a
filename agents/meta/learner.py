"""On-policy meta-learning: collects episodes of many tasks, adapts to each task, and takes the outer step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hrl.nested.levels.adaptation import Adaptation, Params
from hrl.nested.outer import Guard, slope_error
from hrl.nested.trees import leaves
from hrl.nested.trust_region import trust_region_step
from hrl.policies.policy_gradient import Credit, Trajectories
from hrl.report.episodes import Finished, finished
from hrl.report.evaluation import Watch
from hrl.state import under
from hrl.training.collecting import rollout_tasks, time_limit
from hrl.training.rounds import RoundLearner
from hrl.types import Spec, UserError


@dataclass
class MetaSettings:
    """Options of meta-learning: tasks, adaptation and the outer step."""

    tasks: int = 40
    """Tasks per round."""
    episodes: int = 20
    """Episodes per task before each inner step and after the last one."""
    inner_learning_rate: float = 0.1
    """Step size of adaptation."""
    inner_steps: int = 1
    """Adaptation steps in training."""
    eval_steps: int = 3
    """Adaptation steps in evaluation."""
    eval_shrink: float = 0.5
    """Step size of adaptation steps after the first in evaluation, relative to the first (published: half)."""
    eval_explore: bool = False
    """Evaluate with exploration instead of the most likely actions."""
    every_step: bool = False
    """Learn from all episodes, before adaptation and after each of its steps, instead of only from the last ones."""
    fixed_start: bool = False
    """Keep the initial values of the adapted parameters fixed; only the shared parameters are learned."""
    first_order: bool = False
    """Ignore second derivatives (first-order MAML)."""
    correction: bool = False
    """Also differentiate through the sampling of the episodes (DiCE): unbiased, with more variance."""
    outer: Literal["trust-region", "adam"] = "trust-region"
    """The outer step."""
    divergence: float = 0.01
    """Maximum divergence of a trust-region step."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    gamma: float = 0.99
    """Discount per environment step."""
    lam: float = 1.0
    """λ of generalised advantage estimation (Schulman 2016)."""
    entropy: float = 0.0
    """Initial weight of the actions' entropy in the outer loss; it falls linearly to 0 over the first half of the
    run."""
    clip: float = 10.0
    """Maximum norm of the outer gradient for Adam. Longer gradients are scaled down; invalid gradients are skipped."""

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        positive = (
            "tasks",
            "episodes",
            "inner_learning_rate",
            "inner_steps",
            "eval_steps",
            "eval_shrink",
            "divergence",
            "learning_rate",
            "clip",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}.")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name} must be between 0 and 1, not {getattr(self, name)}.")
        if self.entropy < 0:
            raise UserError(f"--entropy must not be negative, but is {self.entropy}.")

    @property
    def credit(self) -> Credit:
        """Options of the advantage estimate."""
        return Credit(self.gamma, self.lam)


class MetaLearner(RoundLearner):
    """The outer level. It learns the initial values of the adapted parameters, and the shared parameters."""

    def __init__(
        self, settings: MetaSettings, adaptation: Adaptation, spec: Spec, device: torch.device, seed: int
    ) -> None:
        time_limit(spec)
        self.settings, self.adaptation, self.device = settings, adaptation, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.steps = 0
        self.metrics: dict[str, float] = {}
        self.guard = Guard(settings.clip)
        self.optimiser = torch.optim.Adam(leaves(self._parameters()), settings.learning_rate)

    def _parameters(self) -> tuple[Params, Params]:
        """The learned parameters (initial, shared); the first is empty with `fixed_start`."""
        return {} if self.settings.fixed_start else self.adaptation.initial, self.adaptation.shared

    # -- a round ---------------------------------------------------------------------------------------------

    def round(self, env: Any, progress: float) -> Finished:
        """Sample tasks, adapt to each, and take the outer step. Returns the episodes after adaptation."""
        c = self.settings
        tasks = env.sample_tasks(c.tasks, self.generator)
        own, way = self.adaptation.spread(c.tasks), []
        for _ in range(c.inner_steps):
            way.append(self.collect(env, tasks, own, self.generator))
            own = self.adaptation.adapted(own, way[-1])
        last = self.collect(env, tasks, own, self.generator)
        self.steps += sum(int(data.keep.sum()) for data in (*way, last))
        metrics = self._outer_step(way, last, c.entropy * max(1 - 2 * progress, 0.0))
        for k, data in enumerate([*way, last]):
            metrics[f"return_after_{k}"] = data.returns().mean()
        self.metrics = {f"meta/{name}": float(x) for name, x in metrics.items()}
        return finished(last)

    def _outer_step(self, way: list[Trajectories], last: Trajectories, entropy: float) -> dict[str, Any]:
        c = self.settings
        objective = self.adaptation.objective(way, last, 0 if c.every_step else None, entropy)
        if c.outer == "trust-region":
            moved, metrics = trust_region_step(self._parameters(), objective, c.divergence)
            self._take(moved)
            return dict(metrics)
        gradient, loss = torch.func.grad_and_value(lambda p: objective(p)[0])(self._parameters())
        checked = {}
        # The values of DiCE and of ratios to itself are constant, so finite differences do not measure the gradient.
        if self.adaptation.policy.closed_form and not c.correction:
            checked["slope_error"] = slope_error(lambda p: objective(p)[0], self._parameters(), gradient, 1e-2)
        let_through = self.guard.clip(gradient)
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
        """Collect one episode of every environment; those of a task are adjacent."""
        rollout = rollout_tasks(env, self.adaptation, tasks, own, generator, explore, watch)
        return Trajectories.with_advantages(
            *rollout[:5], self.settings.credit, rollout.final, rollout.truncated, rollout.memory
        )

    # -- checkpoint ------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, Tensor]:
        """The initial values of the adapted parameters, and the shared parameters."""
        return {f"policy.{name}": x for name, x in (self.adaptation.initial | self.adaptation.shared).items()}

    def momenta(self) -> dict[str, Tensor]:
        """Empty: the outer optimiser's moments do not change in place, and are part of `state_dict`."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """The learned parameters, the outer optimiser, and the counts of clipped and skipped gradients."""
        tensors = super().state_dict()
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": torch.as_tensor(x) for name, x in state.items()}
        return tensors | {"guard": torch.tensor([self.guard.clipped, self.guard.skipped])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        super().load_state_dict(state)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, x in under("adam.", state).items():
            number, entry = name.split(".")
            moments.setdefault(int(number), {})[entry] = x
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.guard.clipped, self.guard.skipped = (int(x) for x in state["guard"])
