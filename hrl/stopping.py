"""Requests to stop: Ctrl-C, SIGTERM, and a closed terminal.

A request stops a run within two seconds, and the run then saves its state. Loops check `signal` between two steps. Code
that may take longer (an environment's step, an evaluation, a video) runs inside `interruptible`, where a request raises
`Interrupted`. A second request ends the process immediately.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has no SIGHUP
GRACE = 1.0
"""Seconds until a region that usually ends soon is interrupted."""


class Interrupted(BaseException):
    """Raised by a stop request in an interruptible region. An environment's `except Exception` does not catch it."""


class StopRequest:
    """A context manager that handles stop signals. It works only in the main thread; elsewhere it does nothing."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The signal of the request; None before one."""
        self._grace: list[float] = []  # grace periods of the open regions, innermost last
        self._before: dict[int, object] = {}
        # On Ctrl-C under torchrun, each process gets the signal twice: from the terminal and from torchrun.
        self._repeated = int(os.environ.get("WORLD_SIZE", "1")) > 1

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self
        asking = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(HANGUP) is not signal.SIG_IGN:  # nohup ignores it
            asking.append(HANGUP)
        self._before = {number: signal.signal(number, self._ask) for number in asking}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self.signal is not None:
            _alarm(0.0, signal.SIG_DFL)

    def __bool__(self) -> bool:
        """Whether a stop was requested."""
        return self.signal is not None

    @contextmanager
    def interruptible(self, grace: float = 0.0) -> Iterator[None]:
        """A region in which a request raises Interrupted, immediately or after `grace` seconds."""
        if self.signal is not None and not grace:
            raise Interrupted
        self._grace.append(grace)
        try:
            yield
        finally:
            self._grace.pop()

    def outlast(self) -> None:
        """Ignore SIGTERM from now on. torchrun sends it to the remaining processes after one has failed."""
        self._before[signal.SIGTERM] = signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for other in () if self._repeated else self._before:  # a shell forwards a hangup that it receives
            signal.signal(other, signal.SIG_IGN if other == HANGUP else signal.SIG_DFL)
        _alarm(GRACE, self._interrupt)  # again, in case an environment swallows the first one
        if self._grace and not self._grace[-1]:
            raise Interrupted

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        for other in self._before:  # from now on, also under torchrun
            signal.signal(other, signal.SIG_IGN if other == HANGUP else signal.SIG_DFL)
        _alarm(GRACE, self._interrupt)
        if self._grace:  # only open regions are interrupted
            raise Interrupted


class TimedOut(BaseException):
    """Raised if a region exceeds its time limit."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A region that raises TimedOut after `seconds`, in the main thread only; elsewhere there is no limit."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise TimedOut

    before, (left, _) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    _alarm(seconds, leave)
    try:
        yield
    finally:
        _alarm(max(left, 0.01) if left else 0.0, before)


def _alarm(seconds: float, handler: Any) -> None:
    """Call the handler after `seconds`; 0 cancels the alarm."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def close_within(close: Callable[[], None], seconds: float = 1.0) -> str | None:
    """Close an environment. Returns the reason if closing fails or takes longer than `seconds`, else None."""
    try:
        with within(seconds):
            close()
    except TimedOut:
        return f"it did not end within {seconds:g} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
