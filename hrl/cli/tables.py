"""Tables of evaluations, for the terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hrl.planning.build import planner_notes
from hrl.report.evaluation import Evaluation
from hrl.report.groups import Run, comparison, scores


def show_one(summary: dict[str, Any], result: Evaluation) -> None:
    """Print a table of one run."""
    run = f"{summary['algorithm']} on {summary['env']}, {summary['checkpoint']} checkpoint"
    table = Table(title=f"{run} at {summary['steps']:,} steps, {summary['episodes']} episodes", title_justify="left")
    for column in ("", "mean", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    for row in scores(summary):
        table.add_row(*row)
    Console().print(table)
    for note in [*(planner_notes(summary) if "planner" in summary else []), *result.notes()]:
        print(note)


def show_comparison(groups: dict[tuple[str, str], list[Run]]) -> None:
    """Print a table of groups: means across runs, with Student's intervals for three or more runs."""
    table = Table(title="mean across runs [95 % interval by Student's t, for three or more runs]", title_justify="left")
    columns, rows = comparison(groups)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
