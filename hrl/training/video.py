"""Videos: episodes of a policy as an mp4."""

import os
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np

from hrl.training.evaluation import MakeEvaluationEnv, Policy, evaluate
from hrl.types import UserError


def record(file: Path, policy: Policy, make: MakeEvaluationEnv, episodes: int = 3) -> None:
    """Render the first evaluation episodes. Raises UserError where the environment does not render."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    frames: list[np.ndarray] = []
    try:
        evaluate(policy, make, episodes, num_envs=1, watch=lambda env, mark: frames.append(env.render(mark)[0]))
        # Encoders want even sizes.
        cropped = [f[: f.shape[0] // 2 * 2, : f.shape[1] // 2 * 2] for f in frames]
        imageio.mimwrite(file, cropped, fps=30, macro_block_size=1)  # type: ignore[arg-type]
    except Exception as error:
        raise UserError(
            f"--video: this could not be rendered ({error}). MuJoCo needs a display, or MUJOCO_GL=egl or "
            "MUJOCO_GL=osmesa with its library; other environments may need their own extra."
        ) from error
