"""Train an agent with `python train.py ALGORITHM --env ID`, or resume a run with `python train.py --resume RUN`."""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from hrl.agents import AGENTS, HierarchyConfig, find_agent
from hrl.agents.presets import preset
from hrl.envs import EnvConfig, EnvError, EnvironmentFault, make_env
from hrl.envs.make import make_single
from hrl.execution.modes import keep_freed_memory
from hrl.execution.processes import ALONE, Processes, join_processes
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.report.display import print_line, warn
from hrl.report.hparams import comparable
from hrl.report.pictures import trajectories
from hrl.run.checkpoint import Checkpoint, Checkpoints
from hrl.run.config import plain, updated
from hrl.run.folder import DeviceName, RunConfig, RunFolder
from hrl.run.help import show_help
from hrl.run.options import choose, peek, values_of
from hrl.run.session import Session, Which, pick_device
from hrl.run.sweep import GiveUp, Sweep, SweepConfig
from hrl.run.trust import Trust, allow_own_modules, named_modules
from hrl.stopping import GRACE, Interrupted, StopRequest
from hrl.types import UserError

OWN: dict[str, tuple[str, Any, str]] = {
    "preset": (
        "TEXT",
        "auto",
        "Hyperparameters: auto (by environment), none, debug (seconds), an entry of agents/presets, or a YAML file.",
    ),
    "sweep": ("PATH", None, "Search hyperparameters: a YAML file that lists them (see hrl/run/sweep.py)."),
    "trust": (
        "",
        False,
        "Import the modules that the run folders given here (--low.init-from) name. They run code.",
    ),
}
"""Options of the command line itself, with their values, default and text."""
NO_TRUST = Trust()
NAMING = ("--env", "--eval-env", "--goal.projection", "--skill")
"""Options that name modules or model files."""
FAULTS = (UserError, EnvError, EnvironmentFault)
"""Exceptions that are printed as one sentence."""


@dataclass
class Resume:
    """Resume a run from its last checkpoint. All other options stay as in the original run."""

    resume: Path
    """The run folder."""
    total_steps: int | None = None
    """Train up to so many environment steps. Default: the run's original number."""
    progress: tyro.conf.FlagConversionOff[bool] = True
    """Show a live display if the output is a terminal."""
    trust: bool = False
    """Import the modules that the run folder names. They run code: only for folders whose origin you trust."""
    allow_edited: bool = False
    """Resume although config.json was edited. The run is then not an exact continuation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 2 for errors that the user can fix, which are printed as one sentence."""
    return run_cli(lambda stop: run(list(sys.argv[1:] if arguments is None else arguments), stop))


def run_cli(command: Callable[[StopRequest], int], left: str = "there was nothing to save") -> int:
    """Run a command line, and print a UserError's sentence instead of its traceback. `left` is the message about the
    state after a request to stop, for commands that print none."""
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
    except OSError as error:  # a disk that is full, removed or not writable
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was saved since the last checkpoint.", file=sys.stderr)
        return 130


def run(arguments: list[str], stop: StopRequest) -> int:
    """Parse the arguments, build the session, and train. Returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if peek(arguments, "--sweep"):
        return 0 if swept(arguments[0], arguments[1:], stop) else 130
    with contextlib.ExitStack() as held:
        if any(a.split("=")[0] == "--resume" for a in arguments):
            session, config = resumed(arguments, stop, held)
        else:
            session, config = begun(arguments[0], arguments[1:], stop, held)
        stopped = config.train(session)
    session.processes.leave()
    folder = session.folder.path
    if not session.processes.first:
        return 0 if stopped is None else 128 + stopped
    content = session.folder.read_config()
    trusted = " --trust" if any(named_modules(content["algorithm"], content["config"])) else ""
    if stopped is not None:
        onward = (
            f" Continue with: python train.py --resume {folder}{trusted}" if getattr(config, "resumable", True) else ""
        )
        print_line(f"Stopped by {stopped.name}; saved.{onward}")
        return 128 + stopped
    print_line(f"Done. Evaluate with: python evaluate.py {folder}{trusted}")
    return 0


def usage() -> str:
    """The text of `--help` without an algorithm."""
    lines = ["usage: train.py ALGORITHM --env ID [options]      (train.py ALGORITHM --help lists them)"]
    lines += ["       train.py --resume RUN [--total-steps N]", "", "algorithms:"]
    lines += [f"  {name:10} {(config.__doc__ or '').splitlines()[0]}" for name, config in AGENTS.items()]
    return "\n".join([*lines, "  module:factory  one of your own (a dataclass such as hrl.agents.HierarchyConfig)"])


# -- a new run -----------------------------------------------------------------------------------------------


def begun(algorithm: str, arguments: list[str], stop: StopRequest, held: contextlib.ExitStack) -> tuple[Session, Any]:
    """A new run from an algorithm's name and options."""
    arguments, trust = _with_trust(algorithm, arguments)
    env, run_config, agent, values = resolved(algorithm, arguments)
    processes = join_processes()
    if values and processes.first:
        print_line("Preset: " + ", ".join(f"{k} {_short(v)}" for k, v in _flat(values).items()))
    folder = RunFolder.new(run_config.log_dir, env.env, algorithm, run_config.seed)
    session = make_session(
        algorithm, env, run_config, agent, folder, processes=processes, stop=stop, trust=trust, held=held
    )
    return session, agent


def _with_trust(algorithm: str, arguments: list[str]) -> tuple[list[str], Trust]:
    """The options with a value after a bare `--trust`, and the trust: `--trust` itself and the modules named here."""
    said = []
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        said += ["--trust", "True"] if argument == "--trust" and following.startswith("--") else [argument]
    named = [name for option in NAMING for name in values_of(said, option)]
    modules = {name.rpartition(":")[0] for name in (algorithm, *named)} - {""}
    return said, Trust(peek(said, "--trust") == "True", frozenset(modules))


def swept(algorithm: str, arguments: list[str], stop: StopRequest) -> bool:
    """Search hyperparameters with runs of the same command. Returns whether the sweep is finished."""
    arguments, trust = _with_trust(algorithm, arguments)
    path = Path(peek(arguments, "--sweep") or "")
    sweep, parts = SweepConfig.read(path), resolved(algorithm, arguments)[:3]
    env, run_config, _ = parts
    folder = run_config.log_dir / "sweeps" / path.stem

    def train_one(values: dict[str, Any], seed: int, judge: GiveUp) -> bool:
        one_env, one_run, agent = _apply(parts, values, str(path))
        one_run = replace(one_run, seed=run_config.seed + seed, log_dir=folder / "runs", progress=False)
        where = RunFolder.new(one_run.log_dir, one_env.env, algorithm, one_run.seed)
        with (
            contextlib.ExitStack() as held,
            (folder / "output.log").open("a") as log,
            contextlib.redirect_stdout(log),
        ):
            session = make_session(algorithm, one_env, one_run, agent, where, stop=stop, trust=trust, held=held)
            session.judge = judge
            return agent.train(session) is None

    if not run_config.eval_freq:
        raise UserError("A sweep compares trials by their evaluations: set --eval-freq.")
    finished = Sweep(sweep, folder, env.env.rpartition(":")[2], run_config.seed, train_one).run()
    print(f"{'Done' if finished else 'Stopped; run this again to continue'}. Best: --preset {folder / 'preset.yaml'}")
    return finished


def resolved(algorithm: str, arguments: list[str]) -> tuple[EnvConfig, RunConfig, Any, dict[str, Any]]:
    """(environment, run, agent) configurations, and the preset's values that they include."""
    if algorithm.startswith("-"):
        raise UserError(f"Name an algorithm first: train.py {{{','.join(AGENTS)}}} --env ID [options].")
    if any(":" in str(name) for name in (algorithm, peek(arguments, "--env"), *arguments)):
        allow_own_modules()
    agent = find_agent(algorithm)
    env_id, chosen = peek(arguments, "--env"), peek(arguments, "--preset") or "auto"
    values = preset(algorithm, env_id or "", chosen) if env_id else {}
    parts = _apply((EnvConfig(env=tyro.MISSING), RunConfig(), agent), values, f"preset of {algorithm}")
    parts = (*parts[:2], choose(parts[2], arguments))
    if {"-h", "--help"} & set(arguments):
        show_help(f"train.py {algorithm}", dict(zip(("environment", "run", "algorithm"), parts, strict=True)), OWN)
        raise SystemExit(0)
    env, run_config, agent = parse(algorithm, parts, arguments)
    # Given keyword arguments are added to the preset's.
    env = replace(env, env_kwargs={**parts[0].env_kwargs, **env.env_kwargs})
    run_config.check()
    for name, value in _flat({"env": asdict(env), "run": plain(run_config), **plain(agent)}).items():
        if any(isinstance(x, float) and not math.isfinite(x) for x in (value if isinstance(value, list) else [value])):
            raise UserError(f"--{name.replace('_', '-')} must be a finite number, not {value}.")
    return env, run_config, agent, values


def parse(algorithm: str, defaults: tuple[Any, Any, Any], arguments: list[str]) -> tuple[Any, Any, Any]:
    """The options as (environment, run, agent) configurations."""
    bare = tyro.conf.arg(name="")
    fields: list[Any] = [
        (name, Annotated[type(default), bare], field(default_factory=partial(copy, default)))
        for name, default in zip(("env_part", "run_part", "agent_part"), defaults, strict=True)
    ]
    fields += [("preset", str, "auto"), ("sweep", Path | None, None), ("trust", bool, False)]
    command = make_dataclass("Command", fields)
    parsed: Any = tyro.cli(command, args=arguments, prog=f"train.py {algorithm}", config=(tyro.conf.FlagConversionOff,))
    return parsed.env_part, parsed.run_part, parsed.agent_part


def _apply(parts: tuple[Any, ...], values: dict[str, Any], source: str) -> tuple[Any, ...]:
    """Assign each preset value to the configuration that has the option."""
    known = [set(part.__dataclass_fields__) for part in parts]
    split: list[dict[str, Any]] = [{} for _ in parts]
    for name, value in values.items():
        owner = next((i for i, names in enumerate(known) if name in names), len(parts) - 1)  # or an option of a variant
        split[owner][name] = value
    return tuple(updated(part, mine, source) for part, mine in zip(parts, split, strict=True))


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
    others = [a for a in arguments if a.startswith("--") and a.split("=")[0] not in allowed]
    if others or not arguments[0].startswith("--"):
        wrong = others[0].split("=")[0] if others else arguments[0]
        raise UserError(
            f"{wrong} cannot be given with --resume: a resumed run keeps its options, except for --total-steps."
        )
    options = tyro.cli(Resume, args=arguments, prog="train.py", config=(tyro.conf.FlagCreatePairsOff,))
    folder, trust = RunFolder.existing(options.resume), Trust(options.trust)
    algorithm, env, run_config, agent = stored(folder, trust)
    if folder.edited and not options.allow_edited:
        raise UserError(
            f"{folder.path / 'config.json'} was changed since the run began, but a resumed run must keep its "
            "options. Undo the change, or resume anyway with --allow-edited."
        )
    processes = join_processes()
    if processes.first:
        held.enter_context(folder.locked())
    checkpoints = Checkpoints(folder.checkpoints)
    checkpoint = checkpoints.last()
    for sentence in checkpoints.warnings:
        warn(sentence)
    run_config.total_steps = options.total_steps or run_config.total_steps
    run_config.progress = options.progress
    if checkpoint.steps >= run_config.total_steps:
        raise UserError(f"{folder.path} has {checkpoint.steps:,} steps already; give --total-steps above that.")
    begun_with = checkpoint.numbers.get("processes", 1)
    if processes.size != begun_with:
        raise UserError(
            f"The run in {folder.path} was started with {begun_with} processes, not {processes.size}: resume it "
            f"with torchrun --nproc-per-node {begun_with}."
        )
    session = make_session(algorithm, env, run_config, agent, folder, checkpoint, processes, stop, trust, held)
    return session, agent


def stored(folder: RunFolder, trust: Trust = NO_TRUST) -> tuple[str, EnvConfig, RunConfig, Any]:
    """(algorithm, environment, run, agent) configurations of a run folder. Raises UserError if it names modules that
    are not trusted."""
    content = folder.read_config()
    trust.require(folder.path, content["algorithm"], content["config"])
    source = str(folder.path / "config.json")
    agent, config = find_agent(content["algorithm"]), content["config"]
    env = updated(EnvConfig(""), config["env"], source)
    return (
        content["algorithm"],
        env,
        updated(RunConfig(), config["run"], source),
        updated(agent, config["agent"], source),
    )


def make_session(
    algorithm: str,
    env: EnvConfig,
    run_config: RunConfig,
    agent: Any,
    folder: RunFolder,
    resume: Checkpoint | None = None,
    processes: Processes = ALONE,
    stop: StopRequest | None = None,
    trust: Trust = NO_TRUST,
    held: contextlib.ExitStack | None = None,
) -> Session:
    """Build the session of a run."""
    keep_freed_memory()
    if run_config.threads:
        torch.set_num_threads(run_config.threads)
    device = pick_device(run_config.device, processes)
    current = {"agent": agent}
    config = lambda: {"env": asdict(env), "run": plain(run_config), "agent": plain(current["agent"])}  # noqa: E731

    stop = stop if stop is not None else StopRequest()
    trained_on: list[tuple[int, ...]] = []
    remembered = getattr(getattr(agent, "goal", None), "info", ())

    def make(count: int | None, seeds: Any, **overrides: Any) -> Any:
        chosen = env if count is None else replace(env, num_envs=count, vectorization="auto")
        if seeds is not None and run_config.eval_env:
            chosen = replace(chosen, env=run_config.eval_env)
        made = make_env(chosen, device, seeds, info=remembered, region=partial(stop.interruptible, GRACE), **overrides)
        sizes = made.spec.state_dim, made.spec.goal_dim, made.spec.action_dim
        if chosen.env == env.env:
            trained_on.append(sizes)
        elif trained_on and sizes != trained_on[0]:
            raise UserError(
                f"--eval-env {chosen.env} has other observations, goals or actions than {env.env}; choose an "
                "environment with the same ones."
            )
        return made

    def begin(lines: Sequence[str] = (), resolved: Any = None) -> None:
        if resolved is not None:
            current["agent"] = resolved
        if not processes.first:
            return
        for line in lines:
            print_line(line)
        if run_config.eval_env:
            make(1, iter([0])).close()  # find its faults before training
        if resume is None:
            folder.make()
            if held is not None:
                held.enter_context(folder.locked())
            folder.write_config(algorithm, config())
        else:
            folder.prolong(run_config.total_steps)
        print_line(f"Run folder: {folder.path}")

    return Session(
        run=run_config,
        folder=folder,
        device=device,
        num_envs=env.num_envs,
        make_env=make,
        make_single=partial(make_single, env),
        make_rendering=partial(make, render_mode="rgb_array"),
        earlier=partial(earlier_agent, run_config, processes, trust),
        load_policy=partial(trained_policy, which="best", trust=trust, device=run_config.device),
        resume=resume,
        processes=processes,
        stop=stop,
        faults=FAULTS,
        begin=begin,
        draw=trajectories,
        hyperparameters=lambda: comparable(algorithm, config()),
    )


def earlier_agent(run_config: RunConfig, processes: Processes, trust: Trust, path: Path) -> Hierarchy:
    """The final agent of another run, on this run's device. Raises UserError if the run has no hierarchy."""
    folder = RunFolder.existing(path)
    algorithm, env, its_run, agent = stored(folder, trust)
    if not isinstance(agent, HierarchyConfig):
        raise UserError(f"{path} is a run of {algorithm}, which has no levels to load.")
    its_run = replace(its_run, device=run_config.device, threads=run_config.threads)
    return agent.restored(make_session(algorithm, env, its_run, agent, folder, processes=processes))


def load_policy(path: Path, which: Which = "best", trust: bool = False) -> Any:
    """The trained policy of a run folder; a hierarchy's policy has stable-baselines3's `predict`. Raises UserError if
    there is none, or if the folder names modules and is not trusted.
    """
    return trained_policy(path, which, Trust(trust))


def trained_policy(path: Path, which: Which, trust: Trust, device: DeviceName | None = None) -> Any:
    """As `load_policy`, on another device than the run's own if one is given."""
    folder = RunFolder.existing(path)
    algorithm, env, run_config, agent = stored(folder, trust)
    if device is not None:
        run_config = replace(run_config, device=device)
    return agent.load(make_session(algorithm, env, run_config, agent, folder, trust=trust), which)


if __name__ == "__main__":
    sys.exit(main())
