"""The rows of the learning tables: agents, tasks and published results. Those of the ants are in ant_cases.py."""

import zlib
from dataclasses import dataclass
from typing import Literal

UMAZE, MEDIUM, LARGE = (f"PointMaze_{size}-v3" for size in ("UMaze", "Medium", "Large"))
# HIRO exactly as published, in one environment, with only the goal space (relative xy) declared.
PUBLISHED = "--preset published --goal.low -1 --goal.high 1 --eval-freq 0 --save-freq 0"


# Fewer steps than the task needs, so that a difference would show.
BATCHED, SHORT = "hrl/PointMaze_Medium-v0", "hiro --total-steps 60000 --eval-freq 0 --save-freq 0"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    group: str
    name: str
    env: str
    arguments: str
    seeds: int
    processes: int = 1
    long: bool = False
    """Keep the run's folder for resuming, and evaluate as papers do."""
    published: str = ""
    """The published result."""
    variant: str = ""
    """The variant of the task, and its definition of success."""
    eval_env: str = ""
    """The task of the published evaluation, if it differs."""
    evaluate: str = ""
    """More options of the evaluation."""
    score: Literal["success", "return"] = "success"
    """The score of long runs: success at the final step, or the return."""

    @property
    def key(self) -> str:
        """The name of the case's folder, which depends on the arguments."""
        name = f"{self.name} {self.env}".replace("/", "-").replace(" ", "-").replace(",", "").lower()
        return f"{name}-{zlib.crc32(self.arguments.encode()):08x}"


# The defaults on an environment without a preset; the preset of point mazes is left out.
DEFAULTS = "hiro --preset none --num-envs 8 --total-steps 60000"

CASES = [
    Case("defaults", "HIRO, defaults only", "examples.custom_env:River-v0", "hiro", 3),
    Case("defaults", "HIRO, defaults only", UMAZE, DEFAULTS, 3),
    Case("defaults", "HIRO, defaults only", "FetchReach-v4", "hiro", 3),
    Case("defaults", "HIRO, defaults only", "panda_gym:PandaReach-v3", "hiro", 3),
    *(Case("hiro", "HIRO, our preset", env, "hiro --eval-freq 0 --save-freq 0", 5) for env in (UMAZE, MEDIUM, LARGE)),
    Case(
        "short",
        "HIRO, three times the updates",
        LARGE,
        "hiro --total-steps 200000 --ema 0.998 --low.train-freq 8 --high.train-freq 4 --eval-freq 0 --save-freq 0",
        5,
    ),
    Case("sb3", "SB3 TD3 + HER", UMAZE, "sb3-td3 --total-steps 20000 --eval-freq 0 --save-freq 0", 3),
    Case("sb3", "SB3 TD3 + HER", MEDIUM, "sb3-td3 --total-steps 20000 --eval-freq 0 --save-freq 0", 3),
    Case("sb3", "SB3 TD3 + HER", LARGE, "sb3-td3 --total-steps 30000 --eval-freq 0 --save-freq 0", 3),
    Case("flat", "our flat TD3 + HER", LARGE, "td3 --eval-freq 20000 --save-freq 0", 3),
    Case("flat", "our flat SAC + HER", LARGE, "sac --eval-freq 20000 --save-freq 0", 3),
    Case("published", "HIRO as published", UMAZE, f"hiro {PUBLISHED} --total-steps 35000", 3),
    Case("published", "HIRO as published", MEDIUM, f"hiro {PUBLISHED} --total-steps 20000", 3),
    Case("published", "HIRO as published", LARGE, f"hiro {PUBLISHED} --total-steps 50000", 3),
    Case("pendulum", "our SAC", "Pendulum-v1", "sac --eval-freq 0 --save-freq 0", 5),
    Case(
        "pendulum",
        "SB3 SAC",
        "Pendulum-v1",
        "sb3-sac --learning-rate 1e-3 --total-steps 10000 --eval-freq 0 --save-freq 0",
        5,
    ),
    Case("processes", "HIRO, 1 process of 64", BATCHED, f"{SHORT} --num-envs 64", 3),
    Case("landmarks", "landmarks, our preset", BATCHED, f"{SHORT.replace('hiro', 'landmarks')} --num-envs 64", 3),
    Case("processes", "HIRO, 2 processes of 32", BATCHED, f"{SHORT} --num-envs 32", 3, processes=2),
]


ON_POLICY = "--num-envs 16 --hidden 64 64 --n-steps 128 --batch-size 256 --eval-freq 0 --save-freq 0"
SWING = "--gamma 0.9 --learning-rate 1e-3 --total-steps 200000"
CHEETAH = "--hidden 64 64 --num-envs 16 --n-steps 128 --batch-size 64 --total-steps 300000 --eval-freq 0 --save-freq 0"
VALUES = "--num-envs 1 --eval-freq 0 --save-freq 0 --hidden 256 256 --batch-size 64"
# stable-baselines3 as tuned for the task in its zoo; ours with the same rates and number of gradient steps.
SB3_CART = (
    "--learning-rate 2.3e-3 --train-freq 256 --gradient-steps 128 --target-update-interval 10 "
    "--exploration-fraction 0.16 --exploration-final-eps 0.04 --total-steps 50000"
)
CART = "--learning-rate 5e-4 --train-freq 2 --random-actions 0.04 0.04 --exploration-fraction 0.16 --total-steps 50000"
SB3_LANDER = (
    "--learning-rate 6.3e-4 --train-freq 4 --gradient-steps -1 --target-update-interval 250 "
    "--exploration-fraction 0.12 --exploration-final-eps 0.1 --batch-size 128 --total-steps 100000"
)
LANDER = "--train-freq 1 --random-actions 0.1 0.1 --exploration-fraction 0.12 --batch-size 128 --total-steps 100000"
KEY = "--total-steps 100000 --learning-rate 5e-4"

LEVEL_WORDS = " ".join(f"--{level}.{x}" for level in ("low", "high") for x in ("n-steps 128", "batch-size 64"))
CASES += [
    Case("options", "PPOC, 4 options", "HalfCheetah-v5",
         f"ppoc --num-envs 16 {LEVEL_WORDS} --total-steps 300000 --eval-freq 0 --save-freq 0", 5),
    Case("options", "PPOC, 2 options", "HalfCheetah-v5",
         f"ppoc --options 2 --num-envs 16 {LEVEL_WORDS} --total-steps 300000 --eval-freq 0 --save-freq 0", 5),
    Case("options", "option-critic", "hrl/FourRooms-v0", "option-critic --eval-freq 0 --save-freq 0", 3),
]  # fmt: skip
for _env, _words in (
    ("CartPole-v1", f"{ON_POLICY} --total-steps 100000"), ("Acrobot-v1", f"{ON_POLICY} --total-steps 100000"),
    ("Pendulum-v1", f"{ON_POLICY} {SWING}"), ("HalfCheetah-v5", CHEETAH),
):  # fmt: skip
    CASES += [Case("ppo", "our PPO", _env, f"ppo {_words}", 3), Case("ppo", "SB3 PPO", _env, f"sb3-ppo {_words}", 3)]
DOOR = "minigrid:MiniGrid-DoorKey-5x5-v0"
for _env, _ours, _theirs in (
    ("CartPole-v1", CART, SB3_CART), ("LunarLander-v3", LANDER, SB3_LANDER), (DOOR, KEY, f"{KEY} --gradient-steps 1"),
):  # fmt: skip
    CASES += [
        Case("dqn", "our DQN", _env, f"dqn {VALUES} {_ours}", 3),
        Case("dqn", "SB3 DQN", _env, f"sb3-dqn {VALUES} {_theirs}", 3),
    ]

LEVELS = "hiro --preset three-levels --eval-freq 0 --save-freq 0"
PIXELS = "--num-envs 16 --n-steps 128 --batch-size 256 --n-epochs 4 --eval-freq 0 --save-freq 0"
RACING = (  # 50,000 steps of the environment
    "--env-kwargs continuous=False --action-repeat 4 --total-steps 12500 --num-envs 8 --frame-stack 2 --n-steps 64 "
    "--batch-size 128 --n-epochs 8 --learning-rate 5e-4 --gamma 0.97 --ent-coef 0.01 --ent-coef-final 0 "
    "--normalize-reward True --eval-freq 0 --save-freq 0"
)
GRID_DQN = "dqn --num-envs {} --hidden 256 256 --batch-size 256 --train-freq 2 --gamma 0.97"
KEYDOOR = GRID_DQN.format(8)
FLAT_PPO = (
    "ppo --num-envs 32 --n-steps 64 --batch-size 256 --learning-rate 2e-3 --ent-coef 0.003 --eval-freq 0 --save-freq 0"
)
SCALED_MAZE = "hiro --eval-freq 100000 --save-freq 0 --num-envs"
CASES += [
    Case("scale", f"HIRO, {count} mazes", "hrl/PointMaze_Large-v0", f"{SCALED_MAZE} {count}", 3) for count in (64, 1024)
]
GRIDS = {
    "12 x 12 cells": "--env-kwargs size=12 --total-steps 200000 --eval-freq 0 --save-freq 0",
    "14 x 14 cells, 200 steps": (
        "--env-kwargs size=14 max_episode_steps=200 --total-steps 200000 --eval-freq 0 --save-freq 0"
    ),
}
FAR = "--env-kwargs scale=3 start=0 max_episode_steps=150 --total-steps 80000 --eval-freq 0 --save-freq 0"
HIDDEN = "the state of key and door is not observed"
HIDDEN_KEY = "--env-kwargs observe_status=False --total-steps 300000"
CASES += [
    Case("choices", "HIRO, our preset", "hrl/KeyDoor-v0", "hiro --eval-freq 0 --save-freq 0", 3),
    Case("choices", "our DQN", "hrl/KeyDoor-v0", f"{KEYDOOR} --total-steps 100000 --eval-freq 0 --save-freq 0", 3),
    *(
        Case("choices", name, "hrl/KeyDoor-v0", f"{agent} {words}", 3, variant=variant)
        for variant, words in GRIDS.items()
        for name, agent in (("HIRO, our preset", "hiro"), ("our DQN", KEYDOOR))
    ),
    *(
        Case("choices", name, "hrl/FourRooms-v0", f"{words} {FAR}", 3, variant="3 x wider, fixed start, 150 steps")
        for name, words in (("HIRO, our preset", "hiro"), ("our DQN", GRID_DQN.format(16)))
    ),
    *(
        Case("feudal", name, "hrl/KeyDoor-v0", f"{agent} {words}", 3, variant=variant, evaluate="--stochastic")
        for words, variant in (("--total-steps 100000", ""), (HIDDEN_KEY, HIDDEN))
        for name, agent in (("FeUdal, sampled actions", "feudal"), ("our PPO, sampled actions", FLAT_PPO))
    ),
    Case("levels", "HIRO, three levels", LARGE, LEVELS, 3),
    Case("levels", "HAC, three levels", LARGE, "hac --eval-freq 0 --save-freq 0", 3),
    Case("pixels", "our PPO, from images", DOOR,
         f"ppo {PIXELS} --ent-coef 0.01 --ent-coef-final 0 --learning-rate 1e-3 --total-steps 150000", 3),
    Case("pixels", "our PPO, from images", "CarRacing-v3", f"ppo {RACING}", 3, evaluate="--episodes 20"),
]  # fmt: skip

# Larger than the default and with fewer steps, so that a random walk succeeds in .6 % of the episodes.
SUBGOALS = "--env-kwargs size=14 max_episode_steps=80 --total-steps 80000 --eval-freq 0 --save-freq 0"
AS_BELOW = (
    "--num-envs 32 --hidden 128 128 --batch-size 256 --train-freq 4 --learning-rate 1e-3 --tau 0.02 "
    "--random-actions 0.05 0.5"
)
"""The flat DQN has the settings of h-DQN's low level."""
MINIGRID = "--total-steps 100000 --eval-freq 0 --save-freq 0"
CASES += [
    Case("hdqn", "h-DQN, our preset", "hrl/KeyDoor-v0", f"hdqn {SUBGOALS}", 3, variant="14 x 14 cells, 80 steps"),
    Case("hdqn", "our DQN", "hrl/KeyDoor-v0", f"dqn {AS_BELOW} --gamma 0.97 {SUBGOALS}", 3,
         variant="14 x 14 cells, 80 steps"),
    Case("hdqn", "h-DQN, our preset", "examples.door_key:DoorKey-8x8-v0",
         f"hdqn --subgoals examples.door_key:SUBGOALS {MINIGRID}", 3),
    Case("hdqn", "our DQN", "examples.door_key:DoorKey-8x8-v0",
         f"dqn {AS_BELOW.replace('32', '16', 1)} --gamma 0.97 {MINIGRID}", 3),
]  # fmt: skip


# Options of HiPPO's preset for the task, for the same PPO without a manager.
CAR = (
    "ppo --num-envs 32 --n-steps 1000 --batch-size 1000 --n-epochs 10 --learning-rate 3e-3 --gamma 0.999 "
    "--normalize-observations True --hidden 64 64 --total-steps 128000 --eval-freq 0 --save-freq 0"
)
CASES += [
    Case("hippo", "HiPPO, our preset", "MountainCarContinuous-v0", "hippo --eval-freq 0 --save-freq 0", 3),
    Case("hippo", "our PPO", "MountainCarContinuous-v0", CAR, 3),
    Case("hippo", "our PPO, initial gain of 5", "MountainCarContinuous-v0", f"{CAR} --policy-gain 5", 3),
]

# The corridor of benchmarks/skills.py: the goal is 10 cells away, and only the goal is rewarded.
CORRIDOR = (
    "--env-kwargs maze_map=[[1,1,1,1,1],[1,r,0,0,1],[1,1,1,0,1],[1,0,0,0,1],[1,0,1,1,1],[1,0,0,g,1],[1,1,1,1,1]] "
    "continuing_task=False max_episode_steps=500 --preset none --num-envs 32 --hidden 64 64 --n-steps 500 "
    "--batch-size 1600 --n-epochs 10 --learning-rate 1e-3 --gamma 0.998 --clip-range 0.2 --total-steps 200000 "
    "--eval-freq 0 --save-freq 0"
)
BEND = "a corridor with two bends"
SCALED = "--skill-gain 5 --latent-scale 4 --period 20 60"
CASES += [
    Case("hippo", "HiPPO, scaled latents", UMAZE, f"hippo {SCALED} {CORRIDOR}", 5, variant=BEND),
    Case("hippo", "HiPPO", UMAZE, f"hippo --skill-gain 5 {CORRIDOR}", 3, variant=BEND),
    Case("hippo", "our PPO", UMAZE, f"ppo {CORRIDOR}", 5, variant=BEND),
    Case("hippo", "our PPO, initial gain of 5", UMAZE, f"ppo --policy-gain 5 {CORRIDOR}", 5, variant=BEND),
]


# Every way to build a hierarchy on the same small tasks, with the same number of steps. The presets' own options hold.
GRID, FIELD = "hrl/KeyDoor-v0", "hrl/PointMaze_UMaze-v0"
SMALL = "--num-envs 32 --total-steps 60000 --eval-freq 6000 --eval-episodes 50 --save-freq 0"
ROLLOUTS = "--n-steps 64 --batch-size 256 --learning-rate 2e-3 --ent-coef 0.003"
OPTION_ROLLOUTS = " ".join(f"--{level}.{x}" for level in ("low", "high") for x in ROLLOUTS.split(" --"))
CASES += [
    *(Case("family", agent, GRID, f"{agent} {SMALL}", 3) for agent in ("hiro", "hdqn", "feudal")),
    Case("family", "ppoc", GRID, f"ppoc {SMALL} {OPTION_ROLLOUTS.replace('.--', '.')}", 3),
    Case("family", "hippo", GRID, f"hippo {SMALL} {ROLLOUTS}", 3),
    Case("family", "dqn", GRID, f"dqn {SMALL.replace('--num-envs 32', AS_BELOW)} --gamma 0.97", 3),
    Case("family", "ppo", GRID, f"ppo {SMALL} {ROLLOUTS}", 3),
    *(Case("family", agent, FIELD, f"{agent} {SMALL}", 3) for agent in ("hiro", "hrac", "hac", "landmarks")),
    Case("family", "diayn", FIELD, f"diayn {SMALL} --skill-steps 20000", 3),
    *(Case("family", agent, FIELD, f"{agent} {SMALL}", 3) for agent in ("td3", "sac")),
]
