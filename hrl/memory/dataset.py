"""Datasets of trajectories for offline learning: OGBench's npz files, Minari's datasets, and replays of runs."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrl.memory.ring import Replay, Rows
from hrl.spaces import action_width
from hrl.types import BatchedEnv, Spec, UserError

MINARI = "minari:"
"""Prefix of the ids of Minari's datasets."""


@dataclass(frozen=True)
class Dataset:
    """Trajectories, one after another in R rows. The last row of a trajectory contains only its final observation."""

    state: Tensor
    """[R, D] float32"""
    action: Tensor
    """[R, A] float32, agents' actions (hrl/spaces.py); meaningless in final rows."""
    final: Tensor
    """[R] int64, the final row of each row's trajectory."""
    transitions: Tensor
    """[M] int64, the rows that are not final."""

    @classmethod
    def of(cls, state: Any, action: Any, terminal: Any, device: torch.device) -> "Dataset":
        """Build a dataset from rows [R, D], [R, A] and [R]; `terminal` is true in the final row of every trajectory.

        Raises UserError if there is no transition, or if a value is not finite.
        """
        states, actions = (torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (state, action))
        ends = torch.as_tensor(np.asarray(terminal)).bool().clone()
        ends[-1:] = True
        places = ends.nonzero().flatten()
        final = places[torch.searchsorted(places, torch.arange(len(ends)))] if len(ends) else places
        transitions = (~ends).nonzero().flatten()
        if not len(transitions):
            raise UserError("The dataset has no transition: every trajectory needs at least two observations.")
        if not (bool(states.isfinite().all()) and bool(actions[transitions].isfinite().all())):
            raise UserError("The dataset has an observation or action that is NaN or infinite.")
        return cls(states.to(device), actions.to(device), final.to(device), transitions.to(device))

    @property
    def trajectories(self) -> int:
        """Number of trajectories with at least one transition."""
        return len(self.final[self.transitions].unique())

    def fingerprint(self) -> str:
        """A checksum of all rows."""
        digest = hashlib.sha256()
        for x in (self.state, self.action, self.final):
            digest.update(x.cpu().numpy().tobytes())
        return digest.hexdigest()


def read_dataset(source: str, env: BatchedEnv, load_agent: Callable[[Path], Any], device: torch.device) -> Dataset:
    """Read a dataset for an environment: `FILE.npz`, `minari:ID`, or a run folder, for the bottom level's replay.

    `load_agent` returns the final agent of a run. Raises UserError if the source cannot be read or does not fit.
    """
    path = Path(source)
    if source.startswith(MINARI):
        rows = _from_minari(source.removeprefix(MINARI), env)
    elif path.suffix == ".npz":
        rows = _from_npz(path, env)
    elif (path / "config.json").exists():
        rows = trajectories_of(load_agent(path).levels[0].memory, source)
    else:
        raise UserError(
            f"--dataset {source} is not a dataset: give a run folder of this toolkit, a file FILE.npz in OGBench's "
            "layout, or minari:ID."
        )
    _require_fit(source, rows, env.spec)
    return Dataset.of(*rows, device)


TrajectoryRows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""States [R, D], agents' actions [R, A], and [R] whether a row is final."""


def _require_fit(source: str, rows: TrajectoryRows, spec: Spec) -> None:
    """Raise UserError if the rows differ in size from the environment's observations and actions."""
    state, action, terminal = rows
    if state.ndim != 2 or action.ndim != 2 or not len(state) == len(action) == len(terminal):
        raise UserError(
            f"--dataset {source} must have one observation, one action and one terminal per row, but has shapes "
            f"{state.shape}, {action.shape} and {terminal.shape}."
        )
    width = action_width(spec.actions)
    if (state.shape[1], action.shape[1]) != (spec.state_dim, width):
        raise UserError(
            f"--dataset {source} has observations of {state.shape[1]} and actions of {action.shape[1]} entries, but "
            f"{spec.env_id} has {spec.state_dim} and {width}: choose the environment that it was collected in."
        )


def _from_npz(path: Path, env: BatchedEnv) -> TrajectoryRows:
    """OGBench's layout (Park 2024): observations [R, D], actions [R, A] of the environment, and terminals [R], 1 in the
    last row of each trajectory. Other arrays, such as qpos and qvel, are ignored."""
    try:
        with np.load(path, allow_pickle=False) as file:
            state, action, terminal = (file[name] for name in ("observations", "actions", "terminals"))
    except KeyError as error:
        raise UserError(f"{path} must have the arrays observations, actions and terminals: {error.args[0]}.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as an npz file: {error}.") from error
    if not len(state):
        raise UserError(f"{path} is empty: it has no observations.")
    return state, _agents(action, env), terminal > 0


def _from_minari(name: str, env: BatchedEnv) -> TrajectoryRows:
    """Read a dataset of Minari. Downloads it if it is not on this machine."""
    try:
        import minari
    except ImportError as error:
        raise UserError("--dataset minari:ID needs the package minari: pip install 'nested-hrl[offline]'.") from error
    try:
        episodes = list(minari.load_dataset(name, download=True).iterate_episodes())
    except Exception as error:  # errors of the network, the file system or Minari
        raise UserError(f"Minari cannot load the dataset {name!r}: {' '.join(str(error).split())}") from error
    parts: list[TrajectoryRows] = []
    for episode in episodes:
        state = env.observe(episode.observations).state.numpy(force=True)
        action = _agents(np.asarray(episode.actions), env)
        last = np.zeros_like(action[:1])  # for the final observation
        parts.append((state, np.concatenate([action, last]), np.arange(len(state)) == len(state) - 1))
    if not parts:
        raise UserError(f"Minari's dataset {name!r} has no episodes.")
    state, action, terminal = (np.concatenate(column) for column in zip(*parts, strict=True))
    return state, action, terminal


def _agents(action: np.ndarray, env: BatchedEnv) -> np.ndarray:
    """Convert actions of the environment [R, ...] to agents' actions [R, A]."""
    try:
        converted = env.from_action(action)
    except ValueError as error:
        raise UserError(f"The dataset's actions do not fit {env.spec.env_id}: {error}.") from error
    return np.asarray(converted, dtype=np.float32).reshape(len(converted), -1)


def trajectories_of(ring: Replay, source: str) -> TrajectoryRows:
    """A replay as rows, stream by stream. An episode without its end becomes shorter by one transition.

    Raises UserError, naming the source, if the replay is empty.
    """
    parts: list[TrajectoryRows] = []
    for i in range(ring.num_envs):
        newest = int(ring.cursor[i])
        row = torch.arange(max(newest - (ring.length - 2), int(ring.cleared[i]), 0), newest, device=ring.device)
        rows = Rows(torch.full_like(row, i), row)
        if len(row):
            values = (ring.get(rows, "state"), ring.get(rows, "action"), ring.is_final(rows))
            state, action, terminal = (x.numpy(force=True) for x in values)
            parts.append((state, action, terminal | (np.arange(len(row)) == len(row) - 1)))
    if not parts:
        raise UserError(f"The replay of {source} is empty.")
    state, action, terminal = (np.concatenate(column) for column in zip(*parts, strict=True))
    return state, action, terminal


def replay_of_episodes(state: Tensor, final: Tensor) -> Replay:
    """A replay that holds only these states [R, D] of episodes, one after the other. `final` [R] is true for the final
    observation of each episode, and for the last row."""
    size, ends = len(state), final.nonzero().flatten()
    replay = Replay({"state": state.shape[-1]}, ("state",), (), size, 1, state.device)
    replay.values[:size] = state
    replay.numbers[1:size, 0] = final[:-1].cumsum(0)
    replay.episode_end[: len(ends), 0] = ends
    replay.cursor.fill_(size)
    replay.episode.fill_(len(ends))
    return replay
