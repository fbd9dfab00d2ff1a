"""The base of offline algorithms that learn to reach goals: from the dataset to the trained policy and its planner."""

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from hrl.agents.base import unseen
from hrl.agents.parts.goal_policy import GoalPolicy
from hrl.memory.dataset import read_dataset
from hrl.planning.offline import GoalReacher
from hrl.run.checkpoint import Which
from hrl.run.session import Session
from hrl.run.trainer import Trainer
from hrl.training.offline import OfflineTrainee
from hrl.types import Spec, UserError


@dataclass
class OfflineConfig(ABC):
    """The options of an offline algorithm with two policies. Steps are gradient steps."""

    dataset: str = ""
    """Trajectories to learn from: the replay of a run folder, a file FILE.npz in OGBench's layout, or minari:ID."""

    @abstractmethod
    def check(self) -> None:
        """Raise UserError if a value is invalid."""

    @abstractmethod
    def learner(self, spec: Spec, session: Session) -> Any:
        """The untrained networks. Raises UserError if they do not support the environment."""

    @property
    @abstractmethod
    def longest_hops(self) -> tuple[float, float]:
        """Environment steps of a planner's longest hops: of the low policy alone, and of both."""

    def train(self, session: Session) -> signal.Signals | None:
        """Read the dataset, and take gradient steps until the run's end."""
        self.check()
        name = type(self).__name__.removesuffix("Config")
        if not self.dataset:
            raise UserError(f"{name} learns from a dataset: give --dataset RUN, FILE.npz or minari:ID.")
        if session.processes.size > 1:
            raise UserError(f"{name} trains in one process: start it without torchrun.")
        with session.stop.interruptible():
            env = session.make_env(1)
            learner = self.learner(env.spec, session)
            data = read_dataset(self.dataset, env, session.load_agent, session.device)
        size = f"Dataset: {len(data.transitions):,} transitions of {data.trajectories:,} trajectories."
        trainee = OfflineTrainee(learner, data, GoalPolicy(learner, env), env, session)
        return Trainer(trainee, session, [size, *unseen(env.spec)]).run()

    def load(self, session: Session, which: Which, levels: int = 2) -> GoalPolicy:
        """Both policies of a checkpoint, or the low policy alone with `levels=1`. Does not read the dataset."""
        env = session.make_env(1)
        learner = self.learner(env.spec, session)
        learner.load_networks(session.checkpoint(which).tensors)
        return GoalPolicy(learner, env, levels)

    def goal_reacher(self, session: Session, which: Which, level: int) -> GoalReacher:
        """For a planner: the low policy alone (level 0), or both (1). Raises UserError for another level."""
        if level > 1:
            raise UserError(f"planner.level {level} does not exist: level 0 is the low policy, and level 1 is both.")
        policy, env = self.load(session, which, level + 1), session.make_env(1)
        data = read_dataset(self.dataset, env, session.load_agent, session.device)
        return GoalReacher(policy, policy.distance, data, self.longest_hops[level])
