"""Runs in Weights & Biases."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from hrl.report.logger import STEPS
from hrl.run.callbacks import Callback, Progress
from hrl.run.folder import RunFolder
from hrl.types import UserError


def to_wandb(project: str | None = None, **options: Any) -> Callback:
    """A callback that logs every row of scalars and the configuration to Weights & Biases. A resumed run continues the
    same run there.

    The default of `project` is the environment variable WANDB_PROJECT, else "nested-hrl". `options` go to
    `wandb.init`. With WANDB_MODE=offline, wandb writes to the run's folder and needs no network. Training raises
    UserError without the package wandb.
    """
    active: list[Any] = []

    def begin(progress: Progress) -> None:
        require_wandb()
        import wandb

        content, path = RunFolder(progress.path).read_config(), progress.path.resolve()
        known = {
            "project": project or os.environ.get("WANDB_PROJECT", "nested-hrl"),
            "name": "/".join(path.parts[-3:]),
            "id": "-".join(path.parts[-3:]),
            "dir": str(path),
            "config": {"algorithm": content["algorithm"], **content["config"]},
            "resume": "allow",
            "reinit": "finish_previous",
        }
        run = wandb.init(**known | options)
        run.define_metric("*", step_metric=STEPS)
        active.append(run)

    def logged(progress: Progress, scalars: Mapping[str, float]) -> None:
        if active:
            active[-1].log({STEPS: progress.steps, **scalars})

    def end(progress: Progress) -> None:
        active.pop().finish()

    return Callback(lambda progress: None, every=0, begin=begin, end=end, logged=logged)


def require_wandb() -> None:
    """Raise UserError if the package wandb is not installed."""
    found = find_spec("wandb")
    if found is None or found.origin is None:  # a folder "wandb" with runs is not the package
        raise UserError("--wandb needs the package wandb: pip install 'nested-hrl[wandb]'.")
