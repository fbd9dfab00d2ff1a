"""A custom environment: a boat crosses a river with a current, and must reach a pier.

Importing this module registers the environment. Three commands, from the folder of this file, check it, train an agent
and evaluate the agent:

    python custom_env.py
    hrl-train hiro --env custom_env:River-v0
    hrl-evaluate runs/custom_env-River-v0/hiro/* --trust --plot river.png --plot-dims 0 1

The module declares no goal space. The run prints that subgoals are displacements of x, y, vx and vy, because random
steps change these entries (the pier does not move). Expect a success rate of 1.00 after 30,000 steps (about four
minutes on one core). To declare a goal space, add `--goal.indices 0 1 --goal.low -2 --goal.high 2`.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH, WIDTH, DT, CURRENT = 10.0, 6.0, 0.2, 0.8


class River(gym.Env[np.ndarray, np.ndarray]):
    """Observations are x, y, vx, vy and the x of the pier. Actions are thrusts. The reward is -1 per step until the
    boat reaches the pier."""

    observation_space = spaces.Box(
        np.array([0, 0, -3, -3, 0], np.float32), np.array([LENGTH, WIDTH, 3, 3, LENGTH], np.float32)
    )
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Put the boat on the near bank, and the pier at a random position on the far bank."""
        super().reset(seed=seed)
        self.position = np.array([self.np_random.uniform(0, LENGTH), 0.0])
        self.velocity = np.zeros(2)
        self.pier = self.np_random.uniform(0.2 * LENGTH, 0.8 * LENGTH)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> Any:
        """Apply thrust, drag, and a current that is strongest in midstream."""
        stream = np.array([CURRENT * 4 * self.position[1] * (WIDTH - self.position[1]) / WIDTH**2, 0.0])
        self.velocity += DT * (2.0 * np.asarray(action, np.float64) - self.velocity + stream)
        self.position = np.clip(self.position + DT * self.velocity, [0, 0], [LENGTH, WIDTH])
        distance = np.linalg.norm(self.position - [self.pier, WIDTH])
        arrived = bool(distance < 0.5)
        return self._observation(), 0.0 if arrived else -1.0, arrived, False, {"is_success": arrived}

    def _observation(self) -> np.ndarray:
        return np.array([*self.position, *self.velocity, self.pier], np.float32)


gym.register("River-v0", River, max_episode_steps=100)

if __name__ == "__main__":
    from gymnasium.utils.env_checker import check_env

    check_env(gym.make("River-v0").unwrapped)
    print("River-v0 passes Gymnasium's checks.")
