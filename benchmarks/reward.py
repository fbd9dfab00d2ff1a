"""A learned reward on a task with delayed rewards: the same policy-gradient agents with and without it.

    python benchmarks/reward.py --seeds 8

hrl/Track-v0 gives the sum of rewards every 20 steps. A lifetime has ten rounds of 16 episodes. The score is the mean of
the task's return over all rounds of the last ten lifetimes. Agents without the learned reward have three learning
rates.
"""

import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import tyro
from running import RESULTS, mean, processor, progress, trained

CASES = {
    "learned reward": "--reward learned --learning-rate 0.015",
    "without, learning rate .01": "--reward task --learning-rate 0.01",
    "without, learning rate .015": "--reward task --learning-rate 0.015",
    "without, learning rate .02": "--reward task --learning-rate 0.02",
    "without, rewards not delayed": "--reward task --learning-rate 0.02 --reward-delay 0",
}
LIVES, ROUNDS, FIRST = 10, 10, 5


@dataclass
class Options:
    """Run missing runs, and print the table."""

    seeds: int = 8
    """Seeds per case."""
    jobs: int = 2
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    file = RESULTS / "reward.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    missing = [(c, s) for s in range(options.seeds) for c in CASES if f"{c} {s}" not in results]
    with ThreadPoolExecutor(options.jobs) as pool:
        for (case, seed), result in zip(missing, pool.map(lambda pair: measure(*pair), missing), strict=True):
            results[f"{case} {seed}"] = result
            file.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{case}, seed {seed}: {result['final']:.1f}", flush=True)
    print("| agent | return of the last ten lives: mean [95 %] | each seed | of the first five |")
    print("|---|---|---|---|")
    for case in CASES:
        rows = [results[f"{case} {s}"] for s in range(options.seeds)]
        final, first = [r["final"] for r in rows], [statistics.mean(r["lives"][:FIRST]) for r in rows]
        each = " ".join(f"{x:.1f}" for x in final)
        print(f"| {case} | {mean(final, 1)} | {each} | {mean(first, 1)} |")


def measure(case: str, seed: int) -> dict[str, Any]:
    """One run with the command that a user would type."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = ["lirpg", "--env", "hrl/Track-v0", *CASES[case].split(), "--seed", str(seed), "--threads", "1"]
        rows = [r for r in progress(trained(folder, *words, "--save-freq", "0")) if r["train/life/return"]]
    lives: dict[str, list[float]] = {}
    for row in rows:
        lives.setdefault(row["train/life/number"], []).append(float(row["train/life/return"]))
    whole = [statistics.mean(returns) for returns in lives.values() if len(returns) == ROUNDS]  # complete lifetimes
    return {
        "final": statistics.mean(whole[-LIVES:]), "lives": whole,
        "seconds": time.perf_counter() - started, "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
