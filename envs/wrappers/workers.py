"""Gymnasium environments in worker processes, in groups, with observations in shared memory."""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space, create_shared_memory, read_from_shared_memory

from hrl.envs.scene import Outline, outlines
from hrl.envs.wrappers.guard import EnvironmentFault

PR_SET_PDEATHSIG = 1  # Linux's constant
CLOSING = 0.5
"""Seconds that workers have to close their environments."""
MakeEnv = Callable[[], gym.Env[Any, Any]]


class WorkerEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """N environments in groups, with one process per group.

    One process per core is faster than one process per environment, where messages take longer than most environments'
    steps. `step_async` sends the actions, and `step_wait` waits for the results.
    """

    def __init__(
        self,
        makers: Sequence[MakeEnv],
        workers: int,
        autoreset_mode: AutoresetMode,
        timeout: float = 120.0,
        start: str | None = None,
    ) -> None:
        self.timeout = timeout
        example = makers[0]()
        self.single_observation_space, self.single_action_space = example.observation_space, example.action_space
        self.metadata = {**example.metadata, "autoreset_mode": autoreset_mode}
        self.spec, self.render_mode = example.spec, example.render_mode
        self.left_out = getattr(example, "left_out", ())
        example.close()
        self.num_envs = len(makers)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        count = min(workers or os.cpu_count() or 1, self.num_envs)
        bounds = np.linspace(0, self.num_envs, count + 1).astype(int)
        self.groups = [slice(int(a), int(b)) for a, b in pairwise(bounds)]
        # A process that uses a GPU must not fork.
        context: Any = multiprocessing.get_context(start or ("spawn" if torch.cuda.is_initialized() else "fork"))
        shared = create_shared_memory(self.single_observation_space, self.num_envs, context)
        outcome = context.RawArray("d", 3 * self.num_envs)
        self._shared = shared  # keep its locks alive: a spawned process needs them when it starts
        self.seen = read_from_shared_memory(self.single_observation_space, shared, self.num_envs)
        self.outcome = np.frombuffer(outcome).reshape(3, self.num_envs)
        self.pipes: list[Connection] = []
        self.processes = []
        for group in self.groups:
            ours, theirs = context.Pipe()
            task = (theirs, makers[group], autoreset_mode, group, shared, outcome, self.num_envs)
            process = context.Process(target=_work, args=task, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        try:
            list(self._receive())  # each worker confirms that it has made its environments
        except BaseException:
            self.close_extras()
            raise
        atexit.register(self.close)  # Python would end workers with SIGTERM, which they ignore

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes. Environment i uses the seed `seed` + i, or the i-th seed of a list."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        mask = np.ones(self.num_envs, dtype=bool) if options is None else options.get("reset_mask", True)
        for pipe, group in zip(self.pipes, self.groups, strict=True):
            mine = None if options is None else {k: v[group] if k == "reset_mask" else v for k, v in options.items()}
            concerned = bool(np.any(np.broadcast_to(mask, self.num_envs)[group]))
            pipe.send(("reset" if concerned else "nothing", (None if seeds is None else seeds[group], mine)))
        return self.seen, self._answers()

    def step_async(self, actions: Any) -> None:
        """Send the actions to the workers."""
        for pipe, group in zip(self.pipes, self.groups, strict=True):
            pipe.send(("step", actions[group]))

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Wait for the step of all environments."""
        info = self._answers()
        reward, terminated, truncated = self.outcome
        return self.seen, reward.copy(), terminated > 0, truncated > 0, info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Send the actions and wait for the step."""
        self.step_async(actions)
        return self.step_wait()

    def render(self) -> tuple[np.ndarray, ...]:
        """One frame [H, W, 3] per environment."""
        for pipe in self.pipes:
            pipe.send(("render", None))
        return tuple(frame for frames in self._receive() for frame in frames)

    def outlines(self, index: int) -> list[Outline]:
        """The scene of one environment (see hrl/envs/scene.py)."""
        number = next(n for n, group in enumerate(self.groups) if index < group.stop)
        self.pipes[number].send(("outlines", index - self.groups[number].start))
        return list(next(self._receive([number])))

    def close_extras(self, **_: Any) -> None:
        """End the workers."""
        atexit.unregister(self.close)
        for pipe in self.pipes:
            with contextlib.suppress(OSError):  # the worker may have died
                pipe.send(("close", None))
            pipe.close()
        deadline = time.monotonic() + CLOSING
        for process in self.processes:
            process.join(timeout=max(deadline - time.monotonic(), 0.0))
        for process in self.processes:
            if process.is_alive():  # suspended, or in a step that does not return
                process.kill()
                process.join()

    def _answers(self) -> dict[str, Any]:
        return merged(list(self._receive()), [g.stop - g.start for g in self.groups])

    def _receive(self, workers: Sequence[int] | None = None) -> Iterator[Any]:
        """The answers of these workers (default: all). Raises the error of a worker, or EnvironmentFault after the
        timeout."""
        answers, deadline = [], time.monotonic() + self.timeout
        for number in range(len(self.pipes)) if workers is None else workers:
            pipe = self.pipes[number]
            if not pipe.poll(max(deadline - time.monotonic(), 0.0)):
                group = self.groups[number]
                raise EnvironmentFault(
                    f"Worker process {number}, which steps environments {group.start} to {group.stop - 1}, did not "
                    f"answer for {self.timeout:g} seconds. If its steps are slow, increase --worker-timeout."
                )
            answers.append(pipe.recv())
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return iter(answers)


def _work(
    pipe: Connection,
    makers: Sequence[MakeEnv],
    mode: AutoresetMode,
    group: slice,
    shared: Any,
    outcome: Any,
    total: int,
) -> None:
    """A worker process. It answers commands until its pipe is closed, and leaves stop signals to the main process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # a killed main process cannot close its pipes
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        env = SyncVectorEnv(list(makers), copy=False, autoreset_mode=mode)
        seen = read_from_shared_memory(env.single_observation_space, shared, total)
        results = np.frombuffer(outcome).reshape(3, total)
    except (Exception, SystemExit) as error:
        _answer(pipe, error)
        return
    _answer(pipe, None)
    while True:
        try:
            command, given = pipe.recv()
        except (EOFError, OSError):  # the main process is gone
            break
        if command == "close":
            break
        try:
            answer: Any
            if command == "step":
                obs, *values, answer = env.step(given)
                results[:, group] = values
                _copy(seen, obs, group)
            elif command == "reset":
                obs, answer = env.reset(seed=given[0], options=given[1])
                _copy(seen, obs, group)
            elif command == "render":
                answer = env.render()
            elif command == "outlines":
                answer = outlines(env, given)
            else:
                answer = {}
        except (Exception, SystemExit) as error:
            answer = error
        _answer(pipe, answer)
    env.close()


def _answer(pipe: Connection, answer: Any) -> None:
    """Send an answer. Exceptions become EnvironmentFault, which can always be pickled."""
    if isinstance(answer, BaseException) and not isinstance(answer, EnvironmentFault):
        answer = EnvironmentFault(f"A worker process raised {type(answer).__name__}: {answer}")
    with contextlib.suppress(OSError):  # the main process is gone
        pipe.send(answer)


def _copy(place: Any, values: Any, group: slice) -> None:
    if isinstance(place, dict):
        for key, part in place.items():
            _copy(part, values[key], group)
    elif isinstance(place, tuple):
        for part, value in zip(place, values, strict=True):
            _copy(part, value, group)
    else:
        place[group] = values


def merged(infos: Sequence[dict[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    """Merge the infos of all groups to the info of one vector environment. Missing entries are zeros or None."""
    result: dict[str, Any] = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        parts = [info.get(key) for info in infos]
        known = next(part for part in parts if part is not None)
        if isinstance(known, dict):
            result[key] = merged([part or {} for part in parts], sizes)
        else:
            shape, kind = np.shape(known)[1:], np.asarray(known).dtype
            empty = [np.full((n, *shape), None if kind.hasobject else 0, dtype=kind) for n in sizes]
            result[key] = np.concatenate([e if p is None else p for e, p in zip(empty, parts, strict=True)])
    return result
