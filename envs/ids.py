"""Finds environments by id, and suggests similar ids if the id is unknown."""

import contextlib
import difflib
import importlib
import importlib.metadata
import inspect
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

LOCAL = "local/"
"""Namespace of environments that only the program of their run can make."""


class EnvError(Exception):
    """Raised if an environment cannot be made or used. The message states the cause and the remedy."""


def find_id(env_id: str) -> str:
    """Import the id's module and check that the id exists. `module:Name` may also name a class or function of the
    module, which makes an environment; it is registered. Raises EnvError with the closest known ids."""
    missing = register_robotics()
    if not isinstance(env_id, str) or not env_id:
        raise EnvError(f"--env must be the id of an environment, not {env_id!r}.")
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            made = getattr(importlib.import_module(module), name, None)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise EnvError(f"The module {module!r} of --env {env_id} cannot be imported ({reason}).") from error
        if callable(made):
            register_factory(name, made)
    if name not in gym.registry and name.startswith(LOCAL):
        raise EnvError(
            f"{name} is a class or function of the program that trained the run. Move it to a module and train again, "
            "or pass it in a program: hrl.load(run).evaluate(env=…)."
        )
    if name not in gym.registry:
        raise EnvError(f"There is no environment {name!r}.{missing or _hint(name)}")
    return name


def register_factory(name: str, make: Callable[..., Any]) -> None:
    """Register a class or function that makes an environment, or a vector environment if it has the parameter
    `num_envs`. It replaces an earlier one of the same name, for example from a cell of a notebook that ran before."""
    spec = gym.registry.get(name)
    if spec is not None and make in (spec.entry_point, spec.vector_entry_point):
        return
    gym.registry.pop(name, None)
    many = not inspect.isclass(make) and "num_envs" in inspect.signature(make).parameters
    gym.register(
        name,
        entry_point=None if many else make,
        vector_entry_point=make if many else None,
        max_episode_steps=getattr(make, "max_episode_steps", None),
    )


def _hint(name: str) -> str:
    """A suggestion for an unknown id: an installed package that registers it, or a similar id."""
    close = _similar(name, 0.8)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    packages = packages_with(name)
    if packages:
        return f" It belongs to another package: try --env {' or '.join(f'{p}:{name}' for p in packages)}."
    close = _similar(name, 0.5)
    hint = f" The closest ids are {', '.join(close)}." if close else ""
    return f"{hint} If another package registers it, name the package: --env package:{name}."


def _similar(name: str, cutoff: float) -> list[str]:
    """At most three known ids that are similar to a name, in capital or small letters."""
    ids = {known.lower(): known for known in gym.registry}
    return [ids[close] for close in difflib.get_close_matches(name.lower(), ids, n=3, cutoff=cutoff)]


def packages_with(name: str) -> list[str]:
    """Installed packages that use Gymnasium and contain this id in their source. Importing them registers the id."""
    found = []
    for distribution in importlib.metadata.distributions():
        requires = " ".join(distribution.requires or []).lower()
        if "gymnasium" not in requires:
            continue
        for file in distribution.files or []:
            if file.suffix == ".py" and len(file.parts) > 1:
                try:
                    text = Path(str(file.locate())).read_text(encoding="utf-8", errors="ignore")
                except OSError:
                    continue
                if f'"{name}"' in text or f"'{name}'" in text:
                    found.append(file.parts[0])
                    break
    return sorted({p for p in found if p.isidentifier() and p != "gymnasium"})


def register_robotics() -> str:
    """Register gymnasium-robotics' tasks, and suppress the notice that its import prints. Returns "" on success, and
    otherwise the reason, for example that MuJoCo finds no rendering library."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import gymnasium_robotics

            gym.register_envs(gymnasium_robotics)
    except Exception as error:  # system libraries may raise anything
        backend = os.environ.get("MUJOCO_GL")
        setting = f" MUJOCO_GL is {backend}: is its library installed?" if backend else ""
        return f" MuJoCo's tasks are not available, because MuJoCo cannot be imported ({error}).{setting}"
    return ""
