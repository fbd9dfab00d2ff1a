"""Pictures: trajectories with the subgoals that steered them, and learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from hrl.training.evaluation import Evaluation, Path
from hrl.training.statistics import Curve


def trajectories(evaluation: Evaluation) -> np.ndarray | None:
    """An image [H, W, 3] uint8 of the kept paths, where they are in the plane; else None."""
    figure = trajectory_figure(evaluation)
    if figure is None:
        return None
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    plt.close(figure)
    return image


def trajectory_figure(evaluation: Evaluation, title: str = "") -> Figure | None:
    """Twelve episodes side by side, all on one scale. Of goals with more entries the first two are drawn, where there
    is a map."""
    paths = [_in_plane(p) for p in evaluation.paths if p.places and (len(p.places[0]) == 2 or any(p.scene))]
    if not paths:
        return None
    low, high = _extent(paths)
    columns = min(4, len(paths))
    rows = -(-len(paths) // columns)
    aspect = (high[1] - low[1]) / (high[0] - low[0])
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 3 * rows * aspect + 0.6), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, path, episode in zip(axes.flat, paths, evaluation.episodes, strict=False):
        _draw_path(ax, path)
        ax.set_axis_on()
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"{episode.length} steps{', reached' if episode.success_any else ''}", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _in_plane(path: Path) -> Path:
    """The same along x and y."""
    flat = lambda xs: [x[:2] for x in xs]  # noqa: E731
    goal = None if path.goal is None or len(path.goal) < 2 else path.goal[:2]
    return Path(flat(path.places), flat(path.targets), goal, path.scene)


def _extent(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Corners that hold everything, the map included."""
    points = [np.stack(p.places) for p in paths] + [p.goal[None] for p in paths if p.goal is not None]
    points += [np.array([[r.x, r.y], [r.x + r.width, r.y + r.height]]) for p in paths for r in p.scene[0]]
    everything = np.concatenate(points)
    margin = 0.6 if not any(p.scene[0] for p in paths) else 0.0
    return everything.min(0) - margin, everything.max(0) + margin


def _draw_scene(ax: plt.Axes, path: Path) -> None:
    """Walls and gaps, and blocks: dashed where they were at first, filled where they are at last."""
    styles: dict[str, dict[str, Any]] = {
        "wall": {"facecolor": "0.75", "edgecolor": "none"},
        "gap": {"facecolor": "none", "edgecolor": "0.75", "hatch": "///", "linewidth": 0},
        "block": {"facecolor": "tab:red", "alpha": 0.35, "edgecolor": "none"},
    }
    first = {"facecolor": "none", "edgecolor": "tab:red", "linestyle": "--", "linewidth": 0.8}
    shown = [(r, first) for r in path.scene[0] if r.kind == "block"] + [(r, styles[r.kind]) for r in path.scene[-1]]
    for r, style in shown:
        ax.add_patch(Rectangle((r.x, r.y), r.width, r.height, zorder=0, **style))


def _draw_path(ax: plt.Axes, path: Path) -> None:
    _draw_scene(ax, path)
    places = np.stack(path.places)
    ax.plot(*places.T, color="tab:blue", lw=1.2, label="path")
    ax.plot(*places[0], "o", color="tab:blue", ms=4, label="start")
    if path.targets:
        targets = np.stack(path.targets)
        fresh = np.r_[True, (np.diff(targets, axis=0) != 0).any(1)]
        at = places[: len(targets)][fresh]
        for a, b in zip(at, targets[fresh], strict=True):
            ax.plot(*np.stack([a, b]).T, color="tab:orange", lw=0.6, alpha=0.7)
        ax.plot(*targets[fresh].T, "x", color="tab:orange", ms=4, label="subgoals")
    if path.goal is not None:
        ax.plot(*path.goal, "*", color="tab:red", ms=9, label="goal")


def save_trajectories(evaluation: Evaluation, file: FilePath, title: str) -> bool:
    """Write the picture to a file; False where the paths are in no plane."""
    figure = trajectory_figure(evaluation, title)
    if figure is None:
        return False
    figure.savefig(file, dpi=130)
    plt.close(figure)
    return True


def save_curves(groups: Mapping[str, Sequence[Curve]], file: FilePath, tag: str) -> None:
    """Learning curves by environment, a line an algorithm: interquartile mean over seeds, with their range."""
    envs = sorted({name.split(" / ")[0] for name in groups})
    columns = min(3, len(envs))
    rows = -(-len(envs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.5 * columns, 4 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(envs) :]:
        ax.set_axis_off()
    for ax, env in zip(axes.flat, envs, strict=False):
        for name, curves in groups.items():
            if name.split(" / ")[0] == env and curves:
                x, middle, low, high = Curve.band(curves)
                (line,) = ax.plot(
                    x, middle, label=f"{name.split(' / ')[1]} ({len(curves)} run{'s' * (len(curves) > 1)})"
                )
                ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
        ax.set(title=env, xlabel="environment steps", ylabel=tag)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)
