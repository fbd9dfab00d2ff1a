"""Command-line options that select configurations. They are read before all other options."""

import contextlib
from collections.abc import Sequence, Set
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from hrl.types import UserError
from hrl.variants import Variant

NUMBERS = ConstructorRegistry()
"""Rules for the values of options: an integer may also be written as 1e6."""


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


def whole(text: str) -> int:
    """The integer that a text like 1000000, 1_000_000 or 1e6 shows. Raises ValueError for other texts."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        if (number := float(text)).is_integer():
            return int(number)
    raise ValueError(f"{text!r} is not a whole number")


@NUMBERS.primitive_rule
def _integers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda given: whole(given[0]),
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


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
