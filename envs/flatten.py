"""Batched observations of any space as float32 vectors."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


class UnsupportedSpace(Exception):
    """An observation space that is not flattened here; the message says which."""


def flat_dim(space: gym.Space[Any]) -> int:
    """Entries of one flattened observation. Raises UnsupportedSpace."""
    match space:
        case spaces.Box():
            if len(space.shape) >= 3 or (space.dtype == np.uint8 and len(space.shape) == 2):
                raise UnsupportedSpace(f"pixels (a Box of shape {space.shape})")
            return int(np.prod(space.shape))
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete():
            return int(space.nvec.sum())
        case spaces.MultiBinary():
            return int(np.prod(space.shape))
        case spaces.Dict():
            return sum(flat_dim(s) for s in space.spaces.values())
        case spaces.Tuple():
            return sum(flat_dim(s) for s in space.spaces)
    raise UnsupportedSpace(f"a {type(space).__name__} space")


def flatten_batch(space: gym.Space[Any], batch: Any, device: torch.device) -> Tensor:
    """N batched observations as [N, D] float32; discrete values become one-hot."""
    match space:
        case spaces.Box() | spaces.MultiBinary():
            if isinstance(batch, Tensor):  # as it is, where it is on the device already
                return batch.to(device, torch.float32).flatten(1)
            # A copy: vector environments write their next observations over these.
            return _sent(torch.from_numpy(np.asarray(batch)).to(torch.float32, copy=True), device).flatten(1)
        case spaces.Discrete():
            index = torch.as_tensor(batch, device=device).long() - int(space.start)
            return torch.nn.functional.one_hot(index, int(space.n)).float()
        case spaces.MultiDiscrete():
            index = (
                torch.as_tensor(batch, device=device).long().flatten(1)
                - torch.as_tensor(space.start, device=device).flatten()
            )
            sizes = space.nvec.flatten()
            hot = [torch.nn.functional.one_hot(index[:, i], int(n)).float() for i, n in enumerate(sizes)]
            return torch.cat(hot, -1)
        case spaces.Dict():
            return torch.cat([flatten_batch(s, batch[k], device) for k, s in space.spaces.items()], -1)
        case spaces.Tuple():
            return torch.cat([flatten_batch(s, b, device) for s, b in zip(space.spaces, batch, strict=True)], -1)
    raise UnsupportedSpace(f"a {type(space).__name__} space")


def _sent(host: Tensor, device: torch.device) -> Tensor:
    """To the device, through pinned memory where that lets the host go on."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def flat_bounds(space: gym.Space[Any]) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds [D] of flattened observations; infinite where the space has none."""
    if isinstance(space, spaces.Box):
        return tuple(torch.as_tensor(b, dtype=torch.float32).flatten() for b in (space.low, space.high))  # type: ignore[return-value]
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        lows, highs = zip(*(flat_bounds(s) for s in parts), strict=True)
        return torch.cat(lows), torch.cat(highs)
    dim = flat_dim(space)
    return torch.zeros(dim), torch.ones(dim)
