"""Registers the Gymnasium ids of our tasks on import, for `gym.make` and `gym.make_vec`."""

from typing import Any

import gymnasium as gym


def _register(name: str, task: str, steps: int, **kwargs: Any) -> None:
    gym.register(
        f"hrl/{name}",
        entry_point=f"hrl.envs.{task}Env",
        vector_entry_point=f"hrl.envs.{task}",
        max_episode_steps=steps,
        kwargs=kwargs,
    )


# Episode lengths are those of gymnasium-robotics; the giant maze has that of OGBench.
for layout, steps in (("UMaze", 300), ("Open", 300), ("Medium", 600), ("Large", 800), ("Giant", 1000)):
    _register(f"PointMaze_{layout}-v0", "tasks.point_maze:PointMaze", steps, layout=layout)
    _register(f"PointMaze_{layout}Dense-v0", "tasks.point_maze:PointMaze", steps, layout=layout, reward_type="dense")
_register("Navigation-v0", "tasks.navigation:Navigation", 100)
_register("Track-v0", "tasks.track:Track", 100)
_register("Taxi-v0", "tasks.taxi:Taxi", 300)
_register("FourRooms-v0", "tasks.grids:FourRooms", 500)
_register("FourRoomsGoals-v0", "tasks.grids:FourRoomsGoals", 500)
_register("KeyDoor-v0", "tasks.grids:KeyDoor", 200)
_register("MountainCarGoal-v0", "tasks.classic:MountainCarGoal", 400)
_register("PendulumGoal-v0", "tasks.classic:PendulumGoal", 200)
# HIRO's ant tasks: 500 steps of 0.1 s. Ids with Eval have the goal of the published evaluation.
_register("AntMaze-v0", "ants.maze:AntMaze", 500)
_register("AntMazeEval-v0", "ants.maze:AntMaze", 500, goal=(0.0, 16.0))
_register("AntPush-v0", "ants.maze:AntMaze", 500, maze="Push", goal=(0.0, 19.0))
_register("AntFall-v0", "ants.maze:AntMaze", 500, maze="Fall", goal=(0.0, 27.0, 4.5))
# HIRO's released code also trains on random goals (ant_push_multi, ant_fall_multi); evaluation uses the paper's goal.
_register("AntPushMulti-v0", "ants.maze:AntMaze", 500, maze="Push", goal=((-16.0, -4.0), (16.0, 20.0)))
_register("AntFallMulti-v0", "ants.maze:AntMaze", 500, maze="Fall", goal=((-4.0, -4.0, 0.0), (12.0, 28.0, 5.0)))
_register("AntGather-v0", "ants.gather:AntGather", 500)
_register("AntMazeSparse-v0", "ants.maze:AntMaze", 500, maze="Sparse", goal=(2.0, 9.0), reach=1.0, reward_type="sparse")
