"""The commands that the README and the documentation show: their options exist, and so do their values."""

import re
import shlex

import pytest
import tyro
from runs import ROOT

from hrl.cli import evaluation, training

FENCE = re.compile(r"^```(?:\{\.bash[^}]*\}|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_THERE = re.compile(r"\.\.\.|ALGORITHM|<name>|my_|--help|--resume")
"""Parts of commands that cannot be parsed: they stand for files and names of the reader's."""
PLACEHOLDERS = {"ID": "CartPole-v1", "MAZE_A": "PointMaze_UMaze-v3", "MAZE_B": "PointMaze_UMaze-v3"}


def shown(script):
    """The arguments of a script's commands in code blocks, without comments, each once."""
    files = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    blocks = [block for file in files for block in FENCE.findall(file.read_text())]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = {match[1] for line in lines if (match := re.search(rf"\b{script} (.*)", line))}
    return sorted({" ".join(shlex.split(words, comments=True)) for words in found})


@pytest.mark.parametrize("line", [line for line in shown("train.py") if not NOT_THERE.search(line)])
def test_a_command_of_training_is_understood(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    algorithm, *words = (PLACEHOLDERS.get(word, word) for word in line.split())
    training.resolved(algorithm, words)


@pytest.mark.parametrize("line", shown("evaluate.py"))
def test_a_command_of_evaluation_is_understood(line):
    words = [word.strip("[]") for word in line.split() if word not in ("...", "[options]")]
    options = tyro.cli(evaluation.Options, args=words, config=(tyro.conf.FlagCreatePairsOff,))
    evaluation.check(options)
