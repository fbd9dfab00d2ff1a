"""Making environments from what the user asked for, with a clear sentence where that can't be done."""

import contextlib
import difflib
import importlib
import inspect
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium as gym
import torch
import tyro
import yaml
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from hrl.envs.bridge import Bridge, EnvironmentFault
from hrl.envs.delay import DelayedReward, DelayedRewards
from hrl.envs.flatten import UnsupportedSpace, flat_bounds, flat_dim
from hrl.envs.goals import GoalReward, find_achieved, is_goal_space, observation_part, probe
from hrl.envs.recall import Recall, Recalls
from hrl.envs.spec import Spec
from hrl.envs.workers import WorkerEnv


class EnvError(Exception):
    """An environment that can't be made or used; the sentence says why and what to do."""


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
    """Which environment, and how many of it."""

    env: str
    """Gymnasium id, or module:Id for one that importing the module registers."""
    env_kwargs: Annotated[dict[str, Any], KEY_VALUES] = field(default_factory=dict)
    """Keyword arguments of the environment, as continuing_task=False; values are read as YAML."""
    num_envs: int = 1
    """Environments stepped together."""
    vectorization: Literal["auto", "sync", "async"] = "auto"
    """In this process or in worker processes; auto takes the environment's own vector form where it has one."""
    workers: int = 0
    """Worker processes, each with an equal share of the environments; 0 for one a core."""
    action_limit: float = 1.0
    """Bound taken for action entries that have none."""
    action_scale: float = 1.0
    """Share of the range of actions that is used, around its middle: 0.2 is a fifth of an ant's torques."""
    reward_delay: int = 0
    """Pay rewards only every so many steps, and at the episode's end, added up; 0 pays them at once."""
    recall: tuple[int, ...] = ()
    """Observe too where the agent was so many steps ago: a memory, where a task hides what was done. These places are
    appended to the observation; a level that is blind to its place is to be blind to them too."""

    @property
    def name(self) -> str:
        """The id alone."""
        return self.env.rpartition(":")[2]

    @property
    def module(self) -> str:
        """What to import for it."""
        return self.env.rpartition(":")[0]


class Guard(gym.Wrapper[Any, Any, Any, Any]):
    """Turns whatever an environment raises into one sentence that names it and the step."""

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index, self.steps = index, 0

    def step(self, action: Any) -> Any:
        """One step, counted."""
        self.steps += 1
        try:
            return self.env.step(action)
        except Exception as error:
            raise EnvironmentFault(self._sentence("step", error)) from error

    def reset(self, **kwargs: Any) -> Any:
        """A new episode."""
        try:
            return self.env.reset(**kwargs)
        except Exception as error:
            raise EnvironmentFault(self._sentence("reset", error)) from error

    def _sentence(self, call: str, error: Exception) -> str:
        name = self.spec.id if self.spec else type(self.env.unwrapped).__name__
        return (
            f"Environment {self.index} of {name} raised {type(error).__name__} in {call}() "
            f"at its step {self.steps}: {error}"
        )


def find_id(env_id: str) -> str:
    """Register what the id needs and check that it exists. Raises EnvError with the closest known ids."""
    _register_robotics()
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a user's module raises
            reason = f"{type(error).__name__}: {error}"
            raise EnvError(f"The module {module!r} of --env {env_id} cannot be imported ({reason}).") from error
    if name not in gym.registry:
        close = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else " Is its package installed? Try module:Id."
        raise EnvError(f"There is no environment {name!r}.{hint}")
    return name


def _register_robotics() -> None:
    """Register gymnasium-robotics' tasks, without the notice on hand tasks that its import prints."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import gymnasium_robotics

        gym.register_envs(gymnasium_robotics)


def _check(config: EnvConfig) -> None:
    """Raise EnvError where the id is unknown or a value cannot be meant."""
    find_id(config.env)
    if config.num_envs < 1:
        raise EnvError(f"--num-envs must be at least 1, not {config.num_envs}.")
    if not 0 < config.action_limit < float("inf"):
        raise EnvError(f"--action-limit must be positive, not {config.action_limit}.")
    if not 0 < config.action_scale <= 1:
        raise EnvError(f"--action-scale must be above 0 and at most 1, not {config.action_scale}.")
    if config.reward_delay < 0:
        raise EnvError(f"--reward-delay must not be negative, but is {config.reward_delay}.")
    if config.workers < 0:
        raise EnvError(f"--workers must not be negative, but is {config.workers}; 0 takes one a core.")


def make_env(
    config: EnvConfig,
    device: torch.device | str = "cpu",
    seeds: Iterator[int] | None = None,
    autoreset: AutoresetMode = AutoresetMode.SAME_STEP,
    **overrides: Any,
) -> Bridge:
    """The environments as batched tensors. With `seeds`, every episode is begun with the next of them.

    Raises EnvError where the environment can't be made or its observations can't be used.
    """
    _check(config)
    config = replace(config, env_kwargs=config.env_kwargs | overrides)
    mode = AutoresetMode.DISABLED if seeds is not None else autoreset
    try:
        env = _make_vector(config, mode, torch.device(device))
        spec = _spec(config, env)
    except (EnvironmentFault, EnvError):
        raise
    except Exception as error:
        reason = str(error).partition(" was raised from the environment creator")[0]
        raise EnvError(f"{config.name} cannot be made with {config.env_kwargs or 'its defaults'}: {reason}") from error
    own_mode = env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED
    return Bridge(env, spec, torch.device(device), None if own_mode else seeds)


def make_single(config: EnvConfig, index: int = 0) -> gym.Env[Any, Any]:
    """One environment, with Gymnasium's own wrappers and our guard, and the bounds of actions as we take them."""
    _check(config)
    try:
        env = _make_one(config, index)
    except ValueError as error:
        raise EnvError(f"{config.name} cannot be made with {config.env_kwargs or 'its defaults'}: {error}") from error
    space = env.action_space
    if config.action_scale == 1 or not isinstance(space, spaces.Box):
        return env
    low, high = (bound.numpy().reshape(space.shape).astype(space.dtype) for bound in _action_bounds(space, config))
    within = spaces.Box(low, high, dtype=space.dtype.type)
    return gym.wrappers.TransformAction(env, lambda action: action, within)  # the space alone changes


def _make_in_worker(config: EnvConfig, index: int) -> gym.Env[Any, Any]:
    if config.module:  # a process that was spawned has nothing registered yet
        importlib.import_module(config.module)
    return _make_one(config, index)


def _make_one(config: EnvConfig, index: int) -> gym.Env[Any, Any]:
    _register_robotics()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make(config.name, disable_env_checker=True, **config.env_kwargs)
    if config.recall:
        env = Recall(env, config.recall)
    if config.reward_delay:
        env = DelayedReward(env, config.reward_delay)
    return Guard(env, index)


def _make_vector(config: EnvConfig, mode: AutoresetMode, device: torch.device) -> gym.vector.VectorEnv[Any, Any, Any]:
    if gym.registry[config.name].vector_entry_point is not None and config.vectorization == "auto":
        kwargs = _on_device(config, device)
        env = gym.make_vec(config.name, config.num_envs, "vector_entry_point", **kwargs)
        if not (config.reward_delay or config.recall):
            return env
        if env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            if config.recall:
                env = Recalls(env, config.recall)
            return DelayedRewards(env, config.reward_delay) if config.reward_delay else env
        env.close()  # what others do at an episode's end is left to the single ones
    indices = range(config.num_envs)
    if config.vectorization == "async":
        return WorkerEnv([partial(_make_in_worker, config, i) for i in indices], config.workers, mode)
    makers = [partial(_make_one, config, i) for i in indices]
    return gym.vector.SyncVectorEnv(makers, copy=False, autoreset_mode=mode)


def _on_device(config: EnvConfig, device: torch.device) -> dict[str, Any]:
    """The keyword arguments, with the training device where the vector form takes one and none is given."""
    entry: Any = gym.registry[config.name].vector_entry_point
    form = load_env_creator(entry) if isinstance(entry, str) else entry
    given = config.env_kwargs
    return {"device": str(device)} | given if "device" in inspect.signature(form).parameters else given


def _spec(config: EnvConfig, env: gym.vector.VectorEnv[Any, Any, Any]) -> Spec:
    space, name = env.single_observation_space, config.name
    try:
        flat_dim(space)
    except UnsupportedSpace as error:
        raise EnvError(
            f"{name} observes {error}, which is not supported; wrap it so that it gives vectors "
            "(gymnasium.wrappers.FlattenObservation, or features of a pretrained network)."
        ) from error
    low, high = flat_bounds(observation_part(space))
    action_low, action_high = _action_bounds(env.single_action_space, config)
    steps = gym.registry[name].max_episode_steps
    common: dict[str, Any] = {
        "env_id": name,
        "observation_space": space,
        "action_space": env.single_action_space,
        "action_low": action_low,
        "action_high": action_high,
        "max_episode_steps": config.env_kwargs.get("max_episode_steps", steps),
    }
    if not is_goal_space(space):
        nothing: dict[str, Any] = {"goal_dim": 0, "achieved": (), "task_reward": None, "reward_range": None}
        return Spec(state_dim=len(low), state_low=low, state_high=high, **common, **nothing)
    assert isinstance(space, spaces.Dict)
    single = _make_one(replace(config, reward_delay=0, recall=()), 0)
    seen = probe(single)
    achieved = find_achieved(seen)
    if achieved is None:
        achieved = tuple(range(len(low), len(low) + seen.achieved.shape[1]))
        bounds = flat_bounds(space["achieved_goal"])
        low, high = torch.cat([low, bounds[0]]), torch.cat([high, bounds[1]])
    # A vector environment may give its task's reward on tensors; else the single one's own code is asked.
    reward: Any = getattr(env, "task_reward", None) or GoalReward(single, seen)
    return Spec(
        state_dim=len(low),
        goal_dim=flat_dim(space["desired_goal"]),
        achieved=achieved,
        state_low=low,
        state_high=high,
        task_reward=reward,
        reward_range=reward.range if isinstance(reward, GoalReward) else getattr(env, "reward_range", None),
        **common,
    )


def _action_bounds(space: gym.Space[Any], config: EnvConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and largest [A] actions of a Box that are used; [0] for other spaces."""
    if not isinstance(space, spaces.Box):
        return torch.empty(0), torch.empty(0)
    low, high = flat_bounds(space)
    low = torch.where(low.isfinite(), low, -config.action_limit)
    high = torch.where(high.isfinite(), high, config.action_limit)
    if config.action_scale == 1:
        return low, high
    centre, half = (high + low) / 2, config.action_scale * (high - low) / 2
    return centre - half, centre + half
