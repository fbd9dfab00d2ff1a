"""Pretrained policies: small run folders in this package, named `pretrained/<env>/<algorithm>`.

Each folder contains the configuration of its run, a checkpoint of the networks alone, a sample of visited states for
the graph planner, and a card with the policy's scores. `benchmarks/pretrained.py` writes these folders.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrl.memory.dataset import replay_of_episodes
from hrl.memory.ring import Replay
from hrl.run.checkpoint import Checkpoint
from hrl.types import UserError

PREFIX = "pretrained"
FOLDER = Path(__file__).resolve().parent
LARGE = 1000
"""Tensors with more entries are stored in half precision."""
STATE, FINAL = "visited.state", "visited.final"
"""Names of the tensors of visited states: the states [R, D], and [R] whether each is the last of its episode."""


def list_pretrained() -> dict[str, dict[str, Any]]:
    """The card of every pretrained policy of this package, by name. `hrl.load(name)` loads it."""
    folders = sorted(file.parent for file in FOLDER.glob("*/*/card.json"))
    return {f"{PREFIX}/{folder.relative_to(FOLDER).as_posix()}": read_card(folder) for folder in folders}


def read_card(folder: Path) -> dict[str, Any]:
    """The card in a pretrained policy's folder; empty if there is none."""
    file = folder / "card.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def located(path: Path) -> Path:
    """The folder of a run. `pretrained/…` is a folder of this package, unless the user has a folder with this name.

    Raises UserError, with the existing names, for an unknown pretrained policy.
    """
    if path.parts[:1] != (PREFIX,) or path.exists():
        return path
    if path.as_posix() not in list_pretrained():
        raise UserError(f"There is no policy {path}; this version has {', '.join(list_pretrained())}.")
    return FOLDER.joinpath(*path.parts[1:])


def slimmed(networks: Mapping[str, Tensor], steps: int, state: Tensor | None, final: Tensor | None) -> Checkpoint:
    """A checkpoint of the networks alone, with visited states [R, D] and `final` [R] for the planner, if given.

    Large tensors are stored in half precision. Target networks are stored as copies of the networks that they follow.
    """
    tensors = {name: _half(x) for name, x in networks.items()}
    for name in networks:
        source = name.replace(".target_", ".")
        if source != name and source in networks and networks[source].shape == networks[name].shape:
            tensors[name] = tensors[source]
    if state is not None and final is not None:
        tensors |= {STATE: state.half(), FINAL: final}
    return Checkpoint(tensors, {"steps": steps, "networks_only": True})


def _half(x: Tensor) -> Tensor:
    short = x.half()
    return short if x.dtype == torch.float32 and x.numel() > LARGE and bool(short.isfinite().all()) else x


def visited(checkpoint: Checkpoint, device: torch.device) -> Replay | None:
    """The visited states of a pretrained policy, as a replay with no other fields; None if there are none."""
    if STATE not in checkpoint.tensors:
        return None
    return replay_of_episodes(checkpoint.tensors[STATE].to(device), checkpoint.tensors[FINAL].to(device))
