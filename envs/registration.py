"""Our tasks' Gymnasium ids. Importing this registers them; `gym.make` and `gym.make_vec` know them from then on."""

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


# Episode lengths are those of gymnasium-robotics.
for layout, steps in (("UMaze", 300), ("Open", 300), ("Medium", 600), ("Large", 800)):
    _register(f"PointMaze_{layout}-v0", "point_maze:PointMaze", steps, layout=layout)
    _register(f"PointMaze_{layout}Dense-v0", "point_maze:PointMaze", steps, layout=layout, reward_type="dense")
_register("Navigation-v0", "navigation:Navigation", 100)
_register("Track-v0", "track:Track", 100)
_register("Taxi-v0", "taxi:Taxi", 300)
_register("FourRooms-v0", "grids:FourRooms", 500)
_register("KeyDoor-v0", "grids:KeyDoor", 200)
