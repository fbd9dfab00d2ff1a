"""Conversion between agents' actions and the actions of an environment's own space.

An agent's action is a vector in [-1, 1] for a Box, a number from 0 for Discrete, and one number from 0 per entry for
MultiDiscrete and MultiBinary. The environment receives an element of its space, in its dtype and shape.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


class UnsupportedActions(Exception):
    """Raised for an action space that no agent supports; the message names it."""


class ActionMap:
    """The map between agents' actions and the actions of one environment's space.

    `limit` bounds the entries of a Box that have no bounds. `scale` is the fraction of the range that is used, centred
    on its midpoint. Raises UnsupportedActions for spaces other than Box, Discrete, MultiDiscrete and MultiBinary.
    """

    def __init__(self, space: gym.Space[Any], limit: float = 1.0, scale: float = 1.0) -> None:
        self.space = space
        self.continuous = isinstance(space, spaces.Box)
        start = np.asarray(getattr(space, "start", 0))
        self.start = start if start.any() else None
        if isinstance(space, spaces.Box):
            self._bound(space, limit, scale)
        elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise UnsupportedActions(f"{type(space).__name__} actions")
        if not int(np.prod(space.shape or (1,))):
            raise UnsupportedActions(f"actions without entries ({space})")

    def _bound(self, space: spaces.Box, limit: float, scale: float) -> None:
        """Set the range of actions in float64: half-ranges of the largest float32 numbers would overflow float32."""
        self.integer = space.dtype.kind in "iub"
        low, high = (np.asarray(b, dtype=np.float64) for b in (space.low, space.high))
        below, above = space.bounded_below & np.isfinite(low), space.bounded_above & np.isfinite(high)
        # An entry with one bound gets a range as wide as an entry without bounds.
        self.low = np.where(below, low, np.where(above, high - 2 * limit, -limit)).ravel()
        self.high = np.where(above, high, np.where(below, low + 2 * limit, limit)).ravel()
        if self.integer:
            self.low, self.high = np.ceil(self.low), np.floor(self.high)
        self.centre, self.half = self.low / 2 + self.high / 2, (self.high / 2 - self.low / 2) * scale
        if scale != 1:
            self.low, self.high = self.centre - self.half, self.centre + self.half
            if self.integer:  # keep at least one integer, the midpoint
                low, high = np.ceil(self.low), np.floor(self.high)
                self.low = np.where(low <= high, low, np.floor(self.centre))
                self.high = np.where(low <= high, high, np.floor(self.centre))
        self._tensors: dict[torch.device, tuple[Tensor, ...]] = {}

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Convert agents' actions [N, A] or [N] to the environment's [N, *shape], in its dtype."""
        space: Any = self.space
        if not self.continuous:
            numbers = np.asarray(actions).reshape(-1, *(space.shape or ()))
            return (numbers if self.start is None else numbers + self.start).astype(space.dtype)
        unit = _between(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        if self.integer:  # every integer in the range gets an equal part of [-1, 1]
            count = self.high - self.low + 1
            values = self.low + np.minimum(np.floor((unit + 1) / 2 * count), count - 1)
        else:
            values = _between(self.centre + unit * self.half, self.low, self.high)
        shaped = values.reshape(-1, *space.shape)
        if space.dtype.kind in "iu":
            kind = np.iinfo(space.dtype)
            top = float(kind.max) if int(float(kind.max)) <= kind.max else np.nextafter(float(kind.max), 0)
            return np.clip(np.clip(shaped, kind.min, top).astype(space.dtype), space.low, space.high)
        if space.dtype.kind == "b":
            return shaped > 0.5
        return _between(shaped.astype(space.dtype), space.low, space.high)  # rounding may exceed a bound

    def to_env_tensor(self, actions: Tensor) -> Tensor:
        """Like `to_env`, but on the device of `actions`, for environments that take tensors."""
        space: Any = self.space
        if not self.continuous:
            numbers = actions.reshape(-1, *(space.shape or ())).long()
            return numbers if self.start is None else numbers + torch.as_tensor(self.start, device=actions.device)
        if actions.device not in self._tensors:
            parts = (self.low, self.high, self.centre, self.half)
            self._tensors[actions.device] = tuple(torch.as_tensor(x).to(actions.device).float() for x in parts)
        low, high, centre, half = self._tensors[actions.device]
        if self.integer:
            count = high - low + 1
            values = low + torch.minimum(((actions.clamp(-1, 1) + 1) / 2 * count).floor(), count - 1)
        else:
            values = torch.clamp(actions * half + centre, low, high)
        return (values.long() if self.integer else values).reshape(-1, *space.shape)

    def from_env(self, actions: np.ndarray) -> np.ndarray:
        """Convert the environment's actions [N, *shape] to agents' actions: [N, A] in [-1, 1], or numbers from 0."""
        if not self.continuous:
            return (np.asarray(actions) - (0 if self.start is None else self.start)).astype(np.int64)
        values = np.asarray(actions, dtype=np.float64).reshape(len(actions), -1)
        if self.integer:
            return (values - self.low + 0.5) / (self.high - self.low + 1) * 2 - 1
        # An entry with equal bounds has only one value.
        return np.where(self.half > 0, (values - self.centre) / np.where(self.half > 0, self.half, 1), 0.0)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds [A] of a Box's actions, float32; [0] for other spaces."""
        if not self.continuous:
            return torch.empty(0), torch.empty(0)
        return torch.as_tensor(self.low).float(), torch.as_tensor(self.high).float()

    def agents_space(self) -> gym.Space[Any]:
        """The agents' action space: a float32 Box of [-1, 1], or numbers from 0 in one dimension."""
        space: Any = self.space
        if isinstance(space, spaces.Box):
            return spaces.Box(-1.0, 1.0, (len(self.low),), np.float32)
        if isinstance(space, spaces.Discrete):
            return spaces.Discrete(int(space.n))
        if isinstance(space, spaces.MultiDiscrete):
            return spaces.MultiDiscrete(space.nvec.ravel())
        return spaces.MultiBinary(int(np.prod(space.shape)))


def _between(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """np.clip, at a third of its time for small arrays."""
    return np.minimum(np.maximum(values, low), high)


class PlainActions(gym.ActionWrapper[Any, Any, Any]):
    """An environment with the agents' action space, for libraries that convert actions themselves."""

    plain_actions = True
    """Marks environments for models that use the agents' action space instead of the environment's."""

    def __init__(self, env: gym.Env[Any, Any], actions: ActionMap) -> None:
        super().__init__(env)
        self.actions, self.action_space = actions, actions.agents_space()

    def action(self, action: Any) -> Any:
        """Convert one action to the environment's."""
        return self.actions.to_env(np.asarray(action)[None])[0]
