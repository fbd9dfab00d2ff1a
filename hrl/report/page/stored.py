"""The evaluations and pictures that a run stored during its training."""

from pathlib import Path
from typing import Any

import numpy as np

from hrl.report.evaluation import interval
from hrl.report.logger import STEPS, read_progress
from hrl.report.page.page import Picture
from hrl.types import UserError

TAGS = {
    "success_rate_any": "eval/success_rate", "success_rate_final": "eval/success_rate_final",
    "mean_reward": "eval/mean_reward", "mean_ep_length": "eval/mean_ep_length",
}  # fmt: skip
TRAJECTORIES = "eval/trajectories"


def last_evaluation(folder: Path, episodes: int) -> dict[str, Any]:
    """The summary of the last evaluation during training, of `episodes` episodes. Only success rates have intervals.

    Raises UserError if the run was never evaluated.
    """
    columns = read_progress(folder)
    returns = columns.get(TAGS["mean_reward"], np.array([]))
    rows = np.flatnonzero(~np.isnan(returns))
    if not len(rows):
        raise UserError(
            f"{folder} was never evaluated during its training (--eval-freq): give --episodes 20 to evaluate it now."
        )
    last: dict[str, Any] = {"steps": int(columns[STEPS][rows[-1]]), "episodes": episodes, "checkpoint": "last"}
    for name, tag in TAGS.items():
        value = float(columns[tag][rows[-1]]) if tag in columns else np.nan
        if not np.isnan(value):
            solved = round(value * episodes)
            rate = [1.0] * solved + [0.0] * (episodes - solved)
            last[name] = value
            last[f"{name}_interval"] = interval(rate, proportion=True) if name.startswith("success") else None
    return last


def last_picture(folder: Path) -> list[Picture]:
    """The last picture of trajectories that the run wrote for TensorBoard; empty without one."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 1, "scalars": 1, "tensors": 1})
    events.Reload()
    if TRAJECTORIES not in events.Tags()["images"]:
        return []
    image = events.Images(TRAJECTORIES)[-1]
    return [
        Picture(image.encoded_image_string, f"Paths and subgoals of evaluation episodes after {image.step:,} steps")
    ]
