"""Properties of goal environments: the achieved goal's entries in the observation, and the goal reward."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.spaces.flatten import batched, flat_bounds, flatten_batch, usable, vector_dim
from hrl.envs.spaces.images import image_shape
from hrl.envs.wrappers.guard import EnvironmentFault

GOALS = ("achieved_goal", "desired_goal")
CPU = torch.device("cpu")


def is_goal_space(space: gym.Space[Any]) -> bool:
    """True if each observation is a dictionary with an achieved goal and a desired goal, which are vectors of the same
    shape. All other entries are the observation, and at least one must have a supported space."""
    if not isinstance(space, spaces.Dict) or not set(GOALS) <= set(space.spaces):
        return False
    goals = [space[key] for key in GOALS]
    vectors = all(isinstance(goal, spaces.Box | spaces.MultiBinary) and image_shape(goal) is None for goal in goals)
    return vectors and goals[0].shape == goals[1].shape and usable(observed_space(space)) is not None


def ignored_goals(space: gym.Space[Any]) -> str:
    """A sentence that says why an environment with goals counts as one without; empty if it has none, or if they
    count."""
    if not isinstance(space, spaces.Dict) or not set(GOALS) <= set(space.spaces) or is_goal_space(space):
        return ""
    kinds = " and ".join(f"{key} is {space[key]}" for key in GOALS)
    return f"The goals are a part of the observation, without hindsight, because only vectors can be goals: {kinds}."


def observed_space(space: spaces.Dict) -> spaces.Dict:
    """A goal environment's observation: all entries except the goals, with `observation` first."""
    keys = sorted(set(space.spaces) - set(GOALS), key=lambda key: (key != "observation", str(key)))
    return spaces.Dict([(key, space[key]) for key in keys])


def state_space(space: gym.Space[Any], appended: bool) -> gym.Space[Any]:
    """The part of the raw observation that is flattened to the state. For a goal environment, this is its observation;
    with `appended`, it also contains the achieved goal, as the last vector."""
    if not isinstance(space, spaces.Dict) or not is_goal_space(space):
        return space
    observed = observed_space(space)
    return spaces.Dict([*observed.items(), ("achieved_goal", space["achieved_goal"])]) if appended else observed


@dataclass
class Probe:
    """P observations of a few random steps."""

    env: gym.Env[Any, Any]
    observation: np.ndarray
    """[P, D] flattened, without pixels."""
    achieved: np.ndarray
    """[P, G] flattened."""
    infos: list[dict[str, Any]]
    """The info of each observation."""


def probe(env: Any, episodes: int = 4, steps: int = 8) -> Probe:
    """Take a few random steps in a separate, guarded environment."""
    env.action_space.seed(0)
    seen: list[dict[str, np.ndarray]] = []
    infos: list[dict[str, Any]] = []
    for episode in range(episodes):
        env.reset(seed=episode)
        for _ in range(steps):
            obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append(obs)
            infos.append(dict(env.last_info))
            if terminated or truncated:
                break
    space: Any = usable(env.observation_space)
    raw, observed = batched(seen), observed_space(space)
    state = flatten_batch(observed, raw, CPU)[:, : vector_dim(observed)]
    achieved = flatten_batch(space["achieved_goal"], raw["achieved_goal"], CPU)
    return Probe(env, state.numpy(), achieved.numpy(), infos)


def find_achieved(observation: np.ndarray, achieved: np.ndarray) -> tuple[int, ...] | None:
    """Indices of the entries of observations [P, D] that equal the achieved goal [P, G]. Returns None unless each goal
    entry varies and matches exactly one entry of the observation."""
    indices = []
    for column in achieved.T:
        same = np.flatnonzero((observation == column[:, None]).all(0))
        if len(same) != 1 or np.ptp(column) == 0:
            return None
        indices.append(int(same[0]))
    return tuple(indices)


class GoalReward:
    """Calls the environment's `compute_reward` on tensors, and determines whether the reward ends the episode.

    `compute_reward` receives goals in the shape and dtype of their space, one by one if it does not take batches, and
    only the entries of a step's info that `info` names. Reaching the goal ends the episode if `compute_terminated`
    returns True for an exactly achieved goal and the reward is sparse, so that the reward shows whether the goal is
    reached.
    """

    requires_host = True
    """The reward is computed on the host."""

    def __init__(
        self, seen: Probe, info: tuple[str, ...] = (), region: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """`region` is a context around each call of the environment's code; the call can be interrupted inside it."""
        self.env: Any = seen.env.unwrapped
        self.region = region
        self.name = seen.env.spec.id if seen.env.spec else type(self.env).__name__
        space: Any = seen.env.observation_space
        self.spaces = space["achieved_goal"], space["desired_goal"]
        self.forms = {key: np.asarray(seen.infos[0][key]) for key in info}
        self.sizes = {key: form.size for key, form in self.forms.items()}
        self.fault: str | None = None
        """The reason why rewards cannot be recomputed; None if they can."""
        self.range: tuple[float, float] | None = None
        self.ends, self.hit = False, float("nan")
        given_info = self._stacked(seen.infos)
        self.batched = self._takes_batches(seen, given_info)
        try:
            self._explore(seen, given_info)
        except Exception as error:
            self.fault = self._why(seen, error)

    def _stacked(self, infos: list[dict[str, Any]]) -> np.ndarray:
        """[P, K] the named entries of P infos."""
        columns = [np.stack([np.ravel(np.asarray(i[key], dtype=np.float64)) for i in infos]) for key in self.sizes]
        return np.concatenate(columns, -1) if columns else np.zeros((len(infos), 0))

    def _explore(self, seen: Probe, given_info: np.ndarray) -> None:
        """Find the possible rewards, the reward of a reached goal, and whether reaching it ends the episode."""
        goal = seen.achieved[:1]
        scales = np.logspace(-3, 2, 24)[:, None, None]
        noise = np.random.default_rng(0).standard_normal((24, *seen.achieved.shape))
        low, high = (np.ravel(bound) for bound in _bounds(self.spaces[1]))
        goals = np.clip(seen.achieved + scales * noise, low, high)
        there = np.broadcast_to(seen.achieved, noise.shape)
        info = np.broadcast_to(given_info, (24, *given_info.shape))
        rewards = self._rewards(*(x.reshape(24 * len(given_info), x.shape[-1]) for x in (there, goals, info)))
        self.hit = float(self._rewards(goal, goal, given_info[:1])[0])
        values = {self.hit, *np.unique(rewards).tolist()}
        self.range = (min(values), max(values)) if len(values) <= 2 else None
        terminates = getattr(self.env, "compute_terminated", None)
        if self.range is not None and terminates is not None:
            reached = [shaped(goal[0], space) for space in self.spaces]
            self.ends = bool(np.all(terminates(*reached, self._info(given_info[0]))))

    def _why(self, seen: Probe, error: Exception) -> str:
        cause = f"{type(error).__name__}: {error}"
        fails = (
            f"compute_reward of {self.name} fails ({cause}), so hindsight cannot recompute rewards: correct it, or "
            "switch hindsight off."
        )
        pair = [shaped(seen.achieved[0], space) for space in self.spaces]
        try:  # with the info that hindsight stores
            self.env.compute_reward(*pair, self._info(self._stacked(seen.infos)[0]))
            return fails
        except Exception as first:
            error = first
        try:  # with the complete info of a step
            self.env.compute_reward(*pair, seen.infos[0])
        except Exception:
            return fails
        missing = error.args[0] if isinstance(error, KeyError) and error.args else "KEY"
        return (
            f"compute_reward of {self.name} reads info ({cause}), which hindsight does not store. Store the entry with "
            f"--goal.info {missing}, or switch hindsight off."
        )

    def _takes_batches(self, seen: Probe, given_info: np.ndarray) -> bool:
        """Whether `compute_reward` accepts a batch of goals and returns the same rewards as one call per goal."""
        try:
            goals = [shaped(seen.achieved, space) for space in self.spaces]
            rewards = self.env.compute_reward(*goals, self._info(given_info))
            alone = [self._one(*row) for row in zip(seen.achieved, seen.achieved, given_info, strict=True)]
            return np.shape(rewards) == (len(seen.achieved),) and bool(np.allclose(rewards, alone))
        except Exception:
            return False

    def _info(self, given_info: np.ndarray) -> dict[str, Any]:
        """Convert the named entries [..., K] to an info dictionary."""
        ends = np.cumsum(list(self.sizes.values()))
        parts = {key: given_info[..., end - self.sizes[key] : end] for key, end in zip(self.sizes, ends, strict=True)}
        return {
            key: x.reshape((*x.shape[:-1], *self.forms[key].shape)).astype(self.forms[key].dtype)
            for key, x in parts.items()
        }

    def _one(self, achieved: np.ndarray, desired: np.ndarray, given_info: np.ndarray) -> float:
        pair = (shaped(x, space) for x, space in zip((achieved, desired), self.spaces, strict=True))
        return float(np.asarray(self.env.compute_reward(*pair, self._info(given_info))).item())

    def _rewards(self, achieved: np.ndarray, desired: np.ndarray, given_info: np.ndarray) -> np.ndarray:
        """Rewards [B] of goals [B, G] and info [B, K]."""
        if self.batched:
            goals = (shaped(x, space) for x, space in zip((achieved, desired), self.spaces, strict=True))
            return np.asarray(self.env.compute_reward(*goals, self._info(given_info)), dtype=np.float64)
        return np.array([self._one(*row) for row in zip(achieved, desired, given_info, strict=True)])

    def __call__(self, achieved: Tensor, desired: Tensor, info: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(achieved, desired [..., G], info [..., K]) -> (reward [...] float32, ends the episode [...])."""
        given_info = achieved.new_zeros(*achieved.shape[:-1], 0) if info is None else info
        count = achieved[..., 0].numel()
        flat = [x.reshape(count, x.shape[-1]).double().cpu().numpy() for x in (achieved, desired, given_info)]
        try:
            with self.region():
                rewards = self._rewards(*flat)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"compute_reward of {self.name} raised {type(error).__name__}: {error}") from error
        if not np.isfinite(rewards).all():
            raise EnvironmentFault(f"compute_reward of {self.name} returned a reward that is NaN or infinite.")
        reward = torch.as_tensor(rewards).reshape(achieved.shape[:-1]).to(achieved.device)
        return reward.float(), (reward == self.hit) & self.ends


def _bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of a goal space, float64."""
    if isinstance(space, spaces.Box):
        return np.asarray(space.low, dtype=np.float64), np.asarray(space.high, dtype=np.float64)
    return np.zeros(space.shape), np.ones(space.shape)


def shaped(goals: np.ndarray, space: Any) -> np.ndarray:
    """Flattened goals [..., G] in the shape and dtype of their space."""
    formed = goals.reshape(*goals.shape[:-1], *space.shape)
    return formed.astype(space.dtype) if space.dtype.kind == "f" else np.rint(formed).astype(space.dtype)


class VectorGoals(gym.ObservationWrapper[Any, Any, Any]):
    """Converts a goal environment's observation and goals to three float32 vectors, for libraries that require them."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space: Any = usable(env.observation_space)
        self.forms: dict[str, Any] = {"observation": observed_space(space), **{key: space[key] for key in GOALS}}
        box = lambda low, high: spaces.Box(low.numpy(), high.numpy(), dtype=np.float32)  # noqa: E731
        self.observation_space = spaces.Dict({key: box(*flat_bounds(part)) for key, part in self.forms.items()})

    def observation(self, observation: Any) -> Any:
        """The observation and both goals as float32 vectors."""
        raw = batched([observation])
        parts = {"observation": raw, **{key: raw[key] for key in GOALS}}
        return {key: flatten_batch(form, parts[key], CPU)[0].numpy() for key, form in self.forms.items()}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """The environment's reward, computed with the goals in their original shape and dtype."""
        inner: Any = self.env.unwrapped
        achieved = shaped(achieved_goal, self.forms["achieved_goal"])
        return inner.compute_reward(achieved, shaped(desired_goal, self.forms["desired_goal"]), info)
