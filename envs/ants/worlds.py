"""Worlds for MuJoCo's ant: mazes from maps, with blocks to push and gaps to cross (Nachum 2018, after rllab)."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

ANT = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml"
"""Gymnasium's ant has the same body as rllab's. Time step, motors and contacts are set as in HIRO."""
TIMESTEP, TORQUE = 0.02, 30.0
HEIGHT = 0.5  # of walls, blocks and platforms, in cells
GREY, RED, LIGHT = (0.4, 0.4, 0.4, 1.0), (0.9, 0.1, 0.1, 1.0), (0.9, 0.9, 0.9, 1.0)
MARGIN = 0.01
"""Distance below which a contact exerts a force. MuJoCo adds the margins of two geoms; at HIRO's time, it took their
maximum."""
SOFT, HARD = (0.8, 0.8, 0.01, 0.5, 2.0), (0.995, 0.995, 0.01, 0.5, 2.0)
"""Impedance of contacts (solimp), without and with blocks."""


@dataclass(frozen=True)
class Block:
    """A block that moves along some axes."""

    axes: str
    """A subset of "xyz". A block that can fall is 1 % narrower than a cell, so that it fits into a gap."""

    @property
    def falls(self) -> bool:
        """Whether the block can move along z."""
        return "z" in self.axes


@dataclass(frozen=True)
class Maze:
    """A map from above, north on top: # wall, . free, s start, ~ gap, and a capital letter for each block."""

    rows: tuple[str, ...]
    scale: float
    """Width of a cell."""
    blocks: dict[str, Block] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, scale: float, **blocks: str) -> "Maze":
        """Read a map from text. `blocks` gives the axes along which the block of each letter moves. Raises ValueError
        if the map is invalid."""
        maze = cls(tuple(text.split()), scale, {letter: Block(axes) for letter, axes in blocks.items()})
        signs = set("".join(maze.rows)) - set("#.s~") - set(blocks)
        if signs or not maze.cells("s") or len({len(row) for row in maze.rows}) > 1:
            raise ValueError(
                "a map must have rows of equal length and at least one start: # is a wall, . free space, s a start and "
                "~ a gap"
            )
        return maze

    def cells(self, signs: str) -> list[tuple[int, int]]:
        """(row, column) of all cells with one of these signs."""
        return [(i, j) for i, row in enumerate(self.rows) for j, sign in enumerate(row) if sign in signs]

    @cached_property
    def origin(self) -> tuple[int, int]:
        """(row, column) of the southernmost, westernmost start."""
        return max(self.cells("s"), key=lambda cell: (cell[0], -cell[1]))

    def centre(self, row: float, column: float) -> tuple[float, float]:
        """Centre (x, y) of a cell."""
        return (column - self.origin[1]) * self.scale, (self.origin[0] - row) * self.scale

    def top(self, x: float, y: float) -> float:
        """Height of the wall or ground at a position, 0 in a gap. The outside of the map counts as wall."""
        row, column = self.origin[0] - round(y / self.scale), self.origin[1] + round(x / self.scale)
        inside = 0 <= row < len(self.rows) and 0 <= column < len(self.rows[0])
        sign = self.rows[row][column] if inside else "#"
        return {"#": self.ground + self.height, "~": 0.0}.get(sign, self.ground)

    @property
    def starts(self) -> list[tuple[float, float]]:
        """Start positions (x, y) of episodes."""
        return [self.centre(*cell) for cell in self.cells("s")]

    @property
    def height(self) -> float:
        """Height of a wall."""
        return HEIGHT * self.scale

    @property
    def ground(self) -> float:
        """Height of the ground: a wall's height in maps with gaps, else 0."""
        return self.height if self.cells("~") else 0.0

    @property
    def view(self) -> tuple[tuple[float, float, float], float]:
        """Target [3] and distance of a camera that sees the whole maze."""
        rows, columns = len(self.rows), len(self.rows[0])
        middle = self.centre((rows - 1) / 2, (columns - 1) / 2)
        return (*middle, self.ground), 1.25 * self.scale * max(rows, columns)


def merged(cells: Iterable[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Rectangles (row, column, rows, columns) that cover each of these cells once. Fewer boxes speed up collisions."""
    left, boxes = set(cells), []
    while left:
        row, column = min(left)
        columns = 1
        while (row, column + columns) in left:
            columns += 1
        rows = 1
        while all((row + rows, column + j) in left for j in range(columns)):
            rows += 1
        boxes.append((row, column, rows, columns))
        left -= {(row + i, column + j) for i in range(rows) for j in range(columns)}
    return boxes


def ant_in(maze: Maze) -> mujoco.MjModel:
    """The ant at the origin of a maze."""
    spec = ant()
    ground, height = maze.ground, maze.height
    _boxes(spec, maze, maze.cells("#"), ground + height / 2, GREY)
    if ground:
        gaps = set(maze.cells("~"))
        every = [(i, j) for i, row in enumerate(maze.rows) for j in range(len(row)) if (i, j) not in gaps]
        _boxes(spec, maze, every, height / 2, LIGHT)
    for letter, block in maze.blocks.items():
        for row, column in maze.cells(letter):
            _block(spec, f"block {letter}", block, (*maze.centre(row, column), ground + height / 2), maze)
    spec.body("torso").pos[2] += ground
    return compiled(spec, HARD if maze.blocks else SOFT)


def room(distance: float) -> mujoco.MjModel:
    """The ant in a square room with walls of thickness 1 at this distance from the origin."""
    spec, half = ant(), distance + 0.5
    for sign in (-1, 1):
        box(spec.worldbody, (0, sign * distance, 0), (half, 0.5, 1), LIGHT)
        box(spec.worldbody, (sign * distance, 0, 0), (0.5, half, 1), LIGHT)
    return compiled(spec, SOFT)


def ant() -> mujoco.MjSpec:
    """HIRO's ant on a plane, with motors of ±30 and 20 ms per physics step."""
    spec = mujoco.MjSpec.from_file(os.fspath(ANT))
    spec.option.timestep = TIMESTEP
    for motor in spec.actuators:
        motor.gear[0] = 1.0
        motor.ctrlrange = [-TORQUE, TORQUE]
    return spec


def compiled(spec: mujoco.MjSpec, impedance: tuple[float, ...]) -> mujoco.MjModel:
    """Compile the model with equal contact parameters for all geoms."""
    for geom in spec.geoms:
        geom.friction, geom.solimp, geom.margin = [1.0, 0.5, 0.5], list(impedance), MARGIN / 2
    return spec.compile()


def box(parent: mujoco.MjsBody, centre: Iterable[float], half: Iterable[float], colour: tuple[float, ...]) -> None:
    """Add a box that everything collides with."""
    parent.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, pos=list(centre), size=list(half), rgba=list(colour), contype=1, conaffinity=1
    )


def _boxes(
    spec: mujoco.MjSpec, maze: Maze, cells: Iterable[tuple[int, int]], level: float, colour: tuple[float, ...]
) -> None:
    for row, column, rows, columns in merged(cells):
        x, y = maze.centre(row + (rows - 1) / 2, column + (columns - 1) / 2)
        half = columns * maze.scale / 2, rows * maze.scale / 2, maze.height / 2
        box(spec.worldbody, (x, y, level), half, colour)


def _block(spec: mujoco.MjSpec, name: str, block: Block, centre: tuple[float, float, float], maze: Maze) -> None:
    body = spec.worldbody.add_body(name=name, pos=list(centre))
    half = maze.scale / 2 * (0.99 if block.falls else 1.0)
    box(body, (0, 0, 0), (half, half, maze.height / 2), RED)
    body.geoms[0].mass = 0.001 if block.falls else 0.0002
    for axis in block.axes:
        along = np.eye(3)["xyz".index(axis)]
        reach = (-maze.ground, 0.0) if axis == "z" else (-maze.scale, maze.scale)
        body.add_joint(
            name=f"{name} {axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=list(along), range=list(reach),
            margin=0.01, limited=int(block.falls), armature=0.0, damping=[0.0, 0.0, 0.0],
        )  # fmt: skip
