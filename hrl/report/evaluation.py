"""Evaluation of a policy in separate environments with fixed episode seeds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hrl.report.display import warn
from hrl.report.episodes import Episode, EpisodeCounter
from hrl.stopping import close_within
from hrl.types import BatchedEnv, Observation, Outline, Spec, Step, UserError

EVALUATION_SEED = 10_000_000
"""First episode seed, above all training seeds."""

Environments = Callable[[int], AbstractContextManager[BatchedEnv]]
"""(number of environments) -> a context with environments to evaluate in."""

Watch = Callable[[BatchedEnv, Tensor | None, np.ndarray], None]
"""Called with the environments, the active subgoals [N, G] or None, and the episode number of each environment
([N] int64, -1 for none)."""

EVALUATION_ENVS = 25
"""Most environments that an evaluation steps together, unless they are a batch."""

DEFAULT_LIMIT = 1000
"""Step limit of an evaluation episode, if neither the user nor the environment sets one."""


class Policy(Protocol):
    """The interface of a policy in an evaluation. The evaluation passes its memory on without reading it."""

    def start(self, num_envs: int) -> Any:
        """The initial memory."""

    def decide(self, obs: Observation, memory: Any, deterministic: bool = True) -> tuple[Tensor, Any, list[Tensor]]:
        """Deterministic or sampled actions [N, A], the memory, and the active subgoals [N, G], lowest level first."""

    def place(self, state: Tensor) -> Tensor | None:
        """Positions [N, G] of states [N, D] in goal space, for pictures; None without a goal space."""

    def after(self, memory: Any, step: Step) -> tuple[Any, dict[str, Tensor]]:
        """The memory after a step, and metrics by name: [2, N] values and their weights (0 or 1)."""


@dataclass
class Path:
    """The path of one episode in goal space, for pictures."""

    places: list[np.ndarray] = field(default_factory=list)
    """[G] the position at every step, including the final state."""
    subgoals: list[list[np.ndarray]] = field(default_factory=list)
    """[G] the active subgoals at every step, lowest level first."""
    goal: np.ndarray | None = None
    """[G] the task's goal."""
    scene: list[Sequence[Outline]] = field(default_factory=list)
    """The environment's outlines at the first and at the last step."""


@dataclass
class Evaluation:
    """Episodes of one policy, in the order of their seeds."""

    episodes: list[Episode]
    paths: list[Path]
    rates: dict[str, float]
    """Additional means, such as the subgoal reach rate."""
    reports_success: bool = True
    """Whether the environment reports success."""
    truncated: int = 0
    """Number of episodes that were truncated at the evaluation's step limit."""
    limit: int = DEFAULT_LIMIT
    """The step limit of an episode."""
    bounds: np.ndarray | None = None
    """[2, 2] lower and upper corner of the task's goals in the plane, for pictures; None if they are unbounded."""
    radius: float | None = None
    """Distance to the goal within which the task counts as solved, for pictures; None if unknown."""

    def summary(self) -> dict[str, Any]:
        """The results as one JSON object, with 95 % intervals. Success is missing if the environment does not report
        it."""
        values = {
            "mean_reward": [e.reward for e in self.episodes],
            "mean_ep_length": [float(e.length) for e in self.episodes],
        }
        if self.reports_success:
            values["success_rate_any"] = [float(e.success_any) for e in self.episodes]
            values["success_rate_final"] = [float(e.success_final) for e in self.episodes]
        result: dict[str, Any] = {"episodes": len(self.episodes), "truncated_episodes": self.truncated}
        for name, x in values.items():
            result[name] = float(np.mean(x))
            result[f"{name}_interval"] = interval(x, proportion=name.startswith("success"))
        return result | self.rates

    def notes(self) -> list[str]:
        """Sentences that explain unusual values of the summary."""
        said, summary = [], self.summary()
        if not self.reports_success and "return_after_0" not in summary:
            said.append("The environment reports no success (info['is_success']), so no success rate is shown.")
        if self.truncated:
            said.append(
                f"{self.truncated} of {len(self.episodes)} episodes were truncated after {self.limit:,} "
                "steps; --max-steps sets the limit."
            )
        if summary.get("subgoal_reach_rate", 1.0) < 0.5 and summary.get("success_rate_any", 0.0) > 0.5:
            said.append(
                "Few subgoals are reached, but the task is often solved: subgoals serve as directions, and each one is "
                "replaced after a period, reached or not."
            )
        return said

    def scalars(self) -> dict[str, float]:
        """The results under TensorBoard's `eval/` tags."""
        s = self.summary()
        names = {
            "mean_reward": "mean_reward",
            "mean_ep_length": "mean_ep_length",
            "success_rate_any": "success_rate",
            "success_rate_final": "success_rate_final",
        }
        scalars = {f"eval/{tag}": s[name] for name, tag in names.items() if name in s}
        return scalars | {f"eval/{name}": value for name, value in self.rates.items()}


@contextmanager
def opened(env: BatchedEnv) -> Iterator[BatchedEnv]:
    """A context that closes the environments at its end."""
    try:
        yield env
    finally:
        close_environments(env)


def close_environments(env: BatchedEnv) -> None:
    """Close the environments of an evaluation. Prints a warning if they cannot be closed."""
    if reason := close_within(env.close):
        warn(f"an evaluation's environments could not be closed: {reason}")


def interval(values: list[float], proportion: bool) -> tuple[float, float] | None:
    """95 % interval of the mean: Wilson's score for proportions, otherwise normal. None for a single value."""
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
    environments: Environments,
    episodes: int,
    seed: int = EVALUATION_SEED,
    keep_paths: int = 0,
    num_envs: int = EVALUATION_ENVS,
    watch: Watch | None = None,
    max_steps: int | None = None,
    deterministic: bool = True,
) -> Evaluation:
    """Run `episodes` episodes; episode i has seed `seed` + i. The training state does not change.

    An episode is truncated after `max_steps` environment steps (default: the environment's limit, or DEFAULT_LIMIT).
    Environments that reset themselves use only the seed of their first episode. `watch` is called before every step. A
    policy with its own method `evaluate`, such as a policy that adapts to tasks, is evaluated by this method instead.
    Unless `deterministic`, policies sample their actions.

    Raises UserError for a policy with its own method that should sample.
    """
    own: Any = getattr(policy, "evaluate", None)
    if own is not None:
        if not deterministic:
            raise UserError("This policy adapts to each task: train it with --eval-explore True to sample actions.")
        return own(environments, episodes, seed, watch)
    with environments(min(episodes, num_envs)) as env:
        return _Evaluating(policy, env, episodes, seed, keep_paths, max_steps, deterministic).run(watch)


class _Evaluating:
    """One evaluation in progress. Environments without an episode to run pause, or continue without being counted."""

    def __init__(
        self,
        policy: Policy,
        env: BatchedEnv,
        episodes: int,
        seed: int,
        keep_paths: int,
        max_steps: int | None,
        deterministic: bool,
    ) -> None:
        self.policy, self.env, self.episodes, self.seed = policy, env, episodes, seed
        self.deterministic = deterministic
        self.limit = max_steps or env.spec.max_episode_steps or DEFAULT_LIMIT
        self.truncated = self.started = 0
        self.running = np.full(env.num_envs, -1)
        self.finished: dict[int, Episode] = {}
        self.paths = {i: Path() for i in range(min(keep_paths, episodes))}
        self.sums: dict[str, Tensor] = {}

    def run(self, watch: Watch | None) -> Evaluation:
        """Run all episodes."""
        while len(self.finished) < self.episodes:
            self._batch(watch)  # repeats if truncated environments cannot restart individually
        rates = {name: float(x[0] / x[1]) for name, x in self.sums.items() if x[1] > 0}
        episodes = [self.finished[i] for i in range(self.episodes)]
        paths = list(self.paths.values())
        result = Evaluation(episodes, paths, rates, self.env.reports_success, self.truncated, self.limit)
        return replace(result, bounds=goal_bounds(self.env.spec), radius=self._radius(paths)) if paths else result

    def _radius(self, paths: Sequence[Path]) -> float | None:
        goal = paths[0].goal
        return None if goal is None else success_radius(self.env.spec, torch.as_tensor(goal))

    def _batch(self, watch: Watch | None) -> None:
        """Reset every environment, and run episodes until no environment has an episode to run."""
        env, policy = self.env, self.policy
        obs, memory = env.reset(self.seed + self.started), policy.start(env.num_envs)
        counter = EpisodeCounter(env.num_envs, obs.state.device)
        self._begin(np.ones(env.num_envs, dtype=bool))
        while (self.running >= 0).any():
            actions, memory, subgoals = policy.decide(obs, memory, self.deterministic)
            self._record(obs, subgoals)
            if watch is not None:
                watch(env, subgoals[0] if subgoals else None, self.running)
            step = env.step(actions)
            over = (counter.sums[:, 1] + 1 >= self.limit) & step.active & ~step.terminated & ~step.truncated
            if bool(over.any()):
                step = env.truncate(step, over)
            memory, pairs = policy.after(memory, step)
            self._sum(pairs)
            done = step.terminated | step.truncated
            ended = counter.add(step.reward, step.success, done, step.active)
            self._finish(ended.episodes(), over.cpu().numpy(), step)
            # Use the order in which the environments take their seeds.
            self._begin((ended.done & ~over).cpu().numpy() & (self.running < 0))
            if env.restarts:  # other environments stay in their old episode
                self._begin(over.cpu().numpy() & (self.running < 0))
            if self.started == self.episodes:
                env.pause(self.running < 0)
            obs = step.obs

    def _begin(self, where: np.ndarray) -> None:
        """Assign the next episodes to the environments in `where` [N] until none remains."""
        for i in np.flatnonzero(where):
            self.running[i] = self.started if self.started < self.episodes else -1
            self.started += self.started < self.episodes

    def _finish(self, ended: list[Episode], over: np.ndarray, step: Step) -> None:
        for episode in ended:
            number = int(self.running[episode.env])
            if number < 0:
                continue
            if number in self.paths:
                _record_place(self.paths[number], self.policy.place(step.final.state), episode.env)
            self.finished[number] = episode
            self.truncated += bool(over[episode.env])
            self.running[episode.env] = -1

    def _sum(self, pairs: dict[str, Tensor]) -> None:
        """Add up the policy's metrics over the counted episodes."""
        for name, (values, where) in pairs.items():
            counts = where.cpu() * torch.as_tensor(self.running >= 0)
            both = torch.stack([(values.cpu() * counts).sum(), counts.sum()])
            self.sums[name] = self.sums.get(name, torch.zeros(2)) + both

    def _record(self, obs: Observation, subgoals: Sequence[Tensor]) -> None:
        if not any(int(i) in self.paths for i in self.running):
            return
        places = self.policy.place(obs.state)
        for i, number in enumerate(self.running):
            if (path := self.paths.get(int(number))) is None:
                continue
            _record_place(path, places, i)
            path.goal = obs.goal[i].cpu().numpy().copy()
            path.scene = [*path.scene[:1], self.env.outlines(i)]
            path.subgoals.append([x[i].cpu().numpy() for x in subgoals])


def goal_bounds(spec: Spec) -> np.ndarray | None:
    """[2, 2] lower and upper corner of a goal environment's goals in their first two dimensions; None if unbounded."""
    if len(spec.achieved) < 2:
        return None
    bounds = torch.stack([spec.state_low, spec.state_high])[:, list(spec.achieved[:2])].numpy(force=True)
    return bounds if (np.abs(bounds) < 1e6).all() else None


def success_radius(spec: Spec, goal: Tensor) -> float | None:
    """The distance from a goal [G] at which a sparse task's reward changes, by bisection; None if there is none."""
    if spec.task_reward is None or spec.reward_range is None or getattr(spec.task_reward, "fault", None):
        return None
    if spec.reward_range[0] == spec.reward_range[1]:
        return None
    nothing = goal.new_zeros(1, spec.info_dim)

    def pays(distance: float) -> float:
        at = goal + torch.nn.functional.one_hot(torch.tensor(0), len(goal)) * distance
        reward: Any = spec.task_reward
        return float(reward(at[None].to(goal), goal[None], *([nothing] if spec.info_dim else []))[0])

    low, high = 0.0, 100.0
    try:
        if pays(low) == pays(high):
            return None
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if pays(middle) == pays(0.0) else (low, middle)
    except Exception:  # the environment's code may fail outside its goals; a picture must not end the run
        return None
    return low


def _record_place(path: Path, places: Tensor | None, env: int) -> None:
    if places is not None:
        path.places.append(places[env].cpu().numpy())
