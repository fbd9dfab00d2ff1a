"""A run's settings and its folder `runs/<env>/<algorithm>/<seed>-<time>/`."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from hrl.execution.modes import Mode
from hrl.run.checkpoint import Checkpoints
from hrl.types import UserError
from hrl.version import __version__

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@dataclass
class RunConfig:
    """How long to train, and what to write down when. Frequencies count environment steps."""

    seed: int = 0
    """Seed of everything random."""
    total_steps: int = 100_000
    """Environment steps to train, of all environments together."""
    eval_freq: int = 10_000
    """Environment steps between evaluations; 0 for none."""
    eval_episodes: int = 50
    """Episodes an evaluation."""
    eval_max_steps: int | None = None
    """Environment steps after which an evaluation episode is cut, and counts as truncated. Default: the environment's
    own limit, or 1,000 where it has none."""
    eval_env: str | None = None
    """Evaluate during training on another environment id, as the real task behind a batched one."""
    save_freq: int = 50_000
    """Environment steps between checkpoints; 0 for one at the end alone."""
    log_freq: int | None = None
    """Environment steps between rows of scalars. Default: a thousandth of the run, but at least 2,000."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks and replays live; auto takes the GPU where there is one."""
    execution: Mode = "auto"
    """As written, through torch.compile, or captured as CUDA graphs; auto captures on a GPU."""
    threads: int = 0
    """Threads torch uses on a CPU; 0 leaves it to torch."""
    log_dir: Path = Path("runs")
    """Run folders go here, as <env>/<algorithm>/<seed>-<time>."""
    progress: bool = True
    """A live display, where the output is a terminal."""

    @property
    def log_every(self) -> int:
        """Environment steps between rows of scalars, as resolved."""
        return self.log_freq or max(2_000, self.total_steps // 1000)

    def check(self) -> None:
        """Raise UserError where a value is invalid."""
        for name in ("total_steps", "eval_episodes", "eval_max_steps", "log_freq"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
        if self.seed >= 2**31:
            raise UserError(f"--seed must be below 2^31, not {self.seed}.")
        for name in ("eval_freq", "save_freq", "seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, but is {getattr(self, name)}.")


class RunFolder:
    """What a run leaves behind: config.json, progress.csv, TensorBoard's events, checkpoints/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, log_dir: Path, env_id: str, algorithm: str, seed: int) -> "RunFolder":
        """A folder to be, named by what runs; `make` makes it."""
        parent = log_dir / env_id.replace(":", "-").replace("/", "-") / algorithm.replace(":", "-")
        return cls(parent / f"{seed}-{time.strftime('%Y%m%d-%H%M%S')}")

    def make(self) -> None:
        """Make it on the disk, under a name of its own also when two runs begin in one second."""
        first = self.path
        for name in (first.name, *(f"{first.name}-{i}" for i in range(2, 1000))):
            self.path = first.with_name(name)
            try:
                return self.path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"The run folder {self.path} cannot be made: {error}.") from error
        raise UserError(f"No free run folder beside {first}.")

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """A run that was begun before. Raises UserError where the folder is none."""
        if not (path / "config.json").exists():
            raise UserError(f"{path} is no run folder: it has no config.json.")
        if links := sorted(file.name for file in path.iterdir() if file.is_symlink()):
            raise UserError(f"{path} holds links to elsewhere ({', '.join(links)}), as no run folder does.")
        return cls(path)

    @classmethod
    def begun(cls, log_dir: Path) -> "RunFolder | None":
        """The run anywhere in a folder that has a checkpoint to go on from, if one has."""
        runs = (cls(file.parent) for file in sorted(log_dir.rglob("config.json")))
        return next((run for run in runs if Checkpoints(run.checkpoints).steps), None)

    @property
    def finished(self) -> bool:
        """Whether its newest checkpoint has all the steps that it was to make."""
        return Checkpoints(self.checkpoints).steps >= self.read_config()["config"]["run"]["total_steps"]

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.path / "checkpoints"

    def write_config(self, algorithm: str, config: dict[str, Any]) -> None:
        """The resolved configuration, the command, versions and the git revision."""
        content = {
            "algorithm": algorithm,
            "config": config,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": _versions(),
            "git": _revision(),
            "host": {"machine": platform.machine(), "system": platform.platform(), "cpus": os.cpu_count()},
        }
        self._write(content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from this run while it goes on. The system drops the lock with the process.

        Raises UserError where another process has it.
        """
        if fcntl is None:  # on Windows there is no such lock
            yield
            return
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip()
                raise UserError(
                    f"The run in {self.path} is going on already, in process {owner or 'unknown'}; stop that first."
                ) from error
            except OSError:  # a disk that knows no locks
                yield
                return
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def prolong(self, total_steps: int) -> None:
        """Note that the run goes on to `total_steps`, and by which command."""
        content = self.read_config()
        content["config"]["run"]["total_steps"] = total_steps
        content.setdefault("resumed", []).append(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        content = {"sha256": _sum(content), **{key: x for key, x in content.items() if key != "sha256"}}
        beside = self.path / ".config.json.writing"
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n")
        beside.replace(self.path / "config.json")

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote. Raises UserError where it is damaged."""
        try:
            content = json.loads((self.path / "config.json").read_text())
            parts = [content["config"][part] for part in ("env", "run", "agent")]
            if not isinstance(content["algorithm"], str) or not all(isinstance(part, dict) for part in parts):
                raise ValueError("a part of it is missing or of the wrong kind")
            return content
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error) if not isinstance(error, KeyError) else f"it has no {error}"
            raise UserError(f"{self.path / 'config.json'} is damaged: {reason}.") from error

    @property
    def edited(self) -> bool:
        """Whether config.json was changed by hand since it was written."""
        content = self.read_config()
        return content.get("sha256") != _sum(content)


def _sum(content: dict[str, Any]) -> str:
    """A checksum of a configuration, its own left out."""
    plain = {key: x for key, x in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _versions() -> dict[str, str]:
    packages = ("torch", "gymnasium", "gymnasium-robotics", "mujoco", "stable-baselines3", "numpy")
    versions = {"hrl": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _revision() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None
