"""Shared functions of benchmarks of whole runs: commands, runs, results files, and means with intervals."""

import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from hrl.report.statistics import RATE, student_interval
from hrl.run.folder import RunFolder

Item = TypeVar("Item")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


running: "set[subprocess.Popen[Any]]" = set()
"""Running processes, which receive requests to stop."""


def command(script: str, *arguments: str, processes: int = 1) -> str:
    """Run one of the two command lines, optionally in several processes. Returns its output."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    launcher = (sys.executable, *(torchrun if processes > 1 else ()))
    process = subprocess.Popen(
        [*launcher, str(ROOT / script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    running.add(process)
    out, err = process.communicate()
    running.discard(process)
    if process.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{out}\n{err}")
    return out


def trained(folder: Path | str, *words: str, processes: int = 1) -> RunFolder:
    """The finished run below a folder. Trains it with these words of `train.py`, or resumes its last checkpoint."""
    folder = Path(folder)
    run = RunFolder.resumable(folder)
    if run is None:
        command("train.py", *words, "--log-dir", str(folder), processes=processes)
        run = RunFolder.resumable(folder)
        assert run is not None
    elif not run.finished:
        command("train.py", "--resume", str(run.path))
    return run


def evaluated(run: RunFolder, *words: str) -> dict[str, Any]:
    """The summary of `evaluate.py` for a run, with these words."""
    summary: dict[str, Any] = json.loads(command("evaluate.py", str(run.path), *words, "--json").splitlines()[-1])
    return summary


def progress(run: RunFolder) -> list[dict[str, str]]:
    """The rows of a run's progress.csv."""
    with (run.path / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def training_seconds(run: RunFolder) -> float:
    """The wall-clock seconds of a run's training."""
    return max(float(row["time/time_elapsed"] or 0) for row in progress(run))


def _stop(number: int, frame: object) -> None:
    """Forward a request to stop to the runs, which save their state, and exit."""
    for process in [p for p in running if p.poll() is None]:
        process.send_signal(signal.SIGTERM)
    os._exit(128 + number)


for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, _stop)


def run_parallel(
    measure: Callable[[Item], dict[str, Any]], items: Iterable[Item], jobs: int
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Measure the items, `jobs` in parallel. Yields each item and its result as soon as it is finished. Raises the
    first failure at the end."""
    failed: BaseException | None = None
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(measure, item): item for item in items}
        for future in as_completed(futures):
            failed = failed or future.exception()
            if not future.exception():
                yield futures[future], future.result()
    if failed:
        raise failed


def completed(
    file: Path, requested: Iterable[tuple[Any, int]], measure: Callable[[Any, int], dict[str, Any]], jobs: int
) -> dict[str, Any]:
    """The results in a file by "row seed". Measures the missing ones of `requested`, and writes each when finished."""
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    missing = [pair for pair in requested if f"{pair[0]} {pair[1]}" not in results]
    for (row, seed), result in run_parallel(lambda pair: measure(*pair), missing, jobs):
        results[f"{row} {seed}"] = result
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{row}, seed {seed}: done", flush=True)
    return results


def processor() -> str:
    """The name of the machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def mean(values: list[float], digits: int = 2, rate: bool = False) -> str:
    """The mean, with Student's 95 % interval for three or more values; the interval of a rate is clipped to [0, 1]."""
    interval = student_interval(values, *([RATE] if rate else []))
    centre = f"{statistics.mean(values):.{digits}f}"
    return f"{centre} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else centre
