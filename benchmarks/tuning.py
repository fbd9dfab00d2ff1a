"""Online tuning of a learning rate or a discount that is initially wrong by a factor of ten.

    python benchmarks/tuning.py --seeds 3 --jobs 2

SAC with small networks on Pendulum-v1: as tuned by hand, with one wrong hyperparameter, and with a wrong hyperparameter
that is tuned during the run (`--tune`). The score is the return scaled between a random policy's (0) and the well-tuned
agent's (1).
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import tyro
from running import RESULTS, completed, evaluated, processor, progress, trained

LINE = "sac --env Pendulum-v1 --hidden 64 64 --total-steps 8000 --eval-freq 0 --save-freq 0"
CASES = {
    "as tuned by hand": "",
    **{
        f"{name}, {kind}": f"{given}{tune}"
        for name, given, parameter in (
            ("learning rate 1e-4", "--learning-rate 1e-4", "learning_rate"),
            ("learning rate 1e-2", "--learning-rate 1e-2", "learning_rate"),
            ("discount .9", "--gamma 0.9", "gamma"),
            ("discount .999", "--gamma 0.999", "gamma"),
        )
        for kind, tune in (("kept", ""), ("tuned", f" --tune {parameter} --tuning.every 2"))
    },
}


@dataclass
class Options:
    """Run missing runs, and print the table."""

    seeds: int = 3
    """Seeds per row."""
    jobs: int = 2
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    file = RESULTS / "tuning.json"
    requested = [(c, s) for s in range(options.seeds) for c in CASES]
    results = completed(file, requested, measure, options.jobs)
    of = lambda case, key: [results[f"{case} {s}"][key] for s in range(options.seeds)]  # noqa: E731
    none, best = random_return(), statistics.mean(of("as tuned by hand", "return"))
    print(f"A random policy: {none:.0f}.\n\n| SAC, Pendulum-v1 | return: mean (each seed) | score | it ended at |")
    print("|---|---|---|---|")
    for case in CASES:
        returns, ends = of(case, "return"), of(case, "ended")
        mean, each = statistics.mean(returns), " ".join(f"{r:.0f}" for r in returns)
        ended = " ".join(f"{e:.3g}" for e in ends if e is not None)
        print(f"| {case} | {mean:.0f} ({each}) | {(mean - none) / (best - none):.2f} | {ended} |")


def measure(case: str, seed: int) -> dict[str, Any]:
    """One run with the commands that a user would type: return of 100 evaluation episodes, and the final
    hyperparameter."""
    with tempfile.TemporaryDirectory() as folder:
        run = trained(folder, *f"{LINE} {CASES[case]} --seed {seed} --threads 1".split())
        summary, last = evaluated(run, "--episodes", "100"), progress(run)[-1]
    ended = next((float(x) for name, x in last.items() if name.startswith("train/policy/tuned_")), None)
    host = {"machine": processor(), "date": time.strftime("%Y-%m-%d")}
    return {"return": summary["mean_reward"], "ended": ended, "seconds": float(last["time/time_elapsed"]), **host}


def random_return(episodes: int = 100) -> float:
    """The mean return of uniformly random actions."""
    env, returns = gym.make("Pendulum-v1"), []
    env.action_space.seed(0)
    for episode in range(episodes):
        env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return statistics.mean(returns)


if __name__ == "__main__":
    main()
