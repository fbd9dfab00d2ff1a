"""Groups of runs that differ only in their seed, named after the options that distinguish them; means and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrl.report.display import warn
from hrl.report.logger import STEPS, read_progress
from hrl.report.statistics import RATE, Curve, student_interval
from hrl.types import UserError

IGNORED = {
    "run.seed", "run.log_dir", "run.progress", "run.wandb", "run.threads", "run.device", "run.execution",
    "run.save_freq", "run.log_freq", "env.workers", "env.worker_timeout", "env.worker_start",
}  # fmt: skip
"""Settings in which the runs of one group may differ: the seed, and settings that do not change results."""


@dataclass
class Run:
    """One evaluated run."""

    path: Path
    env: str
    algorithm: str
    settings: Mapping[str, Any]
    """The stored configuration: env, run, agent."""
    summary: dict[str, Any]
    label: str | None = None
    """The name given by the user, if any."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as one dictionary with dotted names."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return result


def options_of(run: Run) -> dict[str, Any]:
    """A run's settings by option name, without the prefixes `agent.`, `run.` and `env.`."""
    stored = flat(run.settings)
    return {
        name.removeprefix("agent.").removeprefix("run.").removeprefix("env."): _rounded(value)
        for name, value in stored.items()
        if name not in IGNORED
    }


def grouped(runs: Sequence[Run], group_by: Sequence[str] = ()) -> dict[tuple[str, str], list[Run]]:
    """Runs by (environment, name). Raises UserError for a `group_by` option that no run has.

    The name is the label, or the algorithm with the options that differ among its runs on this environment.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        alike = [other for other in runs if (other.env, other.algorithm) == (run.env, run.algorithm)]
        groups.setdefault((run.env, run.label or _name(run, alike, group_by)), []).append(run)
    known = set().union(*(options_of(run) for run in runs))
    if unknown := [option for option in group_by if option not in known]:
        raise UserError(f"--group-by {unknown[0]}: none of these runs has that option.")
    return dict(sorted(groups.items()))


def _name(run: Run, alike: Sequence[Run], group_by: Sequence[str]) -> str:
    mine, others = options_of(run), [options_of(other) for other in alike]
    if group_by:
        differing = [option for option in group_by if option in mine]
    else:
        names = sorted(set().union(*others))
        differing = [name for name in names if any(other.get(name) != mine.get(name) for other in others)]
    return ", ".join([run.algorithm, *(f"{name} {_short(mine.get(name))}" for name in differing)])


def _short(value: Any) -> str:
    return str(value).replace(" ", "")


def _rounded(value: Any) -> Any:
    """Round floats to 3 digits for comparison, because measured values differ slightly between runs."""
    if isinstance(value, list | tuple):
        return [_rounded(x) for x in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The options in which runs differ, with the value of each run; None for a run without the option."""
    values = [options_of(run) for run in runs]
    names = sorted(set().union(*values))
    columns = {name: [mine.get(name) for mine in values] for name in names}
    return {name: column for name, column in columns.items() if any(x != column[0] for x in column)}


SCORES = {
    "success_rate_any": "success, any step", "success_rate_final": "success, final step", "mean_reward": "return",
    "mean_ep_length": "episode length",
}  # fmt: skip
"""The numbers of an evaluation that tables show, and their names."""


def comparison(groups: Mapping[tuple[str, str], Sequence[Run]]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table of groups: means across runs, with Student's 95 % interval for three or more."""
    present = [key for key in SCORES if any(key in run.summary for group in groups.values() for run in group)]
    rows = []
    for (env, name), members in groups.items():
        cells = []
        for key in present:
            values = [run.summary[key] for run in members if key in run.summary]
            interval = student_interval(values, *([RATE] if key.startswith("success") else []))
            mean = f"{float(np.mean(values)):.3f}" if values else ""
            cells.append(mean + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
        rows.append([env, name, str(len(members)), *cells])
    return ["environment", "runs of", "runs", *(SCORES[key] for key in present)], rows


def scores(summary: Mapping[str, Any]) -> list[list[str]]:
    """The rows of a table of one run: name, mean, and 95 % interval over episodes."""
    rows = []
    for key, name in ((key, name) for key, name in SCORES.items() if key in summary):
        interval = summary[f"{key}_interval"]
        rows.append([name, f"{summary[key]:.3f}", f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""])
    for key in ("subgoal_reach_rate", "subgoal_distance"):
        if key in summary:
            rows.append([key.replace("_", " "), f"{summary[key]:.3f}", ""])
    for k in (k for k in range(100) if f"return_after_{k}" in summary):
        mean, half = summary[f"return_after_{k}"], summary.get(f"return_after_{k}_error")
        interval = "" if half is None else f"{mean - half:.3f} to {mean + half:.3f}"
        rows.append([f"return after {k} step{'s' * (k != 1)} of adaptation", f"{mean:.3f}", interval])
    return rows


SUCCESS, RETURN = "eval/success_rate", "eval/mean_reward"
NAMES = {SUCCESS: "success rate", RETURN: "return"}
"""The tags of evaluations' scores, with their names in pictures."""


def curves(groups: dict[tuple[str, str], list[Run]]) -> tuple[dict[str, dict[str, list[Curve]]], str]:
    """Curves of evaluations over steps, by environment and group, and the name of their values.

    The values are success rates, or returns on an environment where a run reports no success. Raises UserError if no
    run was evaluated during training.
    """
    logged: dict[str, list[tuple[str, dict[str, np.ndarray]]]] = {env: [] for env, _ in groups}
    for (env, name), members in groups.items():
        for run in members:
            try:
                columns = read_progress(run.path)
                if not _logged(columns, RETURN):
                    raise UserError("it was not evaluated during training (--eval-freq).")
                logged[env].append((name, columns))
            except UserError as error:
                warn(f"{run.path} has no curve: {error}")
    panels: dict[str, dict[str, list[Curve]]] = {}
    tags: set[str] = set()
    for env, found in logged.items():
        tag = SUCCESS if all(_logged(columns, SUCCESS) for _, columns in found) else RETURN
        for name, columns in found:
            there = ~np.isnan(columns[tag])
            panels.setdefault(env, {}).setdefault(name, []).append(Curve(columns[STEPS][there], columns[tag][there]))
            tags.add(tag)
    if not panels:
        raise UserError(
            "Learning curves need evaluations during training, but none of these runs has any; train with --eval-freq."
        )
    return panels, f"{' or '.join(NAMES[tag] for tag in NAMES if tag in tags)} of evaluations"


def _logged(columns: dict[str, np.ndarray], tag: str) -> bool:
    """Whether the run logged at least one value under this tag."""
    return tag in columns and not bool(np.isnan(columns[tag]).all())
