"""Train an agent with `python train.py ALGORITHM --env ID`, or resume a run with `python train.py --resume RUN`."""

import sys

try:
    from hrl.cli.main import train as main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}. Install the package in this Python first: pip install -c constraints.txt -e .")

if __name__ == "__main__":
    sys.exit(main())
