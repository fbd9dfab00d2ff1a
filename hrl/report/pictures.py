"""Pictures of trajectories with their subgoals, and of learning curves.

Figures are made without pyplot, so that neither a program's nor a notebook's own way of showing figures changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, Patch, Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from hrl.report.evaluation import Evaluation, Path
from hrl.report.statistics import Band, Curve
from hrl.types import Outline

DPI = 130
"""Dots per inch of written pictures."""
Dims = tuple[int, int]
SUBGOALS = ("tab:orange", "tab:purple", "tab:brown", "tab:pink")
"""Colours of the subgoals of each level above the lowest, lowest first."""


@dataclass
class Picture:
    """A figure that a notebook shows inline, as the value of a cell."""

    figure: Figure

    def save(self, file: FilePath | str) -> None:
        """Write the picture to a file; its ending says the format (png, pdf, svg)."""
        self.figure.savefig(file, dpi=DPI)

    def _repr_png_(self) -> bytes:
        """The picture for a notebook."""
        buffer = BytesIO()
        self.figure.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def trajectories(evaluation: Evaluation) -> np.ndarray | None:
    """An image [H, W, 3] uint8 of the kept paths; None if they cannot be drawn in two dimensions."""
    figure = trajectory_figure(evaluation)
    if figure is None:
        return None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def trajectory_figure(evaluation: Evaluation, title: str = "", dims: Dims | None = None) -> Figure | None:
    """The kept paths next to each other on one scale, in two dimensions of the goal space: `dims`, or the first two if
    there are no more or the environment has a map. None if neither applies."""
    panels = _Panels.of(evaluation, dims)
    if panels is None:
        return None
    columns = min(4, len(panels.paths))
    rows = -(-len(panels.paths) // columns)
    width, height = 3 * columns, 3 * rows * panels.aspect + 0.8
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    # Fixed margins in inches: a constrained layout would take as long as the drawing.
    figure.subplots_adjust(
        left=0.35 / width, right=1 - 0.1 / width, bottom=0.65 / height, top=1 - (0.7 if title else 0.3) / height,
        wspace=0.06, hspace=0.12,
    )  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    for i, ax in zip(range(len(panels.paths)), axes.flat, strict=False):
        panels.draw(ax, i)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    wide = len(labels) if columns > 2 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=wide, fontsize=8, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def episode_figures(evaluation: Evaluation, dims: Dims | None = None) -> list[Figure]:
    """The kept paths on one scale, each as a figure of its own, without a legend; empty if `trajectory_figure` is
    None."""
    panels = _Panels.of(evaluation, dims)
    figures: list[Figure] = []
    for i in range(0 if panels is None else len(panels.paths)):
        assert panels is not None
        figure = Figure(figsize=(3, 3 * panels.aspect + 0.3), layout="constrained")
        panels.draw(figure.subplots(), i)
        figures.append(figure)
    return figures


@dataclass
class _Panels:
    """Paths in a plane, and the region that shows all of them."""

    paths: list[Path]
    titles: list[str]
    low: np.ndarray
    high: np.ndarray
    radius: float | None

    @classmethod
    def of(cls, evaluation: Evaluation, dims: Dims | None) -> "_Panels | None":
        shown = [
            (p, e)
            for p, e in zip(evaluation.paths, evaluation.episodes, strict=False)
            if p.places and _drawable(p, dims)
        ]
        if not shown:
            return None
        paths = [_in_plane(p, dims or (0, 1)) for p, _ in shown]
        usual = dims in (None, (0, 1))
        titles = [
            f"{e.length} steps{', reached' if evaluation.reports_success and e.success_any else ''}" for _, e in shown
        ]
        low, high = _extent(paths, evaluation.bounds if usual else None)
        return cls(paths, titles, low, high, evaluation.radius if usual else None)

    @property
    def aspect(self) -> float:
        """Height over width, within limits."""
        width, height = self.high - self.low
        return float(min(max(height / width, 0.4), 2.5))

    def draw(self, ax: Axes, i: int) -> None:
        _draw_path(ax, self.paths[i], self.radius)
        ax.set_axis_on()
        ax.set(xlim=(self.low[0], self.high[0]), ylim=(self.low[1], self.high[1]), aspect="equal")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(labelsize=7)
        ax.set_title(self.titles[i], fontsize=8)


def _drawable(path: Path, dims: Dims | None) -> bool:
    size = len(path.places[0])
    return max(dims) < size if dims else size == 2 or (size > 2 and any(path.scene))


def _in_plane(path: Path, dims: Dims) -> Path:
    """The path in two of its dimensions. The map is kept only for the first two."""
    flat = lambda xs: [x[list(dims)] for x in xs]  # noqa: E731
    goal = None if path.goal is None or len(path.goal) <= max(dims) else path.goal[list(dims)]
    scene = path.scene if dims == (0, 1) else [[]]
    return Path(flat(path.places), [flat(row) for row in path.subgoals], goal, scene)


def _extent(paths: Sequence[Path], bounds: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner [2] of the drawn region: the map, or the task's bounds, or all paths and goals."""
    corners = [np.array([[r.x, r.y], [r.x + r.width, r.y + r.height]]) for p in paths for r in p.scene[0]]
    if corners:
        everything = np.concatenate(corners)
        return everything.min(0), everything.max(0)
    if bounds is not None:
        return bounds[0], bounds[1]
    points = [np.stack(p.places) for p in paths] + [p.goal[None] for p in paths if p.goal is not None]
    points += [np.stack([row[i] for row in p.subgoals]) for p in paths for i in range(len(p.subgoals[0]))]
    everything = np.concatenate(points)
    low, high = everything.min(0), everything.max(0)
    margin = 0.05 * max(float((high - low).max()), 1e-6)
    return low - margin, high + margin


def _draw_scene(ax: Axes, path: Path) -> None:
    """Draw walls, gaps and objects; objects are dashed at their first position and filled at their last."""
    styles: dict[str, dict[str, Any]] = {
        "wall": {"facecolor": "0.75", "edgecolor": "none"},
        "gap": {"facecolor": "none", "edgecolor": "0.75", "hatch": "///", "linewidth": 0},
    }
    objects = {"block": "tab:red", "reward": "tab:green", "hazard": "tab:red"}
    styles |= {kind: {"facecolor": colour, "alpha": 0.35, "edgecolor": "none"} for kind, colour in objects.items()}
    groups = [
        (path.scene[0], kind, {"facecolor": "none", "edgecolor": colour, "linestyle": "--", "linewidth": 0.8})
        for kind, colour in objects.items()
    ]
    groups += [(path.scene[-1], kind, style) for kind, style in styles.items()]
    for outlines, kind, style in groups:
        patches = [_patch(r) for r in outlines if r.kind == kind]
        ax.add_collection(PatchCollection(patches, match_original=False, zorder=0, **style))


def _patch(outline: Outline) -> Patch:
    x, y, width, height = outline.x, outline.y, outline.width, outline.height
    if outline.kind in ("reward", "hazard"):
        return Ellipse((x + width / 2, y + height / 2), width, height)
    return Rectangle((x, y), width, height)


def _draw_path(ax: Axes, path: Path, radius: float | None) -> None:
    """Draw the path, which becomes lighter with time, each subgoal with the position where it was set, and the goal
    with its success radius."""
    if path.scene:
        _draw_scene(ax, path)
    places = np.stack(path.places)
    parts = np.stack([places[:-1], places[1:]], 1)
    ax.add_collection(LineCollection(list(parts), array=np.arange(len(parts)), cmap="viridis", lw=1.4, zorder=2))
    ax.plot([], [], color=colormaps["viridis"](0.4), label="path (from dark to light)")
    ax.plot(*places[0], "o", color=colormaps["viridis"](0.0), ms=5, label="start", zorder=3)
    levels = len(path.subgoals[0]) if path.subgoals else 0
    for level in range(levels):
        name = "subgoals" if levels == 1 else f"subgoals of level {level + 1}"
        _draw_subgoals(ax, places, np.stack([row[level] for row in path.subgoals]), SUBGOALS[level % 4], name)
    if path.goal is not None:
        ax.plot(*path.goal, "*", color="tab:red", ms=9, label="goal", zorder=4)
        if radius is not None:
            ax.add_patch(Circle(tuple(path.goal), radius, fill=False, edgecolor="tab:red", lw=0.8, zorder=1))


def _draw_subgoals(ax: Axes, places: np.ndarray, subgoals: np.ndarray, colour: str, name: str) -> None:
    fresh = np.r_[True, (np.diff(subgoals, axis=0) != 0).any(1)]
    lines = np.stack([places[: len(subgoals)][fresh], subgoals[fresh]], 1)
    ax.add_collection(LineCollection(list(lines), color=colour, lw=0.6, alpha=0.6, zorder=1))
    ax.plot(*subgoals[fresh].T, "x", color=colour, ms=4, label=name, zorder=3)


def save_trajectories(evaluation: Evaluation, file: FilePath, title: str, dims: Dims | None = None) -> bool:
    """Write the picture to a file. Returns False if the paths cannot be drawn in two dimensions."""
    figure = trajectory_figure(evaluation, title, dims)
    if figure is None:
        return False
    figure.savefig(file, dpi=DPI)
    return True


def save_curves(groups: Mapping[str, Mapping[str, Sequence[Curve]]], file: FilePath, tag: str) -> None:
    """Write the picture of learning curves to a file. `groups` are those of `curve_figure`, with one panel per
    environment."""
    curve_figure(groups, tag).savefig(file, dpi=DPI)


def curve_figure(panels: Mapping[str, Mapping[str, Sequence[Curve]]], label: str) -> Figure:
    """Learning curves: each panel, by title, has one line per group of runs, by name: the interquartile mean over the
    runs, with their range. `label` is that of the vertical axes.

    Each line covers all steps of its runs; it is dotted where some of them have no values.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.5 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, curves in lines.items():
            _draw_band(ax, Band.of(curves), f"{name} ({len(curves)} run{'s' * (len(curves) > 1)})")
        ax.set(title=title, xlabel="environment steps", ylabel=label)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    return figure


def _draw_band(ax: Axes, band: Band, label: str) -> None:
    single = len(band.steps) == 1
    (line,) = ax.plot(
        band.steps, np.where(band.complete, band.middle, np.nan), marker="o" if single else None, label=label
    )
    if not band.complete.all():
        ax.plot(band.steps, band.middle, ":", color=line.get_color(), lw=1, marker="o" if single else None)
    ax.fill_between(band.steps, band.low, band.high, color=line.get_color(), alpha=0.2, lw=0)
