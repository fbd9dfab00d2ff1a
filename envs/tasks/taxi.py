"""Taxi (Dietterich 2000) as a task family, as in FAMP: passenger and destination are hidden."""

from itertools import permutations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.tasks.family import TaskFamily
from hrl.envs.tasks.tensor import SingleEnv

SIZE, LOAD = 5, 4
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""(row, column) of the actions 0 to 3, in Taxi-v4's order: south, north, east, west."""
PLACES = ((0, 0), (0, 4), (4, 0), (4, 3))
"""(row, column) of the passenger's possible positions and destinations: R, G, Y, B."""
STARTS = ((2, 2), (0, 2), (2, 0), (2, 4))
WALLS = {((0, 1), (0, 2)), ((1, 1), (1, 2)), ((3, 0), (3, 1)), ((4, 0), (4, 1)), ((3, 2), (3, 3)), ((4, 2), (4, 3))}
STEP_COST, FARE = 0.1, 2.0
ABOARD = -1
"""Position of a passenger who is in the taxi at the start."""
HELD_OUT = 5
"""Every fifth task is held out."""


def number(cell: tuple[int, int]) -> int:
    """The number of a cell (row, column)."""
    return cell[0] * SIZE + cell[1]


def journeys() -> list[tuple[int, int, int]]:
    """All tasks (start, passenger, destination): 48 with a passenger to fetch, 12 with the passenger aboard."""
    fetched = [(number(s), number(a), number(b)) for s in STARTS for a, b in permutations(PLACES, 2)]
    return fetched + [(number(s), ABOARD, number(b)) for s in STARTS[:3] for b in PLACES]


class Taxi(TaskFamily):
    """N taxis on a 5 x 5 grid with walls. A task is (start of the taxi, position of the passenger, destination).

    The observation is one of 50 numbers: twice the taxi's cell, plus 1 with the passenger aboard. Actions 0 to 3 move.
    Action 4 picks the passenger up at its position and drops it off at the destination; elsewhere it has no effect.
    Each step costs 0.1; the drop-off gives 2 and ends the episode. Every fifth of the 60 tasks is held out (12).
    """

    task_dim = 3

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        seen = spaces.Discrete(2 * SIZE * SIZE)
        super().__init__(num_envs, device, max_episode_steps, render_mode, seen, spaces.Discrete(LOAD + 1))
        self.reaches = torch.tensor(_neighbours(), device=self.device)
        tasks = torch.tensor(journeys(), device=self.device)
        # Held-out tasks are spread diagonally, so that training includes every start and nearly every journey.
        held = torch.tensor([(i + i // 12) % HELD_OUT == 0 for i in range(len(tasks))], device=self.device)
        self.tasks = {False: tasks[~held], True: tasks[held]}
        self.task = self.choice(self.tasks[False], num_envs)
        self.drawn = True  # each episode samples a task until `set_tasks` is called
        self.cell = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.aboard = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    def sample_tasks(self, count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
        """Sample [count, 3] cells of start, passenger and destination, each at most once if there are enough tasks."""
        tasks = self.tasks[held_out]
        order = torch.randperm(len(tasks), generator=generator, device=self.device)
        return tasks[order.repeat(-(-count // len(tasks)))[:count]]

    def set_tasks(self, tasks: Tensor) -> None:
        """Set the tasks [N, 3]."""
        self.drawn = False
        self.task.copy_(tasks)

    def begin(self, where: Tensor) -> None:
        """Begin at the task's start, with or without the passenger aboard."""
        if self.drawn:
            fresh = self.choice(self.tasks[False], self.num_envs)
            self.task.copy_(torch.where(where.unsqueeze(-1), fresh, self.task))
        self.cell.copy_(torch.where(where, self.task[:, 0], self.cell))
        self.aboard.copy_(torch.where(where, self.task[:, 1] == ABOARD, self.aboard))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move, pick up or drop off with actions [N]. Returns (reward [N], whether the task ended [N], success [N])."""
        moved = self.reaches[self.cell, actions.clamp_max(len(MOVES) - 1)]
        delivered = self.aboard & (actions == LOAD) & (self.cell == self.task[:, 2])
        self.aboard |= (actions == LOAD) & (self.cell == self.task[:, 1])
        self.cell.copy_(torch.where(actions < len(MOVES), moved, self.cell))
        return delivered * FARE - STEP_COST, delivered, delivered

    def observe(self) -> Tensor:
        """[N] twice the cell, plus 1 with the passenger aboard."""
        return 2 * self.cell + self.aboard

    def picture(self, index: int) -> np.ndarray:
        """The grid from above [H, W, 3]: passenger yellow, destination red, taxi green (dark with a passenger)."""
        scale = 40
        image = np.full((SIZE * scale, SIZE * scale, 3), 245, np.uint8)
        _, waits, wants = self.task[index].tolist()
        aboard = bool(self.aboard[index])
        marks = [(wants, (230, 120, 120), 4), (int(self.cell[index]), (20, 90, 40) if aboard else (40, 150, 70), 10)]
        if not aboard:
            marks.insert(1, (waits, (230, 190, 40), 8))
        for cell, colour, margin in marks:
            row, column = cell // SIZE * scale, cell % SIZE * scale
            image[row + margin : row + scale - margin, column + margin : column + scale - margin] = colour
        for (row, column), _ in WALLS:
            image[row * scale : (row + 1) * scale, (column + 1) * scale - 2 : (column + 1) * scale + 2] = (110, 90, 70)
        return image


def _neighbours() -> list[list[int]]:
    """[cells, 4] the cell after each move from each cell."""
    table = []
    for row in range(SIZE):
        for column in range(SIZE):
            here, ways = (row, column), []
            for down, right in MOVES:
                there = row + down, column + right
                inside = 0 <= there[0] < SIZE and 0 <= there[1] < SIZE
                free = inside and (here, there) not in WALLS and (there, here) not in WALLS
                ways.append(number(there if free else here))
            table.append(ways)
    return table


class TaxiEnv(SingleEnv):
    """A single taxi environment with numpy values."""

    task = Taxi
