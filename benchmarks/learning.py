"""The learning tables: trains and evaluates every case with every seed, and prints the results.

    python benchmarks/learning.py --cases hiro sb3 --jobs 2
    python -m benchmarks.learning --suite family     # every way to build a hierarchy, on two small tasks

Each run uses the command that a user would type. Finished runs are kept in results/learning.json and not repeated, so
the benchmark can be stopped and continued. --again repeats them, for example after a change of a preset. Long runs
(the ants) stay in runs/learning, and resume from their last checkpoint after an interruption. Their progress.csv is
kept under results/runs, and results/long-curves.png draws their evaluations. They are evaluated as in papers, by
success at the final step of 50 episodes.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))  # also as `python -m benchmarks.learning`

from ant_cases import ANTS
from cases import CASES, Case
from running import RESULTS, ROOT, evaluated, mean, processor, run_parallel, trained, training_seconds

from hrl.report.logger import STEPS, read_columns
from hrl.report.pictures import save_curves
from hrl.report.statistics import Curve, bootstrap_interval, interquartile_mean

ALL = [*CASES, *ANTS]
EPISODES, LONG_EPISODES = 100, 50
SCORES = {"success": "success_rate_final", "return": "mean_reward"}
"""The metric of each score of long runs."""


@dataclass
class Options:
    """Train, evaluate, and print the tables."""

    cases: tuple[str, ...] = ("hiro", "sb3", "flat", "published", "pendulum", "processes")
    """Groups of rows to run."""
    suite: Literal["family"] | None = None
    """family: the group of that name instead, with interquartile means, bootstrap intervals and curves."""
    only: tuple[str, ...] = ()
    """Environments of those groups; all if none is given."""
    jobs: int = 2
    """Parallel runs, each with one thread."""
    seeds: int = 0
    """Seeds per row; 0 for the table's number."""
    again: bool = False
    """Repeat finished runs."""


def main() -> None:
    """Run missing runs, then print the tables."""
    options = tyro.cli(Options)
    file = RESULTS / "learning.json"
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    groups = options.cases if options.suite is None else (options.suite,)
    chosen = [c for c in ALL if c.group in groups and (not options.only or c.env in options.only)]
    requested = [(c, s) for c in chosen for s in range(options.seeds or c.seeds)]
    if options.again:
        results = [r for r in results if not any(_matches(r, c, s) for c, s in requested)]
        for case, seed in requested:
            shutil.rmtree(lasting(case, seed), ignore_errors=True)
    missing = [(c, s) for c, s in requested if not any(_matches(r, c, s) for r in results)]
    for (case, seed), result in run_parallel(lambda pair: measure(*pair, options.jobs), missing, options.jobs):
        results.append(result)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
        success = f"success {result['success_rate_any']:.2f}, " if "success_rate_any" in result else ""
        print(f"{case.name:22} {case.env:20} seed {seed}: {success}return {result['mean_reward']:.2f}, "
              f"{result['train_seconds']:.0f} s", flush=True)  # fmt: skip
    if options.suite:
        print(suite_table(options.suite, results))
        save_curves(suite_curves(options.suite, results), RESULTS / f"{options.suite}.png", "success of evaluations")
        return
    print(table(results))
    print(long_table(results))
    if curves := long_curves(results):
        save_curves(curves, RESULTS / "long-curves.png", "success at the final step")


def _matches(result: dict[str, Any], case: Case, seed: int) -> bool:
    return (result["name"], result["env"], result["arguments"], result["seed"]) == (
        case.name, case.env, case.arguments, seed,
    )  # fmt: skip


def measure(case: Case, seed: int, jobs: int) -> dict[str, Any]:
    """One run with the commands that a user would type: its evaluation, training seconds and total seconds."""
    with folder_of(case, seed) as folder:
        started = time.perf_counter()
        words = [*case.arguments.split(), "--env", case.env, "--seed", str(seed), "--threads", "1"]
        run = trained(folder, *words, processes=case.processes)
        whole = time.perf_counter() - started
        where = ["--env", case.eval_env] if case.eval_env else []
        episodes = LONG_EPISODES if case.long else EPISODES
        summary = evaluated(run, *where, "--episodes", str(episodes), "--trust", *case.evaluate.split())
        seconds = training_seconds(run)
        curve = {"curve": curve_of(run.path)} if case.group == "family" else {}
        if case.long:
            kept(case, seed).parent.mkdir(exist_ok=True)
            shutil.copy(run.path / "progress.csv", kept(case, seed))
    host: dict[str, Any] = {"machine": processor(), "jobs": jobs, "threads": 1, "date": time.strftime("%Y-%m-%d")}
    keep = ("steps", "episodes", "success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length")
    return {
        "name": case.name, "env": case.env, "arguments": case.arguments, "seed": seed,
        **{k: summary[k] for k in keep if k in summary}, "train_seconds": seconds, "whole_seconds": whole,
        **curve, **host,
    }  # fmt: skip


def curve_of(run: Path) -> list[list[float]]:
    """Steps and success of the evaluations during training."""
    columns = read_columns(run / "progress.csv")
    success = columns.get("eval/success_rate", np.empty(0))
    there = ~np.isnan(success)
    return [columns[STEPS][there].tolist(), success[there].tolist()]


@contextmanager
def folder_of(case: Case, seed: int) -> Iterator[Path]:
    """The folder of a run, temporary except for long runs."""
    if case.long:
        yield lasting(case, seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def lasting(case: Case, seed: int) -> Path:
    """The permanent folder of a long run."""
    return ROOT / "runs" / "learning" / case.key / str(seed)


def kept(case: Case, seed: int) -> Path:
    """The file that keeps a long run's progress."""
    return RESULTS / "runs" / f"{case.key}-{seed}.csv"


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table with one row per case: means over seeds with Student's 95 % intervals."""
    head = (
        "task",
        "agent",
        "steps",
        "success [95 %]",
        "each seed",
        "return [95 %]",
        "seconds: median (most)",
        "on",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case in ALL:
        rows = [] if case.long or case.group == "family" else rows_of(case, results)
        if rows:
            success = [r["success_rate_any"] for r in rows if "success_rate_any" in r]  # some tasks report none
            seconds = sorted(r["train_seconds"] for r in rows)
            task = f"{case.env}, {case.variant}" if case.variant else case.env
            lines.append(
                f"| {task} | {case.name} | {rows[0]['steps']:,} | {mean(success, rate=True) if success else ''} | "
                f"{' '.join(f'{s:.2f}' for s in success)} | {mean([r['mean_reward'] for r in rows])} | "
                f"{seconds[len(seconds) // 2]:.0f} ({seconds[-1]:.0f}) | {max(r['date'] for r in rows)} |"
            )
    return "\n".join(lines)


def suite_table(group: str, results: list[dict[str, Any]]) -> str:
    """A Markdown table of one group: interquartile means with bootstrap intervals, best first."""
    lines = ["| task | agent | success: interquartile mean [95 %] | each seed | seconds |", "|---" * 5 + "|"]
    cases = [(case, rows) for case in ALL if case.group == group and (rows := rows_of(case, results))]
    scored = [(case, rows, [r["success_rate_any"] for r in rows]) for case, rows in cases]
    for case, rows, success in sorted(scored, key=lambda x: (x[0].env, -float(interquartile_mean(x[2])))):
        low, high = bootstrap_interval(success)
        each = " ".join(f"{s:.2f}" for s in success)
        seconds = fmean(r["train_seconds"] for r in rows)
        middle = f"{float(interquartile_mean(success)):.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| {case.env} | {case.name} | {middle} | {each} | {seconds:.0f} |")
    return "\n".join(lines)


def suite_curves(group: str, results: list[dict[str, Any]]) -> dict[str, dict[str, list[Curve]]]:
    """The evaluations during training of one group's runs, by task and agent."""
    curves: dict[str, dict[str, list[Curve]]] = {}
    for case in (case for case in ALL if case.group == group):
        for row in rows_of(case, results):
            steps, success = (np.array(x) for x in row["curve"])
            curves.setdefault(case.env, {}).setdefault(case.name, []).append(Curve(steps, success))
    return curves


def long_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table with one row per long case: its score, and published results."""
    head = ("task", "variant", "agent", "steps", "final-step success, or return [95 %]", "each seed", "best on the way",
            "at any step", "return", "minutes", "published", "on")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case in ALL:
        rows = rows_of(case, results) if case.long else []
        if rows:
            final, reached, returns, seconds = (
                [r[name] for r in rows]
                for name in (SCORES[case.score], "success_rate_any", "mean_reward", "train_seconds")
            )
            best = [max(evaluations(case, r["seed"]).values, default=np.nan) for r in rows]
            lines.append(
                f"| {case.env} | {case.variant} | {case.name} | {rows[0]['steps']:,} | "
                f"{mean(final, rate=case.score == 'success')} | "
                f"{' '.join(f'{s:.2f}' for s in final)} | {' '.join(f'{s:.2f}' for s in best)} | "
                f"{fmean(reached):.2f} | {fmean(returns):.0f} | "
                f"{fmean(seconds) / 60:.0f} | {case.published} | {max(r['date'] for r in rows)} |"
            )
    return "\n".join(lines)


def long_curves(results: list[dict[str, Any]]) -> dict[str, dict[str, list[Curve]]]:
    """The evaluations during training of every long case that is scored by success, by task and agent."""
    curves: dict[str, dict[str, list[Curve]]] = {}
    for case in ALL:
        for row in rows_of(case, results) if case.long and case.score == "success" else []:
            curve = evaluations(case, row["seed"])
            if len(curve.steps):
                curves.setdefault(case.env, {}).setdefault(case.name, []).append(curve)
    return curves


def evaluations(case: Case, seed: int) -> Curve:
    """The scores of a long run's evaluations during training, of 50 episodes each; empty without any."""
    columns = read_columns(kept(case, seed)) if kept(case, seed).exists() else {}
    score = columns.get(f"eval/{SCORES[case.score]}", np.empty(0))
    there = ~np.isnan(score)
    return Curve(columns.get(STEPS, score)[there], score[there])


def rows_of(case: Case, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A case's results, sorted by seed."""
    return sorted((r for r in results if _matches(r, case, r["seed"])), key=lambda r: r["seed"])


if __name__ == "__main__":
    main()
