"""The configuration of environments."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro
import yaml

from hrl.envs.ids import EnvError, find_id


def _read_pairs(pairs: list[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{pair!r} is not of the form name=value")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"the value of {pair!r} cannot be read") from error
    return values


KEY_VALUES = tyro.constructors.PrimitiveConstructorSpec[dict[str, Any]](
    nargs="*",
    metavar="NAME=VALUE",
    instance_from_str=_read_pairs,
    is_instance=lambda x: isinstance(x, dict),
    str_from_instance=lambda x: [f"{key}={value}" for key, value in x.items()],
)


@dataclass(frozen=True)
class EnvConfig:
    """The environment and the number of its copies."""

    env: str
    """Gymnasium id; module:Id if importing the module registers it; or module:Name of a class or function that makes
    the environment."""
    env_kwargs: Annotated[dict[str, Any], KEY_VALUES] = field(default_factory=dict)
    """Keyword arguments of the environment, such as continuing_task=False. Values are read as YAML."""
    num_envs: int | Literal["auto"] = 1
    """Number of environments that step together. auto: measured before training, the smallest number with which
    collecting is nearly as fast as possible."""
    vectorization: Literal["auto", "sync", "async"] = "auto"
    """sync: in this process. async: in worker processes. auto: the environment's vector form if it has one, otherwise
    sync."""
    workers: int = 0
    """Number of worker processes, which share the environments equally; 0 uses one per core."""
    worker_timeout: float = 120.0
    """Maximum seconds to wait for a worker process. After that, the run saves and ends."""
    worker_start: Literal["auto", "fork", "spawn", "forkserver"] = "auto"
    """Start method of worker processes; auto forks, or spawns if this process uses a GPU."""
    action_limit: float = 1.0
    """Bound for action entries of an unbounded Box."""
    action_scale: float = 1.0
    """Fraction of the action range that is used, centred on its midpoint: 0.2 is a fifth of an ant's torques."""
    action_repeat: int = 1
    """Environment steps during which each action is repeated (frame skip). All other options and figures count the
    agent's steps. Rewards add up; in goal environments, the last one counts, because hindsight recomputes it."""
    reward_delay: int = 0
    """Number of steps after which the sum of their rewards is given, and also at the end of an episode; 0 gives rewards
    immediately."""
    frame_stack: int = 0
    """Number of most recent images to stack as channels, for environments that observe only an image."""
    position_history: tuple[int, ...] = ()
    """Numbers of steps: append the agent's positions this many steps ago to the observation, as a memory for tasks
    with hidden state. Mask these entries for levels that must not see their position."""

    @property
    def name(self) -> str:
        """The id without its module."""
        return self.env.rpartition(":")[2]

    @property
    def count(self) -> int:
        """The number of environments. Raises EnvError for "auto", which only training resolves."""
        if self.num_envs == "auto":
            raise EnvError("--num-envs auto must be resolved by a measurement before environments are made.")
        return self.num_envs

    @property
    def module(self) -> str:
        """The module to import; "" if none is given."""
        return self.env.rpartition(":")[0]


def check(config: EnvConfig) -> None:
    """Raise EnvError if the id is unknown or a value is invalid."""
    find_id(config.env)
    if config.count < 1:
        raise EnvError(f"--num-envs must be at least 1, not {config.num_envs}.")
    if not 0 < config.action_limit < math.inf:
        raise EnvError(f"--action-limit must be positive, not {config.action_limit}.")
    if not config.worker_timeout > 0:
        raise EnvError(f"--worker-timeout must be positive, not {config.worker_timeout}.")
    if not 0 < config.action_scale <= 1:
        raise EnvError(f"--action-scale must be above 0 and at most 1, not {config.action_scale}.")
    if config.action_repeat < 1:
        raise EnvError(f"--action-repeat must be at least 1, not {config.action_repeat}.")
    if config.reward_delay < 0:
        raise EnvError(f"--reward-delay must not be negative, but is {config.reward_delay}.")
    if config.frame_stack < 0:
        raise EnvError(f"--frame-stack must not be negative, but is {config.frame_stack}.")
    if config.workers < 0:
        raise EnvError(f"--workers must not be negative, but is {config.workers}; 0 uses one per core.")
