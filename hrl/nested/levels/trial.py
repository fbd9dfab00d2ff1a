"""Trial updates of a level, differentiable in the quantities that the outer level learns; the outer level's critic."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from hrl.execution.processes import average_over_processes
from hrl.hierarchy.level import Level
from hrl.learners.actor_critic import regression
from hrl.learners.adam import FlatAdam, views
from hrl.learners.base import Batch, Metrics
from hrl.memory.transitions import Transitions
from hrl.nested.inner import Descent, State
from hrl.nested.optimisers import FunctionalAdam, Hyper
from hrl.nested.outer import slope_error
from hrl.nested.trees import cosine
from hrl.networks.functional import call
from hrl.networks.layers import Critics, polyak_update
from hrl.state import gather, restore
from hrl.types import UserError

Params = dict[str, Tensor]


class DifferentiableUpdate:
    """Computes a learner's critic and actor after a trial update, differentiable in batch, learning rates and
    temperature."""

    through_scale = False
    """Whether Adam's scale √v̂ is differentiated; LIRPG treats it as a constant."""

    def __init__(self, level: Level) -> None:
        if level.protection is not None:
            raise UserError(
                f"--tune and a learned reward cannot be combined with protection: for the {level.name} level, omit "
                "either them or --….protect.by."
            )
        self.learner = cast(Any, level.learner)

    def updated(
        self, batch: Batch, noise: Tensor, rates: dict[str, Hyper], extra: Params, steps: int = 1
    ) -> tuple[Params, Params]:
        """Parameters (critic, actor) by name, after `steps` steps of each with the learner's optimisers.

        `rates` can replace the learning rates of "critic" and "actor", and `extra` other parameters. `noise` [2, B, A].
        """
        critic, actor = self._state("critic"), self._state("actor")
        for _ in range(steps):
            critic = self._stepped("critic", critic, batch, noise[0], rates, actor.params | extra)
            actor = self._stepped("actor", actor, batch, noise[1], rates, critic.params | extra)
        return critic.params, actor.params

    def _stepped(
        self, part: str, state: State, batch: Batch, noise: Tensor, rates: dict[str, Hyper], held: Params
    ) -> State:
        rate = rates.get(part, getattr(self.learner, f"{part}_optimiser").lr)
        rule = FunctionalAdam(rate, through_scale=self.through_scale)
        inner = Descent(lambda p, held, step: self.call(f"{part}_objective", held | p, batch, noise), rule)
        return inner.step(state, held)

    def _state(self, part: str) -> State:
        """The parameters and the Adam state of the learner's optimiser for this part."""
        optimiser: FlatAdam = getattr(self.learner, f"{part}_optimiser")
        names = [f"{part}.{name}" for name, _ in getattr(self.learner, part).named_parameters()]
        mean, square = (
            dict(zip(names, views(optimiser.state[key], optimiser.parameters), strict=True))
            for key in ("first", "second")
        )
        params = dict(zip(names, (p.detach() for p in optimiser.parameters), strict=True))
        return State(params, {"mean": mean, "square": square, "count": optimiser.state["steps"]}, 0)

    def call(self, method: str, params: Params, *arguments: Any) -> Tensor:
        """Call a method of the learner with these parameters."""
        return call(self.learner, method, params, *arguments)


class OuterCritic:
    """The outer level's critic: the current policy's value for the outer reward and discount."""

    def __init__(self, level: Level, gamma: float, horizon: int = 1) -> None:
        self.level, self.gamma, self.horizon = level, level.gamma.new_tensor(gamma), horizon
        c = level.config.off_policy
        inputs, action = (level.memory.width(name) for name in ("state", "action"))
        with level.gamma.device:
            self.value, self.slow = (
                Critics(inputs + level.command.input_dim, action, c.hidden, c.layer_norm) for _ in range(2)
            )
        self.slow.load_state_dict(self.value.state_dict())
        self.optimiser = FlatAdam(self.value.parameters(), c.learning_rate)

    def __call__(self, batch: Batch, action: Tensor) -> Tensor:
        """The mean value [] of these actions."""
        return self.value(batch.inputs, action).amin(0).mean()

    def batch(self, t: Transitions) -> Batch:
        """The batch with the outer level's reward and discount."""
        return self.level.batch(t, self.gamma, outer=True)

    def learn(self, t: Transitions, generator: torch.Generator) -> None:
        """Take one gradient step towards the current policy's values. Learns from these transitions, or from
        `horizon`-step returns if `horizon` is above 1."""
        batch = self.batch(t) if self.horizon == 1 else self._long(len(t.state), generator)
        with torch.no_grad():
            action = self.level.learner.act(batch.next_inputs, None)
            target = batch.reward + batch.discount * self.slow(batch.next_inputs, action).amin(0)
        self.optimiser.minimise(regression(self.value(batch.inputs, batch.action), target, False))
        polyak_update(self.slow, self.value, self.level.config.off_policy.tau)

    def _long(self, size: int, generator: torch.Generator) -> Batch:
        """`horizon`-step returns from random rows: Σ γ^i r_i, bootstrapped at the horizon or at the episode's end.

        There is no off-policy correction for the stored actions.
        """
        replay, level = self.level.memory, self.level
        rows = replay.draw(size, generator)
        length = (replay.end(rows) - rows.row).clamp_max(self.horizon)
        ahead = torch.arange(self.horizon, device=length.device).unsqueeze(-1)
        rewards = replay.get(rows.later(torch.minimum(ahead, length - 1)), "reward").squeeze(-1)
        total = torch.where(ahead < length, self.gamma**ahead * rewards, 0.0).sum(0)
        first, last = replay.read(rows), replay.read(rows.later(length))
        # The command may have changed by then; a final row has no command.
        over_now = replay.is_final(rows.later(length)).unsqueeze(-1)
        over = replay.terminated(rows.later(length - 1))
        return Batch(
            inputs=level.inputs(first["state"], first["target"]),
            action=first["action"],
            reward=total,
            next_inputs=level.inputs(last["state"], torch.where(over_now, first["target"], last["target"])),
            discount=self.gamma**length * ~over,
        )

    def state_dict(self) -> Params:
        """The critic, its target network and the optimiser."""
        return gather({"value": self.value, "slow": self.slow, "adam": self.optimiser})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        restore({"value": self.value, "slow": self.slow, "adam": self.optimiser}, state)


@torch.no_grad()
def follow(optimiser: FlatAdam, gradient: list[Tensor], limit: float) -> Tensor:
    """Take a step with a meta-gradient, scaled down to the limit; skip it if it is not finite.

    Returns whether it is finite, a tensor [], without waiting for the device.
    """
    for place, g in zip(views(optimiser.gradient, optimiser.parameters), gradient, strict=True):
        place.copy_(g)
    average_over_processes(optimiser.gradient)
    length = torch.linalg.vector_norm(optimiser.gradient)
    usable = length.isfinite()
    optimiser.gradient.copy_(torch.where(usable, optimiser.gradient * (limit / length.clamp_min(limit)), 0.0))
    moved = [optimiser.flat, *optimiser.state.values()]
    before = [x.clone() for x in moved]
    optimiser.step()
    for x, old in zip(moved, before, strict=True):
        torch.where(usable, x, old, out=x)
    return usable


@torch.no_grad()
def trust(outer: Callable[[Params, int], Tensor], params: Params, gradient: Params, width: float = 1e-2) -> Metrics:
    """Metrics of the reliability of the gradient of outer(params, steps = 1).

    `slope_error` is the relative error of the change that the gradient predicts for a move of this width along it. It
    includes the effects of curvature and of terms that the trial update treats as constant (Adam's scale).
    `horizon_cosine` is the cosine between the gradient and the gradient through twice the steps.
    """
    longer = torch.func.grad(lambda p: outer(p, 2))(params)
    error = slope_error(lambda p: outer(p, 1), params, gradient, width)
    return {"slope_error": error, "horizon_cosine": cosine(gradient, longer)}
