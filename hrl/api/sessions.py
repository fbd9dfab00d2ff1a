"""Sessions: a run's folder, environments and agent. The command lines and the Python interface build them.

This package is above the algorithms and the environments; only `hrl.cli` imports it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hrl.agents import HierarchyConfig, find_agent
from hrl.api.trust import Trust
from hrl.api.wandb import require_wandb, to_wandb
from hrl.envs import EnvConfig, EnvError, EnvironmentFault, make_env
from hrl.envs.make import is_batched, make_single
from hrl.execution.modes import keep_freed_memory
from hrl.execution.processes import ALONE, Processes
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.report.display import print_line
from hrl.report.evaluation import EVALUATION_ENVS, Evaluation
from hrl.report.hparams import comparable
from hrl.run.callbacks import Callback
from hrl.run.checkpoint import Checkpoint, Which
from hrl.run.config import plain, updated
from hrl.run.folder import DeviceName, RunConfig, RunFolder
from hrl.run.session import Session, pick_device
from hrl.stopping import GRACE, StopRequest
from hrl.types import UserError

EVALUATION_BATCH = 1000
"""Maximum number of environments that an evaluation steps together if they are a batch."""
NO_TRUST = Trust()
FAULTS = (UserError, EnvError, EnvironmentFault)
"""Exceptions that are printed as one sentence."""


@contextmanager
def user_errors() -> Iterator[None]:
    """A context, or a decorator, that converts errors of environments into a UserError."""
    try:
        yield
    except (EnvError, EnvironmentFault) as error:
        raise UserError(str(error)) from (error.__cause__ or error)


class Parts(NamedTuple):
    """The configuration of a run."""

    algorithm: str
    env: EnvConfig
    run: RunConfig
    agent: Any

    @classmethod
    def stored(cls, folder: RunFolder, trust: Trust = NO_TRUST) -> "Parts":
        """The configuration in a run folder. Raises UserError if it names modules that are not trusted."""
        content = folder.read_config()
        algorithm, config = content["algorithm"], content["config"]
        trust.require(folder.path, algorithm, config)
        source = str(folder.path / "config.json")
        defaults = EnvConfig(""), RunConfig(), find_agent(algorithm)
        pairs = zip(defaults, (config["env"], config["run"], config["agent"]), strict=True)
        return cls(algorithm, *(updated(default, values, source) for default, values in pairs))

    def plain(self, agent: Any = None) -> dict[str, Any]:
        """The configuration as plain values. If `agent` is given, it replaces the agent's configuration."""
        return {"env": asdict(self.env), "run": plain(self.run), "agent": plain(self.agent if agent is None else agent)}


@dataclass
class Environments:
    """Makes the environments of a run. Environments of evaluations must have the same sizes as those of training."""

    parts: Parts
    device: torch.device
    stop: StopRequest
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    """The sizes of observations, goals and actions in training, once known."""

    def make(self, count: int | None) -> Any:
        """`count` training environments; None for the number of the configuration."""
        own = self.parts.env
        return self._make(own if count is None else replace(own, num_envs=count, vectorization="auto"))

    def make_evaluation(self, count: int, **overrides: Any) -> Any:
        """`count` evaluation environments."""
        return self._make(replace(self.evaluated, num_envs=count), evaluation=True, **overrides)

    @property
    def evaluated(self) -> EnvConfig:
        """The configuration of one evaluation environment."""
        own = self.parts.env
        return replace(own, env=self.parts.run.eval_env or own.env, num_envs=1, vectorization="auto")

    def _make(self, chosen: EnvConfig, **options: Any) -> Any:
        own = self.parts.env
        info = getattr(getattr(self.parts.agent, "goal", None), "info", ())
        region = partial(self.stop.interruptible, GRACE)
        made = make_env(chosen, self.device, info=info, region=region, **options)
        sizes = made.spec.state_dim, made.spec.goal_dim, made.spec.action_dim
        if chosen.env == own.env:
            self.sizes.append(sizes)
        elif self.sizes and sizes != self.sizes[0]:
            raise UserError(
                f"--eval-env {chosen.env} has other observations, goals or actions than {own.env}: choose an "
                "environment with the same ones."
            )
        return made


def make_session(
    parts: Parts,
    folder: RunFolder,
    resume: Checkpoint | None = None,
    processes: Processes = ALONE,
    stop: StopRequest | None = None,
    trust: Trust = NO_TRUST,
    held: ExitStack | None = None,
    callbacks: Sequence[Callback] = (),
) -> Session:
    """Build the session of a run. `held` keeps the lock on the folder."""
    keep_freed_memory()
    if parts.run.threads:
        torch.set_num_threads(parts.run.threads)
    device = pick_device(parts.run.device, processes)
    stop = stop if stop is not None else StopRequest()
    environments = Environments(parts, device, stop)
    resolved: list[Any] = []

    def begin(lines: Sequence[str] = (), agent: Any = None) -> None:
        if agent is not None:
            resolved.append(agent)
        if not processes.first:
            return
        if parts.run.wandb:
            require_wandb()
        for line in lines:
            print_line(line)
        if parts.run.eval_env:
            environments.make_evaluation(1).close()  # raises errors before training
        if resume is None:
            folder.make()
            if held is not None:
                held.enter_context(folder.locked())
            folder.write_config(parts.algorithm, parts.plain(agent))
        else:
            folder.prolong(parts.run.total_steps)
        print_line(f"Run folder: {folder.path}")

    return Session(
        run=parts.run,
        folder=folder,
        device=device,
        num_envs=parts.env.count,
        make_env=environments.make,
        make_evaluation=environments.make_evaluation,
        make_single=partial(make_single, parts.env),
        make_rendering=partial(environments.make_evaluation, render_mode="rgb_array"),
        most_evaluation_envs=EVALUATION_BATCH if is_batched(environments.evaluated) else EVALUATION_ENVS,
        load_agent=partial(load_agent, parts.run, processes, trust),
        load_policy=partial(trained_policy, which="best", trust=trust, device=parts.run.device),
        resume=resume,
        processes=processes,
        stop=stop,
        faults=FAULTS,
        begin=begin,
        draw=_picture,
        hyperparameters=lambda: comparable(parts.algorithm, parts.plain(*resolved[-1:])),
        callbacks=(*callbacks, *([to_wandb()] if parts.run.wandb else [])),
    )


def _picture(evaluation: Evaluation) -> np.ndarray | None:
    from hrl.report.pictures import trajectories  # imported here, because matplotlib takes half a second

    return trajectories(evaluation)


def load_agent(run_config: RunConfig, processes: Processes, trust: Trust, path: Path) -> Hierarchy:
    """The final agent of another run, on this run's device. Raises UserError if the run has no hierarchy."""
    folder = RunFolder.existing(path)
    parts = Parts.stored(folder, trust)
    if not isinstance(parts.agent, HierarchyConfig):
        raise UserError(f"{path} is a run of {parts.algorithm}, which has no levels: choose a run of a hierarchy.")
    its_run = replace(parts.run, device=run_config.device, threads=run_config.threads)
    return parts.agent.restored(make_session(parts._replace(run=its_run), folder, processes=processes))


def trained_policy(path: Path, which: Which, trust: Trust, device: DeviceName | None = None) -> Any:
    """The trained policy of a run folder, by default on the device of the run.

    A hierarchy's policy has stable-baselines3's `predict`. Raises UserError if there is no policy, or if the folder
    names modules that are not trusted.
    """
    folder = RunFolder.existing(path)
    parts = Parts.stored(folder, trust)
    if device is not None:
        parts = parts._replace(run=replace(parts.run, device=device))
    return parts.agent.load(make_session(parts, folder, trust=trust), which)
