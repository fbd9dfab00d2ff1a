"""Hyperparameters that adapt during one run, by meta-gradient (Xu 2018; STAC: Zahavy 2020).

Before each update of a level on one batch, the update is made on trial, differentiably in the level's learning rate,
discount and temperature; the *next* batch says how good what came of it is, at fixed reference values and by a value
head of its own. The hyperparameters follow that gradient: rates and temperature on their logarithms, a discount on
the logarithm of its horizon 1 / (1 - γ).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hrl.learners import Metrics
from hrl.learners.adam import Adam as FlatAdam
from hrl.learners.adam import views
from hrl.learners.base import regression
from hrl.level import Level
from hrl.nested.inner import Descent, State
from hrl.nested.optimisers import Adam
from hrl.networks import TwinCritic, track
from hrl.replay.transitions import Transitions
from hrl.types import UserError

Params = dict[str, Tensor]


@dataclass
class TuneConfig:
    """How hyperparameters are tuned; which, says --tune."""

    lr: float = 0.01
    """Step size of Adam on their logarithms."""
    gamma: float = 0.99
    """Reference discount an environment step, by which what an update does is judged."""
    every: int = 1
    """Updates from one look at the hyperparameters to the next; a look costs about four updates."""
    limit: float = 10.0
    """Longest meta-gradient; longer ones are cut, and such that are not finite skipped."""

    def check(self) -> None:
        """Raise UserError where a value cannot be meant."""
        if not (self.lr > 0 and self.limit > 0 and self.every > 0 and 0 < self.gamma < 1):
            raise UserError(
                f"--tuning.lr, .limit and .every must be positive and --tuning.gamma between 0 and 1, "
                f"not {self.lr}, {self.limit}, {self.every} and {self.gamma}."
            )


@dataclass(frozen=True)
class Knob:
    """One hyperparameter as an unbounded number."""

    name: str

    def raw(self, level: Level) -> float:
        """Where it begins."""
        c = level.config
        begins = {"lr": c.lr, "gamma": 1 / (1 - c.gamma), "entropy": c.entropy or 1.0}
        return math.log(begins[self.name])

    def value(self, raw: Tensor) -> Tensor:
        """The hyperparameter itself."""
        return 1 - (-raw).exp() if self.name == "gamma" else raw.exp()


KNOBS = ("lr", "gamma", "entropy")


def tune(levels: Sequence[Level], names: Sequence[str], config: TuneConfig) -> None:
    """Give levels their tuners. `names` are `low.lr`, `high.gamma`; `lr` alone where there is one level.

    Raises UserError for a name that is none, or that this level's learner does not have.
    """
    config.check()
    chosen: dict[str, list[str]] = {}
    for name in names:
        owner, _, knob = name.rpartition(".")
        owner = owner or (levels[0].name if len(levels) == 1 else "")
        if knob not in KNOBS or owner not in {level.name for level in levels}:
            given = [f"{level.name}.{k}" if len(levels) > 1 else k for level in levels for k in KNOBS]
            raise UserError(f"--tune {name} is no hyperparameter that can be tuned; there are {', '.join(given)}.")
        chosen.setdefault(owner, []).append(knob)
    for level in levels:
        if knobs := chosen.get(level.name):
            if "entropy" in knobs and not hasattr(level.learner, "log_alpha"):
                raise UserError(f"--tune {level.name}.entropy: only SAC has a temperature; set its learner to sac.")
            if "lr" in knobs and (level.config.schedule != "constant" or level.config.warmup):
                raise UserError(f"--tune {level.name}.lr: a learning rate that is tuned has no schedule or warm-up.")
            level.tuner = Tuning(level, knobs, config)


class Tuning:
    """A level's tuner."""

    def __init__(self, level: Level, knobs: Sequence[str], config: TuneConfig) -> None:
        self.level, self.config = level, config
        self.learner = cast(Any, level.learner)
        self.knobs = [Knob(name) for name in dict.fromkeys(knobs)]
        device = level.gamma.device
        self.raw = [nn.Parameter(torch.tensor(knob.raw(level), device=device)) for knob in self.knobs]
        self.optimiser = FlatAdam(self.raw, config.lr)
        with device:
            width = level.replay.fields["action"]
            self.judge = TwinCritic(_inputs(level), width.stop - width.start, level.config.hidden)
            self.slow_judge = TwinCritic(_inputs(level), width.stop - width.start, level.config.hidden)
        self.slow_judge.load_state_dict(self.judge.state_dict())
        self.judge_optimiser = FlatAdam(self.judge.parameters(), level.config.lr)
        self.ratio = (level.config.actor_lr or level.config.lr) / level.config.lr
        self.reference = torch.tensor(config.gamma, device=device)
        self.skipped = torch.zeros((), device=device)
        if "entropy" in knobs:
            self.learner.learned = False
        if "gamma" in knobs:
            self.learner.value_range = None  # known for one discount only
        self._apply()

    # -- a step ----------------------------------------------------------------------------------------------

    def step(self, number: int, now: Transitions, following: Transitions, generator: torch.Generator) -> Metrics:
        """Before the update of this number: judge it on trial, move the hyperparameters. The value head learns."""
        shape, device = (2, *now.action.shape), now.action.device
        noise = torch.randn(shape, generator=generator, device=device)
        raw = {knob.name: x.detach() for knob, x in zip(self.knobs, self.raw, strict=True)}
        self._teach(now)
        metrics = {f"tuned_{name}": x for name, x in self.values().items()}
        if number % self.config.every:
            return metrics
        gradient, loss = torch.func.grad_and_value(self._outer)(raw, now, following, noise)
        self._move([gradient[knob.name] for knob in self.knobs])
        return {"tuning_loss": loss.detach(), "tuning_skipped": self.skipped, **metrics}

    def _outer(self, raw: Params, now: Transitions, following: Transitions, noise: Tensor) -> Tensor:
        """How good critic and actor are on the next batch after a trial update on this one."""
        values = {name: Knob(name).value(x) for name, x in raw.items()}
        critic, actor = self._trial(values, now, noise)
        batch = self.level.batch(following, self.reference)
        error = self._call("critic_objective", critic, batch, noise[1])
        action = self._call("mode", actor, batch.inputs)
        return error - self.judge(batch.inputs, action).amin(0).mean()

    def _trial(self, values: Params, now: Transitions, noise: Tensor) -> tuple[Params, Params]:
        """Critic and actor after the learner's own steps, as functions of the hyperparameters."""
        learner = self.learner
        batch = self.level.batch(now, values.get("gamma"))
        extra = {"log_alpha": values["entropy"].log()} if "entropy" in values else {}

        def stepped(part: str, objective: str, held: Params, noise: Tensor, share: float) -> Params:
            optimiser: FlatAdam = getattr(learner, f"{part}_optimiser")
            names = [f"{part}.{n}" for n, _ in getattr(learner, part).named_parameters()]
            lr = values["lr"] * share if "lr" in values else optimiser.lr
            inner = Descent(
                lambda p, held, step: self._call(objective, held | p, batch, noise), Adam(lr, through_scale=False)
            )
            return inner.step(_state(names, optimiser), held).params

        critic = stepped("critic", "critic_objective", extra, noise[0], 1.0)
        actor = stepped("actor", "actor_objective", critic | extra, noise[1], self.ratio)
        return critic, actor

    def _call(self, method: str, params: Params, *arguments: Any) -> Tensor:
        return functional_call(_Call(self.learner, method), {f"learner.{n}": x for n, x in params.items()}, arguments)

    @torch.no_grad()
    def _move(self, gradient: list[Tensor]) -> None:
        """Cut to the limit; one that is not finite moves nothing, and is counted. The host is not asked."""
        flat = torch.stack(gradient)
        length = torch.linalg.vector_norm(flat)
        usable = length.isfinite()
        self.skipped = self.skipped + (~usable).float()
        flat = torch.where(usable, flat * (self.config.limit / length.clamp_min(self.config.limit)), 0.0)
        for place, g in zip(self.optimiser._places, flat, strict=True):
            place.copy_(g)
        if self.optimiser.average is not None:
            self.optimiser.average(self.optimiser.gradient)
        self.optimiser.step()
        self._apply()

    def _teach(self, now: Transitions) -> None:
        """The value head learns the current policy's values at the reference discount."""
        batch = self.level.batch(now, self.reference)
        with torch.no_grad():
            action = self.learner.act(batch.next_inputs, None)
            target = batch.reward + batch.discount * self.slow_judge(batch.next_inputs, action).amin(0)
        self.judge_optimiser.minimise(regression(self.judge(batch.inputs, batch.action), target, False))
        track(self.slow_judge, self.judge, self.level.config.tau)

    # -- what is in force ------------------------------------------------------------------------------------

    def values(self) -> Params:
        """The hyperparameters by name."""
        return {knob.name: knob.value(x.detach()) for knob, x in zip(self.knobs, self.raw, strict=True)}

    @torch.no_grad()
    def _apply(self) -> None:
        values, learner = self.values(), self.learner
        if "gamma" in values:
            self.level.gamma.copy_(values["gamma"])
        if "entropy" in values:
            learner.log_alpha.copy_(values["entropy"].log())
        if "lr" in values:
            for name, optimiser in learner.optimisers().items():
                optimiser.lr.copy_(values["lr"] * (self.ratio if name.startswith("actor") else 1.0))

    def tensors(self) -> Params:
        """By name, for a checkpoint."""
        tensors = {f"raw.{knob.name}": x.detach() for knob, x in zip(self.knobs, self.raw, strict=True)}
        tensors |= {f"adam.{name}": x for name, x in self.optimiser.state.items()}
        tensors |= {f"judge_adam.{name}": x for name, x in self.judge_optimiser.state.items()}
        for name in ("judge", "slow_judge"):
            tensors |= {f"{name}.{n}": x for n, x in getattr(self, name).state_dict().items()}
        return tensors | {"skipped": self.skipped}

    @torch.no_grad()
    def load_tensors(self, tensors: Params) -> None:
        """Take over what `tensors` gave."""
        for name, mine in self.tensors().items():
            mine.copy_(tensors[name])
        self._apply()


class _Call(nn.Module):
    """One method of a learner as a module, for `functional_call`."""

    def __init__(self, learner: nn.Module, method: str) -> None:
        super().__init__()
        self.learner, self.method = learner, method

    def forward(self, *arguments: Any) -> Tensor:
        return getattr(self.learner, self.method)(*arguments)


def _state(names: list[str], optimiser: FlatAdam) -> State:
    """Where a learner's own optimiser stands, as an inner optimisation's state."""
    parts = {key: views(optimiser.state[key], optimiser.parameters) for key in ("first", "second")}
    params = dict(zip(names, (p.detach() for p in optimiser.parameters), strict=True))
    mean, square = (dict(zip(names, parts[key], strict=True)) for key in ("first", "second"))
    return State(params, {"mean": mean, "square": square, "count": optimiser.state["steps"]}, 0)


def _inputs(level: Level) -> int:
    return level.replay.fields["state"].stop - level.replay.fields["state"].start + level.command.input_dim
