"""Prints tables of evaluations in the terminal, and collects curves."""

import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hrl.planning.build import planner_notes
from hrl.report.display import warn
from hrl.report.evaluation import Evaluation
from hrl.report.groups import Run
from hrl.report.logger import STEPS, read_progress
from hrl.report.statistics import RATE, Curve, student_interval
from hrl.types import UserError

SUMMARY = {
    "success_rate_any": "success, any step", "success_rate_final": "success, final step", "mean_reward": "return",
    "mean_ep_length": "episode length",
}  # fmt: skip


def show_one(summary: dict[str, Any], result: Evaluation) -> None:
    """Print a table of one run."""
    run = f"{summary['algorithm']} on {summary['env']}, {summary['checkpoint']} checkpoint"
    table = Table(title=f"{run} at {summary['steps']:,} steps, {summary['episodes']} episodes", title_justify="left")
    for column in ("", "mean", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    for key, name in ((key, name) for key, name in SUMMARY.items() if key in summary):
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
    for note in [*(planner_notes(summary) if "planner" in summary else []), *notes(summary, result)]:
        print(note)


def notes(summary: dict[str, Any], result: Evaluation) -> list[str]:
    """Notes that explain unusual values in the table."""
    lines = []
    if not result.reports_success and "return_after_0" not in summary:
        lines.append("The environment reports no success (info['is_success']), so no success rate is shown.")
    if result.truncated:
        lines.append(
            f"{result.truncated} of {summary['episodes']} episodes were truncated after {result.limit:,} steps; "
            "--max-steps sets the limit."
        )
    if summary.get("subgoal_reach_rate", 1.0) < 0.5 and summary.get("success_rate_any", 0.0) > 0.5:
        lines.append(
            "Few subgoals are reached, but the task is often solved: subgoals serve as directions, and each one is "
            "replaced after a period, reached or not."
        )
    return lines


def show_comparison(groups: dict[tuple[str, str], list[Run]]) -> None:
    """Print a table of groups: means across runs, with Student's intervals for three or more runs."""
    table = Table(title="mean across runs [95 % interval by Student's t, for three or more runs]", title_justify="left")
    present = [key for key in SUMMARY if any(key in run.summary for group in groups.values() for run in group)]
    for column in ("environment", "runs of", "runs", *(SUMMARY[key] for key in present)):
        table.add_column(column)
    for (env, name), members in groups.items():
        cells = []
        for key in present:
            values = [run.summary[key] for run in members if key in run.summary]
            interval = student_interval(values, *([RATE] if key.startswith("success") else []))
            mean = f"{float(np.mean(values)):.3f}" if values else ""
            cells.append(mean + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
        table.add_row(escape(env), escape(name), str(len(members)), *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def curves(groups: dict[tuple[str, str], list[Run]]) -> dict[str, dict[str, list[Curve]]]:
    """Curves of evaluation success over steps, by environment and group."""
    panels: dict[str, dict[str, list[Curve]]] = {}
    for (env, name), members in groups.items():
        for run in members:
            try:
                columns = read_progress(run.path)
                success = columns.get("eval/success_rate", np.array([]))
                there = ~np.isnan(success)
                if not there.any():
                    raise UserError("its success was not evaluated during training: train with --eval-freq.")
                curve = Curve(columns[STEPS][there], success[there])
            except UserError as error:
                warn(f"{run.path} has no curve: {error}")
                continue
            panels.setdefault(env, {}).setdefault(name, []).append(curve)
    if not panels:
        raise UserError(
            "--plot needs evaluations during training, but none of these runs has any; train with --eval-freq."
        )
    return panels
