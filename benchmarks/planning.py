"""The graph planner: success with and without it, on the run's own maze and on a larger one.

    python benchmarks/planning.py --jobs 2

Each run uses the commands that a user would type. HIRO is trained on PointMaze_Large-v3, and evaluated there without a
planner and with `--planner graph`. For the giant maze, HIRO is trained in the large one with a low level that does not
observe its position (`--low.egocentric True`), because the walls are at other positions. Landmarks come from an
exploration of the giant maze, without learning. The preset of ants has such a low level. Runs are kept in
runs/planning. Results are kept in results/planning.json and not repeated.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import tyro
from running import RESULTS, ROOT, completed, evaluated, mean, processor, trained

from hrl.run.folder import RunFolder

GIANT = "hrl/PointMaze_Giant-v0"
EGOCENTRIC = "hiro --env hrl/PointMaze_Large-v0 --low.egocentric True --total-steps 120000"
FACTS = ("landmarks", "edges", "largest_component", "edge_steps", "hop_steps", "hop_success_rate",
         "disconnected_goals", "planning_seconds", "explored")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row: the options of the run's training and evaluation."""

    name: str
    run: str
    """The folder of the run below runs/planning."""
    train: str
    evaluate: str
    bar: str = ""
    seeds: int = 3


HIRO = "hiro --env PointMaze_Large-v3"
ANT = "hiro --env AntMaze_Medium-v4"
FORMER_ANT = (  # each action is one step of the environment
    f"{ANT} --action-repeat 1 --goal.low -2 --goal.high 2 --goal.threshold 0.5 --goal.periods 32 16 8 4 "
    "--low.hindsight 0 --low.action-noise 0 0.4 --low.random-hold 2 --low.gamma 0.975 --high.period 20"
)
ANT_LARGE = "hiro --env AntMaze_Large-v4"
IN_LARGE = "--env AntMaze_Large-v4"
CASES = {
    "large-without": Case("PointMaze_Large-v3, HIRO as trained", "large", HIRO, ""),
    "large": Case("PointMaze_Large-v3, graph planner", "large", HIRO, "--planner graph", "≥ .98"),
    "giant-without": Case("the giant maze, HIRO from the large one", "giant", EGOCENTRIC, f"--env {GIANT}"),
    "giant": Case("the giant maze, graph planner", "giant", EGOCENTRIC, f"--env {GIANT} --planner graph", "≥ .95"),
    "ant-without": Case("AntMaze_Medium-v4, HIRO as trained", "ant", ANT, ""),
    "ant": Case("AntMaze_Medium-v4, graph planner", "ant", ANT, "--planner graph", "≥ .8"),
    "ant-once-without": Case("AntMaze_Medium-v4 without repeated actions, HIRO as trained", "ant-once", FORMER_ANT, ""),
    "ant-once": Case(
        "AntMaze_Medium-v4 without repeated actions, graph planner", "ant-once", FORMER_ANT, "--planner graph"
    ),
    "ant-large-without": Case("AntMaze_Large-v4, HIRO as trained", "ant-large", ANT_LARGE, ""),
    "ant-large": Case("AntMaze_Large-v4, graph planner", "ant-large", ANT_LARGE, "--planner graph", "≥ .6"),
    "ant-transfer-without": Case("AntMaze_Large-v4, HIRO from Medium", "ant", ANT, IN_LARGE),
    "ant-transfer": Case("the same, graph planner", "ant", ANT, f"{IN_LARGE} --planner graph"),
}


@dataclass
class Options:
    """Run missing runs, and print the table."""

    cases: tuple[str, ...] = tuple(case for case in CASES if not case.startswith("ant"))
    """Rows of the table. By default all except the ants', whose names start with ant: they take half an hour to an hour
    a run."""
    seeds: int = 0
    """Seeds per row; 0 for the table's number."""
    jobs: int = 1
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    requested = [(case, seed) for case in options.cases for seed in range(options.seeds or CASES[case].seeds)]
    file = RESULTS / "planning.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    missing = [(case, seed) for case, seed in requested if f"{case} {seed}" not in known]
    for run, seed in dict.fromkeys((CASES[case].run, seed) for case, seed in missing):  # rows share runs
        learned(next(c for c in CASES.values() if c.run == run), seed)
    results = completed(file, requested, lambda case, seed: measure(CASES[case], seed), options.jobs)
    print(
        "| | success: mean [95 %] | each seed | steps an episode | hops that succeed | disconnected | planning | bar |"
    )
    print("|---" * 8 + "|")
    for case in options.cases:
        rows = [results[f"{case} {seed}"] for seed in range(options.seeds or CASES[case].seeds)]
        success = [r["success_rate_any"] for r in rows]
        cells = [mean(success, rate=True), " ".join(f"{x:.2f}" for x in success)]
        cells.append(f"{sum(r['mean_ep_length'] for r in rows) / len(rows):.0f}")
        planned = "hop_success_rate" in rows[0]
        for name, form in (
            ("hop_success_rate", "{:.2f}"),
            ("disconnected_goals", "{:.2f}"),
            ("planning_seconds", "{:.0f} s"),
        ):
            cells.append(" ".join(form.format(r[name]) for r in rows) if planned else "")
        print(f"| {CASES[case].name} | {' | '.join(cells)} | {CASES[case].bar} |")


def learned(case: Case, seed: int) -> RunFolder:
    """The run of a case. Trains it if it does not exist."""
    words = [*case.train.split(), "--seed", str(seed), "--threads", "1", "--eval-freq", "0", "--save-freq", "50000"]
    return trained(ROOT / "runs" / "planning" / case.run / str(seed), *words)


def measure(case: Case, seed: int) -> dict[str, Any]:
    """Evaluate a case in 100 episodes."""
    summary = evaluated(learned(case, seed), *case.evaluate.split())
    keep = ("steps", "episodes", "success_rate_any", "mean_reward", "mean_ep_length", *FACTS)
    return {
        "train": case.train, "evaluate": case.evaluate, **{k: summary[k] for k in keep if k in summary},
        "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
