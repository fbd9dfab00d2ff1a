"""Groups of runs that differ only in their seed, named after the options that distinguish them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrl.types import UserError

IGNORED = {
    "run.seed", "run.log_dir", "run.progress", "run.threads", "run.device", "run.execution", "run.save_freq",
    "run.log_freq", "env.workers", "env.worker_timeout", "env.worker_start",
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
