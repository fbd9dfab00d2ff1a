"""Evaluate one run with `python evaluate.py RUN`, or compare several with `python evaluate.py RUN RUN …`."""

import sys
from collections.abc import Sequence

from hrl.cli.evaluation import run
from hrl.cli.program import run_cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 2 for errors that the user can fix, which are printed as one sentence."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_cli(lambda stop: run(given, stop), left="files contain what was written before the stop")


if __name__ == "__main__":
    sys.exit(main())
