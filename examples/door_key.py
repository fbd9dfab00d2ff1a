"""MiniGrid's DoorKey with its three subgoals: take the key, open the door, reach the goal.

MiniGrid's observation, the agent's view, does not show a goal under the agent or a door behind it. Predicates of this
observation cannot determine whether these subgoals are reached. Importing this module registers two forms of the task
with complete observations:

- `DoorKeyImage-8x8-v0` (and 16x16): the complete grid as an image (MiniGrid's FullyObsWrapper), and the direction.
- `DoorKey-8x8-v0` (and 5x5, 6x6, 16x16): the same information in 14 numbers, without convolutions. Training takes
  minutes on one core.

From the folder of this file:

    hrl-train hdqn --env door_key:DoorKey-8x8-v0 --subgoals door_key:SUBGOALS
    hrl-train hdqn --env door_key:DoorKeyImage-8x8-v0 --subgoals door_key:IN_THE_IMAGE
    hrl-train dqn --env door_key:DoorKey-8x8-v0
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from minigrid.core.constants import OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.wrappers import FullyObsWrapper
from torch import Tensor

KEY, DOOR, GOAL = (OBJECT_TO_IDX[name] for name in ("key", "door", "goal"))
LOCKED = STATE_TO_IDX["locked"]
Predicates = dict[str, Callable[[Tensor], Tensor]]
"""Predicates by name, states [..., D] -> bool [...]."""


class Numbers(gym.ObservationWrapper[Any, Any, Any]):
    """Observes (x, y) of agent, key, door and goal, scaled to [0, 1], the agent's direction one-hot, and whether the
    agent carries the key and the door is unlocked. A carried key has the position of the agent."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0.0, 1.0, (14,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode, and find the door and the goal, which do not move."""
        observation, info = self.env.reset(seed=seed, options=options)
        grid = self.env.unwrapped.grid  # type: ignore[attr-defined]
        kinds = grid.encode()[..., 0]
        self.door, self.goal = np.argwhere(kinds == DOOR)[0], np.argwhere(kinds == GOAL)[0]
        self.lock = grid.get(*self.door)
        return self.observation(observation), info

    def observation(self, observation: Any) -> np.ndarray:
        """The 14 numbers."""
        task: Any = self.env.unwrapped
        keys = [item for item in task.grid.grid if item is not None and item.type == "key"]
        key = keys[0].cur_pos if keys else task.agent_pos
        places = np.concatenate([task.agent_pos, key, self.door, self.goal]) / (task.width - 1)
        state = [not keys, not self.lock.is_locked]
        return np.concatenate([places, np.eye(4)[task.agent_dir], state]).astype(np.float32)


def door_key(size: int, wrapper: type[gym.Wrapper[Any, Any, Any, Any]], **options: Any) -> gym.Env[Any, Any]:
    """MiniGrid-DoorKey with another observation."""
    return wrapper(gym.make(f"MiniGrid-DoorKey-{size}x{size}-v0", **options).unwrapped)


for _size in (5, 6, 8, 16):
    _ending, _steps = f"-{_size}x{_size}-v0", 10 * _size**2
    gym.register(f"DoorKey{_ending}", partial(door_key, _size, Numbers), max_episode_steps=_steps)
    if _size > 6:  # smaller arrays do not count as images
        gym.register(f"DoorKeyImage{_ending}", partial(door_key, _size, FullyObsWrapper), max_episode_steps=_steps)

SUBGOALS: Predicates = {
    "key": lambda state: state[..., 12] > 0.5,
    "door": lambda state: state[..., 13] > 0.5,
    "goal": lambda state: (state[..., :2] == state[..., 6:8]).all(-1),
}


def without(state: Tensor, kind: int, condition: int | None = None) -> Tensor:
    """Whether [...] no cell holds an object of this kind (in this condition), in states [..., 4 + 3 cells]: the
    direction one-hot, then the image, channels first: kinds, colours and conditions."""
    kinds, _, conditions = state[..., 4:].unflatten(-1, (3, -1)).unbind(-2)
    found = kinds == kind
    return ~(found if condition is None else found & (conditions == condition)).any(-1)


IN_THE_IMAGE: Predicates = {
    "key": lambda state: without(state, KEY),
    "door": lambda state: without(state, DOOR, LOCKED),
    "goal": lambda state: without(state, GOAL),
}
"""The agent hides the content of its cell, so the goal is missing from the image only when the agent is on it."""
