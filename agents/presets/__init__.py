"""Tuned hyperparameters per environment, in one YAML file per algorithm.

A file maps environment ids, or patterns of ids, to option values. `default` applies to every environment, `debug`
makes runs that take seconds, and `published` has the settings of the paper. Later entries override earlier ones. A file
that `extends` another algorithm's file adds to its entries. Values with `scales: true` grow with the number of
environments (scaling.py).
"""

from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from hrl.agents.presets.scaling import scaled
from hrl.types import UserError

Values = dict[str, Any]
NAMED = ("debug", "published")
"""Entries that are not environments."""


def preset(algorithm: str, env_id: str, name: str, num_envs: int | None = None) -> Values:
    """The merged values for an environment. `name` is auto, none, debug, the name of an entry, or a YAML file of the
    same form; its entries take precedence. Values that scale are those for `num_envs` environments (default: the
    preset's own number).

    Raises UserError if the entry does not exist.
    """
    entries = _entries(algorithm)
    env_id = env_id.rpartition(":")[2]
    if name == "none":
        return {}
    if name.endswith((".yaml", ".yml")):
        entries, name = _added(entries, Path(name)), "auto"
    if name not in ("auto", "debug") and name not in entries:
        raise UserError(f"There is no preset {name!r} for {algorithm}: choose from auto, none, {', '.join(entries)}.")
    if name == "published":  # the paper's settings for the same task, without our tuned values
        entries = _contents("common") | {name: entries[name]}
    chosen = [key for key in entries if key == "default" or (key not in NAMED and fnmatch(env_id, key))]
    if name != "auto":
        chosen.append(name)
    values: Values = {}
    for key in chosen:
        values = _merged(values, entries[key] or {})
    scales = values.pop("scales", False)
    return scaled(values, num_envs) if scales and num_envs else values


def _entries(algorithm: str) -> dict[str, Values]:
    entries: dict[str, Values] = {}
    for file in ("common", *_lineage(algorithm.replace(":", "-"))):
        for key, values in _contents(file).items():
            if key != "extends":
                entries[key] = _merged(entries.pop(key, {}), values or {})  # in the algorithm's order
    return entries


def _lineage(file: str) -> list[str]:
    """The files that a file extends, then the file itself."""
    extended = _contents(file).get("extends")
    return [*(_lineage(extended) if extended else []), file]


def _contents(file: str) -> dict[str, Any]:
    resource = files(__package__) / f"{file}.yaml"
    return (yaml.safe_load(resource.read_text(encoding="utf-8")) or {}) if resource.is_file() else {}


def _added(entries: dict[str, Values], file: Path) -> dict[str, Values]:
    """The entries, overridden by those of a user's file."""
    try:
        own = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"The preset {file} cannot be read: {error}") from error
    if not isinstance(own, dict) or not all(isinstance(values, dict) for values in own.values()):
        raise UserError(f"The preset {file} must map environment ids to options.")
    return entries | {key: _merged(entries.get(key, {}), values) for key, values in own.items()}


def _merged(below: Values, above: Values) -> Values:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
