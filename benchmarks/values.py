"""The highest level's values in evaluation episodes, and the discounted returns that followed.

    python benchmarks/values.py RUN...

The table has a row for episodes that ended in success and one for the others. V is the critics' mean value of the
policy's decision, G = Σ_k γ^k r_{t+k} the return from step t. A truncated episode repeats its last reward forever,
because its value is bootstrapped. V includes a bonus for rare positions (`--high.count-bonus`), and G does not. Values
above the returns are too optimistic: the controller then has too little reason to avoid states in which it gets stuck.
"""

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

import hrl
from hrl.api.sessions import make_session
from hrl.errors import UserError
from hrl.hierarchy.level import Level
from hrl.networks.layers import Critics
from hrl.training.policy import HierarchyPolicy
from hrl.types import Observation, Step

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.98)
"""Fractions of an episode at which the table has values."""


@dataclass
class Options:
    """Evaluate runs of TD3 or SAC hierarchies, and print the table."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    episodes: int = 50
    """Evaluation episodes per run."""


class Recorder:
    """A policy that records values, rewards and ends of episodes at every step."""

    def __init__(self, policy: HierarchyPolicy) -> None:
        self.policy = policy
        self.level: Level = policy.agent.levels[-1]
        self.steps: list[tuple[Tensor, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def decide(self, obs: Observation, memory: Any, deterministic: bool = True) -> Any:
        """Decide like the policy, and record the values [N]."""
        learner: Any = self.level.learner
        inputs = self.level.inputs(obs.state, obs.goal)
        self.value = learner.critic(inputs, self.level.decide(obs.state, obs.goal)).mean(0)
        return self.policy.decide(obs, memory, deterministic)

    def after(self, memory: Any, step: Step) -> Any:
        """Record the step [N]: value, scaled reward, termination, end, success."""
        reward = self.level.command.scale_reward(step.reward)
        self.steps.append((self.value, reward, step.terminated, step.terminated | step.truncated, step.success))
        return self.policy.after(memory, step)


def episodes(steps: list[tuple[Tensor, ...]], gamma: float) -> list[tuple[bool, np.ndarray, np.ndarray]]:
    """Success at the end, values [T] and returns [T] of every episode that ended, from the records of all steps."""
    columns = [torch.stack(x).float().T.cpu().numpy() for x in zip(*steps, strict=True)]
    found = []
    for value, reward, terminated, done, success in zip(*columns, strict=True):  # of one environment
        start = 0
        for end in done.nonzero()[0] + 1:
            following = 0.0 if terminated[end - 1] else reward[end - 1] / (1.0 - gamma)
            returns = np.empty(end - start)
            for i in reversed(range(start, end)):
                following = returns[i - start] = reward[i] + gamma * following
            found.append((bool(success[end - 1]), value[start:end], returns))
            start = end
    return found


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options)
    print("| run | episodes | " + " | ".join(f"V, G at {x:.0%}" for x in SHARES) + " |")
    print("|---" * (2 + len(SHARES)) + "|")
    for path in options.runs:
        run = hrl.load(path)
        session = make_session(run.parts, run.folder)
        with closing(session):
            trained = run.parts.agent.load(session, "last")
            highest = trained.agent.levels[-1] if isinstance(trained, HierarchyPolicy) else None
            if not isinstance(getattr(getattr(highest, "learner", None), "critic", None), Critics):
                sys.exit(f"The highest level of {path} has no critic of actions, as td3 and sac have.")
            policy = Recorder(trained)
            session.evaluate(policy, options.episodes)
        found = episodes(policy.steps, policy.level.config.gamma)
        for success in (True, False):
            chosen = [x for x in found if x[0] == success]
            if not chosen:
                continue
            name = f"{len(chosen)} {'succeeded' if success else 'failed'}"
            pairs = [np.mean([(v[i], g[i]) for _, v, g in chosen for i in [int(x * len(v))]], 0) for x in SHARES]
            print(f"| {path.name} | {name} | " + " | ".join(f"{v:.0f}, {g:.0f}" for v, g in pairs) + " |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
