"""The pictures of the documentation: goal spaces, and the curves and paths of two healthy and four unhealthy runs.

`python benchmarks/pictures.py` draws goal spaces and curves, from results/runs/picture-*.csv.
`python benchmarks/pictures.py --train` first trains these runs, a minute each, and also draws their paths.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import EngFormatter

import hrl
from hrl.report.logger import STEPS, read_columns
from hrl.report.pictures import save_trajectories

HERE = Path(__file__).parent
PICTURES, CURVES = HERE.parent / "docs/pictures", HERE / "results/runs"
UMAZE, MEDIUM = "hrl/PointMaze_UMaze-v0", "hrl/PointMaze_Medium-v0"
RUNS: dict[str, tuple[str, dict[str, object]]] = {
    "healthy": (UMAZE, {}),
    "healthy-medium": (MEDIUM, {"total_steps": 80_000}),
    "unreachable": (UMAZE, {"goal__low": (-3.0,), "goal__high": (3.0,), "goal__threshold": 0.1, "high__period": 5}),
    "walls": (MEDIUM, {"goal__low": (-4.0,), "goal__high": (4.0,), "total_steps": 80_000}),
    "exploding": (UMAZE, {
        "low": {"clip_values": False, "learning_rate": 0.01, "tau": 1.0},
        "high": {"clip_values": False, "learning_rate": 0.01, "tau": 1.0},
    }),
    "saturated": (UMAZE, {"low__learning_rate": 0.02, "high__learning_rate": 0.02}),
}  # fmt: skip
"""Environment and options of each run, in addition to HIRO's preset."""
PATHS = 4
"""Number of episodes in a picture of paths."""
BLUE, ORANGE, RED, GREY = "#3f51b5", "#ff7043", "#c62828", "0.78"


# -- runs ----------------------------------------------------------------------------------------------------


def train(names: Sequence[str]) -> None:
    """Train the runs, keep their progress.csv, and draw their paths."""
    for name in names:
        env, options = RUNS[name]
        with tempfile.TemporaryDirectory() as folder:
            run = hrl.train("hiro", env, log_dir=Path(folder), eval_freq=5000, progress=False, **options)
            shutil.copy(run.path / "progress.csv", CURVES / f"picture-{name}.csv")
            evaluation = run.evaluate(PATHS, keep_paths=PATHS)
        save_trajectories(evaluation, PICTURES / f"{name}-paths.png", "")


def scalar(name: str, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a run's scalar where it was logged."""
    columns = read_columns(CURVES / f"picture-{name}.csv")
    values = columns.get(tag, np.full_like(columns[STEPS], np.nan))
    return columns[STEPS][~np.isnan(values)], values[~np.isnan(values)]


def curves(name: str, tags: Sequence[str], logarithmic: Sequence[str] = (), healthy: str = "healthy") -> None:
    """Draw these scalars of a run together with those of a healthy run."""
    columns = 2
    rows = -(-len(tags) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(8, 2.3 * rows + 0.4), squeeze=False, layout="constrained")
    for ax, tag in zip(axes.flat, tags, strict=True):
        ax.plot(*scalar(healthy, tag), color=BLUE, label="healthy")
        if name != healthy:
            ax.plot(*scalar(name, tag), color=ORANGE, label=name)
        ax.set_title(tag, fontsize=9)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
        if tag in logarithmic:
            ax.set_yscale("log")
    axes.flat[0].legend(fontsize=8)
    figure.savefig(PICTURES / f"{name}-curves.png", dpi=130)
    plt.close(figure)


# -- goal spaces ---------------------------------------------------------------------------------------------

WALLS = [(-2.5, -2.5, 5, 1), (-2.5, 1.5, 5, 1), (-2.5, -1.5, 1, 3), (1.5, -1.5, 1, 3), (-1.5, -0.5, 2, 1)]
"""x, y, width and height of the walls of a U-shaped maze."""
WAY = np.array([(-1.1, -1.0), (-0.6, -1.1), (-0.1, -0.9), (0.4, -1.05), (0.8, -0.95), (1.05, -0.6), (0.95, -0.1),
                (1.05, 0.4), (0.9, 0.8), (0.4, 1.05), (-0.1, 0.95), (-0.6, 1.05), (-1.0, 1.0)])  # fmt: skip
"""A path through the maze."""


def maze(title: str) -> tuple[plt.Figure, Axes]:
    """A figure with the maze."""
    figure, ax = plt.subplots(figsize=(3.6, 3.6), layout="constrained")
    for x, y, width, height in WALLS:
        ax.add_patch(Rectangle((x, y), width, height, facecolor=GREY, edgecolor="none", zorder=0))
    ax.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    return figure, ax


def subgoal(ax: Axes, state: np.ndarray, target: np.ndarray) -> None:
    """Draw a state and the subgoal that was set there."""
    ax.annotate("", target, state, arrowprops={"arrowstyle": "->", "color": ORANGE, "lw": 1.6}, zorder=3)
    ax.plot(*target, "x", color=ORANGE, ms=9, mew=2.2, zorder=4)
    ax.plot(*state, "o", color=BLUE, ms=8, zorder=4)


def save(figure: plt.Figure, name: str) -> None:
    """Write a picture for the documentation."""
    figure.savefig(PICTURES / f"{name}.png", dpi=130)
    plt.close(figure)


def bounds() -> None:
    """Draw relative subgoals in a box around the decision's state, and absolute ones in a fixed box."""
    figure, ax = maze("relative: displacements within ±1")
    for state, target in ((WAY[1], WAY[4]), (WAY[7], WAY[10])):
        ax.add_patch(Rectangle(tuple(state - 1), 2, 2, facecolor=ORANGE, alpha=0.13, edgecolor=ORANGE, ls="--"))
        subgoal(ax, state, target)
    save(figure, "goal-relative")
    figure, ax = maze("absolute: places within ±1.5")
    ax.add_patch(Rectangle((-1.5, -1.5), 3, 3, facecolor=ORANGE, alpha=0.13, edgecolor=ORANGE, ls="--"))
    subgoal(ax, WAY[1], WAY[6])
    subgoal(ax, WAY[7], WAY[12])
    save(figure, "goal-absolute")


def threshold() -> None:
    """Draw a subgoal with the threshold within which it is reached."""
    figure, ax = maze("threshold: reached inside the circle")
    ax.plot(*WAY[:8].T, color=BLUE, lw=1.6, zorder=2)
    subgoal(ax, WAY[3], WAY[7])
    ax.add_patch(Circle(tuple(WAY[7]), 0.45, facecolor="none", edgecolor=RED, lw=1.6, zorder=3))
    ax.annotate("", WAY[7] - (0, 0.45), WAY[7], arrowprops={"arrowstyle": "<->", "color": RED})
    save(figure, "goal-threshold")


def period() -> None:
    """Draw a path with a new subgoal every few steps."""
    figure, ax = maze("high.period 4: a subgoal every 4 steps")
    ax.plot(*WAY.T, "o-", color=BLUE, lw=1.2, ms=3, zorder=2)
    for i in (0, 4, 8):
        subgoal(ax, WAY[i], WAY[i + 4] + (0.12, -0.08))
    save(figure, "goal-period")


def periods() -> None:
    """Draw features of a position: sines and cosines with several periods."""
    figure, ax = plt.subplots(figsize=(7.4, 2.6), layout="constrained")
    x = np.linspace(-4, 4, 800)
    for i, length in enumerate((8.0, 4.0, 2.0, 1.0)):
        ax.plot(x, np.sin(2 * np.pi * x / length) - 2.4 * i, color=BLUE, lw=1.4)
        ax.plot(x, np.cos(2 * np.pi * x / length) - 2.4 * i, color=ORANGE, lw=1.4)
        ax.text(4.15, -2.4 * i, f"period {length:g}", va="center", fontsize=9)
    ax.axvspan(-0.5, 0.5, color=GREY, zorder=0, label="a wall")
    ax.set(yticks=[], xlim=(-4, 5.2), xticks=range(-4, 5))
    ax.set_title("goal.periods 8 4 2 1: sine (blue) and cosine (orange) of a position; a wall in grey", fontsize=10)
    ax.spines[["left", "right", "top"]].set_visible(False)
    save(figure, "goal-periods")


def main() -> None:
    """Draw the pictures. With --train, train the runs first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", nargs="*", choices=list(RUNS), help="train these runs first (default: all of them)")
    given = parser.parse_args().train
    PICTURES.mkdir(exist_ok=True)
    if given is not None:
        train(given or list(RUNS))
    for draw in (bounds, threshold, period, periods):
        draw()
    success, reached = "eval/success_rate", "train/low/subgoal_reach_rate"
    distance, low, high = "train/low/subgoal_distance", "train/low/q_mean", "train/high/q_mean"
    drift, loss = "train/high/drift", "train/low/critic_loss"
    curves("healthy", [success, "rollout/success_rate", reached, distance, low, high, loss, drift])
    curves("unreachable", [success, reached, distance, "train/low/intrinsic_reward"])
    curves("walls", [success, reached, distance, high], healthy="healthy-medium")
    curves("exploding", [success, low, high, loss], logarithmic=[loss])
    curves("saturated", [success, drift, low, high])


if __name__ == "__main__":
    main()
