"""Makes links between notebooks and pages work on the site. In notebooks they are written as in the repository."""

import logging
import posixpath
import re

from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LINK = re.compile(r'href="(?![a-z]+:)([^"#]+\.(?:md|ipynb))(#[^"]*)?"')
log = logging.getLogger("mkdocs.hooks.notebooks")


def on_page_content(html: str, page: Page, files: Files, **_: object) -> str:
    """Point a notebook's links to files of the repository to their pages. A link to no page is a warning."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def moved(match: re.Match[str]) -> str:
        target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, target)).removeprefix("docs/")
        file = files.get_file_from_path(path)
        if file is None:
            log.warning("%s links to %s, which is no page.", page.file.src_uri, target)
            return match[0]
        return f'href="{file.url_relative_to(page.file)}{anchor}"'

    return LINK.sub(moved, html)
