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
from torch import Tensor
from ways import Traveller, Ways

from hrl.envs.tasks.layouts import LAYOUTS
from hrl.envs.tasks.point_maze import PointMaze

Kind = Literal["navigate", "stitch", "explore"]
LENGTHS: dict[Kind, int] = {"navigate": 1000, "stitch": 200, "explore": 500}
"""Steps of a trajectory."""
ACTION_NOISE: dict[Kind, float] = {"navigate": 0.5, "stitch": 0.5, "explore": 1.0}
"""Standard deviation of the noise on actions."""
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
    """Moves a ball along the shortest ways to its goals. Every environment has a separate goal."""

    def __init__(self, maze: PointMaze) -> None:
        self.maze, self.generator = maze, maze.generator
        self.traveller = Traveller(Ways(maze.map), maze.state[:, :2], maze.generator)
        self.direction = torch.zeros(maze.num_envs, 2)

    def go(self, onward: bool) -> Tensor:
        """Actions [N, 2] towards the goals. With `onward`, sample a new goal where one is reached."""
        position, velocity = self.maze.state.split(2, -1)
        waypoint = self.traveller.waypoint(position, onward)
        return (GAIN * (waypoint - position) - BRAKE * velocity).clamp(-1.0, 1.0)

    def explore(self, t: int) -> Tensor:
        """Directions [N, 2], resampled every HELD steps."""
        if t % HELD == 0:
            self.direction = directions(self.maze.num_envs, self.generator)
        return self.direction


def directions(count: int, generator: torch.Generator) -> Tensor:
    """Random unit vectors [N, 2]."""
    angle = torch.rand(count, generator=generator) * 2 * torch.pi
    return torch.stack([angle.cos(), angle.sin()], -1)


if __name__ == "__main__":
    main()
