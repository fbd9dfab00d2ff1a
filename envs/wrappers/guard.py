"""The guard checks every value that an environment returns, and converts it to a common form."""

import sys
import traceback
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from hrl.envs.spaces.flatten import UsableTuple, leaves, left_out, usable

MASK = "action_mask"
"""The entry of `info` that contains the mask of available discrete actions."""
SUCCESS_KEYS = ("is_success", "success")
"""The entries of `info` that report success, in order of preference."""

FLAGS = {bool, np.bool_}
NUMBERS = {float, int, np.float64, np.float32, *FLAGS}
"""Types of a single number, which need no conversion. Other types are converted if they can be."""


class EnvironmentFault(Exception):
    """Raised if an environment fails or returns invalid values. The message names the environment and the step."""


class Guard(gym.Wrapper[Any, Any, Any, Any]):
    """Converts the observations, rewards, flags and success of one environment to a common form.

    Removes entries of the observation that no network supports (text, sequences, graphs). Keeps only the success, the
    action mask and the entries named in `keep` from `info`. Raises EnvironmentFault for errors and invalid values.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int, keep: tuple[str, ...] = ()) -> None:
        super().__init__(env)
        self.index, self.steps, self.keep = index, 0, keep
        self.observation_space = usable(env.observation_space) or env.observation_space
        self.last_info: dict[str, Any] = {}
        """The last info as returned by the environment."""
        self.left_out = tuple(left_out(env.observation_space))
        """Entries of the observation that agents do not see, because no network supports them."""
        self._leaves = list(leaves(self.observation_space))
        nested = any(len(path) > 1 for path, _ in self._leaves)
        self._prunes = nested or self.observation_space is not env.observation_space
        actions = env.action_space
        self._choices = int(actions.n) if isinstance(actions, spaces.Discrete) else None
        self._noted = False

    def step(self, action: Any) -> Any:
        """Take one step, count it, and check its values."""
        self.steps += 1
        try:
            answer = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(self._raised("step", error)) from error
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise EnvironmentFault(
                self._message("step", "did not return (observation, reward, terminated, truncated, info)")
            )
        obs, reward, terminated, truncated, info = answer
        return (
            self._observation(obs, "step"),
            float(self._number(reward, "a reward")),
            bool(self._number(terminated, "a terminated flag")),
            bool(self._number(truncated, "a truncated flag")),
            self._info(info, "step"),
        )

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode. The returned info contains at most the action mask."""
        try:
            answer = self.env.reset(**kwargs)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(self._raised("reset", error)) from error
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise EnvironmentFault(self._message("reset", "did not return (observation, info)"))
        obs, info = answer
        kept = self._info(info, "reset")  # only the mask matters for the next step
        return self._observation(obs, "reset"), {key: value for key, value in kept.items() if key == MASK}

    def close(self) -> None:
        """Close the environment. An error prints a warning and does not end the run."""
        try:
            self.env.close()
        except (Exception, SystemExit) as error:
            print(f"warning: {self._raised('close', error)}", file=sys.stderr, flush=True)

    # -- the parts -------------------------------------------------------------------------------------------

    def _observation(self, obs: Any, call: str) -> Any:
        for path, shape in self._leaves:
            part = obs
            try:
                for key in path:
                    part = part[key]
                found = part.shape if type(part) is np.ndarray else np.shape(part)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                where = "".join(f"[{key!r}]" for key in path)
                raise EnvironmentFault(self._message(call, f"returned an observation without {where}")) from error
            if found != shape:
                where = "".join(f"[{key!r}]" for key in path)
                raise EnvironmentFault(
                    self._message(call, f"returned an observation{where} of shape {found}, but its space has {shape}")
                )
        more = isinstance(obs, dict) and len(obs) > len(self._leaves)
        return self._pruned(obs, self.observation_space) if more or self._prunes else obs

    def _pruned(self, obs: Any, space: gym.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._pruned(obs[key], part) for key, part in space.spaces.items()}
        if isinstance(space, UsableTuple):
            return tuple(self._pruned(obs[i], part) for i, part in zip(space.places, space.spaces, strict=True))
        return obs

    def _number(self, value: Any, name: str) -> Any:
        """The value as a number; it may be an array with one entry. Raises EnvironmentFault for other values."""
        if type(value) in NUMBERS:
            return value
        try:
            array = np.asarray(value)
            if array.size == 1 and array.dtype.kind in "fiub":
                return array.item()
        except (ValueError, TypeError, RuntimeError):
            pass
        raise EnvironmentFault(self._message("step", f"returned {name} that is not a single number: {_short(value)}"))

    def _info(self, info: Any, call: str) -> dict[str, Any]:
        if not isinstance(info, dict):
            raise EnvironmentFault(self._message(call, f"returned an info that is not a dictionary: {_short(info)}"))
        self.last_info = info
        kept: dict[str, Any] = {}
        for key in SUCCESS_KEYS:
            if info.get(key) is not None:
                kept["is_success"] = self._success(key, info[key], call)
                break
        if self._choices is not None and info.get(MASK) is not None:
            kept[MASK] = self._mask(info[MASK], self._choices, call)
        for key in self.keep:
            if key not in info and call == "step":
                raise EnvironmentFault(
                    self._message(call, f"returned an info without {key!r}, which --goal.info names")
                )
            if key in info:
                kept[key] = self._vector(info[key], key, call)
        return kept

    def _success(self, key: str, value: Any, call: str) -> bool:
        if type(value) in FLAGS:
            return bool(value)
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):
            array = np.asarray(None)
        if array.dtype.kind not in "fiub" or not array.size or not np.isfinite(array.astype(float)).all():
            raise EnvironmentFault(self._message(call, f"reported a success that is not a boolean: {_short(value)}"))
        if array.size > 1 and not self.index and not self._noted:
            self._noted = True
            note = (
                f"{self._name} reports info[{key!r}] of shape {array.shape}: a step counts as a success if all "
                "entries are true."
            )
            print(f"note: {note}", file=sys.stderr, flush=True)
        return bool(array.all())

    def _mask(self, value: Any, count: int, call: str) -> np.ndarray:
        """Mask [count] of the available actions, bool. Raises EnvironmentFault if it is invalid."""
        mask = np.asarray(value)
        if mask.shape != (count,) or mask.dtype.kind not in "fiub" or not mask.any():
            raise EnvironmentFault(
                self._message(
                    call, f"returned an action mask that does not allow any of {count} actions: {_short(value)}"
                )
            )
        return mask.astype(bool)

    def _vector(self, value: Any, key: str, call: str) -> np.ndarray:
        try:
            array = np.asarray(value, dtype=np.float64)
        except (ValueError, TypeError, RuntimeError) as error:
            raise EnvironmentFault(
                self._message(call, f"returned info[{key!r}] that is not a number: {_short(value)}")
            ) from error
        if not np.isfinite(array).all():
            raise EnvironmentFault(self._message(call, f"returned info[{key!r}] that is NaN or infinite"))
        return array.ravel()

    @property
    def _name(self) -> str:
        return self.spec.id if self.spec else type(self.env.unwrapped).__name__

    def _message(self, call: str, fault: str) -> str:
        return f"Environment {self.index} of {self._name} {fault}, in {call}() at its step {self.steps}."

    def _raised(self, call: str, error: BaseException) -> str:
        said = " ".join(str(error).split()) or "no message"
        kind = type(error).__name__
        last = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"Environment {self.index} of {self._name} raised {kind} in {call}() at its step {self.steps}: {said} "
            f"({Path(last.filename).name}, line {last.lineno})"
        )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
