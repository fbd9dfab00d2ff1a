"""Collects segments of a fixed number of steps. Episodes and policy memory continue in the next segment."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hrl.nested.trees import tree_map
from hrl.policies import policy_input
from hrl.report.episodes import EpisodeCounter, Finished
from hrl.training.rounds import RoundLearner
from hrl.types import Observation


class Experience(NamedTuple):
    """T steps of N environments. Episodes may start and end at any step."""

    state: Tensor
    """[T, N, D]"""
    action: Tensor
    """[T, N, A]"""
    note: Tensor
    """[T, N, ...] the part of the policy's memory after each step that learning needs."""
    begins: Tensor
    """[T, N] whether an episode starts at this step, with a new policy memory."""
    reward: Tensor
    """[T, N]"""
    terminated: Tensor
    """[T, N]"""
    done: Tensor
    """[T, N] whether the episode ended with this step, by termination or truncation."""
    active: Tensor
    """[T, N] False where the environment only reset and made no transition."""
    final: Tensor
    """[T, N, D] the true state after each step."""
    memory: Any
    """[N, ...] the policy's memory before the first step."""


class SegmentLearner(RoundLearner):
    """The base class of learners with a recurrent policy, which learn in rounds of `n_steps` steps per environment.

    The policy has the methods `start(num_envs, device)`, `act(state, memory, generator)` and `note(memory)`. A
    checkpoint truncates the episodes, and the next round starts new ones.
    """

    together = False
    device: torch.device
    policy: Any
    memory: Any
    begins: Tensor
    counter: EpisodeCounter

    def __init__(self) -> None:
        self.obs: Observation | None = None

    @abstractmethod
    def learn(self, experience: Experience, progress: float) -> dict[str, float]:
        """Learn from a segment at the fraction `progress` of the run. Returns metrics by tag."""

    @property
    @abstractmethod
    def n_steps(self) -> int:
        """T, the steps per environment in a segment."""

    def round(self, env: Any, progress: float) -> list[Finished]:
        """Collect a segment and learn from it."""
        experience, ended = self.collect(env)
        self.metrics = self.learn(experience, progress)
        return ended

    @torch.no_grad()
    def collect(self, env: Any) -> tuple[Experience, list[Finished]]:
        """Take `n_steps` steps in every environment. Also returns the episodes that ended with each step."""
        if self.obs is None:
            self._begin(env)
        before, way, ended = self.memory, [], []
        fresh = self.policy.start(env.num_envs, self.device)
        for _ in range(self.n_steps):
            state = policy_input(self._current())
            action, memory = self.policy.act(state, self.memory, self.generator)
            step = env.step(action)
            done = step.terminated | step.truncated
            way.append((
                state, action, self.policy.note(memory), self.begins, step.reward, step.terminated, done, step.active,
                policy_input(step.final),
            ))  # fmt: skip
            ended.append(self.counter.add(step.reward, step.success, done, step.active))
            self.steps += step.taken
            self.obs, self.begins = step.obs, done | ~step.active
            self.memory = tree_map(lambda new, old: _where(self.begins, new, old), fresh, memory)
        return Experience._make((*(torch.stack(x) for x in zip(*way, strict=True)), before)), ended

    def _begin(self, env: Any) -> None:
        """Start an episode in every environment."""
        seed = torch.randint(0, 2**31 - 1, (), generator=self.generator, device=self.device)
        self.obs = env.reset(int(seed))
        self.memory = self.policy.start(env.num_envs, self.device)
        self.begins = torch.ones(env.num_envs, dtype=torch.bool, device=self.device)
        self.counter = EpisodeCounter(env.num_envs, self.device)

    def _current(self) -> Observation:
        assert self.obs is not None
        return self.obs

    def drop_episodes(self) -> None:
        """Drop the running episodes; the next round starts new ones."""
        self.obs = None


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` in the rows [N] of the mask, else `old`; both [N, ...]."""
    return torch.where(mask.view(-1, *(1,) * (old.dim() - 1)), new, old)
