"""The scenery of pictures: walls and objects from above, and marks in rendered frames."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

ORANGE = np.array([1.0, 0.6, 0.1, 0.8])


class Outline(NamedTuple):
    """A rectangle in the plane, or the ellipse within it for a reward or a hazard."""

    x: float
    """x and y are the lower left corner."""
    y: float
    width: float
    height: float
    kind: Literal["wall", "gap", "block", "reward", "hazard"]
    """Blocks move. Rewards and hazards are objects with a positive or negative reward, which may vanish."""


def outlines(env: gym.vector.VectorEnv[Any, Any, Any], index: int) -> list[Outline]:
    """The current scene of one environment from above, from its method `outlines(index)` or from a
    gymnasium-robotics maze. Empty for other environments.
    """
    own: Any = getattr(env.unwrapped, "outlines", None)
    if own is not None:
        return list(own(index))
    singles: Any = getattr(env.unwrapped, "envs", None)
    maze: Any = getattr(singles[index].unwrapped, "maze", None) if singles else None
    if maze is None or not hasattr(maze, "cell_rowcol_to_xy"):
        return []
    size = maze.maze_size_scaling
    walls = [(i, j) for i, row in enumerate(maze.maze_map) for j, cell in enumerate(row) if cell == 1]
    corners = [maze.cell_rowcol_to_xy(cell) - size / 2 for cell in walls]
    return [Outline(float(x), float(y), size, size, "wall") for x, y in corners]


def mark(env: gym.Env[Any, Any], place: Sequence[float]) -> None:
    """Show a sphere at a position (x, y) or (x, y, z) in the next frame of an environment rendered by MuJoCo."""
    inner: Any = env.unwrapped
    # gymnasium-robotics' mazes wrap the environment that renders.
    holders: tuple[Any, ...] = (inner, getattr(inner, "point_env", None), getattr(inner, "ant_env", None))
    renderer = next((h.mujoco_renderer for h in holders if hasattr(h, "mujoco_renderer")), None)
    if renderer is None or env.render_mode is None or len(place) not in (2, 3):
        return
    size = 0.02 * float(renderer.model.stat.extent)
    viewer = renderer._get_viewer(env.render_mode)
    viewer.add_marker(pos=np.array([*place, size][:3]), size=np.full(3, size), rgba=ORANGE, label="")
