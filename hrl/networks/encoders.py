"""Encoders, which map a level's inputs to the features that its networks read."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ATARI = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""(channels, kernel, stride) of the layers for images of at least 36 pixels (Mnih 2015)."""
SMALL = ((16, 2, 1), (32, 2, 1), (64, 2, 1))
"""(channels, kernel, stride) of the layers for smaller images, such as the views of grid worlds."""


class PixelEncoder(nn.Module):
    """Encodes the images in a level's inputs, each with a separate small convolutional network.

    Inputs are a state, followed by an encoded command. The last entries of the state are pixels from 0 to 255; all
    other entries are passed on. The first layer has no bias and its outputs are normalised, so brightness has no
    effect."""

    def __init__(
        self,
        inputs: int,
        state_dim: int,
        images: tuple[tuple[int, int, int], ...],
        features: int = 128,
        lender: "PixelEncoder | None" = None,
    ) -> None:
        """`inputs` is the width of the inputs, `state_dim` that of the state including pixels. With a `lender`, its
        networks encode the images, and only the lender's losses train them."""
        super().__init__()
        self.images = images
        self.sizes = [channels * height * width for channels, height, width in images]
        self.vector, self.state_dim = state_dim - sum(self.sizes), state_dim
        self.width = inputs - sum(self.sizes) + features * len(images)
        self.nets = nn.ModuleList(convolutions(*shape, features) for shape in images) if lender is None else None
        self.lent = None if lender is None else Lent(lender)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., I] -> [..., width]"""
        flat = inputs.reshape(-1, inputs.shape[-1])
        pixels = flat[:, self.vector : self.state_dim].split(self.sizes, -1)
        seen = self.see(pixels) if self.lent is None else self.lent.see(pixels)
        features = torch.cat([flat[:, : self.vector], flat[:, self.state_dim :], *seen], -1)
        return features.reshape(*inputs.shape[:-1], self.width)

    def see(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """The features [B, F] of every image [B, C H W]."""
        assert self.nets is not None
        return [net(x.unflatten(-1, shape) / 255) for net, x, shape in zip(self.nets, pixels, self.images, strict=True)]


class Lent:
    """The networks of one encoder, for use by another encoder. The parameters and copies of the other encoder, such as
    target networks, do not include them."""

    def __init__(self, lender: PixelEncoder) -> None:
        self.lender = lender

    def __deepcopy__(self, memo: dict[int, object]) -> "Lent":
        return self

    @torch.no_grad()
    def see(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """The features, without a gradient."""
        return self.lender.see(pixels)


def convolutions(channels: int, height: int, width: int, features: int) -> nn.Sequential:
    """A convolutional network from images [B, C, H, W] to features [B, features]."""
    plan = ATARI if min(height, width) >= 36 else SMALL
    layers: list[nn.Module] = [
        nn.Conv2d(channels, plan[0][0], plan[0][1], plan[0][2], bias=False), nn.GroupNorm(1, plan[0][0]), nn.ReLU(),
    ]  # fmt: skip
    for (before, _, _), (after, kernel, stride) in pairwise(plan):
        layers += [nn.Conv2d(before, after, kernel, stride), nn.ReLU()]
    for _, kernel, stride in plan:
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(plan[-1][0] * height * width, features), nn.ReLU())
