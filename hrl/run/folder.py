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
from hrl.pretrained import located
from hrl.run.averaging import check_decay
from hrl.run.checkpoint import Checkpoints
from hrl.types import UserError
from hrl.version import __version__

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass
class RunConfig:
    """Options of a run: duration, evaluation, logging and checkpoints. For an algorithm that learns offline, from a
    dataset, all numbers of environment steps are numbers of gradient steps, except `eval_max_steps`."""

    seed: int = 0
    """Random seed."""
    total_steps: int = 100_000
    """Total environment steps of training, over all environments; gradient steps for an offline algorithm."""
    eval_freq: int = 10_000
    """Environment steps between evaluations; 0 disables them."""
    eval_episodes: int = 50
    """Episodes per evaluation."""
    eval_max_steps: int | None = None
    """Environment steps after which an evaluation episode is truncated. Default: the environment's limit, or 1,000 if
    it has none."""
    eval_env: str | None = None
    """Id of another environment for evaluations during training, such as the original task of a batched one."""
    ema: float = 0.0
    """Decay, per round of training, of an exponential average of the networks. Evaluations and the trained policy use
    the average. A round is a gradient step offline, and a step of every environment online, unless the algorithm learns
    in rollouts or episodes. 0 for the current networks."""
    save_freq: int = 50_000
    """Environment steps between checkpoints; 0 saves only one at the end."""
    log_freq: int | None = None
    """Environment steps between rows of scalars. Default: a thousandth of the run, but at least 2,000."""
    device: DeviceName = "auto"
    """Device of networks and replays; auto uses the GPU if there is one."""
    execution: Mode = "auto"
    """Execution mode: eager, torch.compile, or CUDA graphs. auto uses CUDA graphs on a GPU, and eager on a CPU."""
    threads: int = 0
    """Number of torch's CPU threads; 0 for torch's default."""
    log_dir: Path = Path("runs")
    """Folder that contains the run folders <env>/<algorithm>/<seed>-<time>."""
    progress: bool = True
    """Show a live display if the output is a terminal."""
    wandb: bool = False
    """Log every scalar also to Weights & Biases (pip install 'nested-hrl[wandb]'); WANDB_MODE=offline needs no
    network."""

    @property
    def log_every(self) -> int:
        """Environment steps between rows of scalars, with the default resolved."""
        return self.log_freq or max(2_000, self.total_steps // 1000)

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        for name in ("total_steps", "eval_episodes", "eval_max_steps", "log_freq"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
        check_decay(self.ema)
        if self.seed >= 2**31:
            raise UserError(f"--seed must be below 2^31, not {self.seed}.")
        for name in ("eval_freq", "save_freq", "seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, but is {getattr(self, name)}.")


class RunFolder:
    """The folder of a run: config.json, progress.csv, TensorBoard's events, checkpoints/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, log_dir: Path, env_id: str, algorithm: str, seed: int) -> "RunFolder":
        """The folder of a new run, named after environment, algorithm, seed and time; `make` creates it."""
        parent = log_dir / env_id.replace(":", "-").replace("/", "-") / algorithm.replace(":", "-")
        return cls(parent / f"{seed}-{time.strftime('%Y%m%d-%H%M%S')}")

    def make(self) -> None:
        """Create the folder, with a unique name even if two runs start in the same second."""
        first = self.path
        for name in (first.name, *(f"{first.name}-{i}" for i in range(2, 1000))):
            self.path = first.with_name(name)
            try:
                return self.path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"The run folder {self.path} cannot be created: {error}.") from error
        raise UserError(f"Too many run folders are named {first}: choose another --log-dir.")

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """The folder of an existing run, or of a pretrained policy (`pretrained/…`). Raises UserError if it is none."""
        path = located(path)
        if not (path / "config.json").exists():
            raise UserError(f"{path} is not a run folder: it has no config.json.")
        if links := sorted(file.name for file in path.iterdir() if file.is_symlink()):
            raise UserError(
                f"{path} contains links to other folders ({', '.join(links)}), which a run folder must not have: "
                "replace them by copies."
            )
        return cls(path)

    @classmethod
    def resumable(cls, log_dir: Path) -> "RunFolder | None":
        """The first run below `log_dir` with a checkpoint to resume from; None if there is none."""
        runs = (cls(file.parent) for file in sorted(log_dir.rglob("config.json")))
        return next((run for run in runs if Checkpoints(run.checkpoints).steps), None)

    @property
    def finished(self) -> bool:
        """Whether the newest checkpoint has reached the run's total steps."""
        return Checkpoints(self.checkpoints).steps >= self.read_config()["config"]["run"]["total_steps"]

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def write_config(self, algorithm: str, config: dict[str, Any]) -> None:
        """Write the resolved configuration, the command, versions and the git revision."""
        content = {
            "algorithm": algorithm,
            "config": config,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": _versions(),
            "git": _revision(),
            "host": {"machine": platform.machine(), "system": platform.platform(), "cpus": os.cpu_count()},
        }
        self.write(content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against other processes. The system releases the lock when the process ends.

        Raises UserError if another process holds the lock.
        """
        if fcntl is None:  # not available on Windows
            yield
            return
        with (self.path / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip()
                raise UserError(
                    f"The run in {self.path} is already running, in process {owner or 'unknown'}; stop that "
                    "process first."
                ) from error
            except OSError:  # a file system without locks
                yield
                return
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def prolong(self, total_steps: int) -> None:
        """Record in config.json that the run continues to `total_steps`, and the command."""
        content = self.read_config()
        content["config"]["run"]["total_steps"] = total_steps
        content.setdefault("resumed", []).append(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        self.write(content)

    def write(self, content: dict[str, Any]) -> None:
        """Write config.json with this content, and its checksum."""
        content = {"sha256": _sum(content), **{key: x for key, x in content.items() if key != "sha256"}}
        beside = self.path / ".config.json.writing"
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
        beside.replace(self.path / "config.json")

    def read_config(self) -> dict[str, Any]:
        """The content of config.json. Raises UserError if it is damaged."""
        try:
            content = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            parts = [content["config"][part] for part in ("env", "run", "agent")]
            if not isinstance(content["algorithm"], str) or not all(isinstance(part, dict) for part in parts):
                raise ValueError("a part of it is missing or has the wrong type")
            return content
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error) if not isinstance(error, KeyError) else f"it has no {error}"
            raise UserError(f"{self.path / 'config.json'} is damaged: {reason}.") from error

    @property
    def edited(self) -> bool:
        """Whether config.json was edited since it was written."""
        content = self.read_config()
        return content.get("sha256") != _sum(content)


def _sum(content: dict[str, Any]) -> str:
    """The checksum of a configuration, without its stored checksum."""
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
            ["git", "describe", "--always", "--dirty"],
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None
