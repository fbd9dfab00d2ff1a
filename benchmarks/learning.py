"""The learning tables: trains every case with every seed, evaluates it, prints what the README quotes.

    python benchmarks/learning.py --cases hiro sb3 --jobs 2

Each run is the command that a user would type. Finished runs are kept in results/learning.json and not run again,
so that the benchmark can be stopped and continued; --again runs them anew, which a changed preset needs. Long runs
(the ants) stay in runs/learning, and go on from their last checkpoint where they were interrupted; of each,
progress.csv is kept under results/runs. They are judged as papers do: by success at the final step of 50 episodes.
"""

import csv
import json
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import tyro
from running import RESULTS, ROOT, command, processor, side_by_side

from hrl.training.run import RunFolder
from hrl.training.statistics import bootstrap_interval, interquartile_mean

UMAZE, MEDIUM, LARGE = (f"PointMaze_{size}-v3" for size in ("UMaze", "Medium", "Large"))
# HIRO exactly as published: its own defaults, one low update a step, one high update a decision. Only the goal
# space (relative xy) and the reset of the task are declared.
PUBLISHED = "--preset none --env-kwargs continuing_task=False --goal.low -1 --goal.high 1 --eval-freq 0 --save-freq 0"


# Short of what the task takes, so that a difference would show.
BATCHED, SHORT = "hrl/PointMaze_Medium-v0", "hiro --total-steps 60000 --eval-freq 0 --save-freq 0"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    group: str
    name: str
    env: str
    arguments: str
    seeds: int
    processes: int = 1
    long: bool = False
    """Keep the run's folder, to go on from, and judge it as papers do."""
    published: str = ""
    """The published figure."""
    variant: str = ""
    """Which of the tasks of its name it is, with its success."""
    eval_env: str = ""
    """The published evaluation's task, where it is another."""

    @property
    def key(self) -> str:
        """As a folder's name; other arguments have another."""
        name = f"{self.name} {self.env}".replace("/", "-").replace(" ", "-").replace(",", "").lower()
        return f"{name}-{zlib.crc32(self.arguments.encode()):08x}"


CASES = [
    *(Case("hiro", "HIRO, our preset", env, "hiro --eval-freq 0 --save-freq 0", 5) for env in (UMAZE, MEDIUM, LARGE)),
    Case("sb3", "SB3 TD3 + HER", UMAZE, "sb3-td3 --total-steps 20000 --eval-freq 0 --save-freq 0", 3),
    Case("sb3", "SB3 TD3 + HER", MEDIUM, "sb3-td3 --total-steps 20000 --eval-freq 0 --save-freq 0", 3),
    Case("sb3", "SB3 TD3 + HER", LARGE, "sb3-td3 --total-steps 30000 --eval-freq 0 --save-freq 0", 3),
    Case("flat", "our flat TD3 + HER", LARGE, "td3 --eval-freq 20000 --save-freq 0", 3),
    Case("flat", "our flat SAC + HER", LARGE, "sac --eval-freq 20000 --save-freq 0", 3),
    Case("published", "HIRO as published", UMAZE, f"hiro {PUBLISHED} --total-steps 35000", 3),
    Case("published", "HIRO as published", MEDIUM, f"hiro {PUBLISHED} --total-steps 20000", 3),
    Case("published", "HIRO as published", LARGE, f"hiro {PUBLISHED} --total-steps 50000", 3),
    Case("pendulum", "our SAC", "Pendulum-v1", "sac --eval-freq 0 --save-freq 0", 5),
    Case(
        "pendulum",
        "SB3 SAC",
        "Pendulum-v1",
        "sb3-sac --lr 1e-3 --total-steps 10000 --eval-freq 0 --save-freq 0",
        5,
    ),
    Case("processes", "HIRO, 1 process of 64", BATCHED, f"{SHORT} --num-envs 64", 3),
    Case("processes", "HIRO, 2 processes of 32", BATCHED, f"{SHORT} --num-envs 32", 3, processes=2),
]

MAZE, EVAL = "hrl/AntMaze-v0", "hrl/AntMazeEval-v0"
HIRO_MAZE = ("HIRO's: scale 8, 500 steps, within 5", ".99 best of 10M; reruns .71 at 5M")


def on_the_maze(group: str, name: str, arguments: str, seeds: int) -> Case:
    """A row on HIRO's Ant Maze."""
    variant, published = HIRO_MAZE
    return Case(group, name, MAZE, arguments, seeds, long=True, variant=variant, published=published, eval_env=EVAL)


ANTS = [
    on_the_maze("ant-maze", "HIRO, our preset", "hiro", 3),
    on_the_maze("ant-parts", "the lesser of the high level's critics", "hiro --high.pessimism 1", 1),
    on_the_maze("ant-parts", "low level paid by distance", "hiro --low.reward distance --low.action-l2 0.02", 1),
    on_the_maze("ant-parts", "low level with hindsight", "hiro --low.hindsight 0.5 --low.hindsight-horizon 10", 1),
    on_the_maze("ant-parts", "high level with hindsight", "hiro --high.hindsight 0.5", 1),
    on_the_maze("ant-parts", "without hindsight subgoals", "hiro --high.hindsight-actions 0", 1),
    on_the_maze("ant-parts", "with the off-policy correction", "hiro --high.correction True", 1),
    on_the_maze("ant-flat", "our flat TD3 + HER", "td3", 1),
    # As many updates as ours has at its low level.
    on_the_maze(
        "ant-flat",
        "SB3 TD3 + HER",
        f"sb3-td3 --num-envs 16 --gradient-steps 4 --total-steps 1000000 --eval-env {EVAL}",
        1,
    ),
]
CASES += [
    *ANTS,
    Case("ant-sparse", "HIRO, our preset", "hrl/AntMazeSparse-v0", "hiro", 3, long=True,
         variant="HRAC's: scale 2, 500 steps, within 1, begun anywhere", published="HRAC .89 at 5M"),
    Case("ant-push", "HIRO, our preset", "hrl/AntPush-v0", "hiro", 3, long=True,
         variant="HIRO's: 500 steps, within 5", published=".92 best of 10M; reruns mostly .00"),
    Case("ant-fall", "HIRO, our preset", "hrl/AntFall-v0", "hiro", 3, long=True,
         variant="HIRO's: 500 steps, within 5", published=".66 best of 10M"),
]  # fmt: skip

EPISODES, LONG_EPISODES = 100, 50


@dataclass
class Options:
    """Train and evaluate; print the table."""

    cases: tuple[str, ...] = ("hiro", "sb3", "flat", "published", "pendulum", "processes")
    """Groups of rows to run."""
    jobs: int = 2
    """Runs at a time, each on one thread."""
    seeds: int = 0
    """Seeds a row; 0 for as many as the table has."""
    again: bool = False
    """Run what is finished too."""


def main() -> None:
    """Run what is missing, then print the table."""
    options = tyro.cli(Options)
    file = RESULTS / "learning.json"
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    wanted = [(c, s) for c in CASES if c.group in options.cases for s in range(options.seeds or c.seeds)]
    if options.again:
        results = [r for r in results if not any(_matches(r, c, s) for c, s in wanted)]
        for case, seed in wanted:
            shutil.rmtree(lasting(case, seed), ignore_errors=True)
    missing = [(c, s) for c, s in wanted if not any(_matches(r, c, s) for r in results)]
    for (case, seed), result in side_by_side(lambda pair: measure(*pair, options.jobs), missing, options.jobs):
        results.append(result)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{case.name:22} {case.env:20} seed {seed}: success {result['success_rate_any']:.2f}, "
              f"{result['train_seconds']:.0f} s", flush=True)  # fmt: skip
    print(table(results))
    print(long_table(results))


def _matches(result: dict[str, Any], case: Case, seed: int) -> bool:
    return (result["name"], result["env"], result["arguments"], result["seed"]) == (
        case.name, case.env, case.arguments, seed,
    )  # fmt: skip


def measure(case: Case, seed: int, jobs: int) -> dict[str, Any]:
    """One run by the user's own commands: its evaluation, its seconds of training, its whole seconds."""
    with folder_of(case, seed) as folder:
        started = time.perf_counter()
        run = trained(case, seed, folder)
        whole = time.perf_counter() - started
        where = ["--env", case.eval_env] if case.eval_env else []
        episodes = LONG_EPISODES if case.long else EPISODES
        summary = json.loads(command("evaluate.py", str(run), *where, "--episodes", str(episodes), "--json"))
        with (run / "progress.csv").open(newline="") as progress:
            seconds = max(float(row["time/time_elapsed"] or 0) for row in csv.DictReader(progress))
        if case.long:
            kept = RESULTS / "runs" / f"{case.key}-{seed}.csv"
            kept.parent.mkdir(exist_ok=True)
            shutil.copy(run / "progress.csv", kept)
    host: dict[str, Any] = {"machine": processor(), "jobs": jobs, "threads": 1, "date": time.strftime("%Y-%m-%d")}
    keep = ("steps", "episodes", "success_rate_any", "success_rate_final", "mean_reward", "mean_ep_length")
    return {
        "name": case.name, "env": case.env, "arguments": case.arguments, "seed": seed,
        **{k: summary[k] for k in keep}, "train_seconds": seconds, "whole_seconds": whole, **host,
    }  # fmt: skip


@contextmanager
def folder_of(case: Case, seed: int) -> Iterator[Path]:
    """Where a run goes: long ones stay there, others vanish."""
    if case.long:
        yield lasting(case, seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def lasting(case: Case, seed: int) -> Path:
    """The folder of a long run."""
    return ROOT / "runs" / "learning" / case.key / str(seed)


def trained(case: Case, seed: int, folder: Path) -> Path:
    """The folder of the case's run, trained to its end: from its last checkpoint, where there is one."""
    run = RunFolder.begun(folder)
    if run is None:
        words = [*case.arguments.split(), "--env", case.env, "--seed", str(seed), "--threads", "1"]
        command("train.py", *words, "--log-dir", str(folder), processes=case.processes)
        run = RunFolder.begun(folder)
    elif not run.finished:
        command("train.py", "--resume", str(run.path))
    assert run is not None
    return run.path


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a row a case, interquartile mean over seeds."""
    head = (
        "task",
        "agent",
        "steps",
        "success IQM [95 %]",
        "each seed",
        "return IQM [95 %]",
        "seconds: median (most)",
        "on",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case in CASES:
        rows = [] if case.long else rows_of(case, results)
        if rows:
            success, seconds = [r["success_rate_any"] for r in rows], sorted(r["train_seconds"] for r in rows)
            lines.append(
                f"| {case.env} | {case.name} | {rows[0]['steps']:,} | {_iqm(success)} | "
                f"{' '.join(f'{s:.2f}' for s in success)} | {_iqm([r['mean_reward'] for r in rows])} | "
                f"{seconds[len(seconds) // 2]:.0f} ({seconds[-1]:.0f}) | {max(r['date'] for r in rows)} |"
            )
    return "\n".join(lines)


def long_table(results: list[dict[str, Any]]) -> str:
    """Markdown: a row a long case, success at the final step beside what was published."""
    head = ("task", "variant", "agent", "steps", "final-step success: mean", "each seed", "at any step", "return",
            "minutes", "published", "on")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case in CASES:
        rows = rows_of(case, results) if case.long else []
        if rows:
            final, reached, returns, seconds = (
                [r[name] for r in rows]
                for name in ("success_rate_final", "success_rate_any", "mean_reward", "train_seconds")
            )
            lines.append(
                f"| {case.env} | {case.variant} | {case.name} | {rows[0]['steps']:,} | {fmean(final):.2f} | "
                f"{' '.join(f'{s:.2f}' for s in final)} | {fmean(reached):.2f} | {fmean(returns):.0f} | "
                f"{fmean(seconds) / 60:.0f} | {case.published} | {max(r['date'] for r in rows)} |"
            )
    return "\n".join(lines)


def rows_of(case: Case, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A case's results by seed."""
    return sorted((r for r in results if _matches(r, case, r["seed"])), key=lambda r: r["seed"])


def _iqm(values: list[float]) -> str:
    low, high = bootstrap_interval(values)
    return f"{float(interquartile_mean(values)):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
