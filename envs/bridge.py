"""The bridge: a Gymnasium vector environment as batched tensors, whatever its autoreset mode."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from hrl.envs.flatten import flatten_batch
from hrl.envs.goals import is_goal_space, observation_part
from hrl.envs.scene import Outline, outlines
from hrl.envs.spec import Observation, Spec, Step


class EnvironmentFault(Exception):
    """An environment broke its contract in the middle of a run; the sentence names environment and step."""


class Bridge:
    """N environments stepped together. Actions are in [-1, 1], everything else is tensors on `device`.

    `seeds`, for environments whose autoreset is disabled, gives each episode's own seed.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        spec: Spec,
        device: torch.device,
        seeds: Iterator[int] | None = None,
    ) -> None:
        self.env, self.spec, self.device, self.seeds = env, spec, device, seeds
        self.num_envs = env.num_envs
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.steady = self.mode != AutoresetMode.NEXT_STEP
        self.goal_env = is_goal_space(env.single_observation_space)
        self.appended = self.goal_env and spec.state_dim > _width(observation_part(env.single_observation_space))
        self.steps = 0
        self._resetting = torch.zeros(self.num_envs, dtype=torch.bool, device=device)
        self._low, self._high = spec.action_low.to(device), spec.action_high.to(device)
        self._centre, self._half = (self._high + self._low) / 2, (self._high - self._low) / 2
        self._host_centre, self._host_half = self._centre.cpu().numpy(), self._half.cpu().numpy()
        self.tensors = False  # whether the environment speaks tensors; its first observation says
        self._fault = torch.zeros((), dtype=torch.bool, device=device)

    def reset(self, seed: int) -> Observation:
        """Begin an episode in every environment; environment i is seeded with seed + i (or from `seeds`)."""
        seeds: Any = [next(self.seeds) for _ in range(self.num_envs)] if self.seeds else seed
        raw, _ = self._answer(lambda: self.env.reset(seed=seeds))
        self.tensors = isinstance(_first(raw), Tensor)
        self._resetting = torch.zeros_like(self._resetting)
        obs = self.observe(raw)
        self._check(obs)
        return obs

    def send(self, actions: Tensor) -> None:
        """Give every environment its action. Those that step beside this thread do so from now on."""
        given = self._to_env(actions)
        env: Any = self.env
        if hasattr(env, "step_async"):
            self._answer(lambda: env.step_async(given))
            self._outcome = env.step_wait
        else:
            self._outcome = lambda: env.step(given)

    def step(self, actions: Tensor) -> Step:
        """Send and receive."""
        self.send(actions)
        return self.receive()

    def receive(self) -> Step:
        """What came of the actions. Raises EnvironmentFault for an observation or reward that is no number."""
        raw, reward, terminated, truncated, info = self._answer(self._outcome)
        obs = self.observe(raw)
        rewards = torch.as_tensor(reward, dtype=torch.float32, device=self.device)
        ended, cut = (torch.as_tensor(x, dtype=torch.bool, device=self.device) for x in (terminated, truncated))
        active = ~self._resetting
        done = (ended | cut) & active
        final, following = obs, obs
        if self.mode == AutoresetMode.SAME_STEP:
            final = self._final(obs, info, done)
        elif self.mode == AutoresetMode.NEXT_STEP:
            self._resetting = done
        elif bool(done.any()):
            following = self._restart(done)
        count = self.num_envs if self.steady else int(active.sum())
        self.steps += count
        self._check(final, rewards)
        if following is not final:
            self._check(following)
        return Step(following, final, rewards, ended & active, cut & active, active, self._success(info, done), count)

    def verify(self) -> None:
        """Raise EnvironmentFault for what `step` could not tell without waiting for the device."""
        if bool(self._fault):
            raise EnvironmentFault(
                f"{self.spec.env_id} gave an observation, goal or reward that is NaN or infinite "
                f"before environment step {self.steps}."
            )

    @property
    def is_family(self) -> bool:
        """Whether the environments are a family of tasks, each of them given its own."""
        return hasattr(self.env, "sample_tasks") and hasattr(self.env, "set_tasks")

    def sample_tasks(self, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """[count, K] tasks of the family."""
        family: Any = self.env
        return family.sample_tasks(count, generator, held_out)

    def set_tasks(self, tasks: Tensor) -> None:
        """Give environment i the task tasks[i]; `reset` comes next."""
        family: Any = self.env
        family.set_tasks(tasks)

    def outlines(self, index: int) -> Sequence[Outline]:
        """Walls, gaps and blocks of one environment as they stand, for pictures."""
        return outlines(self.env, index)

    def render(self, marks: Tensor | None = None) -> Sequence[np.ndarray]:
        """One frame [H, W, 3] an environment; those of ours show marks [N, G], such as subgoals."""
        env: Any = self.env.unwrapped
        if hasattr(env, "marks"):
            env.marks = marks
        frames: Any = self.env.render()
        return list(frames)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def to_action(self, actions: np.ndarray) -> np.ndarray:
        """From [-1, 1] to the environment's own bounds, [N, *shape]."""
        space: Any = self.env.single_action_space
        scaled = (actions.clip(-1.0, 1.0) * self._host_half + self._host_centre).reshape(-1, *space.shape)
        return np.clip(scaled, space.low, space.high).astype(space.dtype)

    # -- the parts -------------------------------------------------------------------------------------------

    def _to_env(self, actions: Tensor) -> Any:
        if self.tensors and self.spec.continuous:
            shape: Any = self.env.single_action_space.shape
            scaled = torch.clamp(actions * self._half + self._centre, self._low, self._high)
            return scaled.reshape(-1, *shape)
        if self.tensors:
            return actions
        if not self.spec.continuous:
            return actions.cpu().numpy()
        return self.to_action(actions.cpu().numpy())

    def is_single(self, raw: Any) -> bool:
        """Whether a raw observation is one environment's, not a batch."""
        space: Any = self.env.single_observation_space
        while isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
            key: Any = next(iter(space.spaces)) if isinstance(space, gym.spaces.Dict) else 0
            space, raw = space[key], raw[key]
        return np.ndim(raw) == len(space.shape)

    def as_batch(self, raw: Any) -> Any:
        """One environment's raw observation as a batch of one."""
        return _stack([raw])

    def observe(self, raw: Any) -> Observation:
        """Batched raw observations, as the environment gives them, as tensors."""
        space: Any = self.env.single_observation_space
        if not self.goal_env:
            state = flatten_batch(space, raw, self.device)
            return Observation(state, state.new_zeros(len(state), 0))
        keys = ("observation", "desired_goal", "achieved_goal")[: 3 if self.appended else 2]
        state, goal, *achieved = (flatten_batch(space[key], raw[key], self.device) for key in keys)
        return Observation(torch.cat([state, *achieved], -1) if achieved else state, goal)

    def _final(self, obs: Observation, info: dict[str, Any], done: Tensor) -> Observation:
        """The true next observation: under SAME_STEP it stands in info where an episode ended."""
        raw = info.get("final_obs", info.get("final_observation"))
        if raw is None:
            return obs
        if isinstance(raw, np.ndarray) and raw.dtype == object:
            places = np.flatnonzero([r is not None for r in raw])
            ended = self.observe(_stack([raw[i] for i in places]))
            state, goal = obs.state.clone(), obs.goal.clone()
            where = torch.as_tensor(places, device=self.device)
            state[where], goal[where] = ended.state, ended.goal
            return Observation(state, goal)
        ended = self.observe(raw)
        wide = done.unsqueeze(-1)
        return Observation(torch.where(wide, ended.state, obs.state), torch.where(wide, ended.goal, obs.goal))

    def _restart(self, done: Tensor) -> Observation:
        mask = done.cpu().numpy()
        seeds: Any = [next(self.seeds) if self.seeds and d else None for d in mask]
        raw, _ = self.env.reset(seed=seeds, options={"reset_mask": mask})
        return self.observe(raw)

    def _success(self, info: dict[str, Any], done: Tensor) -> Tensor:
        """`is_success` or `success` of this step; where an episode ended under SAME_STEP it is the final info's."""
        success = self._flag(info)
        final = info.get("final_info")
        return torch.where(done, self._flag(final), success) if isinstance(final, dict) else success

    def _flag(self, info: dict[str, Any]) -> Tensor:
        for key in ("is_success", "success"):
            if key in info:
                values = info[key]
                if isinstance(values, np.ndarray) and values.dtype == object:
                    values = np.array([bool(v) for v in values])
                return torch.as_tensor(values, device=self.device).bool().flatten()
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def _answer(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (BrokenPipeError, ConnectionError, EOFError) as error:
            raise EnvironmentFault(
                f"A worker process of {self.spec.env_id} died at environment step {self.steps}."
            ) from error

    def _check(self, obs: Observation, reward: Tensor | None = None) -> None:
        given = {"an observation": obs.state, "a goal": obs.goal}
        if reward is not None:
            given["a reward"] = reward.unsqueeze(-1)
        if self.tensors and self.device.type == "cuda":  # told by `verify`, so that nothing waits here
            self._fault |= ~torch.isfinite(torch.stack([values.sum() for values in given.values()])).all()
            return
        for name, values in given.items():
            # One sum instead of a mask: an entry that is no number makes the sum none.
            if not math.isfinite(values.sum().item()):
                wrong = (~torch.isfinite(values)).any(-1).nonzero().flatten().tolist()
                if wrong:
                    raise EnvironmentFault(
                        f"Environment {wrong[0]} of {self.spec.env_id} gave {name} that is NaN or infinite "
                        f"at environment step {self.steps}."
                    )


def _first(raw: Any) -> Any:
    while isinstance(raw, dict | tuple):
        raw = next(iter(raw.values())) if isinstance(raw, dict) else raw[0]
    return raw


def _width(space: gym.Space[Any]) -> int:
    return int(np.prod(space.shape or (0,)))


def _stack(observations: list[Any]) -> Any:
    first = observations[0]
    if isinstance(first, dict):
        return {key: _stack([o[key] for o in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stack(list(column)) for column in zip(*observations, strict=True))
    return np.stack([np.asarray(o) for o in observations])
