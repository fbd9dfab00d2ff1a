"""Checks that a learner supports an action space."""

from gymnasium import spaces

from hrl.learners.base import Build
from hrl.spaces import MOST_COMBINATIONS, Choices, choice_sizes
from hrl.types import UserError


def require_box(build: Build, kind: str) -> None:
    """Raise UserError unless actions are continuous (Box)."""
    if not isinstance(build.actions, spaces.Box):
        raise UserError(
            f"{kind} supports only vectors (Box), but the actions of the {build.name} level are {build.actions}: use "
            "dqn, discrete-sac or ppo."
        )


def joint_choices(build: Build, kind: str) -> Choices:
    """The joint choices of discrete actions. Raises UserError for a Box, or for more than MOST_COMBINATIONS."""
    sizes = choice_sizes(build.actions)
    if sizes is None:
        raise UserError(
            f"{kind} supports only discrete actions, but those of the {build.name} level are vectors: use td3, sac or "
            "ppo."
        )
    choices = Choices(sizes)
    if choices.count > MOST_COMBINATIONS:
        raise UserError(
            f"{kind} needs a value for each of {choices.count:,} combinations of actions, more than "
            f"{MOST_COMBINATIONS:,}: use ppo, which decides on each entry separately."
        )
    return choices
