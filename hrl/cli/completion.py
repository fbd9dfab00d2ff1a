"""Shell completion of the whole command lines: commands, algorithms and options."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

from hrl.agents import AGENTS, find_agent
from hrl.cli.evaluation import Options as Evaluation
from hrl.cli.report import Options as Report
from hrl.cli.training import command_type
from hrl.cli.usage import COMMANDS, program
from hrl.envs import EnvConfig
from hrl.run.folder import RunConfig


def print_completion(shell: Sequence[str], command: str) -> int:
    """Print the completion script of `hrl`, or of its command train, for bash, zsh or tcsh."""
    name = "hrl" if command == "hrl" else program(command)
    kind = _commands() if command == "hrl" else _algorithms()
    tyro.cli(kind, args=["--tyro-print-completion", *shell], prog=name)
    return 0


def _commands() -> Any:
    parts = {"train": _algorithms(), "evaluate": Evaluation, "report": Report}
    named = [
        Annotated[parts[name], tyro.conf.subcommand(name, prefix_name=False, description=text)]
        for name, text in COMMANDS.items()
    ]
    return reduce(or_, named)


def _algorithms() -> Any:
    """The union of all algorithms' options."""
    named: list[Any] = []
    for name in AGENTS:
        kind = command_type((EnvConfig(""), RunConfig(), find_agent(name)), f"Train_{name.replace('-', '_')}")
        text = AGENTS.summary(name)
        named.append(Annotated[kind, tyro.conf.subcommand(name, prefix_name=False, description=text)])
    return reduce(or_, named)
