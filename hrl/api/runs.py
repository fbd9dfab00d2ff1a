"""A run as an object: its policy, evaluations and curves."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hrl.api.environments import EnvLike, env_id
from hrl.api.scaling import with_measured_envs
from hrl.api.sessions import NO_TRUST, Parts, make_session, trained_policy, user_errors
from hrl.api.trust import Trust
from hrl.execution.processes import join_processes
from hrl.pretrained import read_card
from hrl.report.display import warn
from hrl.report.evaluation import Evaluation
from hrl.report.logger import STEPS, read_progress
from hrl.report.pictures import Dims, Picture, curve_figure, trajectory_figure
from hrl.report.statistics import Curve
from hrl.report.video import record
from hrl.run.callbacks import Callbacks, as_callbacks
from hrl.run.checkpoint import Checkpoint, Checkpoints, Which
from hrl.run.config import coerced
from hrl.run.folder import RunConfig, RunFolder
from hrl.stopping import StopRequest
from hrl.types import UserError


class Run:
    """A trained or unfinished run in a folder."""

    def __init__(self, path: Path | str, trust: Trust = NO_TRUST) -> None:
        """Raises UserError if this is not a run folder, or if it names modules that are not trusted."""
        self.folder, self.trust = RunFolder.existing(Path(path)), trust
        self.parts = Parts.stored(self.folder, trust)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.algorithm} on {self.parts.env.env}, {self.steps:,} steps)"

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def card(self) -> dict[str, Any]:
        """The score and the origin of a pretrained policy; empty for other runs."""
        return read_card(self.path)

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return self.parts.algorithm

    @property
    def config(self) -> Any:
        """The algorithm's resolved configuration."""
        return self.parts.agent

    @property
    def steps(self) -> int:
        """Environment steps at the last checkpoint."""
        return Checkpoints(self.folder.checkpoints).steps

    @property
    def finished(self) -> bool:
        """Whether the run has reached its total steps."""
        return self.folder.finished

    @user_errors()
    def policy(self, which: Which = "best") -> Any:
        """The trained policy of the best evaluation, or of the last checkpoint. A hierarchy's policy has
        `predict(observation, state) -> (action, state)` as in stable-baselines3."""
        return trained_policy(self.path, which, self.trust)

    @user_errors()
    def evaluate(
        self,
        episodes: int = 100,
        which: Which = "last",
        env: EnvLike | None = None,
        keep_paths: int = 0,
        deterministic: bool = True,
    ) -> Evaluation:
        """Evaluate the policy in separate environments with fixed seeds, or on another environment with the same
        observations and actions. With deterministic=False, actions are sampled (see `predict`). The result includes
        the paths of the first `keep_paths` episodes, for pictures."""
        episodes, parts = _count(episodes, "episodes"), self.parts
        if env is not None:
            identifier, keywords = env_id(env)
            parts = parts._replace(
                env=replace(parts.env, env=identifier, env_kwargs={**parts.env.env_kwargs, **keywords})
            )
        parts = parts._replace(run=replace(parts.run, eval_env=None))
        session = make_session(parts, self.folder, trust=self.trust)
        with closing(session):
            return session.evaluate(parts.agent.load(session, which), episodes, keep_paths, deterministic)

    @user_errors()
    def record(self, file: Path, episodes: int = 3, which: Which = "last") -> Path:
        """Write an mp4 of the first evaluation episodes. Raises UserError if the environment cannot be rendered."""
        episodes, parts = _count(episodes, "episodes"), self.parts._replace(run=replace(self.parts.run, eval_env=None))
        session = make_session(parts, self.folder, trust=self.trust)
        policy = parts.agent.load(session, which)
        record(file, policy, session.make_rendering, episodes, parts.run.eval_max_steps, session.faults)
        return file

    def checkpoint(self, which: Which = "last") -> Checkpoint:
        """The best or the last checkpoint. Raises UserError if there is none, or if it is damaged."""
        return Checkpoints(self.folder.checkpoints).named(which)

    def scalars(self) -> dict[str, np.ndarray]:
        """Every logged scalar by tag, with one value per logged row; NaN where a row has no value."""
        return read_progress(self.path)

    def plot_trajectories(
        self, episodes: int = 4, which: Which = "last", env: EnvLike | None = None, dims: Dims | None = None
    ) -> Picture:
        """The paths of evaluation episodes with their subgoals, in two dimensions of the goal space (default: the first
        two). A notebook shows the result inline.

        Raises UserError if the positions have more than two dimensions and `dims` does not choose two of them."""
        figure = trajectory_figure(self.evaluate(episodes, which, env, keep_paths=episodes), dims=dims)
        if figure is None:
            raise UserError(
                f"The paths of {self.parts.env.env} cannot be drawn in two dimensions: give two entries of the goal "
                "space, such as dims=(0, 1). Agents without a goal space and without goals have no paths."
            )
        return Picture(figure)

    def plot_curves(self, *tags: str) -> Picture:
        """Logged scalars over environment steps, one panel per tag. Default: the evaluations' return, and success if
        the environment reports it. A notebook shows the result inline.

        Raises UserError for a tag that was not logged."""
        logged = self.scalars()
        chosen = tags or tuple(tag for tag in ("eval/success_rate", "eval/mean_reward") if tag in logged)
        unknown = [tag for tag in chosen if tag not in logged]
        if unknown or not chosen:
            raise UserError(f"{self.path} has no scalar {', '.join(unknown)}; it has {', '.join(logged)}.")
        panels = {}
        for tag in chosen:
            there = ~np.isnan(logged[tag])
            panels[tag] = {self.algorithm: [Curve(logged[STEPS][there], logged[tag][there])]}
        return Picture(curve_figure(panels, ""))

    @user_errors()
    def resume(self, total_steps: int | None = None, callbacks: Callbacks = ()) -> "Run":
        """Continue training from the last checkpoint, up to `total_steps`, exactly as if the run had not stopped.

        Raises UserError if it has no steps left, or if its config.json was edited."""
        require_resumable(self.folder)
        if self.folder.edited:
            raise UserError(
                f"{self.path / 'config.json'} was changed after the run started, but a resumed run must keep its "
                "options: undo the change."
            )
        total = self.parts.run.total_steps if total_steps is None else _count(total_steps, "total_steps")
        run = replace(self.parts.run, total_steps=total)
        return run_session(self.parts._replace(run=run), self.folder, True, callbacks, self.trust)


def _count(value: Any, name: str) -> int:
    """A number of at least 1. Raises UserError for other values."""
    number: int = coerced(value, int, name)
    if number < 1:
        raise UserError(f"{name} must be at least 1, not {number}.")
    return number


def run_session(
    parts: Parts,
    folder: RunFolder,
    resumes: bool = False,
    callbacks: Callbacks = (),
    trust: Trust = NO_TRUST,
    resolve: Callable[[int], Parts] | None = None,
) -> Run:
    """Train a run until its end or until a request to stop. `resolve` returns the parts for a measured number of
    environments."""
    called = as_callbacks(callbacks)
    processes = join_processes()
    with StopRequest() as stop, ExitStack() as held:
        checkpoint = None
        if resumes:
            if processes.first:
                held.enter_context(folder.locked())
            checkpoint = last_checkpoint(folder, parts.run, processes.size)
        elif resolve is not None:
            parts = with_measured_envs(parts, resolve, processes, stop, trust)
        session = make_session(parts, folder, checkpoint, processes, stop, trust, held, called)
        parts.agent.train(session)
    processes.leave()
    return Run(folder.path, trust)


def require_resumable(folder: RunFolder) -> None:
    """Raise UserError if the folder contains a pretrained policy."""
    if read_card(folder.path):
        raise UserError(
            f"{folder.path} is a pretrained policy, without the memories and optimisers of its training: start a new "
            f"run from it, with --low.init-from {folder.path}."
        )


def last_checkpoint(folder: RunFolder, run: RunConfig, processes: int) -> Checkpoint:
    """The checkpoint to resume from. Raises UserError if the run has no steps left, or if the number of processes
    differs."""
    checkpoints = Checkpoints(folder.checkpoints)
    checkpoint = checkpoints.last()
    for sentence in checkpoints.warnings:
        warn(sentence)
    if checkpoint.steps >= run.total_steps:
        raise UserError(f"{folder.path} already has {checkpoint.steps:,} steps: set --total-steps above this number.")
    begun_with = checkpoint.numbers.get("processes", 1)
    if processes != begun_with:
        raise UserError(
            f"The run in {folder.path} was started with {begun_with} processes, not {processes}: resume it "
            f"with torchrun --nproc-per-node {begun_with}."
        )
    return checkpoint


def load(path: Path | str, trust: bool = False) -> Run:
    """A run from its folder, or a pretrained policy of this package (`"pretrained/PointMaze_Large-v3/hiro"`).

    Raises UserError if it is not a run folder, or if it names modules (custom algorithms or environments) without
    `trust`: importing modules runs their code.
    """
    return Run(path, Trust(trust))
