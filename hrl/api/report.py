"""Reports about runs as one HTML file: `hrl.write_report`."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrl.api.runs import Run
from hrl.api.trust import Trust
from hrl.report.groups import Run as Compared
from hrl.report.groups import comparison, curves, differing, grouped, scores
from hrl.report.page.figures import CAPTION, curves_svg, episode_pictures
from hrl.report.page.page import Page, RunPart, Table
from hrl.report.page.stored import last_evaluation, last_picture
from hrl.run.checkpoint import Which
from hrl.types import UserError
from hrl.version import __version__

PICTURES = 8
"""Maximum number of pictures of a run."""
VIDEO_EPISODES = 2


def write_report(
    runs: Sequence[Run | Path | str],
    file: Path | str = "report.html",
    *,
    episodes: int = 20,
    which: Which = "last",
    videos: bool = False,
    title: str | None = None,
    group_by: Sequence[str] = (),
    label: Sequence[str] = (),
    trust: bool = False,
) -> Path:
    """Write one HTML file about runs: means with intervals, learning curves, trajectories with subgoals, and the
    settings that differ. It needs no network.

    Each run is evaluated for `episodes` episodes with its checkpoint `which`. With 0, the report uses the last
    evaluation and picture of its training. `videos` adds an mp4 of the first two episodes of each run. `group_by` and
    `label` define groups as in `evaluate.py`. Returns the file.

    Raises UserError if a folder is not a run, if `episodes` is 0 and a run was never evaluated, or if the file cannot
    be written.
    """
    target = Path(file)
    if target.suffix not in (".html", ".htm") or not target.parent.is_dir():
        raise UserError(f"{target} must end in .html, in a folder that exists.")
    if not runs:
        raise UserError("Name at least one run folder: python -m hrl.report runs/<env>/<algorithm>/<run>.")
    if episodes < 0:
        raise UserError(f"--episodes must not be negative, but is {episodes}.")
    if label and len(label) != len(runs):
        raise UserError(f"--label needs a name for each of the {len(runs)} runs, not {len(label)}.")
    loaded = [run if isinstance(run, Run) else Run(run, Trust(trust)) for run in runs]
    names: Sequence[str | None] = [*label] if label else [None] * len(loaded)
    parts = [_part(run, name, episodes, which, videos) for run, name in zip(loaded, names, strict=True)]
    page = _page([compared for compared, _ in parts], [part for _, part in parts], title, group_by)
    try:
        target.write_text(page.html(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}.") from error
    return target


def _part(run: Run, label: str | None, episodes: int, which: Which, videos: bool) -> tuple[Compared, RunPart]:
    """One run, for the comparison and as a part of the page."""
    content = run.folder.read_config()
    notes: list[str] = []
    if episodes:
        result = run.evaluate(episodes, which, keep_paths=min(PICTURES, episodes))
        summary: dict[str, Any] = {**result.summary(), "steps": run.checkpoint(which).steps, "checkpoint": which}
        notes, pictures = result.notes(), episode_pictures(result)
    else:
        summary = last_evaluation(run.path, run.parts.run.eval_episodes)
        pictures = last_picture(run.path)
    env, seed = run.parts.env.env, run.parts.run.seed
    source = "evaluation episodes" if episodes else "episodes of the last evaluation during training"
    caption = (
        f"{which if episodes else 'last'} checkpoint at {summary['steps']:,} steps, {summary['episodes']} {source}"
    )
    part = RunPart(
        title=f"{label or run.algorithm} on {env}, seed {seed}",
        facts={"Folder": str(run.path), "Command": content.get("command", "unknown")},
        scores=Table(caption, ("", "mean", "95 % interval"), scores(summary)),
        notes=notes,
        pictures=pictures,
        caption=CAPTION,
        video=_video(run, which) if videos else None,
    )
    return Compared(run.path, env, run.algorithm, content["config"], summary, label), part


def _video(run: Run, which: Which) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return run.record(Path(folder) / "video.mp4", VIDEO_EPISODES, which).read_bytes()


def _page(runs: list[Compared], parts: list[RunPart], title: str | None, group_by: Sequence[str]) -> Page:
    groups = grouped(runs, group_by)
    columns, rows = comparison(groups)
    caption = "Means across runs, with Student's 95 % interval for three or more runs"
    try:
        panels, values = curves(groups)
        images = curves_svg(panels, values)
        text = f"{values.capitalize()} during training over environment steps: the interquartile mean of the runs of "
        text += "each group, with their range. A line is dotted where some of its runs have no evaluation."
    except UserError as error:
        images, text = {}, str(error)
    changed = differing(runs) | {"seed": [_seed(run) for run in runs]}
    settings = None
    if len(runs) > 1:
        heads = [f"run {i}" for i in range(1, len(runs) + 1)]
        cells = [[name, *map(_short, values)] for name, values in changed.items()]
        settings = Table("Settings in which the runs differ; runs are numbered as above", ("option", *heads), cells)
    numbered = len(parts) > 1
    for i, part in enumerate(parts, 1):
        part.title = f"Run {i}: {part.title}" if numbered else part.title
    return Page(
        title or f"{', '.join(sorted({run.algorithm for run in runs}))} on {', '.join(sorted({r.env for r in runs}))}",
        f"{len(runs)} run{'s' * numbered}, {time.strftime('%Y-%m-%d %H:%M')}, nested-hrl {__version__}",
        Table(caption, columns, rows), images, text, settings, parts,
    )  # fmt: skip


def _seed(run: Compared) -> Any:
    return run.settings["run"]["seed"]


def _short(value: Any) -> str:
    return "none" if value is None else str(value).replace(" ", "")
