"""The learning table: trains every case with every seed, evaluates 100 episodes, prints what the README quotes.

    python benchmarks/learning.py --cases hiro sb3 --jobs 2

Each run is the command that a user would type. Finished runs are kept in results/learning.json and not run again,
so that the benchmark can be stopped and continued; --again runs them anew. Long runs (the ants) stay in
runs/learning, and go on from their last checkpoint where they were interrupted; of each, progress.csv is kept under
results/runs.
"""

import csv
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from hrl.training.statistics import bootstrap_interval, interquartile_mean

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
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
    published: str = ""
    """The published figure; a case that has one is a long run, judged as published."""
    variant: str = ""
    """What the task is called in papers, with its steps and its success."""
    eval_env: str = ""
    """The published evaluation's task, where it is another."""
    eval_kwargs: str = ""

    @property
    def key(self) -> str:
        """As a folder's name."""
        return f"{self.name} {self.env}".replace("/", "-").replace(" ", "-").replace(",", "").lower()


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

HIRO_MAZE = "Ant Maze (HIRO): scale 8, 500 steps, within 5 at the end"
MAZE, EVAL = "hrl/AntMaze-v0", "hrl/AntMazeEval-v0"
ANTS = [
    Case("ant-maze", "HIRO, our preset", MAZE, "hiro", 3, 1, ".99 best of 10M; reruns .71 at 5M", HIRO_MAZE, EVAL),
]
CASES += ANTS

EPISODES, PUBLISHED_EPISODES = 100, 50


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
    missing = [(c, s) for c, s in wanted if not any(_matches(r, c, s) for r in results)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda pair: measure(*pair, options.jobs), missing):
            results.append(result)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{result['name']:22} {result['env']:20} seed {result['seed']}: success "
                  f"{result['success_rate_any']:.2f}, {result['train_seconds']:.0f} s", flush=True)  # fmt: skip
    print(table(results))


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
        where += ["--env-kwargs", *case.eval_kwargs.split()] if case.eval_kwargs else []
        episodes = PUBLISHED_EPISODES if case.published else EPISODES
        summary = json.loads(command("evaluate.py", str(run), *where, "--episodes", str(episodes), "--json"))
        with (run / "progress.csv").open(newline="") as progress:
            seconds = max(float(row["time/time_elapsed"] or 0) for row in csv.DictReader(progress))
        if case.published:
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
    if case.published:
        yield ROOT / "runs" / "learning" / case.key / str(seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def trained(case: Case, seed: int, folder: Path) -> Path:
    """The folder of the case's run, trained to its end: from its last checkpoint, where there is one."""
    begun = [path.parent for path in folder.rglob("config.json") if list(path.parent.rglob("manifest.json"))]
    if not begun:
        words = [*case.arguments.split(), "--env", case.env, "--seed", str(seed), "--threads", "1"]
        command("train.py", *words, "--log-dir", str(folder), processes=case.processes)
    elif not finished(begun[0]):
        command("train.py", "--resume", str(begun[0]))
    (run,) = (path.parent for path in folder.rglob("config.json") if list(path.parent.rglob("manifest.json")))
    return run


def finished(run: Path) -> bool:
    """Whether a run has all its steps."""
    wanted = json.loads((run / "config.json").read_text())["config"]["run"]["total_steps"]
    with (run / "progress.csv").open(newline="") as progress:
        return max(int(row["time/total_timesteps"]) for row in csv.DictReader(progress)) >= wanted


def command(script: str, *arguments: str, processes: int = 1) -> str:
    """Run one of the two command lines, in several processes if asked; what it printed."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    launcher = (sys.executable, *(torchrun if processes > 1 else ()))
    done = subprocess.run([*launcher, str(ROOT / script), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def processor() -> str:
    """What the machine calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


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
        rows = sorted((r for r in results if _matches(r, case, r["seed"])), key=lambda r: r["seed"])
        if rows:
            success, seconds = [r["success_rate_any"] for r in rows], sorted(r["train_seconds"] for r in rows)
            lines.append(
                f"| {case.env} | {case.name} | {rows[0]['steps']:,} | {_iqm(success)} | "
                f"{' '.join(f'{s:.2f}' for s in success)} | {_iqm([r['mean_reward'] for r in rows])} | "
                f"{seconds[len(seconds) // 2]:.0f} ({seconds[-1]:.0f}) | {max(r['date'] for r in rows)} |"
            )
    return "\n".join(lines)


def _iqm(values: list[float]) -> str:
    low, high = bootstrap_interval(values)
    return f"{float(interquartile_mean(values)):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
