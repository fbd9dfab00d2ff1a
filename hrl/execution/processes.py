"""Several processes of one run, started by `torchrun`. Each process steps its own environments and samples from its own
replays. Every gradient is averaged over all processes, so their networks stay bitwise equal."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hrl.types import UserError


@dataclass(frozen=True)
class Processes:
    """The processes of a run and this one's rank. The default is a single process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """The rank among the processes of this machine, and the index of this process's GPU."""

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder, evaluates and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process. All processes must call it."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag))
        dist.all_reduce(flags)
        return bool(flags > 0)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the first process; an empty list in the others. All processes must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(value, values)
        return values or []

    def leave(self) -> None:
        """Wait for the other processes at the end of the run, and leave the process group."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


ALONE = Processes()


def average_over_processes(tensor: Tensor) -> None:
    """Replace a tensor by its mean over the processes of the run, if there are several. All processes must call it."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def least_of_processes(count: int) -> int:
    """The minimum of the processes' numbers; the number itself with a single process. All processes must call it."""
    if not (dist.is_available() and dist.is_initialized()):
        return count
    least = torch.tensor(count)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def join_processes() -> Processes:
    """Join the process group that `torchrun` started. Raises UserError if the other processes cannot be reached."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if dist.is_initialized():
        raise RuntimeError("the processes are already connected")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"The {size} processes of this run cannot connect to each other ({error}): check torchrun's address "
            "and port."
        ) from error
    return Processes(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))


def lost_connection(error: RuntimeError) -> bool:
    """Whether an error means that the connection to another process is lost."""
    return isinstance(error, dist.DistBackendError) or "gloo" in str(error).lower()
