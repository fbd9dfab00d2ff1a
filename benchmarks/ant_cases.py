"""The rows of the learning tables for the ants."""

from dataclasses import replace

from cases import Case


def others(case: Case, group: str, arguments: dict[str, str], seeds: int = 1) -> list[Case]:
    """Cases of other agents by name, on the same task without published results."""
    return [
        replace(case, group=group, name=name, arguments=words, seeds=seeds, published="")
        for name, words in arguments.items()
    ]


EVAL = "hrl/AntMazeEval-v0"
MAZE = Case(
    "ant-maze",
    "HIRO, our preset",
    "hrl/AntMaze-v0",
    "hiro",
    5,
    long=True,
    eval_env=EVAL,
    variant="HIRO's: scale 8, 500 steps, within 5",
    published=".99 best of 10M; reruns .71 at 5M",
)
PUSH = Case(
    "ant-push",
    "HIRO, our preset",
    "hrl/AntPush-v0",
    "hiro",
    5,
    long=True,
    variant="HIRO's: 500 steps, within 5",
    published=".92 best of 10M; reruns mostly .00",
)
NO_BONUS = "--high.count-bonus 0 --high.subgoal-features False"
QUIET = "--high.action-noise 0 0.1"
# Both levels of Ant Maze learn at once, with settings for that. Until 2026-11-30, the levels also observed the time.
JOINT = (
    "--low.learning-stops None --high.random-warmup 0 --high.random-actions 0 0.3 --high.random-hold 3 "
    "--high.buffer-size 20000 --high.train-freq 20"
)
JOINT_MAZE = f"hiro {JOINT} --high.hindsight 0"
TIMED = "--low.masked-entries --high.masked-entries --low.gamma 0.95 --ema 0"
TIMED_MAZE = f"{JOINT_MAZE} {TIMED}"
OLD_MAZE = "both at once, time observed, shorter horizon, no average"
# Until 2026-11-30, the levels of Push observed the time.
TIMED_PUSH = "hiro --low.masked-entries 30 31 32 33 --high.masked-entries"
PLAIN_PUSH = f"{TIMED_PUSH} --low.gamma 0.98 --high.count-bonus 0 --ema 0"
FALL = replace(PUSH, group="ant-fall", env="hrl/AntFall-v0", seeds=3, published=".66 best of 10M")
GATHER = Case(
    "ant-gather",
    "HIRO, our preset",
    "hrl/AntGather-v0",
    "hiro",
    3,
    long=True,
    variant="HIRO's: +1 an apple, -1 a bomb, -10 a fall",
    published="3.02 best of 10M",
    score="return",
)
SPARSE = Case(
    "ant-sparse",
    "HIRO, our preset",
    "hrl/AntMazeSparse-v0",
    "hiro",
    3,
    long=True,
    variant="HRAC's: scale 2, 500 steps, within 1, random start; but the goal is observed",
    published="HRAC .89 at 5M",
)
# The same number of updates as our low level.
SB3 = "sb3-td3 --num-envs 16 --gradient-steps 2 --eval-freq 100000 --total-steps"
FLAT = {"our flat TD3 + HER": "td3 --total-steps 1300000", "SB3 TD3 + HER": f"{SB3} 1300000"}
MAZE_FLAT = {"our flat TD3 + HER": "td3", "SB3 TD3 + HER": f"{SB3} 2000000 --eval-env {EVAL}"}
# The former preset with one change.
MAZE_PARTS = {
    "the minimum of the high level's critics": f"{TIMED_MAZE} --high.min-q-weight 1",
    "low level with the distance as reward": f"{TIMED_MAZE} --low.reward distance --low.action-l2 0.02",
    "low level without random subgoals": f"{TIMED_MAZE} --low.hindsight 0",
    "the same noise in all environments": f"{TIMED_MAZE} --low.action-noise 0.15 --high.action-noise 0.05",
    "with hindsight goals": f"hiro {TIMED} {JOINT} --high.hindsight 0.5",
    "without hindsight subgoals": f"{TIMED_MAZE} --high.hindsight-actions 0",
}
CORRECTION = {
    "off-policy correction in their place": f"{TIMED_MAZE} --high.hindsight-actions 0 --high.correction True",
}
# The preset with one change.
PUSH_PARTS = {
    "low level with a shorter horizon": "hiro --low.gamma 0.98",
    "without the bonus": "hiro --high.count-bonus 0",
    "without averaged networks": "hiro --ema 0",
    "a warmup of 400,000 steps": "hiro --high.random-warmup 400000",
    "a controller without past positions": "hiro --high.masked-entries 29 30 31 32 33",
}
ANTS = [
    MAZE,
    replace(MAZE, name="both levels at once", arguments=JOINT_MAZE, seeds=2),
    replace(MAZE, name=OLD_MAZE, arguments=TIMED_MAZE, seeds=3),
    *others(MAZE, "ant-parts", MAZE_PARTS),
    *others(MAZE, "ant-correction", CORRECTION, 3),
    *others(MAZE, "ant-flat", MAZE_FLAT, 3),
    SPARSE,
    *others(SPARSE, "ant-hrac", {"HRAC, our preset": "hrac"}),
    PUSH,
    replace(PUSH, name="time observed", arguments=TIMED_PUSH),
    replace(PUSH, name="the same without bonus and average, shorter horizon", arguments=PLAIN_PUSH, seeds=3),
    *others(PUSH, "push-parts", PUSH_PARTS),
    *others(PUSH, "ant-flat", FLAT, 3),
    FALL,
    replace(FALL, name="without the bonus", arguments=f"hiro {NO_BONUS}", seeds=2),
    replace(FALL, name="the same, less noise", arguments=f"hiro {NO_BONUS} {QUIET}", seeds=1),
    replace(FALL, name="the same, discount .997", arguments=f"hiro {NO_BONUS} {QUIET} --high.gamma 0.997", seeds=1),
    *others(FALL, "ant-flat", FLAT, 3),
    GATHER,
    replace(GATHER, name="without a cost of falls", arguments="hiro --low.termination-cost 0"),
]

ROBOTICS = "gymnasium-robotics': sparse, ends on success, within .45"
ANTS += [
    Case("ant-robotics", name, f"AntMaze_{size}-v4", agent, seeds, long=True, variant=ROBOTICS, published="none")
    for size in ("UMaze", "Medium")
    for name, agent, seeds in (("HIRO, our preset", "hiro", 3), ("our flat TD3 + HER", "td3", 3))
]
ANTS += others(
    next(x for x in ANTS if x.env == "AntMaze_UMaze-v4"),
    "ant-robotics",
    {"SB3 TD3 + HER": f"{SB3.replace('steps 2', 'steps 4')} 1000000 --vectorization async --action-scale 0.2"},
    3,
)
