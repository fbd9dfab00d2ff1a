"""The code in the documentation runs: every page's blocks, in order, and every notebook.

Blocks of ```python run in one namespace per page, and blocks of ```bash as commands, in a temporary folder that has the
repository's scripts. Blocks with `.no-run` are only read. Trainings are short (tests/short.py), unless the environment
variable HRL_DOCS_SHORT is 0.
"""

import glob
import os
import re
import shlex
import subprocess
import sys
from types import ModuleType
from typing import NamedTuple

import nbformat
import pytest
import short
from hrl_scripts import evaluate, train
from nbclient import NotebookClient
from runs import ROOT
from test_links import broken

SHORT = os.environ.get("HRL_DOCS_SHORT", "1") != "0"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if BLOCK.search(path.read_text())]
NOTEBOOKS = sorted(ROOT.glob("docs/tutorials/*.ipynb"))
MOST_BYTES = 330_000
"""Size of a notebook with its pictures."""
MAINS = {"train.py": train.main, "evaluate.py": evaluate.main}


class Block(NamedTuple):
    """A block of code that runs."""

    language: str
    code: str
    line: int
    """Number of its first line in the page, from 0."""


def blocks(text):
    """The blocks of a page that run."""
    return [Block(m[1], m[2], text[: m.start(2)].count("\n")) for m in BLOCK.finditer(text)]


def run_python(block, page, namespace):
    """Run a block of Python. Its lines have the page's numbers in tracebacks."""
    exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)


def commands(code):
    """The commands of a block, without comments and with continued lines joined."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def run_command(line):
    """Run one command: train.py and evaluate.py in this process, others in a shell."""
    words = [found for word in shlex.split(line, comments=True) for found in sorted(glob.glob(word)) or [word]]
    if words[0] != "python" or words[1] not in MAINS:
        subprocess.run(line, shell=True, check=True)
        return
    script, *arguments = short.command_line(words[1:]) if SHORT else words[1:]
    assert MAINS[script](arguments) == 0, line


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A temporary folder with the repository's scripts and examples, as current folder."""
    for name in ("train.py", "evaluate.py", "examples", "benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    if SHORT:
        short.install(monkeypatch.setattr)
    return tmp_path


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(page, monkeypatch):
    module = ModuleType(f"page_{page.stem}")  # its classes can be imported, as from a user's own program
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page.read_text()):
        if block.language == "python":
            run_python(block, page, vars(module))
        else:
            for line in commands(block.code):
                run_command(line)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(file, tmp_path, monkeypatch):
    notebook = nbformat.read(file, as_version=4)
    shown = [kinds(cell) for cell in notebook.cells]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
    if SHORT:
        notebook.cells.insert(0, nbformat.v4.new_code_cell("import short\nshort.install()"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    made = [kinds(cell) for cell in notebook.cells[SHORT:]]
    assert made == shown  # the same pictures and texts as in the file
    texts = [output.data["text/plain"] for cell in notebook.cells for output in updated(cell)]
    assert len(texts) >= 1 and all(re.search(r"\d+ / \d+", text.replace(",", "")) for text in texts)


def kinds(cell):
    """The kinds of a cell's outputs that are shown, without repetition."""
    outputs = cell.get("outputs", [])
    return {kind for output in outputs for kind in output.get("data", {}) if kind == "image/png"}


def updated(cell):
    """The outputs of a cell that show a training's progress."""
    return [x for x in cell.get("outputs", []) if x.output_type == "display_data" and "image/png" not in x.data]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_was_run_in_order(file):
    notebook = nbformat.read(file, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [link for cell in notebook.cells if cell.cell_type == "markdown" for link in broken(file, cell.source)]
    assert file.stat().st_size < MOST_BYTES
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_blocks_are_found_and_their_errors_are_those_of_the_page(tmp_path):
    text = "# A\n```python\na = 1\n```\n```{.python .no-run}\nx\n```\n```\ny\n```\n"
    text += "```bash\nls  \\\n  -l # all\n\n# no\n```\n"
    one, two = blocks(text)
    assert (one.language, one.code, one.line) == ("python", "a = 1\n", 2)
    assert [shlex.split(line, comments=True) for line in commands(two.code)] == [["ls", "-l"]]
    namespace = {}
    run_python(one, "page.md", namespace)
    assert namespace["a"] == 1
    with pytest.raises(ZeroDivisionError) as failure:
        run_python(Block("python", "1 / 0", 41), "page.md", {})
    assert failure.traceback[-1].lineno == 41
    with pytest.raises(subprocess.CalledProcessError):
        run_command("false")


def test_commands_are_short():
    line = ["train.py", "hiro", "--total-steps", "70000"]
    assert short.command_line(line)[-4:] == ["--total-steps", "400", "--preset", "debug"]
    assert "--preset" not in short.command_line(["train.py", "--resume", "runs/a"])
    assert short.command_line(["train.py", "hiro", "--help"]) == ["train.py", "hiro", "--help"]
