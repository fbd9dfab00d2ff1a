"""Pictures: trajectories with the subgoals that steered them, and learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from hrl.training.evaluation import Evaluation, Path
from hrl.training.statistics import Curve


def trajectories(evaluation: Evaluation) -> np.ndarray | None:
    """An image [H, W, 3] uint8 of the kept paths, for 2-D goal spaces; else None."""
    figure = trajectory_figure(evaluation)
    if figure is None:
        return None
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    plt.close(figure)
    return image


def trajectory_figure(evaluation: Evaluation, title: str = "") -> Figure | None:
    """Twelve episodes side by side, all on one scale."""
    paths = [p for p in evaluation.paths if p.places and len(p.places[0]) == 2]
    if not paths:
        return None
    everything = np.concatenate([np.stack(p.places) for p in paths] + [_goal(p)[None] for p in paths if _has_goal(p)])
    low, high = everything.min(0) - 0.6, everything.max(0) + 0.6
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


def _has_goal(path: Path) -> bool:
    return path.goal is not None and len(path.goal) == 2


def _goal(path: Path) -> np.ndarray:
    assert path.goal is not None
    return path.goal


def _draw_path(ax: plt.Axes, path: Path) -> None:
    places = np.stack(path.places)
    ax.plot(*places.T, color="tab:blue", lw=1.2, label="path")
    ax.plot(*places[0], "o", color="tab:blue", ms=4, label="start")
    if path.targets and len(path.targets[0]) == 2:
        targets = np.stack(path.targets)
        fresh = np.r_[True, (np.diff(targets, axis=0) != 0).any(1)]
        at = places[: len(targets)][fresh]
        for a, b in zip(at, targets[fresh], strict=True):
            ax.plot(*np.stack([a, b]).T, color="tab:orange", lw=0.6, alpha=0.7)
        ax.plot(*targets[fresh].T, "x", color="tab:orange", ms=4, label="subgoals")
    if _has_goal(path):
        ax.plot(*_goal(path), "*", color="tab:red", ms=9, label="goal")


def save_trajectories(evaluation: Evaluation, file: FilePath, title: str) -> bool:
    """Write the picture to a file; False where the goal space is not 2-D."""
    figure = trajectory_figure(evaluation, title)
    if figure is None:
        return False
    figure.savefig(file, dpi=130)
    plt.close(figure)
    return True


def save_curves(groups: Mapping[str, Sequence[Curve]], file: FilePath, tag: str) -> None:
    """Learning curves by environment, a line an algorithm: interquartile mean over seeds, with their range."""
    envs = sorted({name.split(" / ")[0] for name in groups})
    figure, axes = plt.subplots(1, len(envs), figsize=(5.5 * len(envs), 4), squeeze=False, layout="constrained")
    for ax, env in zip(axes.flat, envs, strict=True):
        for name, curves in groups.items():
            if name.split(" / ")[0] == env and curves:
                x, middle, low, high = Curve.band(curves)
                (line,) = ax.plot(x, middle, label=f"{name.split(' / ')[1]} ({len(curves)} runs)")
                ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
        ax.set(title=env, xlabel="environment steps", ylabel=tag)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)
