"""gymnasium-robotics' point mazes (Fu et al. 2020) in batches: the same layouts, dynamics, observations and goals.

Forces along x and y push a ball of radius 0.1 through a maze of unit cells. A step computes the same as MuJoCo: contact
forces that minimise a convex function of the acceleration (soft, frictionless contacts), then an Euler step with
implicit damping. A policy trained here therefore works unchanged in `PointMaze_*-v3`.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.scene import Outline
from hrl.envs.tasks.layouts import walls
from hrl.envs.tasks.tensor import SingleGoalEnv, TensorEnv

# Constants of gymnasium-robotics' point.xml.
RADIUS, TIMESTEP, GEAR, DAMPING, MAX_SPEED = 0.1, 0.01, 100.0, 1.0, 5.0
MARGIN = 2 * 0.002  # the ball's and the wall's
MASS = 1000.0 * 4.0 / 3.0 * np.pi * RADIUS**3
# MuJoCo's defaults for contacts: time constant, and impedance from LEAST to MOST over a penetration of WIDTH.
TIME_CONSTANT, LEAST, MOST, WIDTH = 0.02, 0.9, 0.95, 0.001
STIFFNESS, RESISTANCE = 1.0 / (MOST * TIME_CONSTANT) ** 2, 2.0 / (MOST * TIME_CONSTANT)
INVERSE_WEIGHT = 1.0 / MASS
NEWTON_STEPS = 4
REACH, NOISE = 0.45, 0.25
GOAL_DRAWS = 8


class PointMaze(TensorEnv):
    """N point mazes. Keyword arguments are those of gymnasium-robotics, plus `turned`: quarter turns of the layout."""

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        layout: str = "UMaze",
        turned: int = 0,
        reward_type: Literal["sparse", "dense"] = "sparse",
        continuing_task: bool = True,
        reset_target: bool = False,
    ) -> None:
        part = lambda n: spaces.Box(-np.inf, np.inf, (n,), np.float32)  # noqa: E731
        observed = spaces.Dict({"observation": part(4), "achieved_goal": part(2), "desired_goal": part(2)})
        pushed = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(num_envs, device, max_episode_steps, render_mode, observed, pushed)
        self.sparse, self.continuing, self.reset_target = reward_type == "sparse", continuing_task, reset_target
        self.reward_range = (0.0, 1.0) if self.sparse else None
        self.map = Map.of(walls(layout).rot90(turned), self.device)
        self.walls, self.origin = self.map.walls, self.map.origin
        free = (~self.walls).nonzero()
        self.cells = (free.flip(-1) + 0.5) * self.map.down + self.origin
        self.state = torch.zeros(num_envs, 4, device=self.device)
        self.goal = torch.zeros(num_envs, 2, device=self.device)

    # -- the task --------------------------------------------------------------------------------------------

    def begin(self, where: Tensor) -> None:
        """Sample goal and start in two different free cells at the mask `where` [N], each with noise."""
        count, n = len(self.cells), self.num_envs
        cell = (self.uniform(n) * count).long()
        other = (self.uniform(n) * (count - 1)).long()
        other = other + (other >= cell)  # every cell but the goal's
        goal, start = self._noisy(self.cells[cell]), self._noisy(self.cells[other])
        wide = where.unsqueeze(-1)
        self.goal.copy_(torch.where(wide, goal, self.goal))
        fresh = torch.cat([start, torch.zeros_like(start)], -1)
        self.state.copy_(torch.where(wide, fresh, self.state))

    def _noisy(self, place: Tensor) -> Tensor:
        return place + (self.uniform(*place.shape) * 2 - 1) * NOISE

    def advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one MuJoCo step with actions [N, 2]. A continuing task with `reset_target` samples a new goal when the
        current one is reached."""
        self.state.copy_(moved(self.state, actions, self.map))
        reward, ended = self.task_reward(self.state[:, :2], self.goal)
        success = (self.state[:, :2] - self.goal).norm(dim=-1) <= REACH
        if self.continuing and self.reset_target:
            self.goal.copy_(torch.where(success.unsqueeze(-1), self._another_goal(), self.goal))
        return reward, ended, success

    def _another_goal(self) -> Tensor:
        """[N, 2] the first of GOAL_DRAWS random goals that is not already reached."""
        goals = torch.stack([self._noisy(self.choice(self.cells, self.num_envs)) for _ in range(GOAL_DRAWS)])
        far = (goals - self.state[:, :2]).norm(dim=-1) > REACH
        first = far.to(torch.uint8).argmax(0)
        return goals[first, torch.arange(self.num_envs, device=self.device)]

    def task_reward(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """(achieved, desired) [..., 2] -> (reward [...], whether it ends the episode [...])."""
        distance = (achieved - desired).norm(dim=-1)
        near = distance <= REACH
        reward = near.float() if self.sparse else (-distance).exp()
        return reward, near & (not self.continuing)

    def observe(self) -> dict[str, Tensor]:
        """Position and velocity, and both goals."""
        state = self.state.clone()
        return {"observation": state, "achieved_goal": state[:, :2], "desired_goal": self.goal.clone()}

    def outlines(self, index: int) -> list[Outline]:
        """The walls."""
        corners = self.origin + self.walls.nonzero().flip(-1) * self.map.down - (1 - self.map.down) / 2
        return [Outline(x, y, 1.0, 1.0, "wall") for x, y in corners.tolist()]

    def picture(self, index: int) -> np.ndarray:
        """One maze from above [H, W, 3]: goal in red, ball in green, subgoal in orange."""
        scale = 40  # pixels per cell
        wide = self.walls.repeat_interleave(scale, 0).repeat_interleave(scale, 1).cpu().numpy()
        image = np.where(wide[..., None], np.array([110, 90, 70], np.uint8), np.array([245, 245, 245], np.uint8))
        y, x = np.mgrid[: wide.shape[0], : wide.shape[1]] / scale
        discs: tuple[Any, ...] = (
            (self.goal[index], REACH, (230, 120, 120)),
            (self.state[index, :2], RADIUS, (40, 150, 70)),
        )
        if self.marks is not None:
            discs = (*discs, (self.marks[index, :2], RADIUS, (240, 150, 40)))
        for place, radius, colour in discs:
            px, py = ((place - self.origin) * self.map.down).tolist()
            image[(x - px) ** 2 + (y - py) ** 2 <= radius**2] = colour
        return image


class PointMazeEnv(SingleGoalEnv):
    """A single point maze with numpy values."""

    task = PointMaze


# -- the dynamics --------------------------------------------------------------------------------------------


class Map(NamedTuple):
    """Walls and their coordinates. Constants are tensors, because copying host numbers to a GPU makes the host wait."""

    walls: Tensor
    """[rows, columns]"""
    origin: Tensor
    """[2] the upper left corner's (x, y)."""
    down: Tensor
    """[2] (1, -1), because rows are numbered in the direction of -y."""
    sides: Tensor
    """[4, 2] the four cells around a crossing of grid lines, as (column, row) offsets from it."""

    @classmethod
    def of(cls, walls: Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Map":
        """The map of a layout [rows, columns]."""
        rows, columns = walls.shape
        sides = [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
        rest = ([-columns / 2, rows / 2], [1.0, -1.0], sides)
        return cls(walls.to(device), *(torch.tensor(x, device=device, dtype=dtype) for x in rest))


def moved(state: Tensor, action: Tensor, maze: Map) -> Tensor:
    """Positions and velocities [N, 4] after one step of 0.01 s with actions [N, 2]."""
    position, velocity = state[:, :2], state[:, 2:].clamp(-MAX_SPEED, MAX_SPEED)
    force = GEAR * action.clamp(-1.0, 1.0) - DAMPING * velocity
    distance, normal = contacts(position, maze)
    total = force + contact_force(force / MASS, velocity, distance, normal)
    velocity = velocity + TIMESTEP * total / (MASS + TIMESTEP * DAMPING)
    return torch.cat([position + TIMESTEP * velocity, velocity], -1)


def contacts(position: Tensor, maze: Map) -> tuple[Tensor, Tensor]:
    """Distance [N, 4] of the ball's surface from the four cells around the nearest crossing of grid lines (infinite for
    free cells), and the direction [N, 4, 2] away from each cell. No other cell can touch the ball."""
    place = (position - maze.origin) * maze.down  # (column, row)
    crossing = place.round()
    offset = (place - crossing).unsqueeze(1)  # [N, 1, 2]
    column, row = (crossing.unsqueeze(1) + (maze.sides - 1) / 2).long().unbind(-1)
    rows, columns = maze.walls.shape
    solid = maze.walls[row.clamp(0, rows - 1), column.clamp(0, columns - 1)]
    out = torch.where(offset * maze.sides < 0, offset, 0.0)  # from the cell's nearest point to the ball's centre
    length = out.norm(dim=-1)
    distance = torch.where(solid, length - RADIUS, torch.inf)
    normal = out / length.clamp_min(1e-9).unsqueeze(-1) * maze.down
    return distance, normal


def contact_force(free: Tensor, velocity: Tensor, distance: Tensor, normal: Tensor) -> Tensor:
    """The contacts' force [N, 2] on the ball; `free` [N, 2] is its acceleration without contacts.

    With MuJoCo's soft constraints, the acceleration a minimises m/2 |a - free|² + Σ_i max(0, r_i - n_i·a)² / 2R_i with
    reference r = -b v - k d(p) p for penetration p, and R = (1 - d) / d times the inverse weight. In two dimensions, a
    few Newton steps on the active contacts find the minimum.
    """
    gap = distance - MARGIN
    depth = (gap.abs() / WIDTH).clamp_max(1.0)
    curve = torch.where(depth < 0.5, 2 * depth.square(), 1 - 2 * (1 - depth).square())
    impedance = LEAST + (MOST - LEAST) * curve
    touching = gap < 0
    reference = -RESISTANCE * (normal * velocity.unsqueeze(1)).sum(-1)
    reference = torch.where(touching, reference - STIFFNESS * impedance * gap, -torch.inf)
    weight = impedance / (1 - impedance) / INVERSE_WEIGHT  # 1 / R
    x, y = normal.unbind(-1)
    acceleration = free
    for _ in range(NEWTON_STEPS):
        miss = reference - (normal * acceleration.unsqueeze(1)).sum(-1)
        active = torch.where(miss > 0, weight, 0.0)
        pull = active * torch.where(miss > 0, miss, 0.0)
        slope = MASS * (free - acceleration) + torch.stack([(pull * x).sum(-1), (pull * y).sum(-1)], -1)
        a, b, c = MASS + (active * x * x).sum(-1), (active * x * y).sum(-1), MASS + (active * y * y).sum(-1)
        determinant = a * c - b * b
        dx = (c * slope[:, 0] - b * slope[:, 1]) / determinant
        dy = (a * slope[:, 1] - b * slope[:, 0]) / determinant
        acceleration = acceleration + torch.stack([dx, dy], -1)
    return MASS * (acceleration - free)
