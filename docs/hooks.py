"""Adds files that stand elsewhere in the repository to the documentation site, and makes links between them work.

Links in Markdown files are written as in the repository, so that they also work where the files are read there.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
SHORT_CODE = re.compile(r"<code>([^<]{1,32})</code>")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures that benchmarks wrote."""
    pictures = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "benchmarks/results").glob("*.png"))]
    for name in (*PAGES, *pictures):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Point relative links to the site's own files. Links to other files of the repository become plain text."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in PAGES else f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, target))
        path = "index.md" if path == "README.md" else path.removeprefix("docs/")
        if files.get_file_from_path(path) is None and (ROOT / folder / target).exists():
            return text
        return f"{image}[{text}]({posixpath.relpath(path, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Mark short code, which is not broken into lines."""
    return SHORT_CODE.sub(r'<code class="short">\1</code>', html)
