"""Evaluate one run with `python evaluate.py RUN`, or compare several with `python evaluate.py RUN RUN …`."""

import sys

try:
    from hrl.cli.main import evaluate as main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}. Install the package in this Python first: pip install -c constraints.txt -e .")

if __name__ == "__main__":
    sys.exit(main())
