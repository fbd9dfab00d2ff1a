"""The environments of a run's evaluations. They are kept from one evaluation to the next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hrl.report.evaluation import EVALUATION_SEED, close_environments
from hrl.types import BatchedEnv, Observation


class KeptEnvironments:
    """Environments that are made once and kept between evaluations.

    An evaluation must not depend on earlier ones. Therefore, new environments replace the kept ones if an episode from
    the same seed starts with a different observation than before, if they have state that persists across episodes
    (`BatchedEnv.lasting`), and after an error.
    """

    def __init__(self, make: Callable[[int], BatchedEnv]) -> None:
        """`make` creates a given number of environments."""
        self._make = make
        self._kept: BatchedEnv | None = None
        self._first: Observation | None = None
        """The first observation of the kept environments."""

    @contextmanager
    def __call__(self, num_envs: int) -> Iterator[BatchedEnv]:
        """A context with `num_envs` environments. They must be reset first."""
        env = self._take(num_envs)
        try:
            yield env
        except BaseException:
            close_environments(env)
            raise
        if env.lasting():
            close_environments(env)
        else:
            self._kept = env

    def _take(self, num_envs: int) -> BatchedEnv:
        """The kept environments if their number and first observation are the same as before, else new ones."""
        env, self._kept = self._kept, None
        if env is not None:
            if env.num_envs == num_envs and same(env.reset(EVALUATION_SEED), self._first):
                return env
            close_environments(env)
        env = self._make(num_envs)
        self._first = env.reset(EVALUATION_SEED)
        return env

    def close(self) -> None:
        """Close the kept environments."""
        if self._kept is not None:
            close_environments(self._kept)
            self._kept = None


def same(a: Observation, b: Observation | None) -> bool:
    """Whether two observations have equal states and goals."""
    return b is not None and torch.equal(a.state, b.state) and torch.equal(a.goal, b.goal)
