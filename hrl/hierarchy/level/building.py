"""The parts of a level that are built from its options: the mask of its observations, its encoder and its learner."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hrl.hierarchy.commands import Command
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.level.contracts import Bonus
from hrl.hierarchy.setting import Setting
from hrl.learners import Build, Learner
from hrl.learners.protection import protect
from hrl.networks.encoders import PixelEncoder
from hrl.types import UserError


def observation_mask(name: str, masked: Sequence[int], state_dim: int, device: torch.device) -> Tensor:
    """[D] 1 for state entries that the networks see, 0 for masked entries. Raises UserError, naming the level, if an
    entry does not exist."""
    outside = [i for i in masked if not 0 <= i < state_dim]
    if outside:
        raise UserError(
            f"{name}.masked_entries {outside} do not exist: the observation has {state_dim} entries (0 to "
            f"{state_dim - 1})."
        )
    mask = torch.ones(state_dim, device=device)
    mask[list(masked)] = 0.0
    return mask


def new_encoder(setting: Setting, command: Command) -> PixelEncoder | None:
    """The network for images, if there are any: a new one, or that of another level."""
    spec = setting.spec
    if not spec.images:
        return None
    with setting.device:
        return PixelEncoder(spec.state_dim + command.input_dim, spec.state_dim, spec.images, lender=setting.encoder)


def new_learner(config: LevelConfig, build: Build, device: torch.device) -> Learner:
    """The learner, with protection if configured."""
    with device:
        learner = config.learner.build(build)
    protect(learner, config.protect, build.name)
    return learner


def value_range(command: Command, gamma: float, bonus: Bonus | None) -> tuple[float, float] | None:
    """Minimum and maximum of the discounted sum of rewards and bonuses; None if unknown."""
    known = command.value_range(gamma)
    if known is None or bonus is None:
        return known
    return known[0], known[1] + bonus.greatest / (1.0 - gamma)
