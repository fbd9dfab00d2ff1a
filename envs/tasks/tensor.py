"""Base classes of tasks that step thousands of environments at once on one device, and of single environments."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from hrl.envs.scene import Outline

Values = Tensor | dict[str, Tensor]


class TensorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """N environments of one task. Observations and rewards are tensors on `device`.

    When an episode ends, the next one starts in the same step (SAME_STEP), and `info["final_obs"]` contains the true
    next observations. A task implements `begin`, `advance`, `observe` and `picture`. It stores its state in tensors and
    changes them in place. Nothing waits for a device.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str,
        max_episode_steps: int | None,
        render_mode: str | None,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
    ) -> None:
        self.num_envs, self.device, self.max_episode_steps = num_envs, torch.device(device), max_episode_steps
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.generator = torch.Generator(self.device)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.render_mode = render_mode
        self.marks: Tensor | None = None  # [N, G] positions to show in pictures

    @abstractmethod
    def begin(self, where: Tensor) -> None:
        """Start episodes at the mask `where` [N]."""

    @abstractmethod
    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step. Returns (reward [N], whether the task ended [N], success [N])."""

    @abstractmethod
    def observe(self) -> Values:
        """The current observations, as new tensors."""

    @abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """A picture [H, W, 3] of one environment from above."""

    def outlines(self, index: int) -> list[Outline]:
        """The current walls, gaps and blocks of one environment; empty without a map."""
        return []

    def lasting(self) -> dict[str, Tensor]:
        """State that persists across episodes and resets, by name. It changes in place; checkpoints contain it."""
        return {}

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Values, dict[str, Any]]:
        """Start an episode in every environment. The batch shares one random state, so a list of seeds is combined into
        one seed."""
        if seed is not None:
            given = [s for s in np.atleast_1d(seed) if s is not None]
            self.generator.manual_seed(int(np.random.SeedSequence([int(s) for s in given]).generate_state(1)[0]))
        self.begin(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        self.elapsed.zero_()
        return self.observe(), {}

    def step(self, actions: Tensor) -> tuple[Values, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Take one step in every environment, and start the next episode where one ended."""
        return self.conclude(*self.advance(torch.as_tensor(actions, device=self.device)))

    def conclude(
        self, reward: Tensor, terminated: Tensor, success: Tensor
    ) -> tuple[Values, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Apply the time limit to the results [N] of `advance`, and start the next episodes. Returns the result of
        `step`."""
        self.elapsed += 1
        truncated = torch.zeros_like(terminated)
        if self.max_episode_steps is not None:
            truncated = self.elapsed >= self.max_episode_steps
        done, info = terminated | truncated, {"success": success}
        seen = self.observe()
        if self.device.type == "cpu" and not bool(done.any()):  # on a CPU, this check does not wait
            return seen, reward, terminated, truncated, info
        self.begin(done)
        self.elapsed.masked_fill_(done, 0)
        return self.observe(), reward, terminated, truncated, {"final_obs": seen, "final_info": info, **info}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture [H, W, 3] of every environment."""
        return tuple(self.picture(i) for i in range(self.num_envs)) if self.render_mode == "rgb_array" else None

    def uniform(self, *shape: int) -> Tensor:
        """Uniform random numbers in [0, 1) from the batch's generator."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def choice(self, options: Tensor, shape: int) -> Tensor:
        """Entries [shape, ...], sampled uniformly from `options` [K, ...]."""
        return options[(self.uniform(shape) * len(options)).long()]


class SingleEnv(gym.Env[Any, Any]):
    """A single environment of a task with numpy values, for `gymnasium.make`."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    task: ClassVar[Callable[..., TensorEnv]]

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        self.batch = type(self).task(num_envs=1, device="cpu", max_episode_steps=None, **kwargs)
        self.observation_space, self.action_space = self.batch.single_observation_space, self.batch.single_action_space
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        obs, _ = self.batch.reset(seed=int(self.np_random.integers(2**31)), options=options)
        return plain(obs, self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step. Gymnasium's wrapper applies the time limit."""
        reward, terminated, success = self.batch.advance(torch.as_tensor(np.asarray(action)).unsqueeze(0))
        self.batch.elapsed += 1
        found = {"success": bool(success)}
        return plain(self.batch.observe(), self.observation_space), float(reward), bool(terminated), False, found

    def render(self) -> np.ndarray | None:
        """A picture [H, W, 3] from above."""
        return self.batch.picture(0) if self.render_mode == "rgb_array" else None


def plain(obs: Values, space: gym.Space[Any]) -> Any:
    """The first observation of a batch, as a value of its space."""
    if isinstance(obs, dict):
        return {key: plain(x, space[key]) for key, x in obs.items()}  # type: ignore[index]
    return int(obs[0]) if isinstance(space, spaces.Discrete) else obs[0].numpy()


class SingleGoalEnv(SingleEnv):
    """A single environment of a goal task, with the interface of gymnasium-robotics' goal environments."""

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """The reward [...] of goals [..., G]."""
        return self._task_reward(achieved_goal, desired_goal)[0].numpy()

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> bool:
        """Whether the achieved goal ends the episode."""
        return bool(self._task_reward(achieved_goal, desired_goal)[1])

    def compute_truncated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> bool:
        """Return False, because Gymnasium's wrapper applies the time limit."""
        return False

    def _task_reward(self, achieved: Any, desired: Any) -> tuple[Tensor, Tensor]:
        goals = (torch.from_numpy(np.array(x, dtype=np.float32)) for x in (achieved, desired))
        return self.batch.task_reward(*goals)  # type: ignore[attr-defined]
