"""Measures how well a discriminator distinguishes DIAYN's skills in new rollouts, and the success of its controller.

    python benchmarks/diayn.py --seeds 3 --jobs 1

Each run uses the command that a user would type. Afterwards, the low level follows uniformly drawn skills in new
episodes, with its most likely actions and with sampled ones, as in training. A skill counts as recognised if it is the
most likely one according to the run's discriminator in the state where its period ends. "At every step" is the same
measure over all states of the period, where a displacement is often still small.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from running import RESULTS, completed, evaluated, mean, processor, trained, training_seconds
from torch import Tensor

from hrl.agents.parts.discriminator import DiscriminatedSkill
from hrl.cli import evaluation
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.spaces import random_actions
from hrl.stopping import StopRequest
from hrl.types import BatchedEnv

CASES = {"PointMaze_Medium-v3": "diayn --env PointMaze_Medium-v3 --eval-freq 0 --save-freq 0"}
NUM_ENVS, STEPS, EPISODES = 32, 600, 100


@dataclass
class Options:
    """Run missing runs, and print the table."""

    seeds: int = 3
    """Seeds per row."""
    jobs: int = 1
    """Parallel runs, each with one thread."""


def main() -> None:
    """Run missing runs, then print the table."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    requested = [(case, seed) for seed in range(options.seeds) for case in CASES]
    results = completed(RESULTS / "diayn.json", requested, measure, options.jobs)
    columns = {
        "controller: success": "success", "skills recognised at their end": "recognised",
        "sampled actions": "recognised_sampled", "at every step": "recognised_every_step",
    }  # fmt: skip
    print(f"| task | {' | '.join(columns)} | steps | seconds |\n|---|{'---|' * (len(columns) + 2)}")
    for case in CASES:
        rows = [results[f"{case} {seed}"] for seed in range(options.seeds)]
        cells = []
        for key in columns.values():
            values = [row[key] for row in rows]
            cells.append(f"{mean(values, rate=True)} ({' '.join(f'{x:.2f}' for x in values)})")
        seconds = max(row["seconds"] for row in rows)
        print(f"| {case} | {' | '.join(cells)} | {rows[0]['steps']:,} | {seconds:.0f} |")


def measure(case: str, seed: int) -> dict[str, Any]:
    """One run with the commands that a user would type, and results of its skills and controller in new episodes."""
    with tempfile.TemporaryDirectory() as folder:
        run = trained(folder, *CASES[case].split(), "--seed", str(seed), "--threads", "1")
        summary, seconds = evaluated(run, "--episodes", str(EPISODES)), training_seconds(run)
        told_apart = recognition(run.path)
    host = {"machine": processor(), "threads": 1, "date": time.strftime("%Y-%m-%d")}
    return {
        "arguments": CASES[case], "success": summary["success_rate_any"], "steps": summary["steps"],
        "seconds": seconds, **told_apart, **host,
    }  # fmt: skip


def recognition(run: Path) -> dict[str, float]:
    """Fractions of skills that the discriminator of a run recognises in new rollouts."""
    loaded = evaluation.Loaded.read(run, evaluation.Options((run,)), StopRequest())
    agent = loaded.policy.agent
    shares = [rollout(agent, loaded.session.make_env(NUM_ENVS), sampled) for sampled in (False, True)]
    return {
        "recognised": shares[0][0], "recognised_sampled": shares[1][0], "recognised_every_step": shares[0][1],
    }  # fmt: skip


@torch.no_grad()
def rollout(agent: Hierarchy, env: BatchedEnv, sampled: bool) -> tuple[float, float]:
    """Follow uniformly drawn skills for the mean period each. Returns the fractions of recognised skills in the last
    states of whole periods, and in all states."""
    low, skill, period = agent.levels[0], agent.commands[0], agent.levels[1].period.mean
    assert isinstance(skill, DiscriminatedSkill)
    generator = torch.Generator().manual_seed(0)
    obs = env.reset(0)
    age = torch.full((NUM_ENVS,), period)
    target = torch.zeros(NUM_ENVS, skill.dim)
    found: list[Tensor] = []
    ends: list[Tensor] = []
    for _ in range(STEPS):
        fresh = skill.issue(obs.state, random_actions(skill.space, NUM_ENVS, generator, torch.device("cpu")))
        target = torch.where((age >= period).unsqueeze(-1), fresh, target)
        age = torch.where(age >= period, 0, age)
        act = low.sample(obs.state, target, generator) if sampled else low.decide(obs.state, target)
        step = env.step(act)
        age += 1
        found.append(skill.measure(step.final.state, target)["skill_recognised"])
        ends.append(age >= period)
        age = torch.where(step.terminated | step.truncated, period, age)
        obs = step.obs
    env.close()
    recognised, last = torch.stack(found), torch.stack(ends)
    return float(recognised[last].mean()), float(recognised.mean())


if __name__ == "__main__":
    main()
