"""Conversion between configuration dataclasses and the plain values of presets and stored runs."""

import contextlib
import difflib
import json
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from hrl.types import UserError
from hrl.variants import Variant

C = TypeVar("C")
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
"""Numbers such as 1e-3, which PyYAML reads as texts, because YAML 1.1 requires a point and a sign."""


def updated(config: C, values: Mapping[str, Any], source: str, beside: Iterable[str] = ()) -> C:
    """A copy of a configuration dataclass with these values, which may be nested mappings.

    Raises UserError, naming the source, for unknown names and values of the wrong type. Its suggestions include the
    names `beside`, which belong to other configurations.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{source} must map options to values, not be {_short(values)}.")
    hints = get_type_hints(type(config))
    known = [f.name for f in fields(config)]  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}  # options of variants, which may appear next to the variant's name
    for name, value in values.items():
        owner = name if isinstance(getattr(config, name, None), Variant) else variant_with(config, name, values, source)
        if owner is not None:
            chosen = value if isinstance(value, Mapping) else {"kind" if owner == name else name: value}
            parts.setdefault(owner, {}).update(chosen)
        elif name not in known:
            raise UserError(f"{source} has no option {name!r}.{_hint(name, [*names_of(config), *beside])}")
        else:
            current = getattr(config, name)
            nested = is_dataclass(current) and isinstance(value, Mapping)
            where = f"{source}: {name}"
            changes[name] = updated(current, value, where) if nested else coerced(value, hints[name], where)
    for name, given in parts.items():
        where = f"{source}: {name}"
        variant = getattr(config, name).switched(given.pop("kind", getattr(config, name).kind), where)
        changes[name] = updated(variant, given, where)
    return replace(config, **changes)  # type: ignore[type-var]


def names_of(config: Any) -> list[str]:
    """The names of a configuration's options, with those of its chosen variants."""
    variants = [x for f in fields(config) if isinstance(x := getattr(config, f.name), Variant)]
    return [f.name for part in (config, *variants) for f in fields(part) if f.name != "kind"]


def variant_with(config: Any, option: str, values: Mapping[str, Any], source: str) -> str | None:
    """The field with the variant that has this option; None if there is none. Raises UserError if the option belongs to
    a kind of variant that is not chosen."""
    if option in {f.name for f in fields(config)}:
        return None
    for field in fields(config):
        current = getattr(config, field.name)
        if isinstance(current, Variant) and (owners := current.owners(option)):
            chosen = values.get(field.name, current.kind)
            kind = chosen.get("kind", current.kind) if isinstance(chosen, Mapping) else chosen
            if kind in owners or kind not in current.choices:
                return field.name
            raise UserError(
                f"{source}: {option} is an option of {' and '.join(owners)}, but the {field.name} is {kind}."
            )
    return None


def plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain values, which `updated` converts back."""
    return json.loads(json.dumps(_flattened(config), default=str))


def _flattened(config: Any) -> Any:
    """Convert dataclasses to dictionaries. The options of a variant appear next to its name, as on the command line."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Variant):
            options = _flattened(value)
            values |= {field.name: options.pop("kind"), **options}
        else:
            values[field.name] = _flattened(value)
    return values


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def coerced(value: Any, kind: Any, where: str) -> Any:
    """A plain value (from YAML, JSON or a program) as the annotated type. Arrays and numbers of numpy are lists and
    numbers, and 1e6 is an integer. Raises UserError if the value does not match."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if kind in (int, float) and isinstance(value, str) and EXPONENT.fullmatch(value):
        value = float(value)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        kinds = [p for p in parts if p is not type(None)]
        for part in kinds:
            with contextlib.suppress(UserError):
                return coerced(value, part, where)
        if len(kinds) == 1:
            return coerced(value, kinds[0], where)
        raise UserError(f"{where} must be {' or '.join(map(_kind, kinds))}, not {_short(value)}.")
    if origin is tuple:
        if parts[-1] is Ellipsis and isinstance(value, int | float):  # a single number needs no brackets
            value = [value]
        if not isinstance(value, list | tuple) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            raise UserError(f"{where} must be {_list(parts)}, not {_short(value)}.")
        each = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(coerced(v, k, where) for v, k in zip(value, each, strict=True))
    if origin is Literal:
        if value not in parts:
            raise UserError(f"{where} must be one of {', '.join(map(str, parts))}, not {value!r}.")
        return value
    if kind is Path:
        if not isinstance(value, str | Path):
            raise UserError(f"{where} must be a path, not {_short(value)}.")
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    plain = origin or kind
    if plain is Any or (isinstance(value, plain) and not (plain is int and isinstance(value, bool))):
        return value
    raise UserError(f"{where} must be of type {getattr(plain, '__name__', plain)}, not {_short(value)}.")


def _list(parts: tuple[Any, ...]) -> str:
    """The type of a tuple with these parts, in words."""
    return "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)}"


def _kind(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return _list(get_args(kind))
    return f"of type {getattr(get_origin(kind) or kind, '__name__', kind)}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
