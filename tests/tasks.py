"""Tiny Gymnasium environments with transitions that can be calculated by hand. Importing registers them."""

import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTHS = (3, 7, 5, 1)
"""Length of the k-th episode, over and over."""


class Ledger(gym.Env[np.ndarray, np.ndarray]):
    """Observes [episode, t]; the reward of step t is t + 1. Episodes of odd number terminate, even ones truncate.

    Seed s begins with episode s % 100, so that environments differ.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2.0, 4.0, (1,), np.float32)

    def __init__(self, fail_at: int = -1, fault: str = "") -> None:
        self.fail_at, self.fault, self.total, self.episode = fail_at, fault, 0, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode = self.episode + 1 if seed is None else seed % 100
        self.t = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.t, self.total = self.t + 1, self.total + 1
        over = self.t >= LENGTHS[self.episode % 4]
        terminated = over and self.episode % 2 == 1
        obs, reward = self._obs(), float(self.t)
        if self.total == self.fail_at:
            if self.fault == "raise":
                raise RuntimeError("the simulator fell over")
            obs = np.array([np.nan, 0], np.float32) if self.fault == "nan" else obs
            reward = float("inf") if self.fault == "inf" else reward
        return obs, reward, terminated, over and not terminated, {"success": terminated}

    def _obs(self) -> np.ndarray:
        return np.array([self.episode, self.t], np.float32)


class GoalLine(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """A point on a line moves by its action (at most .5) towards a goal; sparse 0/1, ends within .25 of it."""

    def __init__(self, apart: bool = False) -> None:
        goal = spaces.Box(-9.0, 9.0, (1,), np.float64)
        self.apart = apart
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-9.0, 9.0, (2,), np.float64), achieved_goal=goal, desired_goal=goal
        )
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1)
        self.goal = self.np_random.uniform(-3, 3, 1)
        self.t = 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.t += 1
        self.x = np.clip(self.x + 0.5 * np.asarray(action, np.float64), -9, 9)
        reward = float(self.compute_reward(self.x, self.goal, {}))
        return self._obs(), reward, reward > 0, False, {"is_success": reward > 0}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
        return (np.linalg.norm(achieved - desired, axis=-1) <= 0.25).astype(np.float64)

    def compute_terminated(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> bool:
        return bool(self.compute_reward(achieved, desired, info))

    def _obs(self) -> dict[str, np.ndarray]:
        seen = np.array([self.t / 10, 2 * self.x[0] if self.apart else self.x[0]])
        return {"observation": seen, "achieved_goal": self.x.copy(), "desired_goal": self.goal.copy()}


class Mixed(gym.Env[Any, Any]):
    """A dictionary of a number and a vector; unbounded actions of shape [2, 1]."""

    observation_space = spaces.Dict(
        a=spaces.Discrete(3, start=1),
        b=spaces.Box(0.0, 1.0, (2, 2), np.float32),
        c=spaces.MultiDiscrete([2, 3]),
    )
    action_space = spaces.Box(-np.inf, np.inf, (2, 1), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.action = action
        return self._obs(), float(action.sum()), False, False, {}

    def _obs(self) -> Any:
        return {"a": 2, "b": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), "c": np.array([1, 2])}


class Mapped(Mixed):
    """Has outlines for pictures, or what `bad` says."""

    def __init__(self, bad: Any = None) -> None:
        super().__init__()
        self.bad = bad

    def outlines(self) -> Any:
        return [(-3, -3, 6, 1, "wall"), (np.float32(1), 1, 0.5, 0.5, "hazard")] if self.bad is None else self.bad


class Switches(Mixed):
    """Has an action space of several numbered switches."""

    action_space = spaces.MultiDiscrete([2, 3])  # type: ignore[assignment]


gym.register("Switches-v0", Switches, max_episode_steps=5)
gym.register("Ledger-v0", Ledger)
gym.register("GoalLine-v0", GoalLine, max_episode_steps=12)
gym.register("Mixed-v0", Mixed, max_episode_steps=5)


class Stuck(gym.Env[np.ndarray, np.ndarray]):
    """Never ends by itself. The `at`-th call of `where` creates the file `marker` and then sleeps forever."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, where: str = "", at: int = 1, marker: str = "", render_mode: str | None = None) -> None:
        self.where, self.at, self.marker, self.calls, self.render_mode = where, at, marker, 0, render_mode
        self._call("init")

    def _call(self, name: str) -> None:
        self.calls += name == self.where
        if name == self.where and self.calls == self.at:
            Path(self.marker).touch()
            while True:
                time.sleep(1000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._call("reset")
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self._call("step")
        return self._obs(), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        self._call("render")
        return np.zeros((16, 16, 3), np.uint8)

    def close(self) -> None:
        self._call("close")

    def _obs(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


gym.register("Stuck-v0", Stuck)


class Drawn(gym.Env[Any, Any]):
    """Has spaces that a test sets, and keeps every action that is outside its space."""

    observed: ClassVar[gym.Space[Any]] = spaces.Discrete(2)
    acted: ClassVar[gym.Space[Any]] = spaces.Discrete(2)
    wrong: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.observation_space, self.action_space = Drawn.observed, Drawn.acted

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        if not self.action_space.contains(action):
            Drawn.wrong.append(action)
        return self.observation_space.sample(), 1.0, False, False, {}


class Said(gym.Env[np.ndarray, np.ndarray]):
    """Returns the values that a test sets, from its `at`-th step on."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    says: ClassVar[dict[str, Any]] = {}

    def __init__(self, at: int = 3, width: int = 3) -> None:
        self.at, self.steps, self.width = at, 0, width
        self.observation_space = spaces.Box(-1.0, 1.0, (width,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(self.width, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        told = Said.says if self.steps >= self.at else {}
        return (
            told.get("obs", np.full(self.width, 0.1, np.float32)),
            told.get("reward", 1.0),
            told.get("terminated", False),
            told.get("truncated", False),
            told.get("info", {}),
        )


class GoalForm(gym.Env[Any, np.ndarray]):
    """A goal environment whose reward requires goals of a particular shape and dtype; it may read info."""

    def __init__(self, shape: tuple[int, ...] = (2, 1), kind: str = "float32", reads_info: bool = False) -> None:
        dtype = np.dtype(kind).type
        goal = spaces.Box(-9, 9, tuple(shape), dtype)
        self.reads_info, self.goal_space = reads_info, goal
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-9.0, 9.0, (2,), np.float32), achieved_goal=goal, desired_goal=goal
        )
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x, self.t = np.zeros(self.goal_space.shape), 0
        self.goal = self.np_random.integers(-3, 4, self.goal_space.shape).astype(self.goal_space.dtype)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.t += 1
        self.x = np.clip(self.x + float(action[0]), -9, 9)
        info = {"bonus": float(self.t)}
        obs = self._obs()
        reward = self.compute_reward(obs["achieved_goal"], self.goal, info)
        return obs, float(reward), False, False, info | {"is_success": bool(reward >= 0)}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> Any:
        for goal in (achieved, desired):
            assert goal.dtype == self.goal_space.dtype, goal.dtype
            assert goal.shape[-len(self.goal_space.shape) :] == self.goal_space.shape, goal.shape
        axes = tuple(range(-len(self.goal_space.shape), 0))
        reward = (np.abs(achieved.astype(float) - desired) <= 0.5).all(axis=axes) - 1.0
        return reward + (100 * np.asarray(info["bonus"]) if self.reads_info else 0.0)

    def _obs(self) -> dict[str, np.ndarray]:
        achieved = self.x.astype(self.goal_space.dtype)
        seen = np.array([self.t / 10, self.x.ravel()[0]], np.float32)
        return {"observation": seen, "achieved_goal": achieved, "desired_goal": self.goal.copy()}


class GoalSeen(gym.Env[Any, int]):
    """A goal environment on a line of 5 places, with a number, an image, or both and a text as the observation. The
    image and text may also be entries beside the observation, with or without an entry of that name."""

    def __init__(self, form: str = "number") -> None:
        number, image = spaces.Discrete(5, start=1), spaces.Box(0, 255, (8, 9, 1), np.uint8)
        place = spaces.Box(-9.0, 9.0, (1,), np.float32)
        self.form, parts = form, {"image": image, "number": number, "text": spaces.Text(9)}
        self.observation_space = spaces.Dict(self._arranged(parts) | {"achieved_goal": place, "desired_goal": place})
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.goal = 1, int(self.np_random.integers(2, 6))
        return self._obs(), {}

    def step(self, action: int) -> Any:
        self.place = int(np.clip(self.place + 2 * action - 1, 1, 5))
        obs = self._obs()
        reward = float(self.compute_reward(obs["achieved_goal"], obs["desired_goal"], {}))
        return obs, reward, reward > 0, False, {"is_success": reward > 0}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> Any:
        return (np.abs(achieved - desired) < 0.25).all(-1).astype(float)

    def _obs(self) -> dict[str, Any]:
        image = np.zeros((8, 9, 1), np.uint8)
        image[0, self.place] = 200
        seen = self._arranged({"number": self.place, "image": image, "text": "here"})
        place, goal = (np.array([x / 2], np.float32) for x in (self.place, self.goal))
        return seen | {"achieved_goal": place, "desired_goal": goal}

    def _arranged(self, parts: dict[str, Any]) -> Any:
        if self.form == "beside":
            return {"observation": parts["number"], "image": parts["image"], "text": parts["text"]}
        if self.form == "unnamed":
            return parts
        whole = spaces.Dict(parts) if isinstance(parts["text"], spaces.Text) else parts
        return {"observation": parts.get(self.form, whole)}


def gives_a_class() -> type:
    """A factory that forgets to make an object."""
    return GoalForm


gym.register("Drawn-v0", Drawn, max_episode_steps=5)
gym.register("Said-v0", Said, max_episode_steps=20)
gym.register("GoalForm-v0", GoalForm, max_episode_steps=12)
gym.register("GoalSeen-v0", GoalSeen, max_episode_steps=12)


class Masked(gym.Env[np.ndarray, int]):
    """Three actions, one of which is unavailable; info names it. It counts how often that action was taken."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(3, start=1)
    violations: ClassVar[list[int]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.closed = 0, 0
        return self._obs(), self._info()

    def step(self, action: int) -> Any:
        if action - 1 == self.closed:
            Masked.violations.append(self.t)
        self.t += 1
        self.closed = int(self.np_random.integers(3))
        return self._obs(), float(action == 2), False, False, self._info()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.arange(3) != self.closed}

    def _obs(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


class Picture(gym.Env[Any, int]):
    """An image with a bright column, and the number of the column beside it. The reward is 1 for saying whether it is
    in the left half."""

    action_space = spaces.Discrete(2)

    def __init__(self, kind: str = "image", size: int = 9) -> None:
        self.kind, self.size = kind, size
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        first = spaces.Box(0, 255, (3, size, size), np.uint8)
        self.observation_space = {
            "image": image,
            "first": first,
            "dict": spaces.Dict(text=spaces.Text(4), image=image, way=spaces.Discrete(2)),
        }[kind]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action: int) -> Any:
        right = int(self.column < self.size // 2) == action
        return self._obs(), float(right), False, False, {}

    def _obs(self) -> Any:
        self.column = int(self.np_random.integers(self.size))
        image = np.zeros((self.size, self.size, 3), np.uint8)
        image[:, self.column, 1] = 200
        if self.kind == "dict":
            return {"text": "a", "image": image, "way": 1}
        return image.transpose(2, 0, 1) if self.kind == "first" else image


gym.register("Masked-v0", Masked, max_episode_steps=8)
gym.register("Picture-v0", Picture, max_episode_steps=10)
