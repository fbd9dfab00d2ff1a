"""What benchmarks of whole runs share: the user's commands, where results go, means with their intervals."""

import platform
import statistics
import subprocess
import sys
from pathlib import Path

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
