"""Videos of a policy's episodes as mp4, written frame by frame."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from hrl.report.evaluation import Policy, evaluate, opened
from hrl.types import BatchedEnv, UserError

FPS = 30


class _Recorder:
    """Renders the environment before every step, and encodes each frame immediately."""

    def __init__(self, file: Path, episodes: int, progress: Progress) -> None:
        self.writer: Any = imageio.get_writer(file, fps=FPS, macro_block_size=1)
        self.progress, self.task = progress, progress.add_task("video", total=episodes)
        self.frames = 0

    def __call__(self, env: BatchedEnv, subgoals: Tensor | None, running: np.ndarray) -> None:
        frame = np.asarray(env.render(subgoals)[0])
        self.writer.append_data(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])  # encoders need even sizes
        self.frames += 1
        self.progress.update(self.task, completed=int(running[0]), description=f"video, {self.frames:,} frames")


def record(
    file: Path,
    policy: Policy,
    make: Callable[[int], BatchedEnv],
    episodes: int,
    max_steps: int | None = None,
    faults: tuple[type[Exception], ...] = (UserError,),
    deterministic: bool = True,
) -> None:
    """Record the first evaluation episodes. Raises UserError if rendering fails; `faults` are raised unchanged.

    After an interruption, the file contains the frames so far.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            recorder = _Recorder(file, episodes, progress)
            try:
                evaluate(
                    policy, lambda n: opened(make(n)), episodes, num_envs=1, watch=recorder, max_steps=max_steps,
                    deterministic=deterministic,
                )  # fmt: skip
            finally:
                recorder.writer.close()
    except faults:
        raise
    except Exception as error:
        raise UserError(
            "--video: the environment cannot be rendered "
            f"({' '.join(str(error).split()) or type(error).__name__}). MuJoCo needs a display, or MUJOCO_GL=egl "
            "or MUJOCO_GL=osmesa with its library; other environments may need an extra of their package."
        ) from error
