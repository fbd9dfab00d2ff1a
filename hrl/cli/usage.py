"""The help without an algorithm, and the commands' names. This module imports neither algorithms nor torch."""

import sys
from pathlib import Path

from hrl.agents import AGENTS

COMMANDS = {
    "train": "train an agent, or resume a run",
    "evaluate": "evaluate a run, or compare several",
    "report": "write one HTML file about runs",
}
SCRIPTS = {"train": "python train.py", "evaluate": "python evaluate.py", "report": "python -m hrl.report"}


def spelled(command: str) -> str:
    """A command as the user types it, from the name of this process: `hrl train`, `hrl-train` or `python train.py`."""
    program = Path(sys.argv[0]).name
    if program == "hrl":
        return f"hrl {command}"
    return f"hrl-{command}" if program.startswith("hrl-") and command != "report" else SCRIPTS[command]


def program(command: str = "train") -> str:
    """The command's name in usage lines."""
    return spelled(command).removeprefix("python ")


def usage() -> str:
    """The text of `--help` without an algorithm."""
    name = program()
    lines = [f"usage: {name} ALGORITHM --env ID [options]      ({name} ALGORITHM --help lists them)"]
    lines += [f"       {name} --resume RUN [--total-steps N]"]
    lines += [f"       {name} --tyro-print-completion bash      (or zsh, tcsh: completion for your shell)"]
    lines += ["", "algorithms:"]
    width = max(map(len, AGENTS))
    lines += [f"  {name:{width}}  {AGENTS.summary(name)}" for name in AGENTS]
    return "\n".join([*lines, "  module:factory: a custom algorithm (a dataclass such as hrl.agents.HierarchyConfig)"])


def overview() -> str:
    """The text of `hrl --help`."""
    lines = ["usage: hrl COMMAND [options]      (hrl COMMAND --help lists them)", "       hrl --version", ""]
    lines += [f"  {name:{max(map(len, COMMANDS))}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "Completion in bash, also for zsh and tcsh:"]
    lines += ["  hrl --tyro-print-completion bash > ~/.local/share/bash-completion/completions/hrl"]
    return "\n".join(lines)
