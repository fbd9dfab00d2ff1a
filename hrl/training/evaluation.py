"""Evaluation: a deterministic policy in environments of its own, on fixed episode seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hrl.training.episodes import Episode, EpisodeCounter
from hrl.types import BatchedEnv, Observation, Outline, Step

EVALUATION_SEED = 10_000_000
"""First episode seed; training uses none so high."""

MakeEvaluationEnv = Callable[[int, Iterator[int]], BatchedEnv]
"""(number of environments, the episodes' seeds) -> environments."""


Watch = Callable[[BatchedEnv, Tensor | None], None]
"""Is shown the environments, and the subgoals [N, G] in force, if any."""


class Policy(Protocol):
    """What acts in an evaluation. Memory is opaque: whatever acting remembers."""

    def start(self, num_envs: int) -> Any:
        """The memory before the first step."""

    def decide(self, obs: Observation, memory: Any) -> tuple[Tensor, Any, Tensor | None]:
        """Deterministic actions [N, A], the memory, and the subgoal [N, G] the lowest level obeys, if any."""

    def place(self, state: Tensor) -> Tensor | None:
        """States [N, D] as goals [N, G] for pictures, if there is a goal space."""

    def after(self, memory: Any, step: Step) -> tuple[Any, dict[str, Tensor]]:
        """The memory after a step, and named pairs [2, N] of values and where they count."""


@dataclass
class Path:
    """What one episode went through in goal space, for pictures."""

    places: list[np.ndarray] = field(default_factory=list)
    """[G] at every step, the final one included."""
    targets: list[np.ndarray] = field(default_factory=list)
    """[G] the subgoal in force at every step."""
    goal: np.ndarray | None = None
    """[G] the task's goal."""
    scene: list[Sequence[Outline]] = field(default_factory=list)
    """What stood around it at first, and before the last step."""


@dataclass
class Evaluation:
    """Episodes of one policy, in the order of their seeds."""

    episodes: list[Episode]
    paths: list[Path]
    rates: dict[str, float]
    """Further means, such as the subgoal reach rate."""

    def summary(self) -> dict[str, Any]:
        """One JSON object; intervals are 95 %."""
        values = {
            "mean_reward": [e.reward for e in self.episodes],
            "mean_ep_length": [float(e.length) for e in self.episodes],
            "success_rate_any": [float(e.success_any) for e in self.episodes],
            "success_rate_final": [float(e.success_final) for e in self.episodes],
        }
        result: dict[str, Any] = {"episodes": len(self.episodes)}
        for name, x in values.items():
            result[name] = float(np.mean(x))
            result[f"{name}_interval"] = interval(x, proportion=name.startswith("success"))
        return result | self.rates

    def scalars(self) -> dict[str, float]:
        """As TensorBoard's `eval/` shows them."""
        s = self.summary()
        return {
            "eval/mean_reward": s["mean_reward"],
            "eval/mean_ep_length": s["mean_ep_length"],
            "eval/success_rate": s["success_rate_any"],
            "eval/success_rate_final": s["success_rate_final"],
        } | {f"eval/{name}": value for name, value in self.rates.items()}


def interval(values: list[float], proportion: bool) -> tuple[float, float] | None:
    """95 % interval of the mean: Wilson's score for proportions, else normal; None for a single value."""
    n, mean, z = len(values), float(np.mean(values)), 1.959964
    if proportion:
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
        return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))
    if n == 1:
        return None
    half = z * float(np.std(values, ddof=1)) / np.sqrt(n)
    return float(mean - half), float(mean + half)


@torch.no_grad()
def evaluate(
    policy: Policy,
    make: MakeEvaluationEnv,
    episodes: int,
    seed: int = EVALUATION_SEED,
    keep_paths: int = 0,
    num_envs: int = 25,
    watch: Watch | None = None,
) -> Evaluation:
    """Run `episodes` episodes, episode i begun with seed + i. Touches no state of training.

    Environments that reset themselves can't be given each episode's seed; they go on from their first one.
    `watch` is called with the environments and the subgoals before every step. A policy that has an evaluation of its
    own is asked for that: one that adapts is judged by how it does, with `episodes` tasks.
    """
    own: Any = getattr(policy, "evaluate", None)
    if own is not None:
        return own(make, episodes, seed, watch)
    num_envs = min(episodes, num_envs)
    env = make(num_envs, count(seed))
    running = np.arange(num_envs)  # which episode each environment is in
    finished: dict[int, Episode] = {}
    paths = {i: Path() for i in range(keep_paths)}
    sums: dict[str, Tensor] = {}
    obs, memory = env.reset(seed), policy.start(num_envs)
    counter = EpisodeCounter(num_envs, obs.state.device)
    while sum(i < episodes for i in finished) < episodes:
        actions, memory, target = policy.decide(obs, memory)
        if paths:
            _record(paths, running, obs, policy.place(obs.state), target, env)
        if watch is not None:
            watch(env, target)
        step = env.step(actions)
        memory, pairs = policy.after(memory, step)
        for name, pair in pairs.items():
            sums[name] = sums.get(name, torch.zeros(2)) + torch.stack([(pair[0] * pair[1]).sum(), pair[1].sum()]).cpu()
        ended = counter.add(step.reward, step.success, step.terminated | step.truncated, step.active)
        for episode in ended.episodes():
            if (path := paths.get(int(running[episode.env]))) is not None:
                _record_place(path, policy.place(step.final.state), episode.env)
            finished[int(running[episode.env])] = episode
            running[episode.env] = running.max() + 1
        obs = step.obs
    env.close()
    rates = {name: float(x[0] / x[1]) for name, x in sums.items() if x[1] > 0}
    return Evaluation([finished[i] for i in range(episodes)], list(paths.values()), rates)


def _record(
    paths: dict[int, Path],
    running: np.ndarray,
    obs: Observation,
    places: Tensor | None,
    target: Tensor | None,
    env: BatchedEnv,
) -> None:
    for i, episode in enumerate(running):
        path = paths.get(int(episode))
        if path is not None:
            _record_place(path, places, i)
            path.goal = obs.goal[i].cpu().numpy().copy()
            path.scene = [*path.scene[:1], env.outlines(i)]
            if target is not None:
                path.targets.append(target[i].cpu().numpy())


def _record_place(path: Path, places: Tensor | None, env: int) -> None:
    if places is not None:
        path.places.append(places[env].cpu().numpy())
