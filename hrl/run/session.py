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
from hrl.run.checkpoint import Checkpoint, Checkpoints
from hrl.run.folder import RunConfig, RunFolder
from hrl.stopping import StopRequest
from hrl.types import BatchedEnv, UserError

Which = Literal["best", "last"]
MakeEnv = Callable[[int | None, Iterator[int] | None], BatchedEnv]


@dataclass
class Session:
    """One run: its settings, its folder, and factories of its environments."""

    run: RunConfig
    folder: RunFolder
    device: torch.device
    num_envs: int
    """Number of training environments in each process."""
    make_env: MakeEnv
    """(number, or None for `num_envs`; episode seeds for evaluation) -> environments."""
    make_single: Callable[..., gym.Env[Any, Any]]
    """(index) -> one plain Gymnasium environment."""
    make_rendering: MakeEnv
    """As `make_env`, for environments that render."""
    earlier: Callable[[Path], Hierarchy]
    """The final agent of an earlier run."""
    load_policy: Callable[[Path], Any]
    """The best policy of an earlier run."""
    resume: Checkpoint | None = None
    processes: Processes = ALONE
    stop: StopRequest = field(default_factory=StopRequest)
    """The request to stop the run."""
    faults: tuple[type[Exception], ...] = (UserError,)
    """Exceptions that are printed as one sentence and do not invalidate the agent."""
    begin: Callable[..., None] = lambda lines=(), config=None: None
    """Called once the agent is built, with lines about the resolved options and the resolved configuration. It creates
    the run folder, writes the configuration into it, and prints the lines."""
    draw: Callable[[Evaluation], Any] | None = None
    judge: Callable[[int, dict[str, float]], bool] | None = None
    """(steps, scalars of an evaluation) -> whether to give up the run."""
    callbacks: Sequence[Callback] = ()
    """Functions of the user's program, called during training."""
    hyperparameters: Callable[[], dict[str, Any]] | None = None
    """Returns the values for TensorBoard's HParams tab."""

    _read: dict[Which, Checkpoint] = field(default_factory=dict)

    def evaluate(self, policy: Policy, episodes: int | None = None, keep_paths: int = 0) -> Evaluation:
        """Evaluate a policy in separate environments. Raises Interrupted on a request to stop."""
        count = self.run.eval_episodes if episodes is None else episodes
        with self.stop.interruptible():
            return evaluate(policy, self.make_env, count, keep_paths=keep_paths, max_steps=self.run.eval_max_steps)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """A context that converts errors of loading a checkpoint that does not fit into a UserError."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise UserError(
                f"The checkpoint in {self.folder.path} does not fit the configuration in config.json; was that "
                "file changed? A resumed run must keep its options."
            ) from error

    def checkpoint(self, which: Which) -> Checkpoint:
        """The best or the last checkpoint of the run, with averaged networks if it has them; read once."""
        if which not in self._read:
            checkpoints = Checkpoints(self.folder.checkpoints)
            found = checkpoints.best() if which == "best" else checkpoints.last()
            self._read[which] = Checkpoint(averaged(found.tensors), found.numbers)
            for sentence in checkpoints.warnings:
                warn(sentence)
        return self._read[which]


def pick_device(name: Literal["auto", "cpu", "cuda"], processes: Processes = ALONE) -> torch.device:
    """The training device; each process of a machine has its own GPU. Raises UserError if it is not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if processes.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"This machine has {torch.cuda.device_count()} GPUs, too few for one per process; start fewer "
            "processes, or use --device cpu."
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)
