"""Endurance of long runs: resident memory over minutes of training, and the size of a 10M-step run's log.

python benchmarks/endurance.py --minutes 10
python benchmarks/endurance.py --minutes 10 --env PointMaze_Large-v3 --vectorization async
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from running import RESULTS, ROOT, processor, running

LONG = 10_000_000
"""Environment steps of the requested run, which is stopped long before."""


@dataclass
class Options:
    """Train, measure the memory, and stop."""

    minutes: float = 10.0
    env: str = "hrl/PointMaze_Large-v0"
    vectorization: str = "auto"
    """async for worker processes, whose memory is included."""


def main() -> None:
    """Print resident memory every minute, and the extrapolated size of the log of all steps."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(ROOT / "train.py"), "hiro", "--env", options.env, "--total-steps", str(LONG),
            "--log-dir", folder, "--threads", "1", "--progress", "False", "--eval-episodes", "10",
            "--vectorization", options.vectorization,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        running.add(process)
        started, memory = time.perf_counter(), {}
        minute = 1
        while (now := (time.perf_counter() - started) / 60) < options.minutes + 0.1:
            time.sleep(1)
            if now >= minute:
                memory[minute] = resident(process.pid)
                print(f"{minute:3} min: {memory[minute]:,.1f} MB", flush=True)
                minute += 1
        process.terminate()
        process.wait()
        (run,) = (path.parent for path in Path(folder).rglob("config.json"))
        log = sum(f.stat().st_size for f in run.iterdir() if f.is_file())
        steps = float((run / "progress.csv").read_text().splitlines()[-1].split(",")[0])
    first, last = memory[1], memory[max(memory)]
    whole = log / steps * LONG / 1e6
    print(f"memory after {max(memory)} min ÷ after 1 min: {last / first:.3f}; log of {LONG:,} steps: {whole:.1f} MB")
    result = {"megabytes": memory, "ratio": last / first, "log_megabytes": whole, "steps": steps}
    result |= {"env": options.env, "machine": processor(), "date": time.strftime("%Y-%m-%d")}
    name = "endurance" if options.vectorization == "auto" else f"endurance-{options.vectorization}"
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def resident(process: int) -> float:
    """Resident memory in MB of a process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pages = sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in (process, *children))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
