"""The scenery of pictures: walls and objects from above, and marks in rendered frames."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np

from hrl.envs.wrappers.guard import EnvironmentFault

ORANGE = np.array([1.0, 0.6, 0.1, 0.8])
Kind = Literal["wall", "gap", "block", "reward", "hazard"]
KINDS = get_args(Kind)
RULE = f"It must return a list of (x, y, width, height, kind) with finite numbers; kinds are {', '.join(KINDS)}."


class Outline(NamedTuple):
    """A rectangle in the plane, or the ellipse within it for a reward or a hazard."""

    x: float
    """x and y are the lower left corner."""
    y: float
    width: float
    height: float
    kind: Kind
    """Blocks move. Rewards and hazards are objects with a positive or negative reward, which may vanish."""


def outlines(env: gym.vector.VectorEnv[Any, Any, Any], index: int) -> list[Outline]:
    """The current scene of one environment from above: of a vector environment's method `outlines(index)`, of a single
    environment's `outlines()`, or of a gymnasium-robotics maze. Empty for other environments. Raises EnvironmentFault
    for invalid outlines.
    """
    own: Any = getattr(env.unwrapped, "outlines", None)
    if callable(own):
        return _checked(own, index)
    singles: Any = getattr(env.unwrapped, "envs", None)
    single: Any = singles[index].unwrapped if singles else None
    own = getattr(single, "outlines", None)
    return _checked(own) if callable(own) else _maze_walls(getattr(single, "maze", None))


def _checked(method: Callable[..., Any], *index: int) -> list[Outline]:
    """The outlines that an environment's method returns."""
    try:
        checked = [Outline(float(x), float(y), float(w), float(h), kind) for x, y, w, h, kind in method(*index)]
        valid = all(outline.kind in KINDS and np.isfinite(outline[:4]).all() for outline in checked)
    except EnvironmentFault:
        raise
    except Exception as error:
        raise EnvironmentFault(f"{_name(method)} failed: {type(error).__name__}: {error}. {RULE}") from error
    if not valid:
        raise EnvironmentFault(f"{_name(method)} returned invalid values. {RULE}")
    return checked


def _name(method: Callable[..., Any]) -> str:
    return getattr(method, "__qualname__", repr(method))


def _maze_walls(maze: Any) -> list[Outline]:
    """The walls of a gymnasium-robotics maze; empty for other objects."""
    if not hasattr(maze, "cell_rowcol_to_xy"):
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
