"""The command line of evaluations: of one run, or a comparison of several."""

import json
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from hrl.api.sessions import FAULTS, Parts, make_session
from hrl.api.trust import Trust, allow_own_modules
from hrl.cli.options import NUMBERS
from hrl.cli.tables import show_comparison, show_one
from hrl.cli.usage import program, spelled
from hrl.envs import EnvConfig
from hrl.envs.config import KEY_VALUES
from hrl.planning.build import plan_for
from hrl.planning.config import PlannerConfig
from hrl.report.display import warn
from hrl.report.evaluation import Evaluation
from hrl.report.groups import Run, curves, grouped
from hrl.report.pictures import Dims, save_curves, save_trajectories
from hrl.report.video import record
from hrl.run.folder import RunConfig, RunFolder
from hrl.run.session import Session
from hrl.stopping import StopRequest
from hrl.types import UserError

VIDEO_EPISODES = 3
"""Default number of episodes of a video."""


@dataclass
class Options:
    """Evaluate trained runs, deterministically by default, in separate environments with fixed episode seeds."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    episodes: int | None = None
    """Episodes per run. Default: 100; 3 for a video."""
    max_steps: Annotated[int | None, tyro.conf.arg(aliases=["--eval-max-steps"])] = None
    """Environment steps after which an episode is truncated. Default: the environment's own limit, or 1,000."""
    checkpoint: Literal["last", "best"] = "last"
    """The checkpoint to evaluate: the last one, or the best according to the evaluations during training."""
    stochastic: bool = False
    """Sample actions, with the mean exploration noise of training, instead of deterministic actions. Policies that
    learned offline have no samples."""
    env: str | None = None
    """Evaluate on another environment id with the same observations, goals and actions."""
    env_kwargs: Annotated[dict[str, Any], KEY_VALUES] = field(default_factory=dict)
    """Keyword arguments of the environment, in addition to those of training."""
    planner: Literal["none", "graph"] = "none"
    """graph: shortest paths over a graph of visited states set the goals of the run's lowest level, without further
    training. The task must have goals, and the level must obey goals."""
    planning: Annotated[PlannerConfig, tyro.conf.arg(name="planner")] = field(default_factory=PlannerConfig)
    task: int | None = None
    """Number (from 0) of the task to act in, for a run that continues earlier runs (--….init-from, --….tasks)."""
    trust: bool = False
    """Import the modules that the run folders name. Importing runs their code: use it only for folders that you
    trust."""
    json: bool = False
    """Print one JSON object (a list for several runs) and nothing else."""
    plot: Path | None = None
    """Write a picture: trajectories with subgoals for one run, learning curves for several."""
    plot_dims: tuple[int, int] | None = None
    """The two dimensions of the goal space in which trajectories are drawn. Default: the first two, if there are only
    two or if the environment has a map."""
    group_by: tuple[str, ...] = ()
    """Options that group the runs by their values, such as low.learning_rate. Default: all options in which the runs
    differ, except the seed."""
    label: tuple[str, ...] = ()
    """One name per run; runs with the same name form a group."""
    video: Path | None = None
    """Write an mp4 of the first episodes of one run."""


def run(arguments: list[str], stop: StopRequest) -> int:
    """Evaluate one run, or compare several. Returns the exit code."""
    options = tyro.cli(
        Options, args=arguments, prog=program("evaluate"), registry=NUMBERS, config=(tyro.conf.FlagCreatePairsOff,)
    )
    check(options)
    with stop.interruptible():
        if len(options.runs) == 1:
            evaluate_alone(options.runs[0], options, stop)
        else:
            compare(options, stop)
    return 0


def check(options: Options) -> None:
    """Raise UserError if options are invalid or contradict each other."""
    if not options.runs:
        raise UserError(f"Name at least one run folder: {spelled('evaluate')} runs/<env>/<algorithm>/<run>.")
    for name in ("episodes", "max_steps"):
        if (getattr(options, name) or 1) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}.")
    if options.video and len(options.runs) > 1:
        raise UserError("--video records a single run: name one run folder.")
    if options.label and len(options.label) != len(options.runs):
        raise UserError(f"--label needs a name for each of the {len(options.runs)} runs, not {len(options.label)}.")
    if options.label and options.group_by:
        raise UserError("--label and --group-by both define the groups; give one of them.")
    if options.plot_dims and (options.plot_dims[0] == options.plot_dims[1] or min(options.plot_dims) < 0):
        raise UserError(f"--plot-dims must be two dimensions, counted from 0, not {options.plot_dims}.")
    for file, suffixes in ((options.plot, (".png", ".svg", ".pdf")), (options.video, (".mp4",))):
        if file and (file.suffix not in suffixes or not file.parent.is_dir()):
            raise UserError(f"{file} must end in {' or '.join(suffixes)}, in a folder that exists.")


@dataclass
class Loaded:
    """A run that is ready for evaluation."""

    path: Path
    algorithm: str
    trained_on: str
    env: EnvConfig
    config: RunConfig
    settings: dict[str, Any]
    session: Session
    policy: Any
    facts: dict[str, Any]
    """Numbers that describe the planner's graph; empty without a planner."""

    @classmethod
    def read(cls, path: Path, options: Options, stop: StopRequest) -> "Loaded":
        """Load a run from its folder. Raises UserError if this fails."""
        folder = RunFolder.existing(path)
        if options.env and ":" in options.env:
            allow_own_modules()
        trust = Trust(options.trust, frozenset({(options.env or "").rpartition(":")[0]} - {""}))
        algorithm, env, config, agent = Parts.stored(folder, trust)
        if folder.edited:
            warn(f"{path / 'config.json'} was changed after the run started.")
        trained = trained_on, _ = env.env, env.env_kwargs
        env = replace(env, env=options.env or env.env, env_kwargs={**env.env_kwargs, **options.env_kwargs})
        config.eval_env = None
        config.eval_max_steps = options.max_steps or config.eval_max_steps
        session = make_session(Parts(algorithm, env, config, agent), folder, stop=stop, trust=trust)
        facts: dict[str, float] = {}
        if options.planner == "graph":
            elsewhere = (env.env, env.env_kwargs) != trained
            policy, facts = plan_for(agent, session, options.checkpoint, options.planning, elsewhere)
        else:
            policy = agent.load(session, options.checkpoint)
        if options.task is not None:
            if not hasattr(policy, "select_task"):
                raise UserError(
                    f"--task needs a run that learned several tasks in sequence, but {algorithm} has no levels: omit "
                    "--task."
                )
            policy.select_task(options.task)
        settings = folder.read_config()["config"]
        return cls(path, algorithm, trained_on, env, config, settings, session, policy, facts)

    def evaluate(self, options: Options, keep_paths: int = 0) -> Evaluation:
        """Evaluate the policy."""
        return self.session.evaluate(self.policy, options.episodes or 100, keep_paths, not options.stochastic)

    def summary(self, result: Evaluation, options: Options) -> dict[str, Any]:
        """The results of an evaluation as one JSON object."""
        return {
            "run": str(self.path), "algorithm": self.algorithm, "env": self.env.env, "trained_on": self.trained_on,
            "seed": self.config.seed, "env_kwargs": self.env.env_kwargs, "task": options.task,
            "checkpoint": options.checkpoint, "stochastic": options.stochastic,
            "steps": self.session.checkpoint(options.checkpoint).steps,
            **({"planner": options.planner, **self.facts} if self.facts else {}), **result.summary(),
        }  # fmt: skip


def evaluate_alone(path: Path, options: Options, stop: StopRequest) -> None:
    """Evaluate one run, print its table, and write its picture and video."""
    loaded = Loaded.read(path, options, stop)
    if options.plot:
        require_plane(loaded, options.plot_dims)
    with closing(loaded.session):
        result = loaded.evaluate(options, keep_paths=12 if options.plot else 0)
    summary = loaded.summary(result, options)
    if options.json:
        print(json.dumps(summary))
    else:
        show_one(summary, result)
    written, title = [], f"{loaded.algorithm} on {loaded.env.env}"
    if options.plot and save_trajectories(result, options.plot, title, options.plot_dims):
        written.append(options.plot)
    if options.video:
        episodes = options.episodes or VIDEO_EPISODES
        limit, session = loaded.config.eval_max_steps, loaded.session
        record(
            options.video, loaded.policy, session.make_rendering, episodes, limit, session.faults,
            not options.stochastic,
        )  # fmt: skip
        written.append(options.video)
    for file in written:
        print(f"Written: {file}", file=sys.stderr if options.json else sys.stdout)


def require_plane(loaded: Loaded, chosen: Dims | None) -> None:
    """Raise UserError before the evaluation if trajectories cannot be drawn in two dimensions."""
    env = loaded.session.make_evaluation(1)
    place = loaded.policy.place(torch.zeros(1, env.spec.state_dim, device=loaded.session.device))
    mapped = bool(env.outlines(0))
    env.close()
    if place is None:
        raise UserError(
            "--plot draws trajectories in a goal space, but this agent has none. Name several runs to plot "
            "learning curves."
        )
    size = place.shape[-1]
    if chosen is not None and max(chosen) >= size:
        raise UserError(f"--plot-dims {chosen[0]} {chosen[1]}: the goal space has dimensions 0 to {size - 1}.")
    if size < 2:
        raise UserError("--plot draws trajectories in a plane, but this goal space has one dimension.")
    if chosen is None and size > 2 and not mapped:
        raise UserError(f"The goal space has {size} dimensions: choose two to draw, for example --plot-dims 0 1.")


def compare(options: Options, stop: StopRequest) -> None:
    """Evaluate several runs, print a table of groups, and draw their learning curves."""
    runs: list[Run] = []
    for i, path in enumerate(options.runs):
        try:
            loaded = Loaded.read(path, options, stop)
            with closing(loaded.session):
                result = loaded.evaluate(options)
        except FAULTS as error:
            warn(f"{path} is skipped: {error}")
            continue
        label = options.label[i] if options.label else None
        runs.append(
            Run(path, loaded.env.env, loaded.algorithm, loaded.settings, loaded.summary(result, options), label)
        )
    if not runs:
        raise UserError("None of these runs can be evaluated.")
    groups = grouped(runs, options.group_by)
    if options.json:
        print(json.dumps([run.summary | {"group": name} for (_, name), group in groups.items() for run in group]))
    else:
        show_comparison(groups)
    if options.plot:
        panels, values = curves(groups)
        save_curves(panels, options.plot, values)
        print(f"Written: {options.plot}", file=sys.stderr if options.json else sys.stdout)
