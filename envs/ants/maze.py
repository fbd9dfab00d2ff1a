"""HIRO's ant tasks (Nachum 2018, appendix C): a maze, a block to push aside, and a gap to fill with a block. HRAC's
maze with a sparse reward (Zhang 2020)."""

import math
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import mujoco
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.ants.batch import ANT_QPOS, ANT_QVEL, GREEN, ORANGE, Ants, require_positive
from hrl.envs.ants.physics import Simulator
from hrl.envs.ants.worlds import Maze, ant_in
from hrl.envs.scene import Outline
from hrl.envs.tasks.tensor import SingleGoalEnv

MAZES = {
    "Maze": Maze.of(
        """
        #####
        #...#
        ###.#
        #s..#
        #####""",
        scale=8.0,
    ),
    "Push": Maze.of(
        """
        #####
        ##.##
        #.B.#
        #.s##
        #####""",
        scale=8.0,
        B="xy",
    ),
    "Fall": Maze.of(
        """
        ####
        #..#
        #~~#
        #.B#
        #s.#
        ####""",
        scale=8.0,
        B="yz",
    ),
    "Sparse": Maze.of(
        """
        ##########
        #ssssssss#
        #ssssssss#
        #######ss#
        #.sssssss#
        #.sssssss#
        #######ss#
        #ssssssss#
        #ssssssss#
        ##########""",
        scale=2.0,
    ),
}


def chosen(maze: str, scale: float | None) -> Maze:
    """A maze by name or from a map, with cells of width `scale`. Raises ValueError for an invalid name or map."""
    if scale is not None:
        require_positive("scale, the width of a maze's cell,", scale)
    if str(maze) in MAZES:
        return replace(MAZES[maze], scale=scale or MAZES[maze].scale)
    if "/" not in str(maze):
        raise ValueError(f"maze must be {', '.join(MAZES)} or a map such as 1111/1s01/1111, not {maze}")
    return Maze.of(maze.translate(str.maketrans("10/", "#. ")), scale=scale or 8.0)


def corners(goal: Any) -> tuple[Tensor, Tensor]:
    """The two corners [G] between which goals lie, equal for a single position. Raises ValueError for other values."""
    try:
        places = torch.tensor(goal, dtype=torch.float32)
    except (TypeError, ValueError):
        places = torch.empty(0)
    if places.shape not in ((2,), (3,), (2, 2), (2, 3)):
        raise ValueError(f"goal must be a position [x, y] or [x, y, z], or two such positions as corners, not {goal}")
    low, high = places if places.dim() == 2 else (places, places)
    return low, high


class AntMaze(Ants):
    """N ants that walk to goals in a maze. An observation is 15 positions, 14 velocities and 0.001 t.

    `maze` is Maze, Push, Fall or Sparse, or a custom map: rows from north to south separated by slashes, such as
    1111/1s01/1111 (1 or # is a wall, 0 or . free, s a start), with cells of width `scale`. `goal` is a position, or
    two corners (low, high) between which every episode samples one. With `reward_type` "dense", the reward is minus the
    distance to the goal. With "sparse", it is 1 at a distance below `reach`, which ends the episode, and 0 elsewhere.
    Success means a distance of at most `reach`. `observe_blocks` adds the blocks' positions to the observation.
    """

    def __init__(
        self,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        maze: str = "Maze",
        scale: float | None = None,
        goal: Any = ((-4.0, -4.0), (20.0, 20.0)),
        reach: float = 5.0,
        reward_type: Literal["dense", "sparse"] = "dense",
        observe_blocks: bool = False,
        physics: Simulator = "mujoco",
    ) -> None:
        self.maze = chosen(maze, scale)
        model = ant_in(self.maze)
        if reward_type not in ("dense", "sparse"):
            raise ValueError(f"reward_type must be dense or sparse, not {reward_type}")
        require_positive("reach, the distance that counts as success,", reach)
        if not isinstance(observe_blocks, bool):
            raise ValueError(f"observe_blocks must be True or False, not {observe_blocks}")
        self.goal_low, self.goal_high = corners(goal)
        self.reach, self.sparse, self.observe_blocks = reach, reward_type == "sparse", observe_blocks
        self.reward_range = (0.0, 1.0) if self.sparse else (-math.inf, 0.0)
        self.blocks = [f"block {letter}" for letter in self.maze.blocks]
        part = lambda n: spaces.Box(-np.inf, np.inf, (n,), np.float32)  # noqa: E731
        seen = ANT_QPOS + ANT_QVEL + 1 + 3 * len(self.blocks) * observe_blocks
        observed = {"observation": seen, "achieved_goal": len(self.goal_low), "desired_goal": len(self.goal_low)}
        space = spaces.Dict({name: part(n) for name, n in observed.items()})
        super().__init__(num_envs, device, max_episode_steps, render_mode, space, model, physics)
        self.goal_low, self.goal_high = self.goal_low.to(self.device), self.goal_high.to(self.device)
        self.goal = torch.zeros(num_envs, len(self.goal_low), device=self.device)
        self.start_places = torch.tensor(self.maze.starts, device=self.device)

    def starts(self) -> Tensor:
        """[N, 2] random starts of the maze."""
        return self.choice(self.start_places, self.num_envs)

    def begin(self, where: Tensor) -> None:
        """Sample a start and a goal for the episodes at the mask `where` [N]."""
        super().begin(where)
        drawn = self.goal_low + (self.goal_high - self.goal_low) * self.uniform(*self.goal.shape)
        self.goal.copy_(torch.where(where.unsqueeze(-1), drawn, self.goal))

    def outcome(self) -> tuple[Tensor, Tensor, Tensor]:
        """The reward and success of the current positions."""
        distance = torch.linalg.vector_norm(self.achieved - self.goal, dim=-1)
        return *self._reward(distance), distance <= self.reach

    def task_reward(self, achieved: Tensor, desired: Tensor) -> tuple[Tensor, Tensor]:
        """(achieved, desired) [..., G] -> (reward [...], whether it ends the episode [...])."""
        return self._reward(torch.linalg.vector_norm(achieved - desired, dim=-1))

    def _reward(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        if not self.sparse:
            return -distance.float(), torch.zeros_like(distance, dtype=torch.bool)
        reached = distance < self.reach
        return reached.float(), reached

    @property
    def achieved(self) -> Tensor:
        """[N, G] positions of the torsos in the goals' dimensions: x and y, or x, y and z."""
        return self.torso[:, : len(self.goal_low)].float()

    def observe(self) -> dict[str, Tensor]:
        """State, achieved goal and desired goal."""
        blocks = [self.block(name) for name in self.blocks] if self.observe_blocks else []
        return {
            "observation": self.sensed(*blocks),
            "achieved_goal": self.achieved.clone(),
            "desired_goal": self.goal.clone(),
        }

    def block(self, name: str) -> Tensor:
        """[N, 3] centre of a block."""
        built, slides = self._tracks[name]
        place = built.repeat(self.num_envs, 1)
        for axis, at in slides.items():
            place[:, axis] += self.physics.qpos[:, at]
        return place

    @cached_property
    def _tracks(self) -> dict[str, tuple[Tensor, dict[int, int]]]:
        """The initial position [3] of each block, and the entry of qpos that moves it along each axis."""
        model = self.physics.model
        joint = lambda name: mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)  # noqa: E731
        found: dict[str, tuple[Tensor, dict[int, int]]] = {}
        for name in self.blocks:
            joints = {axis: joint(f"{name} {letter}") for axis, letter in enumerate("xyz")}
            slides = {axis: int(model.jnt_qposadr[at]) for axis, at in joints.items() if at >= 0}
            found[name] = torch.from_numpy(model.body(name).pos).to(self.physics.qpos), slides
        return found

    def outlines(self, index: int) -> list[Outline]:
        """Walls, gaps, and the blocks at their current positions."""
        return self._still + [self._cell(self.block(name)[index], "block") for name in self.blocks]

    @cached_property
    def _still(self) -> list[Outline]:
        kinds: list[tuple[str, Literal["wall", "gap"]]] = [("#", "wall"), ("~", "gap")]
        return [self._cell(self.maze.centre(*cell), kind) for sign, kind in kinds for cell in self.maze.cells(sign)]

    def _cell(self, place: Any, kind: Literal["wall", "gap", "block"]) -> Outline:
        size = self.maze.scale
        return Outline(float(place[0]) - size / 2, float(place[1]) - size / 2, size, size, kind)

    def picture(self, index: int) -> np.ndarray:
        """A picture from above [H, W, 3]. The goal is a green sphere and the subgoal an orange one, drawn on top of
        walls."""
        marks = [(self.goal[index], GREEN)] + ([] if self.marks is None else [(self.marks[index, :3], ORANGE)])
        raised = lambda x: [*x.tolist(), self.maze.top(*x[:2].tolist()) + 0.5][:3]  # noqa: E731
        spheres = [(raised(x), colour, 0.05 * self.maze.scale) for x, colour in marks]
        return self.viewer.picture(self.physics.qpos[index], spheres, self.maze.view)


class AntMazeEnv(SingleGoalEnv):
    """A single ant maze with numpy values."""

    task = AntMaze
