"""Batched observations of any space as float32 vectors."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hrl.envs.spaces.images import first_channels, image_shape, last_channels

MOST_ENTRIES = 1_000_000
"""Maximum number of entries of a flattened observation."""


class UnsupportedSpace(Exception):
    """Raised for an observation space that cannot be flattened; the message names it."""


class UsableTuple(spaces.Tuple):
    """A tuple space without the entries that no network supports."""

    def __init__(self, parts: list[gym.Space[Any]], places: tuple[int, ...]) -> None:
        super().__init__(parts)
        self.places = places
        """Indices of the entries in the original tuple."""


def usable(space: gym.Space[Any]) -> gym.Space[Any] | None:
    """The space without text, sequences, graphs, unions and empty entries. Returns the space itself if it has none of
    these, and None if no entry remains."""
    match space:
        case spaces.Box() if space.dtype.kind in "fiub" and np.prod(space.shape):
            return space
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return space
        case spaces.Dict():
            kept = {key: part for key, s in space.spaces.items() if (part := usable(s)) is not None}
            if all(kept.get(key) is s for key, s in space.spaces.items()):
                return space if kept else None
            return spaces.Dict(kept) if kept else None
        case spaces.Tuple():
            parts = [(i, part) for i, s in enumerate(space.spaces) if (part := usable(s)) is not None]
            if len(parts) == len(space.spaces) and all(part is space.spaces[i] for i, part in parts):
                return space if parts else None
            return UsableTuple([part for _, part in parts], tuple(i for i, _ in parts)) if parts else None
    return None


def left_out(space: gym.Space[Any], name: str = "") -> list[str]:
    """Names and types of the entries that `usable` removes from a dictionary or tuple."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return [line for key, part in parts for line in left_out(part, f"{name}.{key}" if name else str(key))]
    return [f"{name} ({type(space).__name__})"] if usable(space) is None else []


def leaves(space: gym.Space[Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], tuple[int, ...]]]:
    """(keys, shape) of every array in a raw observation."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in zip(getattr(space, "places", range(len(space.spaces))), space.spaces, strict=True):
            yield from leaves(part, (*path, i))
    else:
        yield path, tuple(space.shape or ())


def flat_dim(space: gym.Space[Any]) -> int:
    """Number of entries of a flattened observation, including pixels. Raises UnsupportedSpace if there are too many."""
    size = sum(_size(part) for part in parts_of(space))
    if size > MOST_ENTRIES:
        raise UnsupportedSpace(f"a vector of {size:,} entries (discrete values become one-hot)")
    return size


def vector_dim(space: gym.Space[Any]) -> int:
    """Number of entries of a flattened observation without pixels; these entries come first."""
    return sum(_size(part) for part in parts_of(space) if image_shape(part) is None)


def parts_of(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    """The parts of nested dictionaries and tuples, in the order in which they are flattened."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces:
            yield from parts_of(part)
    else:
        yield space


def image_shapes(space: gym.Space[Any]) -> tuple[tuple[int, int, int], ...]:
    """(channels, height, width) of every image in an observation."""
    return tuple(shape for part in parts_of(space) if (shape := image_shape(part)) is not None)


def _size(space: gym.Space[Any]) -> int:
    match space:
        case spaces.Box() if usable(space) is not None:
            return int(np.prod(space.shape))
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete():
            return int(space.nvec.sum())
        case spaces.MultiBinary():
            return int(np.prod(space.shape))
    raise UnsupportedSpace(f"a {type(space).__name__} space" if not isinstance(space, spaces.Box) else f"{space}")


def flatten_batch(space: gym.Space[Any], batch: Any, device: torch.device) -> Tensor:
    """Flatten N batched observations to [N, D] float32. Discrete values become one-hot; images come last."""
    vectors: list[Tensor] = []
    images: list[Tensor] = []
    for part, values in _leaves(space, batch):
        (vectors if image_shape(part) is None else images).append(_flat(part, values, device))
    columns = [*vectors, *images]
    return columns[0] if len(columns) == 1 else torch.cat(columns, -1)


def _leaves(space: gym.Space[Any], batch: Any) -> Iterator[tuple[gym.Space[Any], Any]]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, batch[key])
    elif isinstance(space, spaces.Tuple):
        for part, values in zip(space.spaces, batch, strict=True):
            yield from _leaves(part, values)
    else:
        yield space, batch


def _flat(space: gym.Space[Any], batch: Any, device: torch.device) -> Tensor:
    match space:
        case spaces.Box() if image_shape(space) is not None:
            # Copy the bytes, because vector environments overwrite them with the next observations.
            pixels = np.ascontiguousarray(first_channels(np.array(batch, dtype=np.uint8)))
            return _sent(torch.from_numpy(pixels), device).float()
        case spaces.Box() | spaces.MultiBinary():
            if isinstance(batch, Tensor):  # no copy if it is already on the device
                return batch.to(device, torch.float32).reshape(len(batch), -1)
            # Copy the values, because vector environments overwrite them with the next observations.
            return _sent(torch.from_numpy(np.array(batch, dtype=np.float32)), device).reshape(len(batch), -1)
        case spaces.Discrete():
            index = _numbers(batch, device) - int(space.start)
            _check_numbers(batch, space.start, space.n)
            return torch.nn.functional.one_hot(index, int(space.n)).float()
        case spaces.MultiDiscrete():
            _check_numbers(batch, space.start, space.nvec)
            index = _numbers(batch, device).flatten(1) - torch.as_tensor(space.start, device=device).flatten()
            sizes = space.nvec.flatten()
            hot = [torch.nn.functional.one_hot(index[:, i], int(n)).float() for i, n in enumerate(sizes)]
            return torch.cat(hot, -1)
    raise UnsupportedSpace(f"a {type(space).__name__} space")


def unflatten_batch(space: gym.Space[Any], flat: Tensor) -> Any:
    """The inverse of `flatten_batch`: convert [N, D] to raw observations in the form of a vector environment. Entries
    that no network supports are missing."""
    values, parts = flat.cpu().numpy(), list(parts_of(space))
    first = [i for i, part in enumerate(parts) if image_shape(part) is None]
    order = [*first, *(i for i in range(len(parts)) if i not in first)]
    ends = np.cumsum([_size(parts[i]) for i in order])
    columns = dict(zip(order, np.split(values, ends[:-1], -1), strict=True))
    return _nested(space, iter([_raw(part, columns[i]) for i, part in enumerate(parts)]))


def _nested(space: gym.Space[Any], columns: Iterator[np.ndarray]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _nested(part, columns) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(part, columns) for part in space.spaces)
    return next(columns)


def _raw(space: gym.Space[Any], values: np.ndarray) -> np.ndarray:
    """The raw values [N, *shape] of one flattened part [N, D]."""
    match space:
        case spaces.Box() if image_shape(space) is not None:
            return last_channels(values.astype(space.dtype), space.shape)
        case spaces.Discrete():
            return values.argmax(-1).astype(space.dtype) + space.start
        case spaces.MultiDiscrete():
            hot = np.split(values, np.cumsum(space.nvec.ravel())[:-1], -1)
            numbers = np.stack([x.argmax(-1) for x in hot], -1).reshape(-1, *space.shape)
            return (numbers + space.start).astype(space.dtype)
    return values.reshape(-1, *(space.shape or ())).astype(space.dtype)


class FlatObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Flattens the observations of one environment to float32 vectors, as `flatten_batch` does for batches."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._space = env.observation_space
        low, high = (bound.numpy() for bound in flat_bounds(self._space))
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: Any) -> np.ndarray:
        """The flattened observation [D]."""
        return flatten_batch(self._space, batched([observation]), torch.device("cpu"))[0].numpy()


def batched(observations: list[Any]) -> Any:
    """Stack single raw observations to a batch in the form of a vector environment."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: batched([o[key] for o in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(batched(list(column)) for column in zip(*observations, strict=True))
    return np.stack([np.asarray(o) for o in observations])


def shapes_of(raw: Any) -> Any:
    """The shape of a raw observation, or those of the entries of a dictionary or tuple."""
    if isinstance(raw, dict):
        return {key: shapes_of(part) for key, part in raw.items()}
    return tuple(shapes_of(part) for part in raw) if isinstance(raw, tuple) else np.shape(raw)


def _numbers(batch: Any, device: torch.device) -> Tensor:
    return torch.as_tensor(batch, device=device).long()


def _check_numbers(batch: Any, start: Any, count: Any) -> None:
    """Raise ValueError for numbers outside their space, because PyTorch does not check them on a GPU. Tensors are not
    checked."""
    if not isinstance(batch, Tensor):
        index = np.asarray(batch) - start
        if ((index < 0) | (index >= count)).any():
            raise ValueError(f"a number outside its space: {np.asarray(batch).tolist()}")


def _sent(host: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to the device. For a GPU, pinned memory avoids a wait of the host."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def flat_bounds(space: gym.Space[Any]) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds [D] of flattened observations; infinite where the space is unbounded."""
    parts = list(parts_of(space))
    parts.sort(key=lambda part: image_shape(part) is not None)  # images last
    lows, highs = zip(*(_bounds(part) for part in parts), strict=True)
    return torch.cat(lows), torch.cat(highs)


def _bounds(space: gym.Space[Any]) -> tuple[Tensor, Tensor]:
    if isinstance(space, spaces.Box):
        return tuple(torch.as_tensor(b, dtype=torch.float32).flatten() for b in (space.low, space.high))  # type: ignore[return-value]
    dim = _size(space)
    return torch.zeros(dim), torch.ones(dim)
