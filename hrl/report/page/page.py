"""A report as one HTML file that needs no network. Style, pictures and videos are inline. It has no script."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")


@dataclass
class Table:
    """A table. The first cell of each row is its heading."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Picture:
    """An image with its alternative text."""

    png: bytes
    text: str


@dataclass
class RunPart:
    """The part of one run."""

    title: str
    facts: Mapping[str, str]
    scores: Table
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    caption: str = ""
    """The caption of the pictures."""
    video: bytes | None = None
    """An mp4 file."""


@dataclass
class Page:
    """The content of a report."""

    title: str
    made: str
    """Number of runs, date, and version of the toolkit."""
    comparison: Table
    curves: Mapping[str, str]
    """SVG images by environment; empty without curves."""
    curves_text: str
    """The caption of the curves, or the reason why there are none."""
    settings: Table | None
    """The settings that differ; None for a single run."""
    runs: Sequence[RunPart] = field(default_factory=list)

    def html(self) -> str:
        """The HTML document."""
        sections = [("results", "Results", _table(self.comparison)), ("curves", "Learning curves", self._curves())]
        parts = "".join(_run(i, run) for i, run in enumerate(self.runs, 1))
        sections.append(("runs", "Runs", parts))
        if self.settings is not None:
            sections.append(("settings", "Settings that differ", _table(self.settings)))
        links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in sections)
        body = "".join(
            f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{content}</section>'
            for key, name, content in sections
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
            f'<header><h1>{escape(self.title)}</h1><p class="soft">{escape(self.made)}</p>'
            f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>{body}</main>\n</body>\n</html>\n'
        )

    def _curves(self) -> str:
        if not self.curves:
            return f"<p>{escape(self.curves_text)}</p>"
        images = "".join(
            svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="Curves of {escape(env)}"', 1)
            for env, svg in self.curves.items()
        )
        return f'<figure><div class="curves">{images}</div><figcaption>{escape(self.curves_text)}</figcaption></figure>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    # Keyboards scroll only the element with the focus.
    name = escape(table.caption)
    return (
        f'<p class="soft">{name}</p><div class="scroll" role="region" tabindex="0" aria-label="{name}">'
        f'<table aria-label="{name}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _run(number: int, run: RunPart) -> str:
    facts = "".join(f"<p>{escape(name)}: <code>{escape(value)}</code></p>" for name, value in run.facts.items())
    notes = "".join(f"<p>{escape(note)}</p>" for note in run.notes)
    images = "".join(
        f'<img src="data:image/png;base64,{_base64(picture.png)}" alt="{escape(picture.text)}">'
        for picture in run.pictures
    )
    shown = f'<div class="pictures">{images}</div><figcaption>{escape(run.caption)}</figcaption>' if images else ""
    pictures = f"<figure>{shown}</figure>" if shown else ""
    video = ""
    if run.video is not None:
        video = (
            f'<video controls muted playsinline preload="metadata" aria-label="Video of {escape(run.title)}" '
            f'src="data:video/mp4;base64,{_base64(run.video)}"></video>'
        )
    return (
        f'<article class="run" aria-labelledby="run-{number}"><h3 id="run-{number}">{escape(run.title)}</h3>'
        f"{facts}{_table(run.scores)}{notes}{pictures}{video}</article>"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
