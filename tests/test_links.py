"""The Markdown files: links lead to files and headings that exist, and the README stays short."""

import re
from collections import Counter

import pytest
from runs import ROOT

README_LINES, LINE_LENGTH = 140, 120
FILES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md") if path.exists()
)
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def prose(text):
    """The text without code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(text):
    """The anchors of a file's headings, as GitHub names them."""
    names, seen = [], Counter()
    for heading in HEADING.findall(FENCE.sub("", text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names.append(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def broken(path, text):
    """The links of a file that lead nowhere in the repository."""
    wrong = []
    for link in LINK.findall(prose(text)):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue
        file = (path.parent / target).resolve() if target else path
        there = file.exists() and ROOT in file.parents
        if not there or (anchor and anchor not in anchors(file.read_text())):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert not broken(path, path.read_text())


def test_a_broken_link_is_found():
    text = "# One thing\n[a](nothing.md) [b](#one-thing) [c](#another) [d](LICENSE) `[e](x.md)`\n```\n[f](y.md)\n```\n"
    assert broken(ROOT / "README.md", text)[:1] == ["nothing.md"]
    assert anchors(text) == ["one-thing"]
    assert anchors("# A\n# A\n## B's [c](d.md)!\n```\n# no\n```\n") == ["a", "a-1", "bs-c"]


def test_every_page_of_the_documentation_is_in_its_navigation():
    named = set(re.findall(r"[\w/-]+\.(?:md|ipynb)", (ROOT / "mkdocs.yml").read_text()))
    pages = [path for path in ROOT.glob("docs/**/*") if path.suffix in (".md", ".ipynb")]
    assert {str(path.relative_to(ROOT / "docs")) for path in pages} - named == set()


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= README_LINES
    assert not [line for line in lines if len(line) > LINE_LENGTH and not line.startswith("|")]


def test_prose_of_the_documentation_has_short_lines():
    for path in (*ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"):
        long = [line for line in path.read_text().splitlines() if len(line) > LINE_LENGTH and not line.startswith("|")]
        assert not long, path
