"""The bridge: a Gymnasium vector environment as batched tensors, for every autoreset mode."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from hrl.envs.goals import is_goal_space, state_space
from hrl.envs.infos import InfoReader
from hrl.envs.scene import Outline, mark, outlines
from hrl.envs.spaces.actions import ActionMap
from hrl.envs.spaces.flatten import batched, flat_dim, flatten_batch, shapes_of, unflatten_batch, usable
from hrl.envs.spec import Observation, Spec, Step
from hrl.envs.wrappers.guard import EnvironmentFault
from hrl.envs.wrappers.pause import pausables


class Bridge:
    """N environments that step together. Actions are in [-1, 1]; all values are tensors on `device`.

    If they are `seeded`, every episode uses the seed after the last one's. This needs environments that do not reset
    themselves (AutoresetMode.DISABLED).
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        spec: Spec,
        device: torch.device,
        seeded: bool = False,
        actions: ActionMap | None = None,
    ) -> None:
        self.env, self.spec, self.device, self.seeded = env, spec, device, seeded
        self.num_envs = env.num_envs
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.resets_within_step = self.mode != AutoresetMode.NEXT_STEP
        self.goal_env = is_goal_space(env.single_observation_space)
        self.steps = 0
        self._seeds: Iterator[int] = count()
        self._pausables = pausables(env)
        self._paused: Tensor | None = None  # [N] while some environments pause
        self._resetting = torch.zeros(self.num_envs, dtype=torch.bool, device=device)
        self._always = ~self._resetting
        self.infos = InfoReader(spec, self.num_envs, device)
        self.actions = actions or ActionMap(env.single_action_space)
        space: Any = usable(env.single_observation_space)
        appended = spec.state_dim > flat_dim(state_space(space, appended=False))
        self.space, self.state_space = space, state_space(space, appended)
        self.tensors = False  # whether the environment uses tensors; set by its first observation
        self._fault = torch.zeros((), dtype=torch.bool, device=device)

    @property
    def reports_success(self) -> bool:
        """True after an info has reported success, or the lack of it."""
        return self.infos.reports_success

    @property
    def restarts(self) -> bool:
        """Whether single environments can start a new episode at any time (`truncate`)."""
        return self.mode == AutoresetMode.DISABLED

    def reset(self, seed: int) -> Observation:
        """Start an episode in every environment. Environment i uses the seed `seed` + i."""
        self._seeds = count(seed + self.num_envs)
        self._paused = None
        raw, info = self._answer(lambda: self.env.reset(seed=seed))
        self.tensors = isinstance(_first(raw), Tensor)
        self._resetting = torch.zeros_like(self._resetting)
        obs = self.observe(raw, self.infos.mask(info, self.steps))
        self._check(obs)
        return obs

    def send(self, actions: Tensor) -> None:
        """Send the actions [N, A] or [N]. Environments outside this thread start to step."""
        given = self._to_env(actions)
        env: Any = self.env
        if hasattr(env, "step_async"):
            self._answer(lambda: env.step_async(given))
            self._outcome = env.step_wait
        else:
            self._outcome = lambda: env.step(given)

    def step(self, actions: Tensor) -> Step:
        """Send the actions [N, A] or [N], and wait for the step."""
        self.send(actions)
        return self.receive()

    def receive(self) -> Step:
        """Wait for the step of the sent actions. Raises EnvironmentFault if an observation or reward is not finite."""
        raw, reward, terminated, truncated, info = self._answer(self._outcome)
        obs = self.observe(raw, self.infos.mask(info, self.steps))
        rewards = self._column(reward, torch.float32, "rewards")
        terminated, truncated = (self._column(x, torch.bool, "flags") for x in (terminated, truncated))
        active, taken = self._always, self.num_envs
        if self._paused is not None or not self.resets_within_step:
            active = ~(self._resetting if self._paused is None else self._resetting | self._paused)
            terminated, truncated, taken = terminated & active, truncated & active, int(active.sum())
        done = terminated | truncated
        final, following = obs, obs
        if self.mode == AutoresetMode.SAME_STEP:
            final = self._final(obs, info, done)
        elif self.mode == AutoresetMode.NEXT_STEP:
            self._resetting = done
        elif bool(done.any()):
            following = self._restart(done)
        self.steps += taken
        self._check(final, rewards)
        if following is not final:
            self._check(following)
        success, kept = self.infos.success(info, done, self.steps), self.infos.kept(info)
        return Step(following, final, rewards, terminated, truncated, active, success, taken, kept)

    def truncate(self, step: Step, where: Tensor) -> Step:
        """The step with the episodes at the mask `where` [N] truncated; new ones start there if `restarts`."""
        obs = self._merge(step.obs, self._restart(where), where) if self.restarts else step.obs
        return step._replace(obs=obs, truncated=step.truncated | where)

    def pause(self, where: np.ndarray) -> None:
        """Do not step the environments in `where` [N] bool until the next reset. Only evaluations' environments in this
        process can pause; others step on."""
        for env, paused in zip(self._pausables, where, strict=False):
            env.paused = bool(paused)
        if self._pausables:
            self._paused = torch.as_tensor(where, device=self.device) if where.any() else None

    def verify(self) -> None:
        """Raise EnvironmentFault for invalid values that `step` does not check, because it never waits for a GPU."""
        if bool(self._fault):
            self._fault.zero_()
            raise EnvironmentFault(
                f"{self.spec.env_id} returned an observation, goal or reward that is NaN or infinite "
                f"before environment step {self.steps}."
            )

    @property
    def is_family(self) -> bool:
        """Whether the environments are a family of tasks, in which each environment can have a different task."""
        return hasattr(self.env, "sample_tasks") and hasattr(self.env, "set_tasks")

    def sample_tasks(self, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """Sample [count, K] tasks of the family."""
        family: Any = self.env
        return family.sample_tasks(count, generator, held_out)

    def set_tasks(self, tasks: Tensor) -> None:
        """Give environment i the task tasks[i]. Call `reset` afterwards."""
        family: Any = self.env
        family.set_tasks(tasks)

    def lasting(self) -> dict[str, Tensor]:
        """State of the environments that persists across episodes, by name; it changes in place. Only our batched
        tasks have such state."""
        env: Any = self.env.unwrapped
        return dict(env.lasting()) if hasattr(env, "lasting") else {}

    def outlines(self, index: int) -> Sequence[Outline]:
        """The current walls, gaps and blocks of one environment, for pictures."""
        return outlines(self.env, index)

    def render(self, marks: Tensor | None = None) -> Sequence[np.ndarray]:
        """One frame [H, W, 3] per environment. Marks [N, G], such as subgoals, are drawn in our own tasks and in goal
        environments rendered by MuJoCo, where goals are positions."""
        env: Any = self.env.unwrapped
        if hasattr(env, "marks"):
            env.marks = marks
        elif marks is not None and self.goal_env and getattr(env, "envs", None):
            for single, place in zip(env.envs, marks.tolist(), strict=True):
                mark(single, place)
        frames: Any = self.env.render()
        return list(frames)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def to_action(self, actions: np.ndarray) -> np.ndarray:
        """Convert agents' actions to elements of the environment's own space [N, *shape]."""
        return self.actions.to_env(actions)

    def from_action(self, actions: np.ndarray) -> np.ndarray:
        """Convert elements of the environment's own space [N, *shape] to agents' actions."""
        return self.actions.from_env(actions)

    # -- the parts -------------------------------------------------------------------------------------------

    def _to_env(self, actions: Tensor) -> Any:
        if self.tensors:
            return self.actions.to_env_tensor(actions)
        return self.to_action(actions.cpu().numpy())

    def _column(self, values: Any, dtype: torch.dtype, name: str) -> Tensor:
        """Convert one number per environment to a tensor [N]."""
        try:
            return torch.as_tensor(values, dtype=dtype, device=self.device).reshape(self.num_envs)
        except (TypeError, ValueError, RuntimeError) as error:
            raise EnvironmentFault(
                f"{self.spec.env_id} returned {name} that are not one number per environment at environment step "
                f"{self.steps}: {error}"
            ) from error

    def given(self, observation: Any, mask: Callable[[bool], Tensor | None]) -> tuple[Observation, bool]:
        """Convert a program's observation, of one environment or of a batch. Returns it as a batch, and whether it is a
        single one, on which `mask` [N, K] may depend. Raises ValueError if it does not fit, or is not finite."""
        try:
            single = self._is_single(observation)
            state, goal, _ = self._observed(batched([observation]) if single else observation)
        except (TypeError, ValueError, RuntimeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"The observation does not fit {self.space}: {' '.join(str(error).split())}.") from error
        if (state.shape[1], goal.shape[1]) != (self.spec.state_dim, self.spec.goal_dim):
            raise ValueError(f"The observation does not fit {self.space}: it has the shape {shapes_of(observation)}.")
        if not bool(state.isfinite().all() & goal.isfinite().all()):
            raise ValueError(f"The observation is NaN or infinite: {observation!r}.")
        return Observation(state, goal, mask(single)), single

    def _is_single(self, raw: Any) -> bool:
        """Whether a raw observation is one environment's, not a batch."""
        space: Any = self.space
        while isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
            key: Any = next(iter(space.spaces)) if isinstance(space, gym.spaces.Dict) else 0
            raw = raw[space.places[key] if hasattr(space, "places") and len(raw) != len(space.spaces) else key]
            space = space[key]
        return np.ndim(raw) == len(space.shape)

    def observe(self, raw: Any, mask: Tensor | None = None) -> Observation:
        """Convert a batch of raw observations to tensors; `mask` [N, K] marks the available discrete actions.
        Raises EnvironmentFault if observations are outside their space."""
        try:
            return self._observed(raw)._replace(mask=mask)
        except (TypeError, ValueError, RuntimeError, KeyError, IndexError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise EnvironmentFault(
                f"{self.spec.env_id} returned an observation outside its space at environment step {self.steps}: "
                f"{reason}"
            ) from error

    def raw(self, obs: Observation) -> Any:
        """The inverse of `observe`: a batch of observations in the environment's own form, as numpy arrays."""
        state = unflatten_batch(self.state_space, obs.state)
        if not self.goal_env:
            return state
        achieved = obs.state[:, list(self.spec.achieved)]
        goals = {"achieved_goal": achieved, "desired_goal": obs.goal}
        parts = {key: unflatten_batch(self.space[key], goal) for key, goal in goals.items()}
        return {**state, **parts}

    def _observed(self, raw: Any) -> Observation:
        state = flatten_batch(self.state_space, raw, self.device)
        if not self.goal_env:
            return Observation(state, state.new_zeros(len(state), 0))
        return Observation(state, flatten_batch(self.space["desired_goal"], raw["desired_goal"], self.device))

    def _final(self, obs: Observation, info: dict[str, Any], done: Tensor) -> Observation:
        """The true next observation. Under SAME_STEP, info contains it where an episode ended."""
        raw = info.get("final_obs", info.get("final_observation"))
        if raw is None:
            return obs
        if isinstance(raw, np.ndarray) and raw.dtype == object:
            places = np.flatnonzero([r is not None for r in raw])
            ended = self.observe(batched([raw[i] for i in places]))
            state, goal = obs.state.clone(), obs.goal.clone()
            where = torch.as_tensor(places, device=self.device)
            state[where], goal[where] = ended.state, ended.goal
            return Observation(state, goal, obs.mask)  # the mask after an episode's end is never used
        return self._merge(obs, self.observe(raw, obs.mask), done)

    @staticmethod
    def _merge(obs: Observation, other: Observation, where: Tensor) -> Observation:
        wide = where.unsqueeze(-1)
        pairs = ((other.state, obs.state), (other.goal, obs.goal), (other.mask, obs.mask))
        return Observation(*(None if a is None or b is None else torch.where(wide, a, b) for a, b in pairs))  # type: ignore[arg-type]

    def _restart(self, done: Tensor) -> Observation:
        mask = done.cpu().numpy()
        seeds: Any = [next(self._seeds) if self.seeded and d else None for d in mask]
        raw, info = self._answer(lambda: self.env.reset(seed=seeds, options={"reset_mask": mask}))
        return self.observe(raw, self.infos.mask(info, self.steps))

    def _answer(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (BrokenPipeError, ConnectionError, EOFError) as error:
            raise EnvironmentFault(
                f"A worker process of {self.spec.env_id} died at environment step {self.steps}."
            ) from error
        except EnvironmentFault:
            raise
        except (Exception, SystemExit) as error:  # raised by a user's vector environment
            raise EnvironmentFault(
                f"{self.spec.env_id} raised {type(error).__name__} at environment step {self.steps}: "
                f"{' '.join(str(error).split())}"
            ) from error

    def _check(self, obs: Observation, reward: Tensor | None = None) -> None:
        given = {"an observation": obs.state, "a goal": obs.goal}
        if reward is not None:
            given["a reward"] = reward.unsqueeze(-1)
        if self.tensors and self.device.type == "cuda":  # `verify` raises later, without a wait here
            self._fault |= ~torch.isfinite(torch.stack([values.sum() for values in given.values()])).all()
            return
        # One sum instead of masks, since a NaN or infinite entry makes the sum not finite.
        if math.isfinite(sum(values.sum() for values in given.values() if values.shape[-1])):
            return
        for name, values in given.items():
            wrong = (~torch.isfinite(values)).any(-1).nonzero().flatten().tolist()
            if wrong:
                raise EnvironmentFault(
                    f"Environment {wrong[0]} of {self.spec.env_id} returned {name} that is NaN or infinite "
                    f"at environment step {self.steps}."
                )


def _first(raw: Any) -> Any:
    while isinstance(raw, dict | tuple):
        raw = next(iter(raw.values())) if isinstance(raw, dict) else raw[0]
    return raw
