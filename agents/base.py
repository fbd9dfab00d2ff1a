"""The interface between algorithms and the command lines, and the base classes of algorithms."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch

from hrl.execution.modes import Execution, pick_execution
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.warm_start import warm_start
from hrl.report.evaluation import Policy
from hrl.run.checkpoint import Which
from hrl.run.session import Session
from hrl.run.trainer import Trainer
from hrl.training.policy import HierarchyPolicy
from hrl.training.rounds import RoundsTrainee
from hrl.training.stepping import HierarchyTrainee
from hrl.types import BatchedEnv, Spec, UserError


class AgentConfig(Protocol):
    """An algorithm's hyperparameters: a dataclass with usable defaults. Custom algorithms implement this interface."""

    def train(self, session: Session) -> signal.Signals | None:
        """Train until the end of the run. Returns the signal that stopped it before, or None."""

    def load(self, session: Session, which: Which) -> Policy:
        """The trained policy of a run."""


class HierarchyConfig(ABC):
    """The base class of hierarchical algorithms. A subclass defines how to build the hierarchy."""

    essential: ClassVar[tuple[str, ...]] = ()
    """The most important options; the help lists them first."""

    @abstractmethod
    def resolved(self, setting: Setting) -> Self:
        """A copy with all options resolved that depend on the environment. Raises UserError for values that are invalid
        or do not fit the environment."""

    @abstractmethod
    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent of a resolved configuration. Raises UserError if it does not support the environment."""

    def make(self, setting: Setting) -> Hierarchy:
        """Resolve the configuration and build the agent."""
        return self.resolved(setting).build(setting)

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved options."""
        return []

    def train(self, session: Session) -> signal.Signals | None:
        """Build the agent and run the training loop."""
        with session.stop.interruptible():
            env = session.make_env(None)
            torch.manual_seed(session.run.seed)
            setting = self._setting(env, session, session.run.total_steps)
            config = self.resolved(setting)
            sources = config._sources(session)
            torch.manual_seed(session.run.seed)
            agent = config.build(setting)
            if sources:
                warm_start(agent, sources)
        lines = [*unseen(env.spec), *config.describe(env.spec), *learning_periods(agent, session.run.total_steps)]
        return Trainer(HierarchyTrainee(agent, env, session), session, lines, config).run()

    def collecting_speed(self, session: Session, seconds: float) -> float:
        """Environment steps per second of acting, stepping and observing without learning, measured for `seconds`."""
        with session.stop.interruptible():
            env = session.make_env(None)
            torch.manual_seed(session.run.seed)
            agent = self.make(self._setting(env, session, session.run.total_steps))
            trainee = HierarchyTrainee(agent, env, session)
            trainee.begin()
            trainee.collect()
            taken, started = agent.steps, time.perf_counter()
            while time.perf_counter() - started < seconds:
                trainee.collect()
            speed = (agent.steps - taken) / (time.perf_counter() - started)
        env.close()
        return speed

    def load(self, session: Session, which: Which) -> HierarchyPolicy:
        """The policy of a checkpoint. Raises UserError if it does not fit the environment."""
        return HierarchyPolicy(*self._for_acting(session, which))

    def _for_acting(self, session: Session, which: Which) -> tuple[Hierarchy, BatchedEnv]:
        env, checkpoint = session.make_env(1), session.checkpoint(which)
        misfit = f"The checkpoint in {session.folder.path} does not fit {env.spec.env_id}"
        try:
            agent = self.make(self._setting(env, session, total_steps=0))
            agent.load_networks(checkpoint.tensors)
        except UserError as error:
            raise UserError(f"{misfit}: {error}") from error
        except RuntimeError as error:
            raise UserError(f"{misfit}, because the sizes of observations, goals or actions differ.") from error
        return agent, env

    def restored(self, session: Session) -> Hierarchy:
        """The final agent of the session's run, including its memories. A pretrained policy has none."""
        checkpoint = session.checkpoint("last")
        if checkpoint.networks_only:
            return self._for_acting(session, "last")[0]
        env = session.make_env(None)
        agent = self.make(self._setting(env, session, session.run.total_steps))
        env.close()
        try:
            agent.load_tensors(checkpoint.tensors)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"The checkpoint in {session.folder.path} does not fit its config.json.") from error
        return agent

    def _sources(self, session: Session) -> dict[Path, Hierarchy]:
        """The agents of the runs that levels start from; empty for a resumed run."""
        parts: list[Any] = [self, *vars(self).values()]
        runs = {part.init_from for part in parts if isinstance(part, LevelConfig) and part.init_from is not None}
        return {run: session.load_agent(run) for run in sorted(runs) if session.resume is None}

    def _setting(self, env: BatchedEnv, session: Session, total_steps: int) -> Setting:
        measure = lambda: session.make_env(8)  # noqa: E731
        execution = Execution() if total_steps == 0 else pick_execution(session.run.execution, session.device)
        return Setting(
            env.spec, env.num_envs, session.device, session.run.seed, measure, total_steps, execution,
            session.processes, env, session.load_policy,
        )  # fmt: skip


@dataclass
class RoundsConfig(ABC):
    """The base class of algorithms that learn in rounds of parallel episodes. A subclass defines the learner."""

    family: ClassVar[bool] = False
    """Whether the environments must be a family of tasks."""

    @property
    @abstractmethod
    def num_envs_required(self) -> tuple[int, str] | None:
        """The number of environments in a round, and the options that define it. None for any number."""

    @abstractmethod
    def check(self) -> None:
        """Raise UserError if a value is invalid."""

    @abstractmethod
    def learner(self, spec: Spec, session: Session) -> Any:
        """Build the learner. Raises UserError if it does not support the environment."""

    @abstractmethod
    def policy(self, learner: Any) -> Policy:
        """The policy of a learner."""

    def train(self, session: Session) -> signal.Signals | None:
        """Train in rounds until the end of the run. Returns the signal that stopped it before, or None."""
        self.check()
        count, names = self.num_envs_required or (session.num_envs, "--num-envs")
        if session.num_envs not in (1, count):
            raise UserError(
                f"This algorithm steps {count} environments ({names}): set these options instead of --num-envs."
            )
        if session.processes.size > 1:
            raise UserError(
                "This algorithm trains in one process: start it without torchrun, and give it more tasks or episodes "
                "per round."
            )
        with session.stop.interruptible():
            env = session.make_env(count)
            if self.family:
                require_task_family(env)
            learner = self.learner(env.spec, session)
        trainee = RoundsTrainee(learner, self.policy(learner), env, session)
        return Trainer(trainee, session, unseen(env.spec)).run()

    def load(self, session: Session, which: Which) -> Policy:
        """The policy of a checkpoint."""
        self.check()
        env = session.make_env(1)
        if self.family:
            require_task_family(env)
        learner = self.learner(env.spec, session)
        env.close()
        learner.load_networks(session.checkpoint(which).tensors)
        return self.policy(learner)

    def require(self, names: Sequence[str], holds: Callable[[Any], bool], sentence: str) -> None:
        """Raise UserError with this sentence for the first of these options for which `holds` is False."""
        for name in names:
            if not holds(getattr(self, name)):
                raise UserError(f"--{name.replace('_', '-')} {sentence} {getattr(self, name)}.")


def unseen(spec: Spec) -> list[str]:
    """Lines about entries of the observation that agents do not see, or do not see as goals."""
    names = ", ".join(spec.left_out)
    left_out = [f"Not part of the observation, because no network supports it: {names}."] if names else []
    return [*left_out, *([spec.ignored_goals] if spec.ignored_goals else [])]


def learning_periods(agent: Hierarchy, total_steps: int) -> list[str]:
    """A line for each level that does not learn during the whole run."""
    lines = []
    for level in agent.levels:
        c, parts = level.config, []
        if c.random_warmup:
            parts.append(f"decides at random until step {c.random_warmup:,}, and learns from then on")
        if c.learning_stops is not None and c.learning_stops < total_steps:
            parts.append(f"stops learning at step {c.learning_stops:,}")
        if c.frozen:
            parts = ["does not learn"]
        if parts:
            lines.append(f"The {level.name} level {' and '.join(parts)}.")
    return lines


def require_task_family(env: BatchedEnv) -> None:
    """Raise UserError unless the environments are a task family."""
    if not env.is_family:
        raise UserError(
            f"This algorithm adapts to a family of tasks, but {env.spec.env_id} was created as a single task. Use "
            "a batched environment that has sample_tasks and set_tasks, such as hrl/Navigation-v0 or hrl/Taxi-v0 "
            "without --vectorization and --reward-delay (see envs/tasks/family.py)."
        )


def require_continuous(spec: Spec, name: str) -> None:
    """Raise UserError unless actions are continuous (Box)."""
    if not spec.continuous:
        raise UserError(f"{name} needs continuous (Box) actions, but {spec.env_id} has {spec.action_space}.")
