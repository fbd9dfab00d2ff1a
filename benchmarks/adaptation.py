"""Fast adaptation: returns on held-out tasks after 0, 1, 2 and 3 steps, compared with published ones.

    python benchmarks/adaptation.py --cases maml first-order famp --jobs 2

Each run uses the command that a user would type, and is evaluated with `evaluate.py RUN --episodes TASKS`. Finished
runs are kept in results/adaptation.json and not repeated.
"""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import tyro
from running import RESULTS, completed, evaluated, processor, progress, trained, training_seconds

POINT = "maml --env hrl/Navigation-v0 --eval-freq 1000000"
# A controller decides once in ten steps. Its gradient, a mean over steps, is a tenth, so the step size is ten times
# larger.
LEVELS = (
    "--subgoals 10 --goal.low -0.5 --goal.high 0.5 --adapts high --inner-learning-rate 10 --lam 0.97 --outer adam "
    "--learning-rate 0.003"
)
TASKS = 100


@dataclass(frozen=True)
class Case:
    """One row: a command and its published returns."""

    name: str
    arguments: str
    published: tuple[float, ...]
    tasks: int = TASKS
    seeds: int = 1


CASES = {
    "maml": Case("MAML, 2-D point", POINT, (-40.41, -11.68, -3.33, -3.23)),
    "lambda-1": Case("MAML, 2-D point, λ = 1", f"{POINT} --lam 1 --total-steps 3000000", ()),
    "first-order": Case("first-order MAML, 2-D point", f"{POINT} --first-order True", ()),
    "subgoals": Case("MAML, a controller that sets subgoals adapts", f"{POINT} {LEVELS}", (), seeds=3),
    "famp": Case("FAMP, Taxi", "famp --env hrl/Taxi-v0", (-9.65, -4.21, 0.66, 0.58), tasks=12, seeds=3),
}


@dataclass
class Options:
    """Run missing runs, and print the table."""

    cases: tuple[str, ...] = tuple(CASES)
    """Rows of the table."""
    seeds: int = 0
    """Seeds per row; 0 for the table's number."""
    jobs: int = 1
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    file = RESULTS / "adaptation.json"
    requested = [(case, seed) for case in options.cases for seed in range(options.seeds or CASES[case].seeds)]
    results = completed(file, requested, lambda case, seed: measure(CASES[case], seed), options.jobs)
    print("| agent | seed | steps | after 0 | 1 | 2 | 3 steps (± half a 95 % interval) | published | seconds |")
    print("|---" * 9 + "|")
    for case, seed in requested:
        r = results[f"{case} {seed}"]
        cells = " | ".join(f"{x:.2f} ± {e:.2f}" for x, e in zip(r["returns"], r["errors"], strict=True))
        published = " / ".join(f"{x:.2f}" for x in CASES[case].published) or "none"
        print(f"| {CASES[case].name} | {seed} | {r['steps']:,} | {cells} | {published} | {r['seconds']:.0f} |")
        print("|  with exploration | | | " + " | ".join(f"{x:.2f}" for x in r["sampled"]) + " | | |")


def measure(case: Case, seed: int) -> dict[str, Any]:
    """Train, then adapt to held-out tasks. Returns returns after each step, half intervals and training seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = trained(folder, *case.arguments.split(), "--seed", str(seed), "--threads", "1")
        summary, rows, seconds = evaluated(run, "--episodes", str(case.tasks)), progress(run), training_seconds(run)
    curve = [
        [int(float(r["time/total_timesteps"])), *(float(r[f"eval/return_after_{k}"]) for k in range(4))]
        for r in rows
        if r.get("eval/return_after_0")
    ]
    return {
        "command": " ".join(case.arguments.split()), "steps": summary["steps"], "curve": curve,
        "returns": [summary[f"return_after_{k}"] for k in range(4)],
        "errors": [summary[f"return_after_{k}_error"] for k in range(4)],
        "sampled": [summary[f"sampled_return_after_{k}"] for k in range(4)],
        "seconds": seconds, "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
