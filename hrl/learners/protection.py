"""What a slow level keeps of earlier tasks while it learns another: L2, EWC (Kirkpatrick 2017), PackNet (Mallya 2018).

The level's actor is what is protected, as in Continual World (Wołczyk 2021); critics learn on. A protection changes the
gradient of the actor's optimiser, so that a learner knows nothing of it; its own state is a part of the learner's
networks, and goes with them into every checkpoint. At the end of a task it is *sealed*: what was learned is noted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from hrl.learners.adam import FlatAdam, views
from hrl.learners.base import DifferentiableActorCritic, Learner
from hrl.networks.functional import call
from hrl.networks.layers import TaskLinear
from hrl.types import UserError

CHUNK = 64
"""Samples whose gradients are taken at once."""
LEAST_IMPORTANCE = 1e-5
"""Of a parameter (as in Continual World)."""


@dataclass
class ProtectConfig:
    """How a level keeps what it learned on earlier tasks (with --…load)."""

    by: Literal["nothing", "l2", "ewc", "packnet"] = "nothing"
    """A pull back to the earlier actor's parameters, alike (l2) or by their Fisher information (ewc); or weights of
    their own for every task (packnet)."""
    strength: float = 1.0
    """Factor on the pull of l2 and ewc."""
    samples: int = 1024
    """Situations on which the Fisher information is measured."""
    updates: int = 1000
    """Updates on the earlier run's replay after its actor was pruned (packnet)."""

    def check(self, prefix: str, tasks: int) -> None:
        """Raise UserError where a value is invalid."""
        if not self.strength > 0 or self.samples < 1 or self.updates < 0:
            raise UserError(
                f"{prefix}protect.strength and .samples must be positive and .updates not negative, "
                f"not {self.strength}, {self.samples} and {self.updates}."
            )
        if self.by == "packnet" and tasks < 2:
            raise UserError(
                f"{prefix}protect.by packnet shares an actor's weights out among tasks: say with {prefix}tasks how "
                "many there will be."
            )


class Material:
    """What a level has at the end of a task: situations it was in, and a replay to learn from."""

    def __init__(self, inputs: Callable[[int], Tensor], learn: Callable[[int], None]) -> None:
        self.inputs, self.learn = inputs, learn


class Protection(nn.Module):
    """Guards a learner's actor. `sealed` counts the tasks behind it."""

    sealed: Tensor

    def __init__(self, learner: Learner, config: ProtectConfig) -> None:
        super().__init__()
        # Not registered: the learner owns this module, not the other way round.
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
        """The task of each parameter that is a task's own, and `shared` for the others; laid out as the optimiser's."""
        owner = torch.full_like(self.optimiser.flat, shared)
        for place, owned in zip(views(owner, self.optimiser.parameters), self.owned, strict=True):
            if owned:  # [tasks, ...]
                place.copy_(torch.arange(len(place)).view(-1, *[1] * (place.dim() - 1)).expand_as(place))
        return owner

    def guard(self, gradient: Tensor, flat: Tensor) -> None:
        """Change the actor's gradient in place; both are laid out as the optimiser's parameters."""
        raise NotImplementedError

    def seal(self, material: Material) -> None:
        """A task is over: note what must be kept."""
        raise NotImplementedError

    def begin(self, drawn: dict[str, Tensor]) -> None:
        """The next task begins, from parameters that were loaded; `drawn` are new ones, by the learner's names."""

    def recall(self, task: int) -> None:
        """Put the actor's weights as they were for a task that is over. For acting only."""


class Anchored(Protection):
    """λ/2 Σ_i F_i (θ_i - θ*_i)². For L2 F counts the tasks that a parameter was there for."""

    anchor: Tensor
    importance: Tensor

    def __init__(self, learner: Learner, config: ProtectConfig) -> None:
        super().__init__(learner, config)
        for name in ("anchor", "importance"):
            self.register_buffer(name, torch.zeros_like(self.optimiser.flat))

    def guard(self, gradient: Tensor, flat: Tensor) -> None:
        """Add λ F (θ - θ*)."""
        gradient.addcmul_(self.importance, flat - self.anchor, value=self.config.strength)

    @torch.no_grad()
    def seal(self, material: Material) -> None:
        """Importances of tasks add up; the anchor is where the last one ended."""
        self.importance += self.measured(material)
        self.anchor.copy_(self.optimiser.flat)
        self.sealed += 1

    def measured(self, material: Material) -> Tensor:
        """The importance of every parameter to the task that is over."""
        owner = self.owners(-1)
        return ((owner < 0) | (owner == self.sealed)).float()


class EWC(Anchored):
    """The importance is the diagonal of the Fisher information."""

    def measured(self, material: Material) -> Tensor:
        """Over situations of the task."""
        return fisher(self.learner, self.optimiser, material.inputs(self.config.samples)).clamp_min(LEAST_IMPORTANCE)


def fisher(learner: Learner, optimiser: FlatAdam, inputs: Tensor) -> Tensor:
    """The diagonal Fisher information of the actor's Gaussian N(μ, σ): E Σ_a [(∂μ_a)² + 2 (∂σ_a)²] / σ_a².

    Laid out as the optimiser's parameters; inputs are [B, I].
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
    """Every task has weights of its own, reads those of earlier tasks, and changes none of them.

    `owner` is the task of each parameter: a task that is over keeps the largest of its weights, an equal share for
    each task to come, and the rest is free for the next. Biases stay as the first task left them, save those that are a
    task's own.
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
        """Only what the task at hand owns moves."""
        gradient.mul_(self.owner == self.sealed)

    def seal(self, material: Material) -> None:
        """Prune, learn on with what is left, and hand on what is free."""
        self._prune()
        self._halt()
        material.learn(self.config.updates)
        self._halt()
        self.sealed += 1

    @torch.no_grad()
    def _halt(self) -> None:
        """What is not to move has no momentum left."""
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
        """Free weights are drawn anew."""
        actor: nn.Module = cast(Any, self.learner).actor
        owner = views(self.owner, self.optimiser.parameters)
        for (name, weight), whose, shared in zip(actor.named_parameters(), owner, self.shared, strict=True):
            if shared:
                weight.copy_(torch.where(whose == self.sealed, drawn[f"actor.{name}"], weight))
        if hasattr(self.learner, "target_actor"):  # the slow copy has neither been pruned nor drawn anew
            cast(Any, self.learner).target_actor.load_state_dict(actor.state_dict())

    @torch.no_grad()
    def recall(self, task: int) -> None:
        """Without the weights of later tasks."""
        self.optimiser.flat.mul_(self.owner <= task)


PROTECTIONS: dict[str, type[Protection]] = {"l2": Anchored, "ewc": EWC, "packnet": PackNet}


def protect(learner: Learner, config: ProtectConfig, name: str) -> None:
    """Give a learner its protection, as a part of its networks. Raises UserError where it has no Gaussian actor."""
    if config.by != "nothing":
        if not isinstance(learner, DifferentiableActorCritic):
            raise UserError(f"--{name}.protect guards an actor of vectors: use td3 or sac.")
        learner.protection = PROTECTIONS[config.by](learner, config)
