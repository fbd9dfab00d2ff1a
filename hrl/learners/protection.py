"""Protection of earlier tasks in continual learning: L2, EWC (Kirkpatrick 2017), PackNet (Mallya 2018).

Only the level's actor is protected, as in Continual World (Wołczyk 2021). A protection changes the gradient in the
actor's optimiser, so the learner needs no changes. Its state is part of the learner's networks and of every checkpoint.
At the end of a task, the protection is *sealed*: it records the important weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from hrl.learners.actor_critic import DifferentiableActorCritic
from hrl.learners.adam import FlatAdam, views
from hrl.learners.base import Learner
from hrl.networks.functional import call
from hrl.networks.layers import TaskLinear
from hrl.types import UserError

CHUNK = 64
"""Number of samples for which gradients are computed at once."""
LEAST_IMPORTANCE = 1e-5
"""Lower bound of a parameter's importance (as in Continual World)."""


@dataclass
class ProtectConfig:
    """Options that protect a level's earlier tasks in continual learning (with --…init-from)."""

    by: Literal["nothing", "l2", "ewc", "packnet"] = "nothing"
    """A penalty on the distance to the earlier actor's parameters, uniform (l2) or weighted by their Fisher information
    (ewc); or separate weights for every task (packnet)."""
    strength: float = 1.0
    """Factor of the penalty of l2 and ewc."""
    samples: int = 1024
    """Number of inputs that estimate the Fisher information (ewc)."""
    updates: int = 1000
    """Updates on the earlier run's replay after pruning its actor (packnet)."""

    def check(self, prefix: str, tasks: int) -> None:
        """Raise UserError if a value is invalid."""
        if not self.strength > 0 or self.samples < 1 or self.updates < 0:
            raise UserError(
                f"{prefix}protect.strength and .samples must be positive and .updates must not be negative, not "
                f"{self.strength}, {self.samples} and {self.updates}."
            )
        if self.by == "packnet" and tasks < 2:
            raise UserError(
                f"{prefix}protect.by packnet divides an actor's weights among tasks: set {prefix}tasks to the "
                "number of tasks, at least 2."
            )


class Material:
    """Data of a level at the end of a task: `inputs(n)` samples its inputs [n, I], `learn(n)` makes n updates."""

    def __init__(self, inputs: Callable[[int], Tensor], learn: Callable[[int], None]) -> None:
        self.inputs, self.learn = inputs, learn


class Protection(nn.Module):
    """Protects a learner's actor. `sealed` is the number of finished tasks."""

    sealed: Tensor

    def __init__(self, learner: Learner, config: ProtectConfig) -> None:
        super().__init__()
        # Not registered as a submodule, because the learner owns this module.
        self.learner: Learner
        self.__dict__["learner"] = learner
        self.config = config
        self.optimiser: FlatAdam = cast(Any, learner).actor_optimiser
        self.optimiser.guard = self.guard
        device = self.optimiser.flat.device
        self.register_buffer("sealed", torch.tensor(learner.task, dtype=torch.int64, device=device))
        actor: nn.Module = cast(Any, learner).actor
        own = {id(layer.bias) for layer in actor.modules() if isinstance(layer, TaskLinear)}
        self.owned = [id(x) in own for x in self.optimiser.parameters]

    def owners(self, shared: float) -> Tensor:
        """The task of each task-specific parameter, and `shared` for the others, in the layout of the optimiser's
        vector."""
        owner = torch.full_like(self.optimiser.flat, shared)
        for place, owned in zip(views(owner, self.optimiser.parameters), self.owned, strict=True):
            if owned:  # [tasks, ...]
                place.copy_(torch.arange(len(place)).view(-1, *[1] * (place.dim() - 1)).expand_as(place))
        return owner

    def guard(self, gradient: Tensor, flat: Tensor) -> None:
        """Change the actor's gradient in place. Both arguments have the layout of the optimiser's vector."""
        raise NotImplementedError

    def seal(self, material: Material) -> None:
        """Record the weights to protect at the end of a task."""
        raise NotImplementedError

    def begin(self, drawn: dict[str, Tensor]) -> None:
        """Prepare the loaded parameters for the next task; `drawn` are newly initialised parameters by name."""

    def select_task(self, task: int) -> None:
        """Restore the actor's weights of a finished task, for acting only."""


class Anchored(Protection):
    """The penalty λ/2 Σ_i F_i (θ_i - θ*_i)². For L2, F_i is the number of finished tasks that used parameter i."""

    anchor: Tensor
    importance: Tensor

    def __init__(self, learner: Learner, config: ProtectConfig) -> None:
        super().__init__(learner, config)
        for name in ("anchor", "importance"):
            self.register_buffer(name, torch.zeros_like(self.optimiser.flat))

    def guard(self, gradient: Tensor, flat: Tensor) -> None:
        """Add λ F (θ - θ*) to the gradient."""
        gradient.addcmul_(self.importance, flat - self.anchor, value=self.config.strength)

    @torch.no_grad()
    def seal(self, material: Material) -> None:
        """Add the task's importances, and set the anchor θ* to the current parameters."""
        self.importance += self.measured(material)
        self.anchor.copy_(self.optimiser.flat)
        self.sealed += 1

    def measured(self, material: Material) -> Tensor:
        """The importance of every parameter for the finished task."""
        owner = self.owners(-1)
        return ((owner < 0) | (owner == self.sealed)).float()


class EWC(Anchored):
    """The penalty with the diagonal of the Fisher information as importance."""

    def measured(self, material: Material) -> Tensor:
        """The Fisher information over inputs of the task, at least LEAST_IMPORTANCE."""
        return fisher(self.learner, self.optimiser, material.inputs(self.config.samples)).clamp_min(LEAST_IMPORTANCE)


def fisher(learner: Learner, optimiser: FlatAdam, inputs: Tensor) -> Tensor:
    """The diagonal Fisher information of the actor's Gaussian N(μ, σ): E Σ_a [(∂μ_a)² + 2 (∂σ_a)²] / σ_a².

    The result has the layout of the optimiser's vector; inputs are [B, I].
    """
    params = {f"actor.{name}": x.detach() for name, x in cast(Any, learner).actor.named_parameters()}

    def outputs(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.cat([part.squeeze(0) for part in call(learner, "gaussian", params, x.unsqueeze(0))])

    total = torch.zeros_like(optimiser.flat)
    places = views(total, optimiser.parameters)
    for chunk in inputs.split(CHUNK):
        slopes = vmap(jacrev(outputs), in_dims=(None, 0))(params, chunk)
        _, std = call(learner, "gaussian", params, chunk)
        weight = torch.cat([std**-2, 2 * std**-2], -1)
        for place, name in zip(places, params, strict=True):
            squares = slopes[name].flatten(2).square()  # [B, 2A, entries]
            place += torch.einsum("bo,boe->e", weight, squares).view_as(place) / len(inputs)
    return total


class PackNet(Protection):
    """Every task has separate weights; it uses the weights of earlier tasks, but never changes them.

    `owner` is the task of each parameter. A finished task keeps the largest of its weights, such that each remaining
    task gets an equal share; the other weights are free for the next task. Biases keep the first task's values, except
    task-specific biases.
    """

    owner: Tensor

    def __init__(self, learner: Learner, config: ProtectConfig) -> None:
        super().__init__(learner, config)
        self.tasks = learner.tasks
        self.register_buffer("owner", self.owners(0))
        self.shared = [
            x.dim() > 1 and not owned for x, owned in zip(self.optimiser.parameters, self.owned, strict=True)
        ]  # biases are vectors

    def guard(self, gradient: Tensor, flat: Tensor) -> None:
        """Zero the gradient of parameters that the current task does not own."""
        gradient.mul_(self.owner == self.sealed)

    def seal(self, material: Material) -> None:
        """Prune the task's weights, retrain the remaining ones, and free the others for the next task."""
        self._prune()
        self._halt()
        material.learn(self.config.updates)
        self._halt()
        self.sealed += 1

    @torch.no_grad()
    def _halt(self) -> None:
        """Zero the optimiser's state, so that momentum does not change frozen weights."""
        for state in self.optimiser.state.values():
            state.zero_()

    @torch.no_grad()
    def _prune(self) -> None:
        left = self.tasks - int(self.sealed)
        flat, owner = (views(x, self.optimiser.parameters) for x in (self.optimiser.flat, self.owner))
        for weight, whose, shared in zip(flat, owner, self.shared, strict=True):
            mine = whose == self.sealed
            if shared and left > 1 and (count := int(mine.sum())):
                least = weight[mine].abs().topk(-(-count // left)).values[-1]
                free = mine & (weight.abs() < least)
                whose[free] += 1
                weight[free] = 0.0

    @torch.no_grad()
    def begin(self, drawn: dict[str, Tensor]) -> None:
        """Reinitialise the free weights."""
        actor: nn.Module = cast(Any, self.learner).actor
        owner = views(self.owner, self.optimiser.parameters)
        for (name, weight), whose, shared in zip(actor.named_parameters(), owner, self.shared, strict=True):
            if shared:
                weight.copy_(torch.where(whose == self.sealed, drawn[f"actor.{name}"], weight))
        if hasattr(self.learner, "target_actor"):  # the target network was neither pruned nor reinitialised
            cast(Any, self.learner).target_actor.load_state_dict(actor.state_dict())

    @torch.no_grad()
    def select_task(self, task: int) -> None:
        """Zero the weights of later tasks."""
        self.optimiser.flat.mul_(self.owner <= task)


PROTECTIONS: dict[str, type[Protection]] = {"l2": Anchored, "ewc": EWC, "packnet": PackNet}


def protect(learner: Learner, config: ProtectConfig, name: str) -> None:
    """Attach a protection to a learner as a submodule. Raises UserError if the learner has no Gaussian actor."""
    if config.by != "nothing":
        if not isinstance(learner, DifferentiableActorCritic):
            raise UserError(f"--{name}.protect needs a learner with an actor that outputs vectors: use td3 or sac.")
        learner.protection = PROTECTIONS[config.by](learner, config)
