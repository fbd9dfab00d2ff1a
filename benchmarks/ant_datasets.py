"""Datasets of ants in gymnasium-robotics' mazes for offline learning, of the kinds that datasets.py describes.

    python benchmarks/ant_datasets.py navigate --run runs/AntMaze_Medium-v4/hiro/RUN --out navigate.npz

The low level of a trained run of HIRO in the maze walks along the shortest ways, and its actions are noisy. In OGBench,
the expert is a directional policy of SAC.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from datasets import HELD, LENGTHS, Kind, directions
from torch import Tensor
from ways import Traveller, Ways

import hrl
from hrl.envs import make_env
from hrl.envs.make import make_single
from hrl.envs.tasks.point_maze import Map
from hrl.planning.exploring import Commanded
from hrl.training.policy import HierarchyPolicy
from hrl.types import BatchedEnv

NOISE: dict[Kind, float] = {"navigate": 0.2, "stitch": 0.2, "explore": 0.5}
"""Standard deviation of the noise on the agent's actions, which lie within ±1."""
AHEAD = 2.0
"""Distance of the low level's goals."""
FIRST = 30_000_000
"""Seed of the first trajectory, above all seeds of training, evaluation and planning."""


@dataclass
class Options:
    """Collect a dataset, and write it to a file."""

    kind: Annotated[Kind, tyro.conf.Positional]
    """Kind of trajectories."""
    run: Path
    """Run folder of HIRO in the maze."""
    out: Path
    """File to write, FILE.npz."""
    transitions: int = 500_000
    """Number of transitions."""
    num_envs: int = 25
    """Trajectories in parallel."""
    noise: float | None = None
    """Standard deviation of the noise on actions. Default: .2, and .5 for explore."""
    seed: int = 0
    """Random seed."""


def main() -> None:
    """Collect and write."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    run = hrl.load(options.run)
    if run.parts.env.action_repeat > 1:
        raise SystemExit(f"{options.run} repeats actions, so it cannot collect single steps of the environment.")
    noise = NOISE[options.kind] if options.noise is None else options.noise
    data = collect(options.kind, run, options.transitions, options.num_envs, noise, options.seed)
    np.savez_compressed(options.out, **data)
    ends = int(data["terminals"].sum())
    print(f"{options.out}: {len(data['terminals']) - ends:,} transitions of {ends:,} trajectories")


def collect(
    kind: Kind, run: hrl.Run, transitions: int, num_envs: int, noise: float, seed: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of a dataset: observations [R, D], actions [R, A] of the environment, and terminals [R]. A
    trajectory's last row has its final observation, and an action of 0."""
    length, own = LENGTHS[kind], run.parts.env
    kwargs = own.env_kwargs | {"continuing_task": True, "reset_target": False, "max_episode_steps": length + 1}
    config = replace(own, env_kwargs=kwargs, num_envs=num_envs)
    single = make_single(config)
    maze = single.unwrapped.maze  # type: ignore[attr-defined]
    walls, scale = torch.tensor([[cell == 1 for cell in row] for row in maze.maze_map]), maze.maze_size_scaling
    single.close()
    env, generator = make_env(config), torch.Generator().manual_seed(seed)
    walker = Walker(HierarchyPolicy(run.policy("last").agent.lowest(1)), Ways(Map.of(walls, "cpu")), scale, generator)
    rounds = max(transitions // (length * num_envs), 1)
    parts = [walker.trajectories(kind, env, noise, FIRST + (seed * rounds + i) * num_envs) for i in range(rounds)]
    env.close()
    state, action = (np.concatenate(column) for column in zip(*parts, strict=True))
    terminal = np.arange(len(state)) % (length + 1) == length
    return {"observations": state, "actions": action, "terminals": terminal}


class Walker:
    """A trained low level that walks along the shortest ways, or in random directions."""

    def __init__(self, policy: HierarchyPolicy, ways: Ways, scale: float, generator: torch.Generator) -> None:
        """`scale` is the length of a cell's side."""
        self.policy, self.ways, self.scale, self.generator = policy, ways, scale, generator

    def trajectories(self, kind: Kind, env: BatchedEnv, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """States [N (T + 1), D] and the environment's actions [N (T + 1), A] of N trajectories, one after the other."""
        count, obs = env.num_envs, env.reset(seed)
        memory: Any = self.policy.start(count)
        traveller = Traveller(self.ways, self._place(obs.state), self.generator)
        states, actions = [], []
        heading = torch.zeros(count, 2)
        for t in range(LENGTHS[kind]):
            if kind == "explore" and t % HELD == 0:
                heading = directions(count, self.generator)
            place = self._place(obs.state)
            way = heading if kind == "explore" else traveller.waypoint(place, onward=kind == "navigate") - place
            goal = self._goal(place, way)
            action, memory, _ = self.policy.act(Commanded(obs.state, goal, obs.mask), memory, "greedy")
            action = (action + noise * torch.randn(action.shape, generator=self.generator)).clamp(-1.0, 1.0)
            states.append(obs.state)
            actions.append(env.to_action(action.numpy()))
            step = env.step(action)
            memory, obs = self.policy.after(memory, step)[0], step.obs
        states.append(obs.state)
        actions.append(np.zeros_like(actions[0]))
        rows = torch.stack(states, 1).flatten(0, 1).numpy(), np.stack(actions, 1).reshape(-1, actions[0].shape[-1])
        return rows

    def _place(self, state: Tensor) -> Tensor:
        """Positions [N, 2] of states [N, D], in cells."""
        place = self.policy.place(state)
        assert place is not None
        return place / self.scale

    def _goal(self, place: Tensor, way: Tensor) -> Tensor:
        """The low level's goals [N, 2], at most AHEAD from a place [N, 2] along a way [N, 2], both in cells."""
        way = way * self.scale
        return place * self.scale + way * (AHEAD / way.norm(dim=-1, keepdim=True).clamp_min(AHEAD))


if __name__ == "__main__":
    main()
