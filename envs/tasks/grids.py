"""Batched grid worlds with discrete actions: four rooms (Sutton et al. 1999), and a door that needs a key."""

import math
from collections.abc import Callable
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.tasks.layouts import walls
from hrl.envs.tasks.tensor import SingleEnv, SingleGoalEnv, TensorEnv, Values

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""(row, column) of the actions: up, right, down, left."""
EAST_HALLWAY = (7, 9)
"""(row, column) of goal G1 in the layout of four rooms."""
WALL, FLOOR, AGENT, GOAL, KEY, DOOR = (
    np.array(c, np.uint8)
    for c in ([110, 90, 70], [245, 245, 245], [40, 150, 70], [230, 120, 120], [230, 190, 40], [120, 80, 160])
)


Marks = list[tuple[Tensor, np.ndarray]]
"""Cells (row, column) and their colours."""


def drawn(wall: Tensor, marks: Marks, scale: int = 24) -> np.ndarray:
    """A picture [H, W, 3] of a grid, with `scale` pixels per cell."""
    image = np.where(wall.cpu().numpy()[..., None], WALL, FLOOR)
    for place, colour in marks:
        row, column = place.tolist()
        image[row, column] = colour
    return image.repeat(scale, 0).repeat(scale, 1)


def require_whole(task: str, **options: tuple[int | None, int, int | None]) -> None:
    """Raise ValueError unless each option (value, least, most) is a whole number within its bounds, or None."""
    for name, (value, least, most) in options.items():
        if value is None or (isinstance(value, Integral) and least <= value <= (value if most is None else most)):
            continue
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} of {task} must be a whole number {bounds}, not {value}")


def slipped(actions: Tensor, chance: Tensor, slip: float) -> Tensor:
    """The moves [N], each replaced by one of the other three with probability `slip`; `chance` [2, N] ~ U(0, 1)."""
    others = (actions + 1 + (chance[1] * 3).long()) % 4
    return torch.where(chance[0] < slip, others, actions)


class FourRooms(TensorEnv):
    """Four rooms joined by hallways. The observation is the cell's number. The goal gives a reward of 1 and ends the
    episode.

    An action moves the agent by one cell, with probability `slip` in one of the other three directions; walls block it.
    Cells are numbered row by row. `goal` is a cell's number, by default the first of the east hallway (goal G1 of the
    paper), and `start` the one where episodes start, by default a random one. With `scale`, rooms and hallways are that
    many times wider. After `moves_after` episodes of an environment, its goal moves once to a random cell of the lower
    right room (Bacon 2017); 0 keeps it in place.
    """

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        goal: int | None = None,
        slip: float = 1 / 3,
        moves_after: int = 0,
        start: int | None = None,
        scale: int = 1,
    ) -> None:
        require_whole("FourRooms", scale=(scale, 1, None), moves_after=(moves_after, 0, None))
        self.walls = walls("FourRooms", scale).to(device)
        self.cells = (~self.walls).nonzero()
        east = (self.cells == torch.tensor(EAST_HALLWAY, device=self.cells.device) * scale).all(-1).nonzero()
        goal = int(east) if goal is None else goal
        last = len(self.cells) - 1
        require_whole("FourRooms", goal=(goal, 0, last), start=(start, 0, last))
        if start == goal:
            raise ValueError(f"start and goal of FourRooms must be different cells, but both are {goal}")
        super().__init__(num_envs, device, max_episode_steps, render_mode, self.observed(), spaces.Discrete(4))
        self.slip, self.moves_after, self.start = slip, moves_after, start
        self.reaches = self._neighbours()
        self.cell = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.goal, self.episodes = torch.full_like(self.cell, goal), torch.zeros_like(self.cell)
        row, column = self.cells.unbind(-1)
        lower_right = (row >= 8 * scale) & (column >= 7 * scale)
        if start is not None:
            lower_right[start] = False  # the goal never moves to the start
        self.lower_right = lower_right.nonzero().squeeze(-1)

    def observed(self) -> spaces.Space[Any]:
        """The observation space."""
        return spaces.Discrete(len(self.cells))

    def lasting(self) -> dict[str, Tensor]:
        """The goal and the number of started episodes, if the goal moves after some episodes."""
        return {"goal": self.goal, "episodes": self.episodes} if self.moves_after else {}

    def _neighbours(self) -> Tensor:
        """The cell [cells, 4] after each move."""
        number = torch.full(self.walls.shape, -1, dtype=torch.int64, device=self.device)
        number[~self.walls] = torch.arange(len(self.cells), device=self.device)
        ahead = self.cells.unsqueeze(1) + torch.tensor(MOVES, device=self.device)
        there = number[ahead[..., 0], ahead[..., 1]]
        return torch.where(there >= 0, there, torch.arange(len(self.cells), device=self.device).unsqueeze(1))

    def begin(self, where: Tensor) -> None:
        """Start in the cell `start`, or in a random one other than the goal, at the mask `where` [N]."""
        if self.moves_after:
            self.episodes += where
            moves = where & (self.episodes == self.moves_after + 1)
            self.goal.copy_(torch.where(moves, self.choice(self.lower_right, self.num_envs), self.goal))
        start = (self.uniform(self.num_envs) * (len(self.cells) - 1)).long()
        start = start + (start >= self.goal) if self.start is None else torch.full_like(start, self.start)
        self.cell.copy_(torch.where(where, start, self.cell))

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move with actions [N], or slip. Returns (reward [N], whether the task ended [N], success [N])."""
        move = slipped(actions, self.uniform(2, self.num_envs), self.slip)
        self.cell.copy_(self.reaches[self.cell, move])
        reached = self.cell == self.goal
        return reached.float(), reached, reached

    def observe(self) -> Values:
        """[N] the cell's number."""
        return self.cell.clone()

    def picture(self, index: int) -> np.ndarray:
        """One grid [H, W, 3]."""
        return drawn(self.walls, [(self.cells[self.goal[index]], GOAL), (self.cells[self.cell[index]], AGENT)])


class FourRoomsEnv(SingleEnv):
    """A single four-rooms environment with numpy values."""

    task = FourRooms


class FourRoomsGoals(FourRooms):
    """Four rooms as a goal environment: each episode samples a goal. Goals are (row, column) of a cell."""

    reward_range = (0.0, 1.0)

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        slip: float = 1 / 3,
    ) -> None:
        super().__init__(num_envs, device, max_episode_steps, render_mode, slip=slip)

    def observed(self) -> spaces.Space[Any]:
        """The cell's number, and the places of agent and goal."""
        place = spaces.Box(1.0, max(self.walls.shape) - 2.0, (2,), np.float32)
        return spaces.Dict({"observation": super().observed(), "achieved_goal": place, "desired_goal": place})

    def begin(self, where: Tensor) -> None:
        """Sample the goal, and start in a random other cell, at the mask `where` [N]."""
        goal = (self.uniform(self.num_envs) * len(self.cells)).long()
        self.goal.copy_(torch.where(where, goal, self.goal))
        super().begin(where)

    def task_reward(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """(achieved, desired) [..., 2] -> (reward [...], whether it ends the episode [...])."""
        reached = ((achieved - desired).abs() < 0.5).all(-1)
        return reached.float(), reached

    def observe(self) -> Values:
        """The cell's number [N], and the places [N, 2] of agent and goal."""
        agent, goal = (self.cells[cell].float() for cell in (self.cell, self.goal))
        return {"observation": self.cell.clone(), "achieved_goal": agent, "desired_goal": goal}


class FourRoomsGoalsEnv(SingleGoalEnv):
    """A single four-rooms goal environment with numpy values."""

    task = FourRoomsGoals


class KeyDoor(TensorEnv):
    """Two rooms with a locked door: fetch the key, open the door, reach the goal (like MiniGrid's DoorKey).

    The observation is (row, column) of agent, key, door and goal, scaled to [0, 1], and whether the agent holds the key
    and the door is open. The agent takes the key by moving onto it, and opens the door by moving against it with the
    key. The goal gives a reward of 1 and ends the episode. Each episode samples new positions. With probability `slip`,
    a move goes in one of the other three directions.

    Without `observe_status`, the last two entries are missing: an agent has to remember whether it holds the key.
    """

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        size: int = 8,
        slip: float = 0.0,
        observe_status: bool = True,
    ) -> None:
        require_whole("KeyDoor", size=(size, 6, None))
        seen = spaces.Box(0.0, 1.0, (10 if observe_status else 8,), np.float32)
        super().__init__(num_envs, device, max_episode_steps, render_mode, seen, spaces.Discrete(4))
        self.size, self.slip, self.observe_status = size, slip, observe_status
        self.places = torch.zeros(4, num_envs, 2, dtype=torch.int64, device=self.device)
        self.agent, self.key, self.door, self.goal = self.places
        self.held = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.opened = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.moves = torch.tensor(MOVES, device=self.device)

    def begin(self, where: Tensor) -> None:
        """Sample the dividing wall and its door, distinct cells on the left for agent and key, and one on the right for
        the goal."""
        inner, n = self.size - 2, self.num_envs
        u = self.uniform(6, n)
        door_column = 3 + (u[0] * (inner - 3)).long()
        door = torch.stack([1 + (u[1] * inner).long(), door_column], -1)
        width = door_column - 1
        left = inner * width
        agent = (u[2] * left).long()
        key = (u[3] * (left - 1)).long()
        key = key + (key >= agent)
        cell = lambda index: torch.stack([1 + index // width, 1 + index % width], -1)  # noqa: E731
        right = inner - door_column
        goal = torch.stack([1 + (u[4] * inner).long(), door_column + 1 + (u[5] * right).long()], -1)
        fresh = torch.stack([cell(agent), cell(key), door, goal])
        self.places.copy_(torch.where(where.view(1, n, 1), fresh, self.places))
        self.held.masked_fill_(where, False)
        self.opened.masked_fill_(where, False)

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move with actions [N]. Returns (reward [N], whether the task ended [N], success [N])."""
        if self.slip:
            actions = slipped(actions, self.uniform(2, self.num_envs), self.slip)
        ahead = self.agent + self.moves[actions]
        at_door = (ahead == self.door).all(-1)
        self.opened |= at_door & self.held
        outside = ((ahead < 1) | (ahead > self.size - 2)).any(-1)
        divided = (ahead[:, 1] == self.door[:, 1]) & ~(at_door & self.opened)
        stays = (outside | divided).unsqueeze(-1)
        self.agent.copy_(torch.where(stays, self.agent, ahead))
        self.held |= (self.agent == self.key).all(-1)
        reached = (self.agent == self.goal).all(-1)
        return reached.float(), reached, reached

    def observe(self) -> Tensor:
        """Observations [N, 10], or [N, 8] without the status."""
        places = self.places.transpose(0, 1).flatten(1) / (self.size - 1)
        if not self.observe_status:
            return places.float()
        return torch.cat([places, torch.stack([self.held, self.opened], -1)], -1).float()

    def picture(self, index: int) -> np.ndarray:
        """One grid [H, W, 3]."""
        wall = torch.ones(self.size, self.size, dtype=torch.bool)
        wall[1:-1, 1:-1] = False
        wall[:, int(self.door[index, 1])] = True
        marks = [(self.door[index], FLOOR if self.opened[index] else DOOR), (self.goal[index], GOAL)]
        if not self.held[index]:
            marks.append((self.key[index], KEY))
        return drawn(wall, [*marks, (self.agent[index], AGENT)])


class KeyDoorEnv(SingleEnv):
    """A single key-door environment with numpy values."""

    task = KeyDoor


KEY_DOOR_SUBGOALS: dict[str, Callable[[Tensor], Tensor]] = {
    "key": lambda state: state[..., 8] > 0.5,
    "door": lambda state: state[..., 9] > 0.5,
    "goal": lambda state: (state[..., :2] == state[..., 6:8]).all(-1),
}
"""Predicates, states [..., 10] -> bool [...]: the agent holds the key, the door is open, the agent is at the goal."""


@cache
def _places(count: int, device: torch.device) -> Tensor:
    """(row, column) [count, 2] of the cells of four rooms, whose scale follows from their number."""
    cells = (~walls("FourRooms")).sum()
    return (~walls("FourRooms", math.isqrt(count // int(cells)))).nonzero().float().to(device)


def four_rooms_place(state: Tensor) -> Tensor:
    """A goal projection for hrl/FourRooms-v0: the agent's (row, column) [..., 2] from one-hot observations [..., D]."""
    return state @ _places(state.shape[-1], state.device)
