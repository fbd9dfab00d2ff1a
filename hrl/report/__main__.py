"""`python -m hrl.report RUNS…`: one HTML file about runs."""

import sys

from hrl.cli.main import report

if __name__ == "__main__":
    sys.exit(report())
