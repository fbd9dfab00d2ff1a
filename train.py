"""Train an agent with `python train.py ALGORITHM --env ID`, or resume a run with `python train.py --resume RUN`."""

import sys

from hrl.cli.main import train as main

if __name__ == "__main__":
    sys.exit(main())
