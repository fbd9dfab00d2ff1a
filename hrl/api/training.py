"""Training from a program: `hrl.train`."""

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any, Literal

from gymnasium.vector import VectorEnv

from hrl.agents import AGENTS, find_agent
from hrl.agents.presets import preset as preset_values
from hrl.api.environments import EnvLike, env_id
from hrl.api.runs import Run, run_session
from hrl.api.sessions import Parts, user_errors
from hrl.api.trust import Trust, named_modules
from hrl.envs import EnvConfig
from hrl.run.callbacks import Callbacks
from hrl.run.config import coerced, names_of, updated
from hrl.run.folder import RunConfig, RunFolder
from hrl.types import UserError


@user_errors()
def train(
    algorithm: str | Any,
    env: EnvLike,
    *,
    preset: str = "auto",
    callbacks: Callbacks = (),
    **options: Any,
) -> Run:
    """Train an agent, and return its run.

    `algorithm` is a name as on the command line, such as "hiro", or a configuration object, such as `HIROConfig()`.
    `env` is an environment's id, class, or factory. `options` are those of the command line (`python train.py hiro
    --help`): `total_steps=50_000`, `seed=1`, `num_envs=16`, `low__learning_rate=1e-3`, `low={"learning_rate": 1e-3}`.
    `preset` is "auto" (tuned values for this environment), "none", "debug" or "published". With a configuration object,
    only the preset's options for the environment and the run apply. `callbacks` are called during training.

    Ctrl-C saves the run and returns it; `Run.resume` continues it exactly. Raises UserError for invalid options
    and faults of environments.
    """
    name, agent = _agent(algorithm)
    identifier, keywords = env_id(env)

    def resolve(num_envs: int | Literal["auto"] | None) -> Parts:
        values = preset_values(name, identifier, preset, num_envs if isinstance(num_envs, int) else None)
        parts = Parts(name, EnvConfig(identifier), RunConfig(), agent)
        parts = with_values(parts, values, f"preset of {name}", agents_own=isinstance(algorithm, str))
        given = nested(options) if num_envs is None else {**nested(options), "num_envs": num_envs}
        parts = with_values(parts, given, "train()")
        return parts._replace(env=replace(parts.env, env_kwargs={**parts.env.env_kwargs, **keywords}))

    count = options.get("num_envs", env.num_envs if isinstance(env, VectorEnv) else None)
    parts = resolve(coerced(count, int | Literal["auto"] | None, "train(): num_envs"))
    parts.run.check()
    folder = RunFolder.new(parts.run.log_dir, parts.env.env, name, parts.run.seed)
    named = frozenset(module for _, module in named_modules(name, parts.plain()))  # the program names them itself
    return run_session(parts, folder, callbacks=callbacks, trust=Trust(modules=named), resolve=resolve)


def with_values(parts: Parts, values: Mapping[str, Any], source: str, agents_own: bool = True) -> Parts:
    """The parts with these values; each value goes to the configuration that has the option. Without `agents_own`, the
    agent's options are ignored. Raises UserError, naming the source, for unknown options."""
    known = [names_of(part) for part in parts[1:3]]
    split: list[dict[str, Any]] = [{}, {}, {}]
    for name, value in values.items():
        owner = next((i for i, names in enumerate(known) if name in names), 2)  # or an option of a variant
        split[owner][name] = value
    if not agents_own:
        split[2] = {}
    beside = [name for names in known for name in names]
    changed = (updated(part, mine, source, beside) for part, mine in zip(parts[1:], split, strict=True))
    return Parts(parts.algorithm, *changed)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """`{"low__gamma": x}` or `{"low.gamma": x}` as `{"low": {"gamma": x}}`. Raises UserError if one name is both a
    value and a group."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        *path, last = name.replace(".", "__").split("__")
        place = result
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UserError(
                    f"The option {name} does not exist: {part} is given as {place!r}, which has no options."
                )
        place[last] = dict(value) if isinstance(value, Mapping) else value
    return result


def _agent(algorithm: str | Any) -> tuple[str, Any]:
    """(name, configuration) from an algorithm's name or configuration object."""
    if isinstance(algorithm, str):
        return algorithm, find_agent(algorithm)
    if isinstance(algorithm, type) or not (is_dataclass(algorithm) and hasattr(algorithm, "train")):
        raise UserError(f"algorithm must be a name or a configuration object, such as HIROConfig(), not {algorithm!r}.")
    kind = type(algorithm)
    name = next((name for name in AGENTS if AGENTS[name] is kind), None)
    if name is not None:
        return name, algorithm
    return f"{kind.__module__}:{kind.__qualname__}", algorithm
