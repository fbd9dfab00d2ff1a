"""Images in observations: detection of image spaces and of their channel axis.

The last entries of a flattened observation are the pixels, channels first, from 0 to 255. The replay stores them as
bytes.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LEAST_SIDE = 7
"""Minimum height and width of an image. Smaller arrays of bytes are vectors."""


def image_shape(space: gym.Space[Any]) -> tuple[int, int, int] | None:
    """(channels, height, width) of an image space, with stacked frames as channels; None for other spaces."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or not 2 <= len(space.shape) <= 4:
        return None
    frames, shape = (space.shape[0], space.shape[1:]) if len(space.shape) == 4 else (1, space.shape)
    if len(shape) == 2:
        shape = (*shape, 1)
    if not channels_first(shape):
        shape = (shape[2], shape[0], shape[1])
    channels, height, width = shape
    return (frames * channels, height, width) if min(height, width) >= LEAST_SIDE else None


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether the first of three axes is the channel axis: no axis is shorter than it, and the last axis is longer."""
    return shape[0] < shape[2] and shape[0] <= min(shape[1:])


def first_channels(images: Any) -> Any:
    """A batch of images or image stacks [N, ...] as [N, pixels], channels first."""
    if images.ndim == 3:
        return images.reshape(len(images), -1)
    if channels_first(tuple(images.shape[-3:])):
        return images.reshape(len(images), -1)
    return np.moveaxis(images, -1, -3).reshape(len(images), -1)


def last_channels(pixels: Any, shape: tuple[int, ...]) -> Any:
    """The inverse of `first_channels`: [N, pixels] as images [N, *shape]."""
    if len(shape) == 2 or channels_first(shape[-3:]):
        return pixels.reshape(-1, *shape)
    *frames, height, width, channels = shape
    return np.moveaxis(pixels.reshape(-1, *frames, channels, height, width), -3, -1)
