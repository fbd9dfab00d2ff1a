"""Four existing skills, two of ours and two of stable-baselines3's, under a controller in a maze.

    python benchmarks/skills.py --jobs 1

Each skill moves in one direction and was trained without the maze (examples/directions.py). The controller learns with
three seeds, and the flat agents learn with the same number of steps. The overhead is the CPU time of the agent's
steps over that of a hand-written loop over the same policies and environments, in this process, measured alternately.
Finished parts are kept in results/skills.json.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from running import RESULTS, ROOT, command, completed, evaluated, mean, processor, trained, training_seconds

sys.path.insert(0, str(ROOT))

from stable_baselines3 import PPO, SAC

import hrl
from examples.directions import Direction
from hrl.agents.options.skills import Controller, SkillsConfig
from hrl.api.sessions import trained_policy
from hrl.api.trust import Trust
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.setting import Setting

# A corridor with two bends. The goal is at the other end, 10 cells away, and only the goal is rewarded.
MAZE = "[[1,1,1,1,1],[1,r,0,0,1],[1,1,1,0,1],[1,0,0,0,1],[1,0,1,1,1],[1,0,0,g,1],[1,1,1,1,1]]"
ENV, STEPS, EPISODES = "PointMaze_Large-v3", 60_000, 100
OURS = "--env examples.directions:Direction-v0 --num-envs 8 --gamma 0.9 --eval-freq 0 --save-freq 0 --threads 1"
SKILLS = {
    "east": f"ppo {OURS} --env-kwargs angle=0 --total-steps 20000 --n-steps 64 --batch-size 64 --learning-rate 1e-3",
    "north": f"sac {OURS} --env-kwargs angle=90 --total-steps 8000 --train-freq 4",
}
"""The skills that this toolkit trains."""
CASES = {
    "controller over four skills": f"skills --total-steps {STEPS} --eval-freq 0 --save-freq 0",
    "flat TD3 + HER": f"td3 --total-steps {STEPS} --eval-freq 0 --save-freq 0",
    "flat SAC + HER": f"sac --total-steps {STEPS} --eval-freq 0 --save-freq 0",
}
NUM_ENVS, ROUNDS, LOOP = 16, 5, 300


@dataclass
class Options:
    """Run missing parts, and print the table."""

    seeds: int = 3
    """Seeds per row."""
    jobs: int = 1
    """Parallel runs, each with one thread."""
    skills: Path = ROOT / "runs" / "skills"
    """Folder of the skills, which are trained once."""


def main() -> None:
    """Train the skills, run missing parts, and print the table."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    skills = trained_skills(options.skills)
    file = RESULTS / "skills.json"
    requested: list[tuple[Any, int]] = [(case, seed) for case in CASES for seed in range(options.seeds)]
    results = completed(file, requested, lambda case, seed: measure(case, seed, skills), options.jobs)
    results = completed(file, [("overhead", 0)], lambda case, seed: overhead(skills), 1)
    print("| agent | steps | success [95 %] | each seed | seconds of training |\n|---|---|---|---|---|")
    for case in CASES:
        rows = [results[f"{case} {seed}"] for seed in range(options.seeds)]
        success, seconds = [row["success"] for row in rows], [row["seconds"] for row in rows]
        each = " ".join(f"{x:.2f}" for x in success)
        print(f"| {case} | {STEPS:,} | {mean(success, rate=True)} | {each} | {max(seconds):.0f} at most |")
    cost = results["overhead 0"]
    clock = cost.get("clock", "wall")  # results before 2026-11-29 do not name their clock
    print(f"Steps take {mean(cost['ratio'])} times the {clock} time of a hand-written loop, {NUM_ENVS} environments.")


def trained_skills(folder: Path) -> list[str]:
    """The skills as values of --skill. Trains missing ones."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for name, words in SKILLS.items():
        if not list((folder / name).rglob("config.json")):
            command("train.py", *words.split(), "--log-dir", str(folder / name))
        (config,) = (folder / name).rglob("config.json")
        sources.append(f"{config.parent},name={name}")
    for name, angle, kind in (("west", 180.0, PPO), ("south", 270.0, SAC)):
        model = folder / f"{name}.zip"
        if not model.exists():
            more: dict[str, Any] = {"n_steps": 512} if kind is PPO else {"train_freq": 4}
            made = kind("MlpPolicy", Direction(angle), learning_rate=1e-3, gamma=0.9, seed=0, device="cpu", **more)
            made.learn(20_000 if kind is PPO else 8_000).save(model)
        sources.append(f"sb3:{model}:{kind.__name__},name={name}")
    return [f"{source},observe=2-3" for source in sources]


def measure(case: str, seed: int, skills: list[str]) -> dict[str, Any]:
    """The success and the training seconds of one run, with the commands that a user would type."""
    given = [word for skill in skills for word in ("--skill", skill)] if case.startswith("controller") else []
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *CASES[case].split(),
            "--env",
            ENV,
            "--env-kwargs",
            f"maze_map={MAZE}",
            "--seed",
            str(seed),
            "--threads",
            "1",
            "--trust",
        ]
        run = trained(folder, *words, *given)
        success = evaluated(run, "--episodes", str(EPISODES), "--trust")["success_rate_any"]
        return {"arguments": CASES[case], "success": success, "seconds": training_seconds(run), **host()}


def overhead(skills: list[str]) -> dict[str, Any]:
    """Ratios of the CPU seconds of the agent's steps to those of a hand-written loop, measured alternately."""
    env = make_env(EnvConfig(ENV, {"continuing_task": False}, num_envs=NUM_ENVS))
    load: Callable[[Path], Any] = lambda path: trained_policy(path, "best", Trust(True))  # noqa: E731
    setting = Setting(env.spec, NUM_ENVS, torch.device("cpu"), 0, lambda: env, 0, env=env, load_policy=load)
    torch.manual_seed(0)
    agent = SkillsConfig(skill=tuple(skills), high=Controller(period=15)).make(setting)
    policies = [by_hand(skill.partition(",")[0], load) for skill in skills]
    env.reset(0)
    ratios = [agents_loop(agent, env) / loop_by_hand(policies, env.env) for _ in range(ROUNDS)]
    env.close()
    return {"ratio": ratios, "clock": "CPU", **host()}


def by_hand(source: str, load: Callable[[Path], Any]) -> Any:
    """The policy of a run or a model, loaded by its own library."""
    kind, _, rest = source.partition(":")
    file, _, name = rest.rpartition(":")
    return {"PPO": PPO, "SAC": SAC}[name].load(file, device="cpu") if kind == "sb3" else load(Path(source))


def agents_loop(agent: Any, env: Any) -> float:
    """CPU seconds of acting, stepping and observing."""
    obs, started = env.reset(0), time.process_time()
    for _ in range(LOOP):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    return time.process_time() - started


def loop_by_hand(policies: list[Any], env: Any) -> float:
    """CPU seconds of the same loop by hand, with a new random skill every 15 steps in each environment."""
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    skill, actions = rng.integers(len(policies), size=NUM_ENVS), np.zeros((NUM_ENVS, 2), np.float32)
    started = time.process_time()
    for t in range(LOOP):
        if t % 15 == 0:
            skill = rng.integers(len(policies), size=NUM_ENVS)
        for number, policy in enumerate(policies):
            mine = skill == number
            if mine.any():
                actions[mine] = policy.predict(obs["observation"][mine, 2:], deterministic=True)[0]
        obs, *_ = env.step(actions)
    return time.process_time() - started


def host() -> dict[str, Any]:
    """The machine and the date."""
    return {"machine": processor(), "threads": 1, "date": time.strftime("%Y-%m-%d"), "version": hrl.__version__}


if __name__ == "__main__":
    main()
