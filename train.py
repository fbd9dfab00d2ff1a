"""Train an agent with `python train.py ALGORITHM --env ID`, or resume a run with `python train.py --resume RUN`."""

import sys
from collections.abc import Sequence

from hrl.cli.usage import usage
from hrl.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 2 for errors that the user can fix, which are printed as one sentence."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "--version"):
        print(__version__ if "--version" in given else usage())
        return 0
    from hrl.cli.program import run_cli  # imported here, because the help does not need torch
    from hrl.cli.training import run

    return run_cli(lambda stop: run(given, stop))


if __name__ == "__main__":
    sys.exit(main())
