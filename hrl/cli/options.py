"""Command-line options that select configurations. They are read before all other options."""

from collections.abc import Sequence, Set
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

from hrl.types import UserError
from hrl.variants import Variant


@runtime_checkable
class Fitted(Protocol):
    """A configuration with options that depend on the chosen variants."""

    def fitted(self, given: Set[str]) -> Any:
        """A copy with adapted options; `given` options keep their values."""


def choose(config: Any, arguments: Sequence[str], prefix: str = "--") -> Any:
    """The configuration with the variants that the arguments choose (`--low.learner sac`).

    Raises UserError for an option of another variant.
    """
    changes: dict[str, Any] = {}
    for field in fields(config):
        current = getattr(config, field.name)
        if isinstance(current, Variant):
            option = prefix + field.name
            variant = current.switched(peek(arguments, option) or current.kind, option)
            _refuse_others(variant, config, arguments, prefix, option)
            changes[field.name] = variant
        elif is_dataclass(current) and not isinstance(current, type):
            changes[field.name] = choose(current, arguments, f"{prefix}{field.name}.")
    config = replace(config, **changes) if changes else config
    names = {underscored(a, prefix) for a in arguments if a.startswith(prefix)}
    return config.fitted(names) if isinstance(config, Fitted) else config


def _refuse_others(variant: Variant, config: Any, arguments: Sequence[str], prefix: str, option: str) -> None:
    own = {f.name for f in fields(config)} | {f.name for f in fields(variant)}
    for argument in arguments:
        name = underscored(argument, prefix)
        if argument.startswith(prefix) and name not in own and (owners := variant.owners(name)):
            raise UserError(
                f"{dashed(argument)} is an option of {' and '.join(owners)}, but {option} is {variant.kind}."
            )


def peek(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option; the last one if it is given several times, as tyro does; None if it is not given."""
    return next(reversed(values_of(arguments, option)), None)


def values_of(arguments: Sequence[str], option: str) -> list[str]:
    """The values of an option, in their order; empty without the option, or if nothing follows it."""
    values: list[str] = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if dashed(name) == option:
            values += [value] if equals else arguments[i + 1 : i + 2]
    return values


def dashed(argument: str) -> str:
    """The name of an option with dashes, without its value: tyro also accepts underscores."""
    return argument.partition("=")[0].replace("_", "-")


def underscored(argument: str, prefix: str) -> str:
    """The name of an option without its prefix and value, as the field of a configuration."""
    return dashed(argument).removeprefix(prefix).replace("-", "_")


def with_value(arguments: Sequence[str], option: str, value: str) -> list[str]:
    """The arguments with another value of an option, which is added if it is not given."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if dashed(argument) != option:
            kept.append(argument)
        elif "=" not in argument:
            next(rest, None)
    return [*kept, option, value]
