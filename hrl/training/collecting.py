"""Collects complete episodes in parallel: one per environment, up to its end or time limit."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hrl.execution.modes import none_true
from hrl.nested.levels.adaptation import Adaptation, Params
from hrl.nested.trees import tree_map
from hrl.policies import policy_input
from hrl.report.evaluation import Watch
from hrl.types import Spec, UserError

Act = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]
"""(states [N, D], memory, noise [N, K] or None for the most likely actions) -> (actions [N, ...], memory)."""


class Rollout(NamedTuple):
    """Collected episodes, T steps of N environments; `by_task` adds a leading task dimension."""

    state: Tensor
    """[T, N, D]"""
    action: Tensor
    """[T, N, ...]"""
    reward: Tensor
    """[T, N]; after an episode's end, rewards of following episodes."""
    keep: Tensor
    """[T, N] 1 up to the episode's end, 0 after."""
    success: Tensor
    """[T, N]"""
    memory: Any
    """[T, N] the policy's memory after each step; a tree of tensors."""
    final: Tensor
    """[N, D] the true states after the last steps."""
    truncated: Tensor
    """[N] 1 where the episode was truncated, not terminated."""

    def by_task(self, count: int) -> "Rollout":
        """Split into `count` tasks with adjacent environments: [M, T, E, ...], and [M, E, ...] for the last two
        fields."""
        split = lambda x, at: x.unflatten(at, (count, -1))  # noqa: E731
        way: Any
        *way, final, truncated = self
        way = tree_map(lambda x: split(x, 1).movedim(0, 1).contiguous(), way)
        return Rollout._make((*way, split(final, 0), split(truncated, 0)))


def time_limit(spec: Spec) -> int:
    """The step limit of episodes. Raises UserError if there is none."""
    if not spec.max_episode_steps:
        raise UserError(
            f"{spec.env_id} has no step limit, so its episodes cannot be collected in parallel: set a limit "
            "(max_episode_steps)."
        )
    return spec.max_episode_steps


def uniform_noise(number: int, dim: int, generator: torch.Generator) -> Tensor:
    """Samples [number, dim] of U(0, 1), with which policies sample their actions; never exactly 0 or 1."""
    return torch.rand(number, dim, generator=generator, device=generator.device).clamp_(1e-6, 1 - 1e-6)


@torch.no_grad()
def rollout(
    env: Any,
    policy: Any,
    act: Act,
    generator: torch.Generator,
    explore: bool = True,
    watch: Watch | None = None,
) -> Rollout:
    """Collect one episode of every environment with `act`. The policy provides the initial memory and `noise_dim`."""
    device, number = generator.device, env.num_envs
    obs = env.reset(int(torch.randint(0, 2**31 - 1, (), generator=generator, device=device)))
    memory, steps = policy.start(number, device), []
    going = torch.ones(number, device=device)
    final, truncated = policy_input(obs), torch.zeros_like(going)
    for _ in range(time_limit(env.spec)):
        state = policy_input(obs)
        noise = uniform_noise(number, policy.noise_dim, generator)
        action, memory = act(state, memory, noise if explore else None)
        if watch is not None:
            watch(env, None, np.arange(number))
        step = env.step(action)
        steps.append((state, action, step.reward, going, step.success.float(), memory))
        final = torch.where(going.unsqueeze(-1) > 0, policy_input(step.final), final)
        truncated = torch.where(going > 0, (step.truncated & ~step.terminated).float(), truncated)
        going = going * ~(step.terminated | step.truncated)
        obs = step.obs
        if none_true(going > 0):
            break
    stacked: Any = tree_map(lambda *x: torch.stack(x), *steps)
    return Rollout._make((*stacked, final, truncated))


def rollout_tasks(
    env: Any,
    adaptation: Adaptation,
    tasks: Tensor,
    own: Params,
    generator: torch.Generator,
    explore: bool = True,
    watch: Watch | None = None,
) -> Rollout:
    """Collect episodes of M tasks, with separate parameters [M, ...] for each task. The environments are divided
    equally among the tasks."""
    count, each = len(tasks), env.num_envs // len(tasks)
    env.set_tasks(tasks.repeat_interleave(each, 0))

    def act(state: Tensor, memory: Any, noise: Tensor | None) -> tuple[Tensor, Any]:
        split = partial(tree_map, lambda x: x.unflatten(0, (count, each)))
        acted = adaptation.act(own, split(state), split(memory), None if noise is None else split(noise))
        return tree_map(lambda x: x.flatten(0, 1), acted)

    return rollout(env, adaptation.policy, act, generator, explore, watch).by_task(count)
