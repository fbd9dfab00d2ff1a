"""Every valid pair of learners after 20,000 steps on a maze or a grid, compared with uniformly random actions.

    python benchmarks/pairs.py --jobs 2

The success of the deterministic trained policies is measured in 100 episodes, with three seeds. Finished runs are kept
in results/pairs.json and not repeated.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import tyro
from chance import by_chance
from running import RESULTS, evaluated, mean, processor, run_parallel, trained

STEPS, EPISODES = 20_000, 100
GRID = "--goal.projection hrl.envs.tasks.grids:four_rooms_place --goal.low 0.5 --goal.high 11.5 --goal.relative False"
TASKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "maze": ("hrl/PointMaze_UMaze-v0", {}, "--num-envs 16 --goal.low -1 --goal.high 1"),
    "grid": ("hrl/FourRooms-v0", {"max_episode_steps": 100}, f"--num-envs 16 {GRID} --goal.threshold 0.8"),
}
"""Environment, its keyword arguments, and the options of the run, by name."""
LOW = {"td3": "maze", "sac": "maze", "ppo": "maze", "dqn": "grid", "ppo on the grid": "grid", "discrete-sac": "grid"}
"""Low learners and their tasks."""
HIGH = ("td3", "sac", "ppo", "dqn", "discrete-sac")
OPTIONS = {
    "low": {"ppo": "--low.n-steps 64 --low.batch-size 128 --low.learning-rate 1e-3 --low.reward progress"},
    "high": {
        "ppo": "--high.period 5 --high.gamma 0.98 --high.n-steps 8 --high.batch-size 64 --high.learning-rate 3e-3 "
        "--high.log-std-init -0.7",
        "dqn": "--goal.cells 5",
        "discrete-sac": "--goal.cells 5 --high.learning-rate 1e-3",
    },
}
Job = tuple[str, str, int]
"""High learner, low learner, seed."""


@dataclass
class Options:
    """Train, evaluate, and print the table."""

    jobs: int = 2
    """Parallel runs, each with one thread."""
    seeds: int = 3
    """Seeds per pair."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    file = RESULTS / "pairs.json"
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    done = {(r["high"], r["low"], r["seed"]) for r in results}
    requested = [(high, low, seed) for low in LOW for high in HIGH for seed in range(options.seeds)]
    missing = [job for job in requested if job not in done]
    for (high, low, seed), success in run_parallel(lambda job: measure(*job), missing, options.jobs):
        host = {"machine": processor(), "date": time.strftime("%Y-%m-%d")}
        results.append({"high": high, "low": low, "seed": seed, "success": success, **host})
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{high} over {low}, seed {seed}: {success:.2f}", flush=True)
    print(table(results))


def measure(high: str, low: str, seed: int) -> float:
    """Train one pair, and return its success rate."""
    env, arguments, _ = TASKS[LOW[low]]
    words = ["hiro", "--env", env, "--preset", "none", "--seed", str(seed), "--total-steps", str(STEPS)]
    words += ["--threads", "1", "--eval-freq", "0", "--save-freq", "0"]
    if arguments:
        words += ["--env-kwargs", *(f"{name}={value}" for name, value in arguments.items())]
    words += learners(high, low)
    with tempfile.TemporaryDirectory() as folder:
        summary = evaluated(trained(folder, *words), "--episodes", str(EPISODES), "--trust")
    return float(summary["success_rate_any"])


def learners(high: str, low: str) -> list[str]:
    """The options of a pair."""
    learner, task = low.split()[0], TASKS[LOW[low]][2]
    words = ["--low.learner", learner, "--high.learner", high, "--high.reward-offset", "-1", *task.split()]
    return [*words, *OPTIONS["low"].get(learner, "").split(), *OPTIONS["high"].get(high, "").split()]


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of the mean success and each seed's, with low learners as rows and high learners as columns."""
    chances = {name: by_chance(env_id, arguments, 2000)[0] for name, (env_id, arguments, _) in TASKS.items()}
    lines = [f"| low learner (by chance) | {' | '.join(HIGH)} |", "|---" * (len(HIGH) + 1) + "|"]
    for low, task in LOW.items():
        cells = []
        for high in HIGH:
            success = [r["success"] for r in results if (r["high"], r["low"]) == (high, low)]
            cells.append(f"{mean(success, rate=True)} ({' '.join(f'{s:.2f}' for s in success)})" if success else "")
        lines.append(f"| {low} ({chances[task]:.2f}) | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
