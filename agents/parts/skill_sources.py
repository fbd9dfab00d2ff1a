"""Existing skills: trained runs, models of stable-baselines3 and sb3-contrib, and plain functions."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hrl.hierarchy.setting import Setting
from hrl.policies.frozen import Conditioned, Frozen, Plain, Predicts
from hrl.report.display import warn
from hrl.types import UserError

KEYS = ("name", "period", "observe", "latent", "available", "ends", "reward")
LIBRARIES = ("stable_baselines3", "sb3_contrib")


@dataclass(frozen=True)
class SkillSource:
    """One skill: `SOURCE[,name=…][,period=…][,observe=…][,available=…][,ends=…][,latent=…][,reward=…]`."""

    source: str
    """A run folder, `sb3:FILE.zip:CLASS`, or `module:function`."""
    name: str
    """Its name in metrics."""
    period: int | None = None
    """Maximum number of environment steps of one execution. Default: the controller's period."""
    observe: tuple[int, ...] = ()
    """Entries of the flattened observation that it receives. Default: the observation in the environment's form."""
    latent: int = 0
    """Number of entries of a latent vector that it takes in addition to the observation (functions only)."""
    available: str | None = None
    """`module:function` from states [..., D] to [...]: whether the skill can start. Default: always."""
    ends: str | None = None
    """`module:function` from states [..., D] to [...]: whether the skill ends before its period is over."""
    reward: str | None = None
    """`module:function` from states and next states [..., D] to [...]: the reward from which a trainable skill learns.
    Default: the task's reward."""

    @classmethod
    def parse(cls, text: str) -> "SkillSource":
        """Read the text form. Raises UserError if it is invalid."""
        source, *options = text.split(",")
        values: dict[str, Any] = {}
        for option in options:
            key, equals, value = option.partition("=")
            if key not in KEYS or not equals:
                raise UserError(f"--skill {text}: {option!r} must be one of {', '.join(f'{k}=…' for k in KEYS)}.")
            values[key] = _read(key, value, text)
        return cls(source, **({"name": default_name(source)} | values))


def _read(key: str, value: str, text: str) -> Any:
    try:
        if key in ("period", "latent"):
            number = int(value)
            if number < 1:
                raise ValueError
            return number
        if key == "observe":
            ranges = [part.partition("-") for part in value.split("+")]
            return tuple(i for low, _, high in ranges for i in range(int(low), int(high or low) + 1))
    except ValueError:
        expected = "entries such as 0-26+30" if key == "observe" else "a positive whole number"
        raise UserError(f"--skill {text}: {key} must be {expected}, not {value!r}.") from None
    return value


def default_name(source: str) -> str:
    """A short name for metrics: the model's file, the function, or the run's environment and folder."""
    if source.startswith("sb3:"):
        return Path(source.split(":")[1]).stem
    return source.rpartition(":")[2] if ":" in source else Path(source).name


def load_skill(skill: SkillSource, setting: Setting) -> Frozen:
    """Load one skill, and test it on the environment's observations. Raises UserError if it cannot be loaded, or if it
    does not fit the environment."""
    spec, env = setting.spec, setting.env
    assert env is not None
    outside = [i for i in skill.observe if not 0 <= i < spec.state_dim]
    if outside:
        raise UserError(
            f"The skill {skill.name} observes entries {outside}, but the observation has {spec.state_dim} entries."
        )
    policy = load_policy(skill, setting)
    try:
        return Frozen(policy, skill.name, skill.observe, skill.latent, env)
    except Exception as error:  # the policy may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"The skill {skill.name} does not fit {spec.env_id}: {reason}. Select the entries that it observes with "
            f"{skill.source},observe=0-{max(spec.state_dim - 1, 0)}."
        ) from error


def load_policy(skill: SkillSource, setting: Setting) -> Predicts:
    """The policy of a source. Raises UserError if it cannot be loaded."""
    source = skill.source
    if source.startswith("sb3:"):
        return load_model(source, setting.device)
    if ":" in source:
        return wrapped(imported(source), skill)
    if skill.latent:
        raise UserError(f"The skill {skill.name} cannot take a latent vector: only functions can.")
    assert setting.load_policy is not None
    policy: Predicts = setting.load_policy(Path(source))
    if not hasattr(policy, "predict"):
        raise UserError(f"The run {source} cannot be a skill: its policy has no predict().")
    return policy


def wrapped(thing: Any, skill: SkillSource) -> Predicts:
    """An imported object as a policy: it has `predict`, or is a function of observations."""
    if skill.latent:
        return Conditioned(thing)
    if hasattr(thing, "predict") and not inspect.isclass(thing):
        return thing
    if not callable(thing):
        raise UserError(f"The skill {skill.source} must be a function of observations, or have predict().")
    return Plain(thing)


def load_model(source: str, device: torch.device) -> Predicts:
    """A model of stable-baselines3 or sb3-contrib, from `sb3:FILE.zip:CLASS`."""
    _, _, rest = source.partition(":")
    file, _, name = rest.rpartition(":")
    if not file or not name:
        raise UserError(f"The skill {source} must have the form sb3:FILE.zip:CLASS, such as sb3:model.zip:PPO.")
    if not Path(file).is_file():
        raise UserError(f"The model file {file} does not exist.")
    warn(f"{file} is a pickle file: loading it runs its code.")
    try:
        return with_fixed_mode(_class_of(name).load(file, device=device))
    except UserError:
        raise
    except Exception as error:  # a damaged file, or another kind of file
        reason = " ".join(str(error).split())
        raise UserError(f"The model {file} cannot be loaded as {name} ({type(error).__name__}: {reason}).") from error


def with_fixed_mode(model: Any) -> Predicts:
    """The model, fixed in evaluation mode. Otherwise, `predict` sets the mode of every layer in each call, which takes
    half of its time."""
    model.policy.set_training_mode(False)
    model.policy.set_training_mode = lambda mode: None
    return model


def _class_of(name: str) -> Any:
    for library in LIBRARIES:
        try:
            found = getattr(importlib.import_module(library), name, None)
        except ImportError:
            continue
        if found is not None:
            return found
    raise UserError(f"Neither stable-baselines3 nor sb3-contrib (if it is installed) has an algorithm {name!r}.")


def imported(name: str) -> Callable[..., Any]:
    """The object `module:name`. Raises UserError if it cannot be imported."""
    module, _, attribute = name.rpartition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return found
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(f"{name!r} cannot be imported ({type(error).__name__}: {error}).") from error
