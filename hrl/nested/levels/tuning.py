"""Hyperparameters that adapt during one run, by meta-gradient (Xu 2018; STAC: Zahavy 2020).

Before each update of a level, the tuner computes a trial update, differentiable in the level's learning rate, discount
and temperature. The result is evaluated on the *next* batch, with fixed reference values and a separate critic. The
hyperparameters follow the gradient of this evaluation: learning rate and temperature in their logarithms, a discount in
the logarithm of its horizon 1 / (1 - γ).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from hrl.hierarchy.level import Level
from hrl.hierarchy.relabelling.rewards import StepRewards
from hrl.learners import Metrics
from hrl.learners.actor_critic import DifferentiableActorCritic
from hrl.learners.adam import FlatAdam
from hrl.memory.transitions import Transitions
from hrl.nested.levels.trial import DifferentiableUpdate, OuterCritic, Params, follow, trust
from hrl.nested.optimisers import Hyper
from hrl.state import gather, restore
from hrl.types import UserError


@dataclass
class TuneConfig:
    """Options for the hyperparameters that --tune names."""

    learning_rate: float = 0.01
    """Step size of Adam on the logarithms of the hyperparameters."""
    gamma: float | None = None
    """Reference discount per environment step, with which an update is evaluated. Default: the level's discount, or .99
    per decision if the discount is tuned."""
    every: int = 1
    """Updates between two steps of the hyperparameters. A step costs as much as about four updates."""
    limit: float = 10.0
    """Maximum norm of the meta-gradient. Longer gradients are scaled down; non-finite gradients are skipped."""
    check_every: int = 500
    """Tuning steps between two checks of the meta-gradient (finite differences, twice the horizon); 0 disables them."""

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        if self.check_every < 0:
            raise UserError(f"--tuning.check-every must not be negative, but is {self.check_every}.")
        positive = self.learning_rate > 0 and self.limit > 0 and self.every > 0
        if not positive or (self.gamma is not None and not 0 < self.gamma < 1):
            raise UserError(
                f"--tuning.learning-rate, .limit and .every must be positive and --tuning.gamma between 0 and 1, "
                f"not {self.learning_rate}, {self.limit}, {self.every} and {self.gamma}."
            )


@dataclass(frozen=True)
class TunedParameter:
    """One hyperparameter, represented by its unbounded raw value: a logarithm."""

    name: str

    def raw(self, level: Level) -> float:
        """The initial raw value."""
        if self.name == "gamma":
            return -math.log1p(-level.config.gamma)
        return math.log(getattr(level.config.learner, self.name) or 1.0)

    def bounds(self, raw: float) -> tuple[float, float]:
        """Bounds of the raw value: a horizon of 1 to 10,000 steps for a discount, otherwise a factor of 1,000 from the
        initial value."""
        return (1e-3, math.log(1e4)) if self.name == "gamma" else (raw - math.log(1e3), raw + math.log(1e3))

    def value(self, raw: Tensor) -> Tensor:
        """The hyperparameter for a raw value."""
        return 1 - (-raw).exp() if self.name == "gamma" else raw.exp()


TUNABLE = ("learning_rate", "gamma", "ent_coef")


def tuned_by_name(level: str, levels: Sequence[str], names: Sequence[str], config: TuneConfig) -> list[Any]:
    """A list with the factory of a level's tuner; empty if none of its hyperparameters is named. A name has the form
    `low.learning_rate`, or `gamma` for an agent with a single level.

    Raises UserError for an unknown name.
    """
    config.check()
    chosen = []
    for name in names:
        owner, _, parameter = name.rpartition(".")
        owner = owner or (levels[0] if len(levels) == 1 else "")
        if parameter not in TUNABLE or owner not in levels:
            given = [f"{one}.{k}" if len(levels) > 1 else k for one in levels for k in TUNABLE]
            raise UserError(f"--tune {name} is not a tunable hyperparameter; choose from {', '.join(given)}.")
        if owner == level:
            chosen.append(parameter)
    return [TunedHyperparameters(tuple(chosen), config)] if chosen else []


@dataclass(frozen=True)
class TunedHyperparameters:
    """A factory of a level's tuner for these hyperparameters."""

    tunes: tuple[str, ...]
    config: TuneConfig

    def __call__(self, level: Level) -> "Tuning":
        """Make the tuner. Raises UserError if the level's learner does not have the hyperparameters, or if other
        options conflict with tuning."""
        c, names = level.config, self.tunes
        if not isinstance(level.learner, DifferentiableActorCritic):
            raise UserError(
                f"--tune {level.name}.{names[0]} needs a learner with differentiable updates: use td3 or sac."
            )
        if "ent_coef" in names and not hasattr(level.learner, "log_alpha"):
            raise UserError(f"--tune {level.name}.ent_coef: only SAC has a temperature; use the learner sac.")
        if "ent_coef" in names and getattr(c.learner, "ent_coef", None) == 0:
            raise UserError(f"--tune {level.name}.ent_coef needs a positive initial temperature, not 0.")
        whole = level.period.greatest > 1 and not any(isinstance(r, StepRewards) for r in level.relabels)
        if "gamma" in names and whole:
            raise UserError(
                f"--tune {level.name}.gamma is not possible, because this level stores discounted rewards: tune other "
                "hyperparameters."
            )
        if "gamma" in names and not 0 < c.gamma < 1:
            raise UserError(f"--tune {level.name}.gamma needs an initial value between 0 and 1, not {c.gamma}.")
        if "learning_rate" in names and (c.schedule != "constant" or c.warmup):
            raise UserError(
                f"--tune {level.name}.learning_rate cannot be combined with a schedule or warm-up of the learning rate."
            )
        return Tuning(level, names, self.config)


class Tuning:
    """Tunes a level's hyperparameters by meta-gradient."""

    def __init__(self, level: Level, names: Sequence[str], config: TuneConfig) -> None:
        self.level, self.config = level, config
        self.learner = cast(Any, level.learner)
        self.parameters = [TunedParameter(name) for name in dict.fromkeys(names)]
        self.raw = [nn.Parameter(level.gamma.new_tensor(p.raw(level))) for p in self.parameters]
        self.optimiser = FlatAdam(self.raw, config.learning_rate)
        self.bounds = [p.bounds(float(x.detach())) for p, x in zip(self.parameters, self.raw, strict=True)]
        reference = (
            config.gamma
            if config.gamma is not None
            else 0.99 ** (1 / level.period.mean)
            if "gamma" in names
            else level.config.gamma
        )
        self.trial, self.outer_critic = DifferentiableUpdate(level), OuterCritic(level, reference)
        rates = cast(Any, level.config.learner)
        self.ratio = (rates.actor_learning_rate or rates.learning_rate) / rates.learning_rate
        self.skipped = torch.zeros_like(level.gamma)
        self.intrinsic_reward = None
        self._apply()

    def step(self, number: int, now: Transitions, following: Transitions, generator: torch.Generator) -> Metrics:
        """Before update `number`: train the outer critic, evaluate a trial update, and adapt the hyperparameters."""
        noise = torch.randn((2, *now.action.shape), generator=generator, device=now.action.device)
        self.outer_critic.learn(now, generator)
        metrics = {f"tuned_{name}": x for name, x in self.values().items()}
        if number % self.config.every:
            return metrics
        raw = {p.name: x.detach() for p, x in zip(self.parameters, self.raw, strict=True)}
        with torch.no_grad():  # gradients only of the hyperparameters
            outer = lambda raw, steps: self._outer(raw, now, following, noise, steps)  # noqa: E731
            gradient, loss = torch.func.grad_and_value(lambda raw: outer(raw, 1))(raw)
            if self.config.check_every and number // self.config.every % self.config.check_every == 0:
                metrics |= {f"tuning_{name}": x for name, x in trust(outer, raw, gradient).items()}
        self.skipped += (
            1 - follow(self.optimiser, [gradient[p.name] for p in self.parameters], self.config.limit).float()
        )
        self._apply()
        return {"tuning_loss": loss.detach(), "tuning_skipped": self.skipped.clone(), **metrics}

    def _outer(self, raw: Params, now: Transitions, following: Transitions, noise: Tensor, steps: int = 1) -> Tensor:
        """The critic's error minus the actor's value on the next batch, after `steps` trial updates on this one."""
        values = {name: TunedParameter(name).value(x) for name, x in raw.items()}
        extra = {"log_alpha": values["ent_coef"].log()} if "ent_coef" in values else {}
        rates: dict[str, Hyper] = {}
        if "learning_rate" in values:
            rates = {"critic": values["learning_rate"], "actor": values["learning_rate"] * self.ratio}
        critic, actor = self.trial.updated(self.level.batch(now, values.get("gamma")), noise, rates, extra, steps)
        error = self.trial.call(
            "critic_objective", critic, self.level.batch(following, self.outer_critic.gamma), noise[1]
        )
        batch = self.outer_critic.batch(following)
        return error - self.outer_critic(batch, self.trial.call("mode", actor, batch.inputs))

    # -- current values --------------------------------------------------------------------------------------

    def values(self) -> Params:
        """The hyperparameters by name."""
        return {p.name: p.value(x.detach()) for p, x in zip(self.parameters, self.raw, strict=True)}

    @torch.no_grad()
    def _apply(self) -> None:
        for x, bounds in zip(self.raw, self.bounds, strict=True):
            x.clamp_(*bounds)
        values = self.values()
        if "gamma" in values:
            self.level.gamma.copy_(values["gamma"])
        if "ent_coef" in values:
            self.learner.log_alpha.copy_(values["ent_coef"].log())
        if "learning_rate" in values:
            for name, optimiser in self.learner.optimisers().items():
                optimiser.lr.copy_(values["learning_rate"] * (self.ratio if name.startswith("actor") else 1.0))

    def state_dict(self) -> Params:
        """The raw values, their optimiser, and the outer critic."""
        raw = {f"raw.{p.name}": x.detach() for p, x in zip(self.parameters, self.raw, strict=True)}
        return raw | gather({"adam": self.optimiser, "judge": self.outer_critic}) | {"skipped": self.skipped}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        for p, x in zip(self.parameters, self.raw, strict=True):
            x.copy_(state[f"raw.{p.name}"])
        restore({"adam": self.optimiser, "judge": self.outer_critic}, state)
        self.skipped.copy_(state["skipped"])
        self._apply()
