"""Shortest ways through the free cells of a maze, for the experts that collect datasets."""

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from hrl.envs.tasks.point_maze import NOISE, REACH, Map

NEAR = 4
"""Maximum number of cells between the start and the goal of a short trajectory."""


class Ways:
    """The free cells of a maze by number, and the shortest ways between them. Cells have sides of 1."""

    def __init__(self, maze: Map) -> None:
        self.map, free = maze, ~maze.walls
        self.number = torch.full(free.shape, -1)
        self.number[free] = torch.arange(int(free.sum()))
        self.cells = (free.nonzero().flip(-1) + 0.5) * maze.down + maze.origin
        """[C, 2] the centres of the cells."""
        pairs = [(a[a >= 0], b[a >= 0]) for a, b in self._beside()]
        pairs = [(a[b >= 0], b[b >= 0]) for a, b in pairs]
        a, b = (torch.cat(column).numpy() for column in zip(*pairs, strict=True))
        edges = csr_array((np.ones(len(a)), (a, b)), shape=(len(self.cells),) * 2)
        distance, before = shortest_path(edges, directed=False, unweighted=True, return_predecessors=True)
        self.distance = torch.as_tensor(distance)
        """[C, C] number of cells on the way from one cell to another."""
        self.following = torch.as_tensor(before.T.astype(np.int64))
        """[C, C] the next cell on the way from one cell to another; negative where they are the same."""

    def _beside(self) -> list[tuple[Tensor, Tensor]]:
        """The numbers of all pairs of adjacent cells; negative for walls."""
        n = self.number
        return [(n[:-1].flatten(), n[1:].flatten()), (n[:, :-1].flatten(), n[:, 1:].flatten())]

    def cell(self, position: Tensor) -> Tensor:
        """The numbers [N] of the cells at positions [N, 2]."""
        column, row = ((position - self.map.origin) * self.map.down).floor().long().unbind(-1)
        return self.number[row, column]


class Traveller:
    """Travels along the shortest ways to random goals, one goal per environment."""

    def __init__(self, ways: Ways, position: Tensor, generator: torch.Generator) -> None:
        """`position` [N, 2] are the starts; the first goals lie at most NEAR cells from them."""
        self.ways, self.generator = ways, generator
        self.goal = self._drawn((ways.distance[ways.cell(position)] <= NEAR).float())

    def waypoint(self, position: Tensor, onward: bool) -> Tensor:
        """The centre [N, 2] of the next cell on the way from positions [N, 2], or the goal in its own cell. With
        `onward`, sample a new goal where one is reached."""
        if onward:
            reached = (position - self.goal).norm(dim=-1) <= REACH
            another = self._drawn(torch.ones(len(position), len(self.ways.cells)))
            self.goal = torch.where(reached.unsqueeze(-1), another, self.goal)
        here, there = self.ways.cell(position), self.ways.cell(self.goal)
        following = self.ways.cells[self.ways.following[here, there].clamp_min(0)]
        return torch.where((here == there).unsqueeze(-1), self.goal, following)

    def _drawn(self, weights: Tensor) -> Tensor:
        """Goals [N, 2] in cells drawn with weights [N, C], off their centres as in the task."""
        cell = torch.multinomial(weights, 1, generator=self.generator).squeeze(-1)
        offset = torch.rand(len(cell), 2, generator=self.generator) * 2 - 1
        return self.ways.cells[cell] + NOISE * offset
