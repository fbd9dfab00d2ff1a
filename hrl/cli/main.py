"""The command lines: `hrl train`, `hrl evaluate` and `hrl report`, which are also `train.py`, `evaluate.py` and
`python -m hrl.report`. Errors that the user can fix print one sentence and return exit code 2.

This module imports torch and the algorithms only for commands that need them.
"""

import io
import sys
from collections.abc import Sequence

from hrl.cli.usage import COMMANDS, overview, spelled, usage
from hrl.version import __version__

COMPLETION = "--tyro-print-completion"


def main(arguments: Sequence[str] | None = None) -> int:
    """`hrl COMMAND …`. Returns the exit code."""
    given = _given(arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    if given[0] == "--version":
        print(__version__)
        return 0
    if given[0] == COMPLETION:
        return _complete(given, "hrl")
    commands = {"train": train, "evaluate": evaluate, "report": report}
    if given[0] not in commands:
        print(f"error: There is no command {given[0]}; choose {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return commands[given[0]](given[1:])


def train(arguments: Sequence[str] | None = None) -> int:
    """`train.py`. Returns the exit code."""
    given = _given(arguments)
    if given[:1] == [COMPLETION]:
        return _complete(given, "train")
    if not given or given[0] in ("-h", "--help", "--version"):
        print(__version__ if "--version" in given else usage())
        return 0
    from hrl.cli.program import run_cli  # after the help, which does not need torch
    from hrl.cli.training import run

    return run_cli(lambda stop: run(given, stop))


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`evaluate.py`. Returns the exit code."""
    given = _given(arguments)
    if given[:1] == ["--version"]:
        print(__version__)
        return 0
    from hrl.cli.evaluation import run
    from hrl.cli.program import run_cli

    return run_cli(lambda stop: run(given, stop), left="files contain the results written before the stop")


def report(arguments: Sequence[str] | None = None) -> int:
    """`python -m hrl.report`. Returns the exit code."""
    given = _given(arguments)
    from hrl.cli.program import run_cli
    from hrl.cli.report import run

    return run_cli(lambda stop: run(given, stop, spelled("report")), left="no report was written")


def _given(arguments: Sequence[str] | None) -> list[str]:
    """The arguments of a command line, which begins: question marks replace characters that a stream's encoding lacks,
    such as ± in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    return list(sys.argv[1:] if arguments is None else arguments)


def _complete(given: Sequence[str], command: str) -> int:
    from hrl.cli.completion import print_completion
    from hrl.cli.program import run_cli

    return run_cli(lambda stop: print_completion(given[1:], command))
