"""What benchmarks of whole runs share: the user's commands, where results go, means with their intervals."""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def command(script: str, *arguments: str, processes: int = 1) -> str:
    """Run one of the two command lines, in several processes if asked; what it printed."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    launcher = (sys.executable, *(torchrun if processes > 1 else ()))
    done = subprocess.run([*launcher, str(ROOT / script), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def side_by_side(
    measure: Callable[[Item], dict[str, Any]], items: Iterable[Item], jobs: int
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Each item and what was measured of it, as soon as it is there, `jobs` at a time. A failure is raised last."""
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
    file: Path, wanted: Iterable[tuple[Any, int]], measure: Callable[[Any, int], dict[str, Any]], jobs: int
) -> dict[str, Any]:
    """The results in a file by "row seed", with those of `wanted` that were missing: each is kept once it is there."""
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    missing = [pair for pair in wanted if f"{pair[0]} {pair[1]}" not in results]
    for (row, seed), result in side_by_side(lambda pair: measure(*pair), missing, jobs):
        results[f"{row} {seed}"] = result
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{row}, seed {seed}: done", flush=True)
    return results


def processor() -> str:
    """What the machine calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def mean(values: list[float], digits: int = 2) -> str:
    """With its 95 % interval by Student's t, where there are several."""
    centre, n = statistics.mean(values), len(values)
    if n == 1:
        return f"{centre:.{digits}f}"
    from scipy.stats import t as student  # here, since the speed table runs where there is no scipy

    half = float(student.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
    return f"{centre:.{digits}f} [{centre - half:.{digits}f}, {centre + half:.{digits}f}]"
