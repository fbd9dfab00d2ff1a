"""The session of a run: everything that the command line passes to an algorithm."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch

from hrl.execution.processes import ALONE, Processes
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.report.display import warn
from hrl.report.evaluation import Evaluation, Policy, evaluate
from hrl.run.averaging import averaged
from hrl.run.callbacks import Callback
from hrl.run.checkpoint import Checkpoint, Checkpoints, Which
from hrl.run.folder import RunConfig, RunFolder
from hrl.run.kept import KeptEnvironments
from hrl.stopping import StopRequest
from hrl.types import BatchedEnv, UserError

MakeEnv = Callable[[int | None], BatchedEnv]


@dataclass
class Session:
    """One run: its settings, its folder, and factories of its environments."""

    run: RunConfig
    folder: RunFolder
    device: torch.device
    num_envs: int
    """Number of training environments in each process."""
    make_env: MakeEnv
    """(number, or None for `num_envs`) -> training environments."""
    make_evaluation: Callable[[int], BatchedEnv]
    """(number) -> environments to evaluate in, whose episodes have fixed seeds."""
    most_evaluation_envs: int
    """Greatest number of environments that an evaluation steps together."""
    make_single: Callable[..., gym.Env[Any, Any]]
    """(index) -> one plain Gymnasium environment."""
    make_rendering: Callable[[int], BatchedEnv]
    """As `make_evaluation`, for environments that render."""
    load_agent: Callable[[Path], Hierarchy]
    """The final agent of an earlier run."""
    load_policy: Callable[[Path], Any]
    """The best policy of an earlier run."""
    resume: Checkpoint | None = None
    processes: Processes = ALONE
    stop: StopRequest = field(default_factory=StopRequest)
    """The request to stop the run."""
    faults: tuple[type[Exception], ...] = (UserError,)
    """Exceptions that are printed as one sentence. The agent stays valid after them."""
    begin: Callable[..., None] = lambda lines=(), config=None: None
    """Called after the agent is built, with lines about the resolved options, and with the resolved configuration. It
    creates the run folder, writes the configuration to it, and prints the lines."""
    draw: Callable[[Evaluation], Any] | None = None
    give_up: Callable[[int, dict[str, float]], bool] | None = None
    """(steps, scalars of an evaluation) -> whether to give up the run."""
    callbacks: Sequence[Callback] = ()
    """The user's callbacks."""
    hyperparameters: Callable[[], dict[str, Any]] | None = None
    """Returns the values for TensorBoard's HParams tab."""

    _read: dict[Which, Checkpoint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._environments = KeptEnvironments(self.make_evaluation)

    def evaluate(
        self, policy: Policy, episodes: int | None = None, keep_paths: int = 0, deterministic: bool = True
    ) -> Evaluation:
        """Evaluate a policy in separate environments. Raises Interrupted on a request to stop."""
        count = self.run.eval_episodes if episodes is None else episodes
        with self.stop.interruptible():
            return evaluate(
                policy, self._environments, count, keep_paths=keep_paths, num_envs=self.most_evaluation_envs,
                max_steps=self.run.eval_max_steps, deterministic=deterministic,
            )  # fmt: skip

    def close(self) -> None:
        """Close the environments of evaluations."""
        self._environments.close()

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """A context that converts errors from a checkpoint that does not fit into a UserError."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise UserError(
                f"The checkpoint in {self.folder.path} does not fit the configuration in config.json. A run must keep "
                "its options: undo changes of that file."
            ) from error

    def checkpoint(self, which: Which) -> Checkpoint:
        """The best or the last checkpoint of the run, with averaged networks if it has them; read once."""
        if which not in self._read:
            checkpoints = Checkpoints(self.folder.checkpoints)
            found = checkpoints.named(which)
            self._read[which] = Checkpoint(averaged(found.tensors), found.numbers)
            for sentence in checkpoints.warnings:
                warn(sentence)
        return self._read[which]


def pick_device(name: Literal["auto", "cpu", "cuda"], processes: Processes = ALONE) -> torch.device:
    """The training device. Each process of a machine uses a separate GPU. Raises UserError if it is not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if processes.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"This machine has {torch.cuda.device_count()} GPUs, fewer than processes: start fewer processes, or use "
            "--device cpu."
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)
