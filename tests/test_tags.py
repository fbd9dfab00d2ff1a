"""The page about curves names every scalar that a run of HIRO logs."""

import re

from runs import ROOT

from hrl.report.logger import read_columns


def test_every_scalar_of_a_run_is_explained():
    page = (ROOT / "docs/curves.md").read_text()
    named = set(re.findall(r"[\w/]+", " ".join(re.findall(r"`([^`]+)`", page))))
    words = named | {name.rpartition("/")[2] for name in named}
    logged = read_columns(ROOT / "benchmarks/results/runs/picture-healthy.csv")
    assert "train/low/subgoal_distance" in logged
    assert {tag for tag in logged if tag not in named and tag.rpartition("/")[2] not in words} == set()
