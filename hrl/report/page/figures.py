"""Figures of a report as images."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib

from hrl.report.evaluation import Evaluation
from hrl.report.page.page import Picture
from hrl.report.pictures import curve_figure, episode_figures
from hrl.report.statistics import Curve

CAPTION = (
    "Episodes in the goal space: the path from dark to light, the start (a dot), subgoals (crosses; each level above "
    "the lowest has its own colour) and where they were set, and the goal (a star) with its radius of success."
)


def curves_svg(groups: Mapping[str, Mapping[str, Sequence[Curve]]], tag: str) -> dict[str, str]:
    """Learning curves as SVG, one image per environment. Text stays text, and the width adapts to the page."""
    images = {}
    for number, (env, lines) in enumerate(groups.items()):
        out = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": env}):
            figure = curve_figure({env: lines}, tag)
            figure.savefig(out, format="svg", metadata={"Date": None})
        svg = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
        svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
        images[env] = _with_own_ids(svg, f"c{number}-")
    return images


def _with_own_ids(svg: str, prefix: str) -> str:
    """The image without unused ids, and with a prefix before the others."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}", svg)


def episode_pictures(evaluation: Evaluation) -> list[Picture]:
    """One picture per kept path; none if paths cannot be drawn in two dimensions."""
    pictures = []
    for figure in episode_figures(evaluation):
        out, title = io.BytesIO(), figure.axes[0].get_title()
        figure.savefig(out, format="png", dpi=130)
        pictures.append(Picture(out.getvalue(), f"Path and subgoals of an episode of {title}"))
    return pictures
