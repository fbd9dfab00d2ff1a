"""The command line of reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hrl.api.report import write_report
from hrl.cli.options import NUMBERS
from hrl.stopping import StopRequest


@dataclass
class Options:
    """Write one HTML file about runs: scores with intervals, curves, trajectories with subgoals, settings that
    differ."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, or names of pretrained policies."""
    out: Path = Path("report.html")
    """The file to write."""
    episodes: int = 20
    """Evaluation episodes per run. 0 reuses the last evaluation and picture of the training, which is quick."""
    checkpoint: Literal["last", "best"] = "last"
    """The checkpoint to evaluate."""
    video: bool = False
    """Add a video of two episodes of each run."""
    title: str | None = None
    """The title. Default: the algorithms and environments."""
    group_by: tuple[str, ...] = ()
    """Options that group the runs by their values. Default: all options in which the runs differ, except the seed."""
    label: tuple[str, ...] = ()
    """One name per run; runs with the same name form a group."""
    trust: bool = False
    """Import the modules that the run folders name. Importing runs their code: use it only for folders that you
    trust."""


def run(arguments: list[str], stop: StopRequest, program: str) -> int:
    """Write the report. Returns the exit code."""
    o = tyro.cli(Options, args=arguments, prog=program, registry=NUMBERS, config=(tyro.conf.FlagCreatePairsOff,))
    with stop.interruptible():
        written = write_report(
            o.runs, o.out, episodes=o.episodes, which=o.checkpoint, videos=o.video, title=o.title,
            group_by=o.group_by, label=o.label, trust=o.trust,
        )  # fmt: skip
    print(f"Written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
    return 0
