"""Makes environments from a configuration."""

import contextlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from hrl.envs.bridge import Bridge
from hrl.envs.config import EnvConfig, check
from hrl.envs.goals import (
    GoalReward,
    VectorGoals,
    find_achieved,
    ignored_goals,
    is_goal_space,
    observed_space,
    probe,
    state_space,
)
from hrl.envs.ids import EnvError, find_id, register_robotics
from hrl.envs.spaces.actions import ActionMap, PlainActions, UnsupportedActions
from hrl.envs.spaces.flatten import (
    FlatObservation,
    UnsupportedSpace,
    flat_bounds,
    flat_dim,
    image_shapes,
    usable,
    vector_dim,
)
from hrl.envs.spaces.images import image_shape
from hrl.envs.spec import Spec
from hrl.envs.wrappers.delay import DelayedReward, DelayedRewards
from hrl.envs.wrappers.guard import MASK, EnvironmentFault, Guard
from hrl.envs.wrappers.pause import Pausable
from hrl.envs.wrappers.position_history import PositionHistory, PositionHistoryBatch
from hrl.envs.wrappers.repeat import ActionRepeat
from hrl.envs.wrappers.workers import WorkerEnv


def make_env(
    config: EnvConfig,
    device: torch.device | str = "cpu",
    autoreset: AutoresetMode = AutoresetMode.SAME_STEP,
    info: tuple[str, ...] = (),
    region: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    evaluation: bool = False,
    **overrides: Any,
) -> Bridge:
    """Make environments with batched tensors. For an `evaluation`, every episode has its own seed. `info` names the
    entries of info that hindsight needs. `region` is a context around calls of the environment's `compute_reward`.

    Raises EnvError if the environment cannot be made, or if its observations or actions are not supported.
    """
    check(config)
    config = replace(config, env_kwargs=config.env_kwargs | overrides)
    mode = AutoresetMode.DISABLED if evaluation else autoreset
    with _made(config):
        env = _make_vector(config, mode, torch.device(device), info)
        actions = _action_map(config, env.single_action_space)
        spec = _spec(config, env, actions, info, region)
    seeded = evaluation and env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED
    return Bridge(env, spec, torch.device(device), seeded, actions)


@contextlib.contextmanager
def _made(config: EnvConfig) -> Iterator[None]:
    """A context that converts errors of a constructor into an EnvError."""
    try:
        yield
    except (EnvironmentFault, EnvError):
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).partition(" was raised from the environment creator")[0].split())
        if os.environ.get("MUJOCO_GL") and isinstance(error, AttributeError | ImportError):
            reason += f" (MUJOCO_GL is {os.environ['MUJOCO_GL']}: is its library installed?)"
        raise EnvError(
            f"{config.name} cannot be made with {config.env_kwargs or 'its defaults'}: {reason or type(error).__name__}"
        ) from error


def _action_map(config: EnvConfig, space: gym.Space[Any]) -> ActionMap:
    try:
        return ActionMap(space, config.action_limit, config.action_scale)
    except UnsupportedActions as error:
        raise EnvError(
            f"{config.name} takes {error}, which no agent supports. Wrap the environment so that it takes Box, "
            "Discrete, MultiDiscrete or MultiBinary actions."
        ) from error


def make_single(config: EnvConfig, index: int = 0) -> gym.Env[Any, Any]:
    """Make one environment with Gymnasium's wrappers and our guard, for libraries that convert actions themselves.

    Its action space is a bounded float32 Box, Discrete from 0, or MultiDiscrete or MultiBinary of one dimension.
    Raises EnvError if the environment cannot be made or is not supported.
    """
    check(config)
    with _made(config):
        env = _make_one(config, index)
        actions = _action_map(config, env.action_space)
        _require_usable(config, env.observation_space)
    if is_goal_space(env.observation_space):
        env = VectorGoals(env)
    elif not _is_vector(env.observation_space):
        env = FlatObservation(env)
    space = env.action_space
    if not _is_plain(space):
        return PlainActions(env, actions)
    if config.action_scale == 1 or not isinstance(space, spaces.Box):
        return env
    low, high = (bound.numpy().reshape(space.shape) for bound in actions.bounds())
    within = spaces.Box(low, high, dtype=space.dtype.type)
    return gym.wrappers.TransformAction(env, lambda action: action, within)  # only the space changes


def _is_vector(space: gym.Space[Any]) -> bool:
    """Whether other libraries support this observation space."""
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"


def _is_plain(space: gym.Space[Any]) -> bool:
    """Whether other libraries support this action space."""
    if isinstance(space, spaces.Box):
        with np.errstate(over="ignore"):
            ranges = np.asarray(space.high - space.low)
        return bool(space.dtype == np.float32 and np.isfinite(ranges).all() and (ranges > 0).all())
    start = np.asarray(getattr(space, "start", 0))
    return not start.any() and len(space.shape or ()) <= 1


def _make_in_worker(config: EnvConfig, index: int, info: tuple[str, ...] = ()) -> gym.Env[Any, Any]:
    find_id(config.env)  # a spawned process has not registered any ids yet
    return _make_one(config, index, info)


def _make_one(config: EnvConfig, index: int, info: tuple[str, ...] = (), pausable: bool = False) -> gym.Env[Any, Any]:
    register_robotics()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make(config.name, disable_env_checker=True, **config.env_kwargs)
    _remove_model_file(env)
    if config.action_repeat > 1:
        env = ActionRepeat(env, config.action_repeat, last_reward=is_goal_space(env.observation_space))
    if config.position_history:
        env = PositionHistory(env, config.position_history)
    if config.reward_delay:
        env = DelayedReward(env, config.reward_delay)
    if config.frame_stack > 1:
        if image_shape(env.observation_space) is None:
            raise EnvError(f"--frame-stack stacks images, but {config.name} observes {env.observation_space}.")
        env = gym.wrappers.FrameStackObservation(env, config.frame_stack, padding_type="reset")
    return Guard(Pausable(env) if pausable else env, index, info)


def _remove_model_file(env: gym.Env[Any, Any]) -> None:
    """Delete the temporary model file of gymnasium-robotics' mazes, which they do not remove."""
    file = getattr(env.unwrapped, "tmp_xml_file_path", None)
    if isinstance(file, str):
        with contextlib.suppress(OSError):
            os.remove(file)


def is_batched(config: EnvConfig) -> bool:
    """Whether the environments are one batch, the environment's own vector form, in which more of them cost little.
    Raises EnvError if the id is unknown."""
    find_id(config.env)
    return gym.registry[config.name].vector_entry_point is not None and config.vectorization == "auto"


def _make_vector(
    config: EnvConfig, mode: AutoresetMode, device: torch.device, info: tuple[str, ...]
) -> gym.vector.VectorEnv[Any, Any, Any]:
    if is_batched(config):
        kwargs = _on_device(config, device)
        env = gym.make_vec(config.name, config.count, "vector_entry_point", **kwargs)
        plain = config.action_repeat == 1 and config.frame_stack <= 1
        if plain and not config.reward_delay and not config.position_history:
            return env
        if plain and env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            if config.position_history:
                env = PositionHistoryBatch(env, config.position_history)
            return DelayedRewards(env, config.reward_delay) if config.reward_delay else env
        env.close()  # replaced by single environments, which have wrappers for these options
    indices = range(config.count)
    if config.vectorization == "async":
        makers = [partial(_make_in_worker, config, i, info) for i in indices]
        start = None if config.worker_start == "auto" else config.worker_start
        return WorkerEnv(makers, config.workers, mode, config.worker_timeout, start)
    makers = [partial(_make_one, config, i, info, mode == AutoresetMode.DISABLED) for i in indices]
    return gym.vector.SyncVectorEnv(makers, copy=False, autoreset_mode=mode)


def _on_device(config: EnvConfig, device: torch.device) -> dict[str, Any]:
    """The keyword arguments, plus the training device if the vector form takes a device and none is given."""
    entry: Any = gym.registry[config.name].vector_entry_point
    form = load_env_creator(entry) if isinstance(entry, str) else entry
    given = config.env_kwargs
    return {"device": str(device)} | given if "device" in inspect.signature(form).parameters else given


def _require_usable(config: EnvConfig, observed: gym.Space[Any]) -> gym.Space[Any]:
    """The part of an observation space that agents see. Raises EnvError if there is none."""
    space = usable(observed)
    try:
        if space is None:
            raise UnsupportedSpace(f"{observed}, which contains no vector")
        flat_dim(space)
    except UnsupportedSpace as error:
        raise EnvError(
            f"{config.name} observes {error}, which is not supported. Wrap the environment so that it observes vectors "
            "(gymnasium.wrappers.FlattenObservation, or features of a pretrained network)."
        ) from error
    return space


def _first(env: Any, name: str, default: Any) -> Any:
    """An attribute of the first environment of a vector environment."""
    return getattr(env.envs[0], name, default) if getattr(env, "envs", None) else default


def _mask_dim(config: EnvConfig, actions: gym.Space[Any]) -> int:
    """Number of choices of the action mask in the first info; 0 if there is none."""
    if not isinstance(actions, spaces.Discrete):
        return 0
    one = _make_one(replace(config, reward_delay=0, position_history=()), 0)
    _, info = one.reset(seed=0)
    one.close()
    return int(actions.n) if MASK in info else 0


def _spec(
    config: EnvConfig,
    env: gym.vector.VectorEnv[Any, Any, Any],
    actions: ActionMap,
    info: tuple[str, ...],
    region: Callable[[], contextlib.AbstractContextManager[None]],
) -> Spec:
    name = config.name
    space = _require_usable(config, env.single_observation_space)
    action_low, action_high = actions.bounds()
    limit = config.env_kwargs.get("max_episode_steps", gym.registry[name].max_episode_steps)
    common: dict[str, Any] = {
        "env_id": name,
        "observation_space": space,
        "action_space": env.single_action_space,
        "action_low": action_low,
        "action_high": action_high,
        # -1 is Gymnasium's for none
        "max_episode_steps": -(-limit // config.action_repeat) if limit is not None and limit > 0 else None,
        "info": info,
        "left_out": getattr(env, "left_out", None) or _first(env, "left_out", ()),
        "ignored_goals": ignored_goals(space),
        "frames": max(config.frame_stack, 1),
        "mask_dim": _mask_dim(config, env.single_action_space),
    }
    if not is_goal_space(space):
        nothing: dict[str, Any] = {"goal_dim": 0, "achieved": (), "task_reward": None, "reward_range": None}
        return Spec(**_state(space), **common, **nothing)
    assert isinstance(space, spaces.Dict)
    seen = probe(_make_one(replace(config, reward_delay=0, position_history=()), 0, info))
    achieved = find_achieved(seen.observation, seen.achieved)
    state = state_space(space, appended=achieved is None)
    if achieved is None:  # the last vector entries of the state
        achieved = tuple(range(vector_dim(observed_space(space)), vector_dim(state)))
    # A vector environment may compute its task's reward on tensors; otherwise, a single environment's code is called.
    reward: Any = getattr(env, "task_reward", None) or GoalReward(seen, info, region)
    return Spec(
        **_state(state),
        goal_dim=flat_dim(space["desired_goal"]),
        achieved=achieved,
        task_reward=reward,
        reward_range=reward.range if isinstance(reward, GoalReward) else getattr(env, "reward_range", None),
        info_dim=sum(np.size(seen.infos[0][key]) for key in info),
        **common,
    )


def _state(space: gym.Space[Any]) -> dict[str, Any]:
    """The specification of a state with this space."""
    low, high = flat_bounds(space)
    return {"state_dim": len(low), "state_low": low, "state_high": high, "images": image_shapes(space)}
