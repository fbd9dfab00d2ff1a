"""The `--help` of an algorithm: the most important options, then all others by group.

An option of several levels is listed once, as `--LEVEL.gamma`, with the default of each level.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from rich.console import Console

from hrl.variants import Variant

ESSENTIAL = ("env", "preset", "num_envs", "total_steps", "eval_freq", "seed", "device", "log_dir")
"""The most important options of every algorithm; an algorithm adds its own as `essential`."""
LEVELS = ("low", "middle", "high")
GROUPS = {
    "command": "period reward reward_scale reward_offset termination_cost early subgoal_scale egocentric levels",
    "hindsight and relabelling": "hindsight hindsight_strategy hindsight_horizon hindsight_actions correction "
    "candidates testing",
    "exploration": "action_noise random_actions random_hold random_warmup exploration_fraction",
    "timescale": "learning_rate actor_learning_rate schedule warmup train_freq gradient_steps "
    "learning_starts learning_stops frozen tune n_steps n_epochs",
}
"""Options by group. All other options of a level belong to its learner or, if nested, to a separate group."""
OF_GROUP = {name: group for group, names in GROUPS.items() for name in names.split()}
ORDER = ("environment", "run", *GROUPS, "learner", "algorithm")


@dataclass
class Option:
    """One option of the command line."""

    path: str
    """The option's name without dashes: `low.random_actions`."""
    kind: str
    """Its type or values."""
    text: str
    default: str
    group: str

    @property
    def level(self) -> str:
        """The option's level; "" if it has none."""
        head, dot, _ = self.path.partition(".")
        return head if dot and head in LEVELS else ""

    @property
    def name(self) -> str:
        """The path within its level."""
        return self.path.removeprefix(f"{self.level}.")


def show_help(program: str, parts: Mapping[str, Any], more: Mapping[str, tuple[str, Any, str]]) -> None:
    """Print the help of an algorithm. `parts` are the configurations by group name, with the algorithm's last. `more`
    contains additional options: their values, default and text."""
    agent = list(parts.values())[-1]
    options = [Option(name, kind, text, _value(default), "run") for name, (kind, default, text) in more.items()]
    for group, config in parts.items():
        options += _options(config, "", group)
    console = Console(highlight=False, soft_wrap=False)
    console.print(f"usage: {program} --env ID [options]\n", markup=False)
    console.print(" ".join(inspect.cleandoc(type(agent).__doc__ or "").split("\n\n")[0].split()), markup=False)
    first = (*ESSENTIAL, *getattr(agent, "essential", ()))
    _print(console, "The most important options", sorted((o for o in options if o.path in first), key=_rank(first)))
    groups = {name: [o for o in options if o.group == name] for name in dict.fromkeys(o.group for o in options)}
    levels = [level for level in LEVELS if any(o.level == level for o in options)]
    if len(levels) > 1:
        console.print(f"\nLEVEL stands for {', '.join(levels[:-1])} or {levels[-1]}.")
    for name in sorted(groups, key=lambda g: ORDER.index(g) if g in ORDER else len(ORDER)):
        _print(console, name.capitalize(), groups[name])


def _rank(first: Sequence[str]) -> Any:
    return lambda option: first.index(option.path)


def _print(console: Console, title: str, options: Sequence[Option]) -> None:
    console.print(f"\n[bold underline]{title}[/bold underline]")
    alike: dict[tuple[str, ...], list[Option]] = {}
    for option in options:
        key = (option.name, option.kind, option.text) if option.level else (option.path,)
        alike.setdefault(key, []).append(option)
    for same in alike.values():
        name = same[0].name if len(same) > 1 else same[0].path
        flag = f"--{'LEVEL.' if len(same) > 1 else ''}{name.replace('_', '-')}"
        console.print(f"  [bold]{flag}[/bold] {same[0].kind}".rstrip())
        said = "Default: " in same[0].text and same[0].default == "none"
        text = same[0].text if said else f"{same[0].text} (default: {_defaults(same)})"
        for line in textwrap.wrap(text, console.width - 7):
            console.print(f"      {line}", markup=False)


def _defaults(same: Sequence[Option]) -> str:
    values = {option.level: option.default for option in same}
    if len(set(values.values())) == 1:
        return same[0].default
    return ", ".join(f"{level} {value}" for level, value in values.items())


# -- collecting options --------------------------------------------------------------------------------------


def _options(config: Any, prefix: str, group: str) -> Iterator[Option]:
    texts, hints = _texts(type(config)), get_type_hints(type(config), include_extras=True)
    for one in fields(config):
        value, path = getattr(config, one.name, MISSING), prefix + one.name
        if isinstance(value, Variant):
            kinds = "{" + ",".join(sorted(value.choices)) + "}"
            yield Option(path, kinds, _texts(type(value)).get("kind", ""), value.kind, "learner")
            yield from (o for o in _options(value, prefix, "learner") if o.path != prefix + "kind")
        elif is_dataclass(value) and not isinstance(value, type):
            own = one.name if one.name not in LEVELS else "learner"
            yield from _options(value, f"{path}.", own)
        elif one.init:
            named = OF_GROUP.get(one.name, group) if group in ("algorithm", "learner") else group
            yield Option(path, _kind(hints[one.name]), texts.get(one.name, ""), _value(value), named)


def _kind(hint: Any) -> str:
    """A type as written in help texts."""
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    origin, inner = get_origin(hint), [a for a in get_args(hint) if a not in (type(None), ...)]
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if hint is bool:
        return "{True,False}"
    if origin in (Union, types.UnionType):
        return "|".join(_kind(a) for a in inner)
    if origin is tuple:
        several = " ..." if get_args(hint)[-1] is ... else ""
        return " ".join(_kind(a) for a in inner) + several
    if origin is dict or hint is dict:
        return "NAME=VALUE ..."
    return {Path: "PATH", str: "TEXT", int: "INT", float: "FLOAT"}.get(
        hint, getattr(hint, "__name__", str(hint)).upper()
    )


def _value(value: Any) -> str:
    if value in (MISSING, tyro.MISSING):
        return "required"
    if value is None or value == () or value == {} or value == "":
        return "none"
    if isinstance(value, tuple | list):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _texts(kind: type) -> dict[str, str]:
    """The docstrings of a dataclass's fields, including those of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError, IndentationError):
            continue  # generated without source code
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                texts[statement.target.id] = " ".join(str(following.value.value).split())
    return texts
