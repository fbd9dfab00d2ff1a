"""Runs a command line: handles requests to stop, and prints errors as one sentence."""

import sys
from collections.abc import Callable

from hrl.api.sessions import FAULTS
from hrl.stopping import Interrupted, StopRequest


def run_cli(command: Callable[[StopRequest], int], left: str = "there was nothing to save") -> int:
    """Run a command line, and print the sentence of a UserError instead of a traceback. Returns the exit code. `left`
    is the message after a request to stop, for commands that do not print their own."""
    stop = StopRequest()
    try:
        with stop:
            return command(stop)
    except Interrupted:
        assert stop.signal is not None
        print(f"Stopped by {stop.signal.name}; {left}.", file=sys.stderr)
        return 128 + stop.signal
    except FAULTS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 141
    except OSError as error:  # a full, removed or read-only disk
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was saved since the last checkpoint.", file=sys.stderr)
        return 130
