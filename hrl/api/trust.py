"""Trust in run folders: the modules that their configurations may import.

A stored configuration can name modules: a custom algorithm or projection, or an environment that a module registers.
Importing a module runs its code. Therefore, modules named in a folder are imported only if the user trusts the folder
or names the module on the command line.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrl.types import UserError

IMPORTED = ("projection", "skill", "subgoals")
"""Options of algorithms that name `module:function`, or a model file that runs code when it is loaded."""
OWN = "hrl.envs.tasks."
"""Modules of this package that declare subgoals and projections; importing them needs no trust."""


@dataclass(frozen=True)
class Trust:
    """The modules that may be imported for a run folder."""

    everything: bool = False
    """Trust every module that the folder names (`--trust`)."""
    modules: frozenset[str] = frozenset()
    """Modules that the user named on this command line."""

    def require(self, folder: Path, algorithm: str, config: Mapping[str, Any]) -> None:
        """Allow the import of the modules that a run folder names. Raises UserError if they are not trusted.

        An environment's module that is already loaded is allowed, because importing it again runs no code.
        """
        for option, name in named_modules(algorithm, config):
            if self.everything or name in self.modules:
                allow_own_modules()
            elif not (option.startswith("env") and name in sys.modules):
                raise UserError(
                    f"The run in {folder} names the module {name!r} ({option}), and importing it runs its code: add "
                    "--trust if you trust this folder."
                )


def named_modules(algorithm: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (option, module) for every module that a configuration imports."""
    env, run = config["env"], config["run"]
    named = [("algorithm", algorithm), ("env", env.get("env")), ("env of evaluations", run.get("eval_env"))]
    for option, name in [*named, *_imported(config["agent"])]:
        if isinstance(name, str) and ":" in name and not name.startswith(OWN):
            yield option, name.rpartition(":")[0]


def _imported(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(options, Mapping):
        for key, value in options.items():
            if key in IMPORTED:
                for name in value if isinstance(value, list) else [value]:
                    yield f"{prefix}{key}", name
            yield from _imported(value, f"{prefix}{key}.")


def allow_own_modules() -> None:
    """Allow imports from the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
