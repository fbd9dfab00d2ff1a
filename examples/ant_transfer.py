"""A low level that was trained on one maze, under a new controller on another.

    python examples/ant_transfer.py                            # hours on a CPU
    python examples/ant_transfer.py --run RUN                  # with a HIRO run on hrl/AntMaze-v0 that you have

It types the commands that you would: train on Ant Maze, draw the subgoals, then learn its mirror image twice, with the
trained low level, frozen, and from nothing. The learning curves of both come into one picture.
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
# Start in the east, goals in a square to the west of it.
SECOND = "hiro --env hrl/AntMaze-v0 --env-kwargs maze=11111/10001/10111/100s1/11111 'goal=[[-20,-4],[4,20]]'"


@dataclass
class Options:
    """The walk-through."""

    run: Path | None = None
    """A run on Ant Maze to begin with, instead of training one."""
    steps: int = 2_000_000
    """Steps of that first run."""
    transfer_steps: int = 500_000
    """Steps on the second maze, each time."""
    episodes: int = 50
    """Episodes that the first run is judged by."""
    options: str = ""
    """More options for every train.py, as --options='--preset debug'."""
    out: Path = Path("runs/transfer")
    """Where runs and pictures go."""


def main() -> None:
    """Every command in turn."""
    o = tyro.cli(Options)
    o.out.mkdir(parents=True, exist_ok=True)
    first = o.run or trained(f"{FIRST} --total-steps {o.steps} {o.options}", o.out / "first")
    typed(evaluate.main, f"{first} --env hrl/AntMazeEval-v0 --episodes {o.episodes} --plot {o.out / 'subgoals.png'}")
    again = f"{SECOND} --total-steps {o.transfer_steps} {o.options}"
    runs = {
        "over the trained low level": trained(f"{again} --low.init-from {first} --low.frozen True", o.out / "over"),
        "from nothing": trained(again, o.out / "nothing"),
    }
    curves = {"the mirrored maze": {name: [success(run)] for name, run in runs.items()}}
    save_curves(curves, o.out / "curves.png", "success, evaluated")
    print(f"Pictures: {o.out / 'subgoals.png'}, {o.out / 'curves.png'}")


def trained(command: str, folder: Path) -> Path:
    """The run that train.py makes in this folder, or made there before; one that was stopped goes on."""
    run = RunFolder.begun(folder)
    if run is None:
        typed(train.main, f"{command} --log-dir {folder}")
    elif not run.finished:
        typed(train.main, f"--resume {run.path}")
    run = run or RunFolder.begun(folder)
    assert run is not None
    return run.path


def typed(main: Callable[[list[str]], int], command: str) -> None:
    """Say a command, and run it."""
    print(f"$ python {main.__module__.rpartition('.')[2]}.py {command}", flush=True)
    if code := main(shlex.split(command)):
        sys.exit(code)


def success(run: Path) -> Curve:
    """A run's evaluations."""
    columns = read_progress(run)
    there = ~np.isnan(columns["eval/success_rate"])
    return Curve(columns[STEPS][there], columns["eval/success_rate"][there])


if __name__ == "__main__":
    main()
