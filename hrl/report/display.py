"""Output during training: a live line in terminals and notebooks, else plain lines."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def print_line(line: str) -> None:
    """Print a line, with a question mark for a character that the output's encoding lacks. If the output is closed
    (`| head`, a closed terminal), discard the line and continue."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(line.encode(encoding, "replace").decode(encoding), flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(sentence: str) -> None:
    """Print a warning to stderr."""
    with contextlib.suppress(OSError):
        print(f"warning: {sentence}", file=sys.stderr, flush=True)


def notebook_line() -> Callable[[str], None] | None:
    """A function that shows a text in the current cell of a notebook, in place of its last text; None outside of
    notebooks."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is None:
        return None
    handle = import_module("IPython.display").DisplayHandle()
    shown: list[str] = []

    def show(line: str) -> None:
        (handle.update if shown else handle.display)({"text/plain": line}, raw=True)
        shown[:] = [line]

    return show


class Display:
    """Shows steps, rate, remaining time, latest return and success."""

    def __init__(self, total: int, steps: int, live: bool, counts: str = "environment steps") -> None:
        """`counts` is the unit of steps; only units other than environment steps are named in full."""
        self.total = total
        self._unit = "steps" if counts == "environment steps" else counts
        self._printed = -float("inf")
        self._progress: Progress | None = None
        self._line = notebook_line() if live else None
        if live and sys.stdout.isatty():
            self._progress = Progress(
                TextColumn(f"{{task.completed:,.0f}} / {{task.total:,.0f}} {self._unit}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(file=sys.stdout),
            )
            self._task = self._progress.add_task("", total=total, completed=steps)

    def __enter__(self) -> "Display":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def update(self, steps: int, rate: float, scalars: dict[str, float], last_eval: dict[str, float]) -> None:
        """Show new scalars. Without a terminal or a notebook, print a line at most every ten seconds."""
        parts = [f"{rate:,.0f} steps/s"]
        if "rollout/ep_rew_mean" in scalars:
            parts.append(f"return {scalars['rollout/ep_rew_mean']:.2f}")
        if "rollout/success_rate" in scalars:
            parts.append(f"success {scalars['rollout/success_rate']:.2f}")
        if "eval/success_rate" in last_eval:
            parts.append(f"eval success {last_eval['eval/success_rate']:.2f}")
        elif last_eval:
            parts.append(f"eval return {last_eval['eval/mean_reward']:.2f}")
        text = ", ".join(parts)
        if self._progress:
            self._progress.update(self._task, completed=min(steps, self.total), description=text)
            return
        left = max(self.total - steps, 0) / max(rate, 1e-9)
        line = f"{steps:>10,} / {self.total:,} {self._unit}, {text}, {left:,.0f} s left"
        if self._line:
            self._line(line)
        elif time.monotonic() - self._printed >= 10 or steps >= self.total:
            self._printed = time.monotonic()
            print_line(line)

    def evaluated(self, steps: int, scalars: dict[str, float]) -> None:
        """Print the result of an evaluation."""
        success = ""
        if "eval/success_rate" in scalars:
            success = (
                f"success {scalars['eval/success_rate']:.2f} (final step {scalars['eval/success_rate_final']:.2f}), "
            )
        self.say(f"{steps:>10,} evaluation: {success}return {scalars['eval/mean_reward']:.2f}")

    def say(self, line: str) -> None:
        """Print a separate line."""
        if self._progress:
            self._progress.console.print(line)
        else:
            print_line(line)
