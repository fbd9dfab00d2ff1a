"""Success rate and return of uniformly random actions, with which trained policies are compared.

    python benchmarks/chance.py --env CarRacing-v3 --episodes 20

Prints the mean return with Student's 95 % interval.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import tyro
from running import mean

from hrl.envs import EnvConfig, make_env
from hrl.envs.config import KEY_VALUES
from hrl.spaces import action_width, from_uniform


@dataclass
class Options:
    """Print success rate and mean return."""

    env: str
    """Environment id."""
    env_kwargs: Annotated[dict[str, Any], KEY_VALUES] = field(default_factory=dict)
    """Keyword arguments of the environment, as KEY=VALUE."""
    action_repeat: int = 1
    """Environment steps during which each action is repeated."""
    episodes: int = 100
    """Number of episodes, which run side by side."""


def main() -> None:
    """Run the episodes, and print the figures."""
    options = tyro.cli(Options)
    success, returns = by_chance(options.env, options.env_kwargs, options.episodes, options.action_repeat)
    print(f"success {success:.3f}, return {mean(returns)}")


def by_chance(
    env_id: str, arguments: dict[str, Any], episodes: int, action_repeat: int = 1
) -> tuple[float, list[float]]:
    """The success rate, and the return of every episode."""
    env = make_env(EnvConfig(env_id, arguments, num_envs=episodes, action_repeat=action_repeat))
    generator = torch.Generator().manual_seed(0)
    env.reset(0)
    reached, over = torch.zeros(episodes, dtype=torch.bool), torch.zeros(episodes, dtype=torch.bool)
    returns = torch.zeros(episodes)
    while not over.all():
        uniform = torch.rand(episodes, action_width(env.spec.actions), generator=generator)
        step = env.step(from_uniform(env.spec.actions, uniform))
        returns += step.reward * ~over
        reached |= step.success & ~over
        over |= step.terminated | step.truncated
    env.close()
    return float(reached.float().mean()), returns.tolist()


if __name__ == "__main__":
    main()
