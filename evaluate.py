"""Evaluate runs: `python evaluate.py RUN` for one, `python evaluate.py RUN RUN …` to compare."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from hrl_scripts.train import make_session, stored, told
from rich.console import Console
from rich.table import Table

from hrl.envs.make import KEY_VALUES
from hrl.training.evaluation import Evaluation
from hrl.training.logger import STEPS, read_progress
from hrl.training.pictures import save_curves, save_trajectories
from hrl.training.run import RunFolder
from hrl.training.session import Session
from hrl.training.statistics import Curve, bootstrap_interval, interquartile_mean
from hrl.training.video import record
from hrl.types import UserError


@dataclass
class Options:
    """Evaluate trained runs with a deterministic policy in environments of their own, on fixed episode seeds."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    episodes: int = 100
    """Episodes a run."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint: the last, or the best by the evaluations during training."""
    env: str | None = None
    """Evaluate on another environment id with the same observations, goals and actions."""
    env_kwargs: Annotated[dict[str, Any], KEY_VALUES] = field(default_factory=dict)
    """Keyword arguments of the environment, beside those that the run was trained with."""
    task: int | None = None
    """Act as for an earlier task, 0 the first, of a run that began with an earlier one (--….load, --….tasks)."""
    json: bool = False
    """Print one JSON object (a list for several runs) and nothing else."""
    plot: Path | None = None
    """Write a picture: trajectories with subgoals for one run, learning curves for several."""
    video: Path | None = None
    """Write an mp4 of the first episodes of one run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    return told(lambda: run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Evaluate each run; print one, or compare several."""
    options = tyro.cli(Options, args=arguments, prog="evaluate.py", config=(tyro.conf.FlagCreatePairsOff,))
    if not options.runs:
        raise UserError("Name at least one run folder: evaluate.py runs/<env>/<algorithm>/<run>.")
    if options.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {options.episodes}.")
    if options.video and len(options.runs) > 1:
        raise UserError("--video takes one run.")
    for file, suffixes in ((options.plot, (".png", ".svg", ".pdf")), (options.video, (".mp4",))):
        if file and (file.suffix not in suffixes or not file.parent.is_dir()):
            raise UserError(f"{file} must end in {' or '.join(suffixes)}, in a folder that exists.")
    results = [evaluate_run(path, options, alone=len(options.runs) == 1) for path in options.runs]
    if options.json:
        print(json.dumps(results[0] if len(results) == 1 else results))
    elif len(results) == 1:
        show_one(results[0])
    else:
        show_comparison(results)
    if options.plot and len(results) > 1:
        save_curves(curves(options.runs), options.plot, "eval/success_rate")
    return 0


def evaluate_run(path: Path, options: Options, alone: bool) -> dict[str, Any]:
    """One run's summary, with its picture and video if it is alone."""
    folder = RunFolder.existing(path)
    algorithm, env, config, agent = stored(folder)
    env_id = env.env
    if options.env:
        env = replace(env, env=options.env)
    env = replace(env, env_kwargs={**env.env_kwargs, **options.env_kwargs})
    config.eval_env = None
    session = make_session(algorithm, env, config, agent, folder)
    policy = agent.load(session, options.checkpoint)
    if options.task is not None:
        if not hasattr(policy, "recall"):
            raise UserError(f"--task is for levels that learn one task after another, which {algorithm} has not.")
        policy.recall(options.task)
    result: Evaluation = session.evaluate(policy, options.episodes, keep_paths=12 if options.plot and alone else 0)
    summary = {
        "run": str(path), "algorithm": algorithm, "env": env.env, "trained_on": env_id, "seed": config.seed,
        "env_kwargs": options.env_kwargs, "task": options.task, "checkpoint": options.checkpoint,
        "steps": session.checkpoint(options.checkpoint).steps, **result.summary(),
    }  # fmt: skip
    if alone:
        _picture_and_video(options, session, policy, result, f"{algorithm} on {env.env}")
    return summary


def _picture_and_video(options: Options, session: Session, policy: Any, result: Evaluation, title: str) -> None:
    if options.plot and not save_trajectories(result, options.plot, title):
        raise UserError("--plot draws trajectories of 2-D goal spaces; this run has none. Compare runs for curves.")
    if options.video:
        record(options.video, policy, session.make_rendering)


def show_one(summary: dict[str, Any]) -> None:
    """A small table of one run."""
    what = f"{summary['algorithm']} on {summary['env']}, {summary['checkpoint']} checkpoint"
    table = Table(title=f"{what} at {summary['steps']:,} steps, {summary['episodes']} episodes", title_justify="left")
    for column in ("", "mean", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    names = {
        "success_rate_any": "success, any step", "success_rate_final": "success, final step",
        "mean_reward": "return", "mean_ep_length": "episode length",
    }  # fmt: skip
    for key, name in names.items():
        interval = summary[f"{key}_interval"]
        table.add_row(name, f"{summary[key]:.3f}", f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "")
    for key in ("subgoal_reach_rate", "subgoal_distance"):
        if key in summary:
            table.add_row(key.replace("_", " "), f"{summary[key]:.3f}", "")
    for k in (k for k in range(100) if f"return_after_{k}" in summary):
        mean, half = summary[f"return_after_{k}"], summary.get(f"return_after_{k}_error")
        interval = "" if half is None else f"{mean - half:.3f} to {mean + half:.3f}"
        table.add_row(f"return after {k} step{'s' * (k != 1)} of adaptation", f"{mean:.3f}", interval)
    Console().print(table)


def show_comparison(summaries: list[dict[str, Any]]) -> None:
    """Runs grouped by environment and algorithm: interquartile means with bootstrap intervals across runs."""
    table = Table(title="interquartile mean [95 % bootstrap interval] across runs", title_justify="left")
    for column in (
        "environment",
        "algorithm",
        "runs",
        "success, any step",
        "success, final step",
        "return",
        "length",
    ):
        table.add_column(column)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for summary in summaries:
        groups.setdefault((summary["env"], summary["algorithm"]), []).append(summary)
    for (env, algorithm), members in sorted(groups.items()):
        cells = []
        for key in ("success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length"):
            values = [m[key] for m in members]
            low, high = bootstrap_interval(values)
            cells.append(f"{float(interquartile_mean(values)):.3f} [{low:.3f}, {high:.3f}]")
        table.add_row(env, algorithm, str(len(members)), *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def curves(runs: Sequence[Path]) -> dict[str, list[Curve]]:
    """Evaluation success over steps, by `<environment> / <algorithm>`."""
    groups: dict[str, list[Curve]] = {}
    for path in runs:
        algorithm, env, _, _ = stored(RunFolder.existing(path))
        columns = read_progress(path)
        success = columns.get("eval/success_rate", np.array([]))
        there = ~np.isnan(success)
        if there.any():
            curve = Curve(columns[STEPS][there], success[there])
            groups.setdefault(f"{env.env} / {algorithm}", []).append(curve)
    if not groups:
        raise UserError("--plot: none of these runs was evaluated during training (--eval-freq).")
    return groups


if __name__ == "__main__":
    sys.exit(main())
