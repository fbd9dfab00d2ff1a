"""Configuration dataclasses from plain values (presets, stored runs). Nothing is evaluated, unknown names are told."""

import difflib
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hrl.types import UserError

C = TypeVar("C")


def updated(config: C, values: Mapping[str, Any], source: str) -> C:
    """A copy of a configuration dataclass with these values, nested ones by nested mappings.

    Raises UserError, naming the source, for names that do not exist and values of the wrong kind.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{source} must map options to values, not be {_short(values)}.")
    hints = get_type_hints(type(config))
    known = [f.name for f in fields(config)]  # type: ignore[arg-type]
    changes = {}
    for name, value in values.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UserError(f"{source} has no option {name!r}.{hint}")
        current = getattr(config, name)
        if is_dataclass(current) and isinstance(value, Mapping):
            changes[name] = updated(current, value, f"{source}: {name}")
        else:
            changes[name] = coerced(value, hints[name], f"{source}: {name}")
    return replace(config, **changes)  # type: ignore[type-var]


def coerced(value: Any, kind: Any, where: str) -> Any:
    """A plain value (of YAML or JSON) as the annotated kind. Raises UserError where it is none."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        return coerced(value, next(p for p in parts if p is not type(None)), where)
    if origin is tuple:
        if parts[-1] is Ellipsis and isinstance(value, int | float):  # one alone needs no brackets
            value = [value]
        if not isinstance(value, list | tuple) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            raise UserError(
                f"{where} must be a list{'' if parts[-1] is Ellipsis else f' of {len(parts)}'}, not {value!r}."
            )
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(coerced(v, k, where) for v, k in zip(value, kinds, strict=True))
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
    plain = origin or kind
    if plain is Any or (isinstance(value, plain) and not (plain is int and isinstance(value, bool))):
        return value
    raise UserError(f"{where} must be of type {getattr(plain, '__name__', plain)}, not {_short(value)}.")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
