"""Transfer of a low level, trained in one maze, to a new high level in another maze.

    python examples/ant_transfer.py                            # hours on a CPU
    python examples/ant_transfer.py --run RUN                  # with your own HIRO run on hrl/AntMaze-v0

The example runs the commands that a user would type. It trains on Ant Maze, draws the subgoals, and then trains on
the mirrored maze twice: with the trained, frozen low level, and from scratch. One picture shows both learning curves.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from hrl_scripts import evaluate, train

from hrl.report.logger import STEPS, read_progress
from hrl.report.pictures import save_curves
from hrl.report.statistics import Curve
from hrl.run.folder import RunFolder

FIRST = "hiro --env hrl/AntMaze-v0"
# The start is in the east, and goals are in a square to the west of it. All levels learn from the start of the run,
# because a trained low level needs no time to learn, and from scratch the run is too short for one level at a time.
SECOND = (
    "hiro --env hrl/AntMaze-v0 --env-kwargs maze=11111/10001/10111/100s1/11111 'goal=[[-20,-4],[4,20]]' "
    "--low.learning-stops None --high.random-warmup 0"
)


@dataclass
class Options:
    """Options of the example."""

    run: Path | None = None
    """An existing run on Ant Maze, used instead of training one."""
    steps: int = 2_000_000
    """Steps of the first run."""
    transfer_steps: int = 500_000
    """Steps of each run on the second maze."""
    episodes: int = 50
    """Evaluation episodes of the first run."""
    options: str = ""
    """Additional options for every train.py, such as --options='--preset debug'."""
    out: Path = Path("runs/transfer")
    """Folder of runs and pictures."""


def main() -> None:
    """Run all commands."""
    o = tyro.cli(Options)
    o.out.mkdir(parents=True, exist_ok=True)
    first = o.run or trained(f"{FIRST} --total-steps {o.steps} {o.options}", o.out / "first")
    typed(evaluate.main, f"{first} --env hrl/AntMazeEval-v0 --episodes {o.episodes} --plot {o.out / 'subgoals.png'}")
    again = f"{SECOND} --total-steps {o.transfer_steps} {o.options}"
    runs = {
        "over the trained low level": trained(f"{again} --low.init-from {first} --low.frozen True", o.out / "over"),
        "from scratch": trained(again, o.out / "nothing"),
    }
    curves = {"the mirrored maze": {name: [success(run)] for name, run in runs.items()}}
    save_curves(curves, o.out / "curves.png", "success, evaluated")
    print(f"Pictures: {o.out / 'subgoals.png'}, {o.out / 'curves.png'}")


def trained(command: str, folder: Path) -> Path:
    """Train a run in this folder, or resume it if it is unfinished. Returns the run folder."""
    run = RunFolder.resumable(folder)
    if run is None:
        typed(train.main, f"{command} --log-dir {folder}")
    elif not run.finished:
        typed(train.main, f"--resume {run.path}")
    run = run or RunFolder.resumable(folder)
    assert run is not None
    return run.path


def typed(main: Callable[[list[str]], int], command: str) -> None:
    """Print a command, and run it."""
    print(f"$ python {main.__module__.rpartition('.')[2]}.py {command}", flush=True)
    if code := main(shlex.split(command)):
        sys.exit(code)


def success(run: Path) -> Curve:
    """The success rates of a run's evaluations."""
    columns = read_progress(run)
    there = ~np.isnan(columns["eval/success_rate"])
    return Curve(columns[STEPS][there], columns["eval/success_rate"][there])


if __name__ == "__main__":
    main()
