"""Existing policies as one learner that does not learn. The command selects the policy that acts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from hrl.learners.base import Batch, Build, Learner, Metrics
from hrl.types import BatchedEnv, Observation


class Predicts(Protocol):
    """stable-baselines3's interface of a policy. Our trained policies also have it."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """Actions [N, *shape] within the environment's bounds, and the state for the next call (None without one)."""


class Plain:
    """A function from batched observations, in the form of the environment, to actions [N, *shape]."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, None]:
        """The function's actions; it has no state."""
        return np.asarray(self.function(observation)), None


class Conditioned(Plain):
    """A function from batched observations and latent vectors [N, n] to actions [N, *shape]."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, None]:
        """The function's actions for a pair of observations and latent vectors."""
        return np.asarray(self.function(*observation)), None


class Seen(NamedTuple):
    """Observations of some of the environments."""

    state: Tensor
    goal: Tensor
    mask: None = None


class Frozen:
    """One policy. Its state is packed into rows, so that environments can use it at different times.

    `entries` selects entries of the flattened observation; without them, the policy receives observations in the form
    of the environment. With `latent` entries, it receives pairs of observations and latent vectors. A comparison of
    batches of two and three determines the axis of the environments in each array of the state.
    """

    def __init__(self, policy: Predicts, name: str, entries: Sequence[int], latent: int, env: BatchedEnv) -> None:
        """Passes on the policy's errors for observations that it does not accept. Raises ValueError if its actions do
        not have the shape of the environment's actions."""
        self.policy, self.name, self.entries, self.latent, self.env = policy, name, list(entries), latent, env
        two, three = (self._state_of(count) for count in (2, 3))
        self.axes = [int(np.flatnonzero(np.subtract(a.shape, b.shape))[0]) for a, b in zip(two, three, strict=True)]
        rows = [np.moveaxis(x, axis, 0) for x, axis in zip(two, self.axes, strict=True)]
        self.shapes, self.kinds = [x.shape[1:] for x in rows], [x.dtype for x in rows]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        self.width = sum(self.sizes)
        """Number of entries of the packed state; 0 without a state."""

    def _state_of(self, count: int) -> list[np.ndarray]:
        spec = self.env.spec
        obs = Seen(torch.zeros(count, spec.state_dim), torch.zeros(count, spec.goal_dim))
        seen = self.seen(obs, torch.zeros(count, self.latent))
        actions, state = self.policy.predict(seen, None, np.ones(count, dtype=bool), True)
        expected = (count, *(spec.action_space.shape or ()))
        if np.shape(actions) != expected:
            raise ValueError(f"actions of shape {np.shape(actions)} instead of {expected}")
        return list(state) if state is not None else []

    def seen(self, obs: Observation, command: Tensor) -> Any:
        """The observations that the policy receives, under this command [N, n]."""
        own = obs.state[:, self.entries].cpu().numpy() if self.entries else self.env.raw(obs)
        return (own, command.cpu().numpy()) if self.latent else own

    def act(
        self, obs: Observation, command: Tensor, carried: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N, *shape] and packed states [N, width], from observations, the command [N, n], packed states, and a
        mask [N] of environments in which the policy starts."""
        state = self._unpacked(carried) if self.width else None
        actions, state = self.policy.predict(self.seen(obs, command), state, start, True)
        return actions, self._packed(state) if self.width else carried

    def _packed(self, state: Sequence[np.ndarray]) -> np.ndarray:
        rows = [np.moveaxis(x, axis, 0) for x, axis in zip(state, self.axes, strict=True)]
        return np.concatenate([x.reshape(len(x), -1) for x in rows], -1).astype(np.float32)

    def _unpacked(self, carried: np.ndarray) -> tuple[np.ndarray, ...]:
        parts = np.split(carried[:, : self.width], np.cumsum(self.sizes)[:-1], -1)
        made = zip(parts, self.shapes, self.kinds, self.axes, strict=True)
        return tuple(np.moveaxis(x.reshape(len(x), *shape).astype(kind), 0, axis) for x, shape, kind, axis in made)


class FrozenPolicies(Learner):
    """K policies; the command selects one in every environment. Inputs are the state, the command's entries, and the
    task's goal."""

    recurrent = True
    requires_host = True

    def __init__(self, build: Build, policies: Sequence[Frozen], env: BatchedEnv) -> None:
        super().__init__(build)
        self.policies, self.env = list(policies), env
        self.state_dim = max(policy.width for policy in policies)
        self.widths = [env.spec.state_dim, build.inputs - env.spec.state_dim - env.spec.goal_dim, env.spec.goal_dim]

    def act_on(self, inputs: Tensor, carried: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The selected policies' actions [N, A], and their packed states [N, S]."""
        state, command, goal = inputs.cpu().split(self.widths, -1)
        single = len(self.policies) == 1
        chosen = np.zeros(len(inputs), dtype=np.int64) if single else command.argmax(-1).numpy()
        packed, begins = carried.cpu().numpy().copy(), start.cpu().numpy()
        space = self.env.spec.action_space
        kind = np.float64 if self.env.spec.continuous else np.int64
        decided = np.empty((len(inputs), *(space.shape or ())), kind)
        for number, policy in enumerate(self.policies):
            mine = np.flatnonzero(chosen == number)
            if not len(mine):
                continue
            rows, own = torch.from_numpy(mine), packed[mine, : policy.width]
            seen = Seen(state[rows], goal[rows])
            actions, packed[mine, : policy.width] = policy.act(seen, command[rows], own, begins[mine])
            decided[mine] = actions
        rows = torch.as_tensor(self.env.from_action(decided), dtype=torch.float32, device=inputs.device)
        return rows.reshape(len(inputs), -1), torch.as_tensor(packed, device=inputs.device)

    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """The actions [N, A] of policies at the start of their state."""
        start = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        return self.act_on(inputs, inputs.new_zeros(len(inputs), self.state_dim), start)[0]

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Raises NotImplementedError: the policies do not learn."""
        raise NotImplementedError
