"""Environments as arguments of a program: an id, a class, a function that makes one, or a vector environment."""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from hrl.envs.ids import LOCAL, register_factory
from hrl.types import UserError

EnvLike = str | type[gym.Env[Any, Any]] | Callable[..., Any] | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]
"""An id (`"module:Id-v0"` imports the module first), a class, a function that makes one environment, a function of
`num_envs` that makes a vector environment, or an environment that `gym.make` made."""

VECTOR = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers")
"""Keyword arguments of `gym.make_vec` for the vector environment."""


def env_id(env: EnvLike) -> tuple[str, dict[str, Any]]:
    """The id and the keyword arguments of an environment. A class or function of a module gets the id `module:Name`.

    One of the main module, or one that is defined in a function, gets an id that other processes do not know: they must
    pass it again. Raises UserError for an environment object
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
        apart = {*gym.registry[spec.id].kwargs, *(VECTOR if isinstance(env, gym.vector.VectorEnv) else ())}
        return spec.id, {k: v for k, v in spec.kwargs.items() if k not in apart}
    if not callable(env):
        raise UserError(f"env must be an id, a class or a function, not {env!r}.")
    module, name = getattr(env, "__module__", ""), getattr(env, "__qualname__", type(env).__name__)
    if module != "__main__" and getattr(sys.modules.get(module), name, None) is env:
        return f"{module}:{name}", {}
    name = LOCAL + name.replace("<", "").replace(">", "").replace(".", "_") + "-v0"
    register_factory(name, env)
    return name, {}
