"""Checkpoints: folders with tensors as safetensors, other values as JSON, and a manifest with checksums.

A checkpoint is written to a temporary folder and then renamed, so a crash leaves the previous checkpoint intact.
Loading executes no code from the files.
"""

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hrl.types import UserError
from hrl.version import __version__

Which = Literal["best", "last"]
"""The checkpoint of the best evaluation, or the last one."""
FORMAT = 4
KEPT = 2
PARTS = {"tensors.safetensors", "numbers.json"}
"""The files of a checkpoint besides its manifest."""


@dataclass
class Checkpoint:
    """The content of a checkpoint."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    """JSON values: counters, random states, statistics."""

    @property
    def steps(self) -> int:
        """Environment steps at the checkpoint."""
        return int(self.numbers["steps"])

    @property
    def networks_only(self) -> bool:
        """Whether it is a pretrained policy: without memories and optimisers, so that no run can resume from it."""
        return bool(self.numbers.get("networks_only"))


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint folder atomically. A tensor that has several names is stored once. Raises UserError if the
    folder cannot be written."""
    beside = folder.with_name(f".{folder.name}.writing")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        stored, aliases = _distinct(checkpoint.tensors)
        tensors = {name: x.detach().cpu().contiguous() for name, x in stored.items()}
        save_file(_unshared(tensors), beside / "tensors.safetensors")
        (beside / "numbers.json").write_text(
            json.dumps(checkpoint.numbers | ({"aliases": aliases} if aliases else {})), encoding="utf-8"
        )
        sums = {file.name: _checksum(file) for file in sorted(beside.iterdir())}
        manifest = {
            "format": FORMAT,
            "steps": checkpoint.steps,
            "hrl": __version__,
            "torch": torch.__version__,
        }
        manifest |= {"saved": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "sha256": sums}
        (beside / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        for file in beside.iterdir():
            _flush(file)
        shutil.rmtree(folder, ignore_errors=True)  # exists if the run resumed from an earlier checkpoint
        beside.rename(folder)
        _flush(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise UserError(
            f"The checkpoint {folder} cannot be written ({error}): check the disk. Earlier checkpoints are intact."
        ) from error


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises UserError if it is missing, damaged or of another format."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UserError(
                f"{folder} has checkpoint format {manifest['format']}, but this version ({__version__}) reads format "
                f"{FORMAT}: install hrl {manifest['hrl']}, which wrote it."
            )
        _check_parts(folder, manifest["sha256"])
        numbers = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
        if type(numbers["steps"]) is not int or numbers["steps"] != manifest["steps"]:
            raise ValueError("its parts come from different steps")
        tensors = {name: _full_precision(x) for name, x in load_file(folder / "tensors.safetensors").items()}
        tensors |= {alias: tensors[name] for alias, name in numbers.pop("aliases", {}).items()}
        return Checkpoint(tensors, numbers)
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else "a file"
        raise UserError(f"{folder} is incomplete: {missing} is missing.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, RecursionError) as error:
        raise UserError(f"{folder} cannot be read as a checkpoint: {str(error) or type(error).__name__}.") from error


def _check_parts(folder: Path, sums: dict[str, str]) -> None:
    """Raise UserError unless manifest and folder have exactly the files of a checkpoint, with these checksums."""
    if set(sums) != PARTS:
        raise UserError(f"The manifest of {folder} must name {' and '.join(sorted(PARTS))}, not {sorted(sums)}.")
    there = {file.name for file in folder.iterdir()}
    if others := there - PARTS - {"manifest.json"}:
        raise UserError(f"{folder} contains {', '.join(sorted(others))}, which does not belong to a checkpoint.")
    for name in sorted(PARTS):
        if (folder / name).is_symlink() or _checksum(folder / name) != sums[name]:
            raise UserError(f"{folder / name} is damaged: its checksum is not the one in the manifest.")


class Checkpoints:
    """The checkpoints of a run: the last two and the best."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        """Reasons why checkpoints newer than the one that was read are unusable."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, and delete all but the last two."""
        self._add("step", checkpoint, KEPT)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Add the new best checkpoint, and delete the previous one."""
        self._add("best", checkpoint, 1)

    def _add(self, kind: str, checkpoint: Checkpoint, kept: int) -> None:
        newest = self.folder / f"{kind}-{checkpoint.steps:012d}"
        save(newest, checkpoint)
        # After resuming from an older checkpoint, there may be checkpoints with more steps: they are obsolete.
        past = [folder for folder in self.all(kind) if folder <= newest]
        for folder in {*self.all(kind)} - {*past[-kept:]}:
            shutil.rmtree(folder, ignore_errors=True)

    def all(self, kind: str = "step") -> list[Path]:
        """Checkpoint folders, oldest first."""
        named = re.compile(rf"{kind}-\d{{12,}}")
        return sorted(folder for folder in self.folder.glob(f"{kind}-*") if named.fullmatch(folder.name))

    @property
    def steps(self) -> int:
        """Environment steps of the newest checkpoint; 0 without one."""
        return max((int(folder.name.rpartition("-")[2]) for folder in self.all()), default=0)

    def last(self) -> Checkpoint:
        """The newest intact checkpoint. Raises UserError, with the newest one's reason, if there is none."""
        folders = self.all()
        if not folders:
            raise UserError(f"{self.folder} contains no checkpoint: the run stopped before its first one. Train again.")
        reasons: list[UserError] = []
        for folder in reversed(folders):
            try:
                checkpoint = load(folder)
            except UserError as reason:
                reasons.append(reason)
                continue
            self.warnings = [f"{reason} Using the checkpoint at {checkpoint.steps:,} steps." for reason in reasons]
            return checkpoint
        raise reasons[0]

    def best(self) -> Checkpoint:
        """The best checkpoint, or the last one before the first evaluation. Raises UserError if it is damaged."""
        best = self.all("best")
        return load(best[-1]) if best else self.last()

    def named(self, which: Which) -> Checkpoint:
        """The best or the last checkpoint. Raises UserError if there is none, or if the name is neither."""
        if which not in ("best", "last"):
            raise UserError(f"The checkpoint must be 'best' or 'last', not {which!r}.")
        return self.best() if which == "best" else self.last()


def _distinct(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The distinct tensors by their first name, and the first name by each further name."""
    first: dict[int, str] = {}
    for name, x in tensors.items():
        first.setdefault(id(x), name)
    names = {name: first[id(x)] for name, x in tensors.items()}
    aliases = {name: other for name, other in names.items() if name != other}
    return {name: x for name, x in tensors.items() if name not in aliases}, aliases


def _full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.float16 else x


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy views, such as slices of rings, because safetensors rejects tensors that share memory."""
    return {name: x.clone() if x.untyped_storage().nbytes() != x.nbytes else x for name, x in tensors.items()}


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
