"""The command line of training: a new run, a resumed run, or a sweep."""

import contextlib
import math
from copy import copy
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from hrl.agents import AGENTS, find_agent
from hrl.agents.presets import preset
from hrl.api.runs import last_checkpoint, require_resumable
from hrl.api.scaling import with_measured_envs
from hrl.api.sessions import Parts, make_session
from hrl.api.training import with_values
from hrl.api.trust import Trust, allow_own_modules, named_modules
from hrl.cli.help import show_help
from hrl.cli.options import NUMBERS, choose, dashed, peek, values_of, whole, with_value
from hrl.cli.usage import program, spelled
from hrl.envs import EnvConfig
from hrl.execution.processes import join_processes
from hrl.report.display import print_line
from hrl.run.folder import RunConfig, RunFolder
from hrl.run.session import Session
from hrl.run.sweep import GiveUp, Sweep, SweepConfig
from hrl.stopping import StopRequest
from hrl.types import UserError

OWN: dict[str, tuple[str, Any, str]] = {
    "preset": (
        "TEXT",
        "auto",
        "Hyperparameters: auto (by environment), none, debug (seconds), an entry of agents/presets, or a YAML file.",
    ),
    "sweep": ("PATH", None, "Search hyperparameters: the YAML file that lists them (see hrl/run/sweep.py)."),
    "trust": (
        "",
        False,
        "Import the modules that the given run folders (--low.init-from) name. Importing runs their code.",
    ),
}
"""Options of the command line, with their values, default and text."""
SWITCHES = ("--trust", "--wandb")
"""Options that need no value."""
NAMING = ("--env", "--eval-env", "--goal.projection", "--subgoals", "--skill")
"""Options that name modules or model files."""


@dataclass
class Resume:
    """Resume a run from its last checkpoint. All other options stay as in the original run."""

    resume: Path
    """The run folder."""
    total_steps: int | None = None
    """Total environment steps of training. Default: the run's original number."""
    progress: tyro.conf.FlagConversionOff[bool] = True
    """Show a live display if the output is a terminal."""
    trust: bool = False
    """Import the modules that the run folder names. Importing runs their code: use it only for folders that you
    trust."""
    allow_edited: bool = False
    """Resume although config.json was edited. The run is then not an exact continuation."""


def run(arguments: list[str], stop: StopRequest) -> int:
    """Parse the arguments, build the session, and train. Returns the exit code."""
    if peek(arguments, "--sweep"):
        return 0 if swept(arguments[0], arguments[1:], stop) else 130
    with contextlib.ExitStack() as held:
        if any(dashed(a) == "--resume" for a in arguments):
            session, config = resumed(arguments, stop, held)
        else:
            session, config = new_session(arguments[0], arguments[1:], stop, held)
        stopped = config.train(session)
    session.processes.leave()
    folder = session.folder.path
    if not session.processes.first:
        return 0 if stopped is None else 128 + stopped
    content = session.folder.read_config()
    trusted = " --trust" if any(named_modules(content["algorithm"], content["config"])) else ""
    if stopped is not None:
        hint = (
            f" Continue with: {spelled('train')} --resume {folder}{trusted}"
            if getattr(config, "resumable", True)
            else ""
        )
        print_line(f"Stopped by {stopped.name}; saved.{hint}")
        return 128 + stopped
    print_line(f"Done. Evaluate with: {spelled('evaluate')} {folder}{trusted}")
    return 0


# -- a new run -----------------------------------------------------------------------------------------------


def new_session(
    algorithm: str, arguments: list[str], stop: StopRequest, held: contextlib.ExitStack
) -> tuple[Session, Any]:
    """A new run from an algorithm's name and options."""
    arguments, trust = _with_trust(algorithm, arguments)
    parts, values = resolved(algorithm, arguments)
    processes = join_processes()
    parts = with_measured_envs(parts, partial(_with_envs, algorithm, arguments), processes, stop, trust)
    if values and processes.first:
        values = _preset(algorithm, arguments, parts.env.count)
        print_line("Preset: " + ", ".join(f"{k} {_short(v)}" for k, v in _flat(values).items()))
    folder = RunFolder.new(parts.run.log_dir, parts.env.env, algorithm, parts.run.seed)
    return make_session(parts, folder, processes=processes, stop=stop, trust=trust, held=held), parts.agent


def _with_trust(algorithm: str, arguments: list[str]) -> tuple[list[str], Trust]:
    """The options with a value after each bare switch, and the trust given by `--trust` and by named modules."""
    said = []
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        said += [argument, "True"] if argument in SWITCHES and following.startswith("--") else [argument]
    named = [name for option in NAMING for name in values_of(said, option)]
    modules = {name.rpartition(":")[0] for name in (algorithm, *named)} - {""}
    return said, Trust(peek(said, "--trust") == "True", frozenset(modules))


def swept(algorithm: str, arguments: list[str], stop: StopRequest) -> bool:
    """Search hyperparameters with runs of the same command. Returns whether the sweep is finished."""
    arguments, trust = _with_trust(algorithm, arguments)
    path = Path(peek(arguments, "--sweep") or "")
    sweep, (parts, _) = SweepConfig.read(path), resolved(algorithm, arguments)
    parts = with_measured_envs(parts, partial(_with_envs, algorithm, arguments), stop=stop, trust=trust)
    folder = parts.run.log_dir / "sweeps" / path.stem

    def train_one(values: dict[str, Any], seed: int, give_up: GiveUp) -> bool:
        one = with_values(parts, values, str(path))
        run = replace(one.run, seed=parts.run.seed + seed, log_dir=folder / "runs", progress=False)
        where = RunFolder.new(run.log_dir, one.env.env, algorithm, run.seed)
        with (
            contextlib.ExitStack() as held,
            (folder / "output.log").open("a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
        ):
            session = make_session(one._replace(run=run), where, stop=stop, trust=trust, held=held)
            session.give_up = give_up
            return one.agent.train(session) is None

    if not parts.run.eval_freq:
        raise UserError("A sweep compares trials by their evaluations, but there are none: set --eval-freq.")
    finished, found = Sweep(sweep, folder, parts.env.name, parts.run.seed, train_one).run(), folder / "preset.yaml"
    best = f"Best: --preset {found}" if found.exists() else "No trial has finished."
    print(f"{'Done' if finished else 'Stopped; run this again to continue'}. {best}")
    return finished


def _with_envs(algorithm: str, arguments: list[str], num_envs: int) -> Parts:
    """The configuration of a run with this number of environments in place of the given one."""
    return resolved(algorithm, with_value(arguments, "--num-envs", str(num_envs)))[0]


def _preset(algorithm: str, arguments: list[str], num_envs: int | None) -> dict[str, Any]:
    """The preset's values for a number of environments; empty without an environment."""
    env_id, chosen = peek(arguments, "--env"), peek(arguments, "--preset") or "auto"
    return preset(algorithm, env_id, chosen, num_envs) if env_id else {}


def resolved(algorithm: str, arguments: list[str]) -> tuple[Parts, dict[str, Any]]:
    """The configuration of a run, and the preset's values in it."""
    if algorithm.startswith("-"):
        raise UserError(f"Name an algorithm first: {spelled('train')} {{{','.join(AGENTS)}}} --env ID [options].")
    if any(":" in str(name) for name in (algorithm, peek(arguments, "--env"), *arguments)):
        allow_own_modules()
    agent = find_agent(algorithm)
    count = None
    with contextlib.suppress(ValueError):  # auto, or a wrong value, which tyro reports
        count = whole(peek(arguments, "--num-envs") or "")
    values = _preset(algorithm, arguments, count)
    parts = with_values(
        Parts(algorithm, EnvConfig(env=tyro.MISSING), RunConfig(), agent), values, f"preset of {algorithm}"
    )
    parts = parts._replace(agent=choose(parts.agent, arguments))
    if {"-h", "--help"} & set(arguments):
        show_help(
            f"{program()} {algorithm}", dict(zip(("environment", "run", "algorithm"), parts[1:], strict=True)), OWN
        )
        raise SystemExit(0)
    given = Parts(algorithm, *parse(algorithm, parts[1:], arguments))
    # Add the given keyword arguments to those of the preset.
    env = replace(given.env, env_kwargs={**parts.env.env_kwargs, **given.env.env_kwargs})
    parts = given._replace(env=env)
    parts.run.check()
    plain = parts.plain()
    for name, value in _flat(plain.pop("agent") | plain).items():
        if any(isinstance(x, float) and not math.isfinite(x) for x in (value if isinstance(value, list) else [value])):
            raise UserError(f"--{name.replace('_', '-')} must be a finite number, not {value}.")
    return parts, values


def parse(algorithm: str, defaults: tuple[Any, Any, Any], arguments: list[str]) -> tuple[Any, Any, Any]:
    """The options as (environment, run, agent) configurations."""
    command = command_type(defaults)
    parsed: Any = tyro.cli(
        command,
        args=arguments,
        prog=f"{program()} {algorithm}",
        registry=NUMBERS,
        config=(tyro.conf.FlagConversionOff,),
    )
    return parsed.env_part, parsed.run_part, parsed.agent_part


def command_type(defaults: tuple[Any, Any, Any], name: str = "Command") -> type:
    """A dataclass with the options of (environment, run, agent) configurations and of the command line itself."""
    bare = tyro.conf.arg(name="")
    fields: list[Any] = [
        (part, Annotated[type(default), bare], field(default_factory=partial(copy, default)))
        for part, default in zip(("env_part", "run_part", "agent_part"), defaults, strict=True)
    ]
    fields += [("preset", str, "auto"), ("sweep", Path | None, None), ("trust", bool, False)]
    return make_dataclass(name, fields)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and key != "env_kwargs"
            else {prefix + key: value}
        )
    return flat


def _short(value: Any) -> str:
    return str(value).replace(" ", "")


# -- a resumed run -----------------------------------------------------------------------------------------


def resumed(arguments: list[str], stop: StopRequest, held: contextlib.ExitStack) -> tuple[Session, Any]:
    """The session of an existing run. Raises UserError if it has no steps left, or if other options are given."""
    allowed = {"--resume", "--total-steps", "--progress", "--trust", "--allow-edited", "-h", "--help"}
    others = [a for a in arguments if a.startswith("--") and dashed(a) not in allowed]
    if others or not arguments[0].startswith("--"):
        wrong = dashed(others[0]) if others else arguments[0]
        raise UserError(
            f"{wrong} cannot be given with --resume: a resumed run keeps its options, except for --total-steps."
        )
    options = tyro.cli(Resume, args=arguments, prog=program(), registry=NUMBERS, config=(tyro.conf.FlagCreatePairsOff,))
    folder, trust = RunFolder.existing(options.resume), Trust(options.trust)
    require_resumable(folder)
    parts = Parts.stored(folder, trust)
    if folder.edited and not options.allow_edited:
        raise UserError(
            f"{folder.path / 'config.json'} was changed after the run started, but a resumed run must keep its "
            "options. Undo the change, or resume anyway with --allow-edited."
        )
    processes = join_processes()
    if processes.first:
        held.enter_context(folder.locked())
    total = options.total_steps or parts.run.total_steps
    parts = parts._replace(run=replace(parts.run, total_steps=total, progress=options.progress))
    checkpoint = last_checkpoint(folder, parts.run, processes.size)
    return make_session(parts, folder, checkpoint, processes, stop, trust, held), parts.agent
