"""A short exploration of an environment by trained levels. Its states replace those of a replay."""

from typing import NamedTuple

import torch
from torch import Tensor

from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.stack import Stack
from hrl.memory.ring import Replay
from hrl.types import BatchedEnv

SEED = 20_000_000
"""Seed of the first exploring episode, above all seeds of training and evaluation."""


class Commanded(NamedTuple):
    """Observations with a command of the planner as their goal."""

    state: Tensor
    goal: Tensor
    mask: Tensor | None


@torch.no_grad()
def explore(agent: Stack, env: BatchedEnv, steps: int, hold: int, generator: torch.Generator) -> Replay:
    """The states of `steps` environment steps. The agent's highest level pursues random subgoals for `hold` steps each,
    or the task's goals if it obeys the task. Closes the environments."""
    count, command = env.num_envs, agent.levels[-1].command
    replay = Replay({"state": env.spec.state_dim}, ("state",), (), steps + 16 * count, count, agent.device)
    obs, memory = env.reset(SEED), agent.initial_state(count)
    target = obs.goal
    for t in range(-(-steps // count)):
        if isinstance(command, Subgoal) and t % hold == 0:
            target = command.sample(obs.state, generator)
        goal = target if isinstance(command, Subgoal) else obs.goal
        decisions = agent.decide(Commanded(obs.state, goal, obs.mask), memory, "noisy")
        step = env.step(decisions.actions[0])
        over = (step.terminated | step.truncated) & step.active
        replay.write(
            {"state": obs.state}, {"state": step.final.state}, {}, step.active, over, step.terminated & step.active
        )
        memory, obs = agent.after(decisions.memory, step), step.obs
    replay.truncate_episodes()
    env.close()
    return replay
