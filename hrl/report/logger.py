"""Logs scalars by environment steps to TensorBoard and progress.csv, with stable-baselines3's tags."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from hrl.types import UserError

STEPS = "time/total_timesteps"


class Logger:
    """Writes one row of scalars at a time. With `resumed_at`, continues the existing curves from that step."""

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        # A resumed run writes the rows after its checkpoint again.
        self._tensorboard = SummaryWriter(str(folder), purge_step=None if resumed_at is None else resumed_at + 1)
        self._path = folder / "progress.csv"
        self._names: list[str] = [STEPS]
        self.listeners: list[Callable[[dict[str, float]], None]] = []
        """Called with every row of scalars."""
        if resumed_at is not None:
            self._keep_until(resumed_at)

    def write(self, steps: int, scalars: dict[str, float]) -> None:
        """Write one row at `steps` environment steps."""
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, steps)
        self._tensorboard.flush()
        new = [name for name in scalars if name not in self._names]
        if new or not self._path.exists():
            rows = self._rows() if self._path.exists() else []
            self._names += new
            self._rewrite(rows)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._names).writerow({STEPS: steps, **scalars})
        for listener in self.listeners:
            listener(scalars)

    def note(self, name: str, text: str) -> None:
        """Write a sentence to TensorBoard's text tab."""
        self._tensorboard.add_text(name, text)

    def picture(self, name: str, steps: int, image: np.ndarray) -> None:
        """Write an image [H, W, 3] uint8."""
        self._tensorboard.add_image(name, image, steps, dataformats="HWC")
        self._tensorboard.flush()

    def hyperparameters(self, values: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write one entry of the HParams tab."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(values, metrics):
            self._tensorboard._get_file_writer().add_summary(summary)
        self._tensorboard.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self._tensorboard.close()

    def _keep_until(self, steps: int) -> None:
        if self._path.exists():
            rows = self._rows()
            self._names = list(rows[0]) if rows else [STEPS]
            try:
                kept = [row for row in rows if int(float(row[STEPS])) <= steps]
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise UserError(
                    f"{self._path} is damaged ({error}); move it elsewhere to continue without it."
                ) from error
            self._rewrite(kept)

    def _rows(self) -> list[dict[str, str]]:
        return _read_rows(self._path)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        beside = self._path.with_suffix(".writing")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(beside, self._path)


def read_progress(folder: Path) -> dict[str, np.ndarray]:
    """The columns of a run's progress.csv; empty cells are NaN. Raises UserError if it is missing or damaged."""
    path = folder / "progress.csv"
    if not path.exists():
        raise UserError(f"{folder} has no progress.csv: it is not a run folder, or nothing was logged yet.")
    columns = read_columns(path)
    if columns and STEPS not in columns:
        raise UserError(f"{path} is damaged: it has no column {STEPS}.")
    return columns


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file of numbers; empty cells are NaN. Raises UserError for other files."""
    rows = _read_rows(path)
    names = rows[0].keys() if rows else []
    try:
        return {n: np.array([float(r[n]) if r[n] not in ("", None) else np.nan for r in rows]) for n in names}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as dictionaries by column. Raises UserError for other files."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error
    if any(None in row for row in rows):
        raise UserError(f"{path} is damaged: a row has more cells than there are columns.")
    return rows
