"""Environments as arguments of a program: an id, a class, a function that makes one, or a vector environment."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from hrl.types import UserError

EnvLike = str | type[gym.Env[Any, Any]] | Callable[..., Any] | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]
"""An id (`"module:Id-v0"` imports the module first), a class, a function that makes one environment, a function of
`num_envs` that makes a vector environment, or an environment that `gym.make` made."""


def env_id(env: EnvLike) -> tuple[str, dict[str, Any]]:
    """The Gymnasium id and the keyword arguments of an environment. Classes and functions get a new id.

    A process that loads the run later must pass the class or function again. Raises UserError for an environment object
    without an id, because training needs several copies and evaluation needs separate ones.
    """
    if isinstance(env, str):
        return env, {}
    if isinstance(env, gym.Env | gym.vector.VectorEnv):
        spec = env.spec
        if spec is None or spec.id not in gym.registry:
            raise UserError(
                f"Training needs several copies of {type(env).__name__}: pass its class, or a function that makes it, "
                "instead of one object."
            )
        return spec.id, {k: v for k, v in spec.kwargs.items() if k not in gym.registry[spec.id].kwargs}
    if not callable(env):
        raise UserError(f"env must be an id, a class or a function, not {env!r}.")
    return _registered(env), {}


def _registered(make: Any) -> str:
    name = f"local/{getattr(make, '__qualname__', type(make).__name__)}-v0".replace("<", "").replace(">", "")
    name = name.replace(".", "_")
    if name in gym.registry:
        del gym.registry[name]  # a cell of a notebook may define the class again
    many = not inspect.isclass(make) and "num_envs" in inspect.signature(make).parameters
    limit = getattr(make, "max_episode_steps", None)
    gym.register(
        name,
        entry_point=None if many else make,
        vector_entry_point=make if many else None,
        max_episode_steps=limit,
    )
    return name
