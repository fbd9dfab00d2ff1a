"""What a picture shows beside an agent: walls, gaps and blocks from above."""

from typing import Any, Literal, NamedTuple

import gymnasium as gym


class Outline(NamedTuple):
    """A rectangle in the plane."""

    x: float
    """Of its lower left corner."""
    y: float
    width: float
    height: float
    kind: Literal["wall", "gap", "block"]


def outlines(env: gym.vector.VectorEnv[Any, Any, Any], index: int) -> list[Outline]:
    """What one of the environments looks like now: as it says itself (`outlines(index)`), or as gymnasium-robotics'
    mazes stand. Nothing for others.
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
