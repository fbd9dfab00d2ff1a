"""Evaluate one run with `python evaluate.py RUN`, or compare several with `python evaluate.py RUN RUN …`."""

import sys

from hrl.cli.main import evaluate as main

if __name__ == "__main__":
    sys.exit(main())
