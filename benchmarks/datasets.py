"""Datasets of the point mazes for offline learning, as OGBench (Park 2024) collects its own, in its file layout.

    python benchmarks/datasets.py navigate --layout Large --out navigate.npz

    navigate   long trajectories between random goals, one after another
    stitch     short trajectories between cells that are at most four apart, so long paths need several of them
    explore    random directions, each held for ten steps, with much noise

A scripted expert follows the shortest way through the cells, and its actions are noisy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from hrl.envs.tasks.layouts import LAYOUTS
from hrl.envs.tasks.point_maze import NOISE, REACH, PointMaze

Kind = Literal["navigate", "stitch", "explore"]
LENGTHS: dict[Kind, int] = {"navigate": 1000, "stitch": 200, "explore": 500}
"""Steps of a trajectory."""
ACTION_NOISE: dict[Kind, float] = {"navigate": 0.5, "stitch": 0.5, "explore": 1.0}
"""Standard deviation of the noise on actions."""
NEAR = 4
"""Maximum number of cells between the start and the goal of a short trajectory."""
HELD = 10
"""Steps for which an exploring trajectory holds a direction."""
GAIN, BRAKE = 4.0, 1.0
"""Action per unit of distance to the next cell, and per unit of speed."""


@dataclass
class Options:
    """Collect a dataset, and write it to a file."""

    kind: Annotated[Kind, tyro.conf.Positional]
    """Kind of trajectories."""
    out: Path
    """File to write, FILE.npz."""
    layout: str = "Large"
    """Layout of the maze (envs/tasks/layouts.py)."""
    transitions: int = 500_000
    """Number of transitions."""
    noise: float | None = None
    """Standard deviation of the noise on actions. Default: .5, and 1 for explore."""
    seed: int = 0
    """Random seed."""


def main() -> None:
    """Collect and write."""
    options = tyro.cli(Options)
    if options.layout not in LAYOUTS:
        raise SystemExit(f"--layout must be one of {', '.join(LAYOUTS)}, not {options.layout}.")
    data = collect(options.kind, options.layout, options.transitions, options.noise, options.seed)
    np.savez_compressed(options.out, **data)
    ends = int(data["terminals"].sum())
    print(f"{options.out}: {len(data['terminals']) - ends:,} transitions of {ends:,} trajectories")


def collect(
    kind: Kind, layout: str, transitions: int, noise: float | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of a dataset: observations [R, 4], actions [R, 2], terminals [R], qpos and qvel [R, 2]. A trajectory's
    last row has its final observation, and an action of 0."""
    length = LENGTHS[kind]
    maze = PointMaze(max(transitions // length, 1), layout=layout)
    maze.reset(seed=seed)
    expert, spread = Expert(maze), ACTION_NOISE[kind] if noise is None else noise
    steps = []
    for t in range(length):
        action = expert.explore(t) if kind == "explore" else expert.go(onward=kind == "navigate")
        action = (action + spread * torch.randn(action.shape, generator=expert.generator)).clamp(-1.0, 1.0)
        steps.append(torch.cat([maze.state, action], -1))
        maze.advance(action)
    steps.append(torch.cat([maze.state, torch.zeros(maze.num_envs, 2)], -1))
    rows = torch.stack(steps, 1).flatten(0, 1).numpy()  # one trajectory after the other
    terminals = np.arange(len(rows)) % (length + 1) == length
    return {
        "observations": rows[:, :4], "actions": rows[:, 4:], "terminals": terminals,
        "qpos": rows[:, :2], "qvel": rows[:, 2:4],
    }  # fmt: skip


class Expert:
    """Moves to goals along the shortest paths through the cells of a maze. Every environment has a separate goal."""

    def __init__(self, maze: PointMaze) -> None:
        self.maze, self.generator = maze, maze.generator
        free = ~maze.walls
        self.number = torch.full(free.shape, -1)
        self.number[free] = torch.arange(int(free.sum()))
        pairs = [(a[a >= 0], b[a >= 0]) for a, b in self._beside()]
        pairs = [(a[b >= 0], b[b >= 0]) for a, b in pairs]
        a, b = (torch.cat(column).numpy() for column in zip(*pairs, strict=True))
        edges = csr_array((np.ones(len(a)), (a, b)), shape=(len(maze.cells),) * 2)
        distance, before = shortest_path(edges, directed=False, unweighted=True, return_predecessors=True)
        self.distance = torch.as_tensor(distance)
        self.following = torch.as_tensor(before.T.astype(np.int64))
        """[C, C] the next cell on the way from one cell to another; negative where they are the same."""
        self.goal = self._drawn(self._near())
        self.direction = torch.zeros(maze.num_envs, 2)

    def _beside(self) -> list[tuple[Tensor, Tensor]]:
        """The numbers of all pairs of adjacent cells; negative for walls."""
        n = self.number
        return [(n[:-1].flatten(), n[1:].flatten()), (n[:, :-1].flatten(), n[:, 1:].flatten())]

    def cell(self, position: Tensor) -> Tensor:
        """The numbers [N] of the cells at positions [N, 2]."""
        column, row = ((position - self.maze.origin) * self.maze.map.down).floor().long().unbind(-1)
        return self.number[row, column]

    def go(self, onward: bool) -> Tensor:
        """Actions [N, 2] towards the goals. With `onward`, sample a new goal where one is reached."""
        position, velocity = self.maze.state.split(2, -1)
        if onward:
            reached = (position - self.goal).norm(dim=-1) <= REACH
            another = self._drawn(torch.ones(self.maze.num_envs, len(self.maze.cells)))
            self.goal = torch.where(reached.unsqueeze(-1), another, self.goal)
        here, there = self.cell(position), self.cell(self.goal)
        waypoint = self.maze.cells[self.following[here, there].clamp_min(0)]
        waypoint = torch.where((here == there).unsqueeze(-1), self.goal, waypoint)
        return (GAIN * (waypoint - position) - BRAKE * velocity).clamp(-1.0, 1.0)

    def explore(self, t: int) -> Tensor:
        """Directions [N, 2], resampled every HELD steps."""
        if t % HELD == 0:
            angle = torch.rand(self.maze.num_envs, generator=self.generator) * 2 * torch.pi
            self.direction = torch.stack([angle.cos(), angle.sin()], -1)
        return self.direction

    def _near(self) -> Tensor:
        """[N, C] 1 for the cells within NEAR of each start."""
        return (self.distance[self.cell(self.maze.state[:, :2])] <= NEAR).float()

    def _drawn(self, weights: Tensor) -> Tensor:
        """Goals [N, 2] in cells drawn with weights [N, C], off their centres as in the task."""
        cell = torch.multinomial(weights, 1, generator=self.generator).squeeze(-1)
        offset = torch.rand(len(cell), 2, generator=self.generator) * 2 - 1
        return self.maze.cells[cell] + NOISE * offset


if __name__ == "__main__":
    main()
