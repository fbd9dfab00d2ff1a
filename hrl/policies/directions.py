"""A manager that sets directions in a learned latent space, and a worker that acts along them: the two levels of FeUdal
networks."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from hrl.nested.trees import tree_map
from hrl.networks.distributions import distribution
from hrl.networks.layers import mlp, width_of
from hrl.networks.recurrent import DilatedLSTM, State, ages, recent_sum
from hrl.spaces import Space


class Memory(NamedTuple):
    """The policy's memory of the current episodes. Entries from before the start of an episode are zero."""

    worker: State
    """([E, 1, U], [E, 1, U]) of the worker's LSTM."""
    manager: State
    """([E, c, D], [E, c, D]) of the manager's dilated LSTM."""
    goals: Tensor
    """[E, c, D] the last goals, oldest first."""
    latents: Tensor
    """[E, c, D] the last latent states, oldest first."""


class Segment(NamedTuple):
    """T steps of N environments. Episodes may start and end at any step."""

    state: Tensor
    """[T, N, I] inputs of the policy."""
    action: Tensor
    """[T, N, A]"""
    goal: Tensor
    """[T, N, D] the manager's goals as emitted, including random ones."""
    begins: Tensor
    """[T, N] whether an episode starts at this step."""
    memory: Memory
    """[N, ...] the memory before the first step."""

    def at(self, envs: Tensor) -> "Segment":
        """The segment of the environments with these indices [K]."""
        *way, memory = self
        return Segment._make((*(x[:, envs] for x in way), tree_map(lambda x: x[envs], memory)))


class Replayed(NamedTuple):
    """A segment's values under the current parameters, all [T, N, ...]."""

    log_prob: Tensor
    """Log-probability of the actions."""
    entropy: Tensor
    """[] mean entropy of the actions."""
    worker_value: Tensor
    manager_value: Tensor
    own: Tensor
    """[T, N, D] the manager's goals, without random ones."""
    latent: Tensor
    """[T, N, D] the latent states."""


class Following(NamedTuple):
    """The values at the state after each step of a segment, which is the true final state where an episode ends."""

    worker_value: Tensor
    """[T, N]"""
    manager_value: Tensor
    """[T, N]"""
    latent: Tensor
    """[T, N, D]"""


class Directions(nn.Module):
    """A manager emits a unit goal g_t at every step; the worker acts along the goals of the last c steps (FeUdal):

        z = percept(x)    s = relu(W_s z)    g = ĝ / |ĝ| with ĝ = dilated LSTM(s)
        w = φ Σ_{i=t-c..t} g_i    U = W_u LSTM(z)    policy with parameters U w

    The parameters are logits, or the mean of a Gaussian. `high.*` are the manager's parameters, `low.*` the worker's.
    Goals are constants for the worker, so its losses do not train the manager. With probability `random_goals`, the
    goal of a step is a uniformly random direction."""

    def __init__(
        self,
        inputs: int,
        actions: Space,
        hidden: tuple[int, ...],
        latent_dim: int = 256,
        embedding_dim: int = 16,
        units: int = 256,
        horizon: int = 10,
        random_goals: float = 0.0,
        log_std: float = 0.0,
        encoder: nn.Module | None = None,
    ) -> None:
        """`latent_dim` is D, `embedding_dim` the size k of w, `units` the size of the worker's LSTM, and `horizon`
        c."""
        super().__init__()
        self.dim, self.embedding, self.horizon, self.random_goals = latent_dim, embedding_dim, horizon, random_goals
        self.distribution = distribution(actions, log_std)
        self.outputs = self.distribution.parameters_needed
        width, features = width_of(encoder, inputs), hidden[-1] if hidden else width_of(encoder, inputs)
        dense = [mlp(width, hidden[:-1], features), nn.ReLU()] if hidden else []
        self.percept = nn.Sequential(*([encoder] if encoder is not None else []), *dense)
        self.high = nn.ModuleDict(
            {
                "space": nn.Linear(features, latent_dim),
                "core": DilatedLSTM(latent_dim, latent_dim, horizon),
                "value": nn.Linear(latent_dim, 1),
            }
        )
        self.low = nn.ModuleDict(
            {
                "core": DilatedLSTM(features, units),
                "actions": nn.Linear(units, self.outputs * embedding_dim),
                "embed": nn.Linear(latent_dim, embedding_dim, bias=False),
                "value": mlp(units + embedding_dim, (units,), 1, smooth=True),
            }
        )
        self._initialise(dense)

    def _initialise(self, dense: list[nn.Module]) -> None:
        """Initialise with orthogonal weights and zero biases. Latent states then differ from the start, and |w| ≤ 1."""
        for layer in nn.ModuleList([*dense, self.high["space"], self._core("high"), self._core("low")]).modules():
            for name, parameter in layer.named_parameters(recurse=False):
                if parameter.dim() == 2:
                    nn.init.orthogonal_(parameter, math.sqrt(2) if isinstance(layer, nn.Linear) else 1.0)
                elif "bias" in name:
                    nn.init.zeros_(parameter)
        embed: Any = self.low["embed"]
        nn.init.orthogonal_(embed.weight, 1 / (self.horizon + 1))

    def start(self, episodes: int, device: torch.device) -> Memory:
        """The memory at the start of episodes: zeros."""
        past = torch.zeros(episodes, self.horizon, self.dim, device=device)
        return Memory(self._core("low").start(episodes, device), self._core("high").start(episodes, device), past, past)

    def act(self, state: Tensor, memory: Memory, generator: torch.Generator | None) -> tuple[Tensor, Memory]:
        """(state [E, I], memory) -> (action [E, A], memory). Without a generator, actions are the most likely ones, and
        no goals are random."""
        z = self.percept(state)
        latent = self.high["space"](z).relu()
        raw_goal, manager = self.high["core"](latent, memory.manager)
        goal = normalize(raw_goal, dim=-1)
        if generator is not None and self.random_goals:
            goal = self._explored(goal, generator)
        seen, worker = self.low["core"](z, memory.worker)
        action = self.distribution.sample(self.head(seen, memory.goals.sum(1) + goal), generator, None)
        newest = lambda past, x: torch.cat([past[:, 1:], x.unsqueeze(1)], 1)  # noqa: E731
        return action, Memory(worker, manager, newest(memory.goals, goal), newest(memory.latents, latent))

    @staticmethod
    def note(memory: Memory) -> Tensor:
        """The goal [E, D] that was emitted at the last step, random or not."""
        return memory.goals[:, -1]

    def _explored(self, goal: Tensor, generator: torch.Generator) -> Tensor:
        other = normalize(torch.randn(goal.shape, generator=generator, device=goal.device), dim=-1)
        drawn = torch.rand(len(goal), 1, generator=generator, device=goal.device) < self.random_goals
        return torch.where(drawn, other, goal)

    def head(self, seen: Tensor, pooled: Tensor) -> Tensor:
        """U w [..., O] for the worker's output [..., U] and the sum of its recent goals [..., D]."""
        each = self.low["actions"](seen).unflatten(-1, (self.outputs, self.embedding))
        return (each @ self.low["embed"](pooled.detach()).unsqueeze(-1)).squeeze(-1)

    def _value(self, seen: Tensor, pooled: Tensor) -> Tensor:
        """The worker's value [...], which depends on its goals."""
        return self.low["value"](torch.cat([seen, self.low["embed"](pooled.detach())], -1)).squeeze(-1)

    def replay(self, segment: Segment, final: Tensor | None = None) -> tuple[Replayed, Following | None]:
        """Recompute a segment, differentiable in the parameters. With the states after each step, `final` [T, N, I],
        also compute their values."""
        age, memory = ages(segment.begins, self.horizon), segment.memory
        z = self.percept(segment.state)
        latent = self.high["space"](z).relu()
        manager = self._core("high").unroll(latent, age, memory.manager)
        worker = self._core("low").unroll(z, age, memory.worker)
        goals = torch.cat([memory.goals.transpose(0, 1), segment.goal])
        pooled = recent_sum(goals, age, self.horizon + 1)
        head = self.head(worker.output, pooled)
        log_prob, entropy = self.distribution.log_prob_and_entropy(head, segment.action, None)
        worker_value, manager_value = self._value(worker.output, pooled), self._manager_value(manager.output)
        own = normalize(manager.output, dim=-1)
        replayed = Replayed(log_prob, entropy, worker_value, manager_value, own, latent)
        if final is None:
            return replayed, None
        z = self.percept(final)
        latent = self.high["space"](z).relu()
        raw_goal = self._core("high").peek(latent, age, manager)
        pooled = recent_sum(goals, age, self.horizon) + normalize(raw_goal, dim=-1)
        seen = self._core("low").peek(z, age, worker)
        return replayed, Following(self._value(seen, pooled), self._manager_value(raw_goal), latent)

    def _manager_value(self, raw_goal: Tensor) -> Tensor:
        """The manager's value [...]."""
        return self.high["value"](raw_goal).squeeze(-1)

    def _core(self, level: str) -> Any:
        return getattr(self, level)["core"]


def intrinsic_reward(latent: Tensor, goal: Tensor, arrived: Tensor, begins: Tensor, memory: Memory) -> Tensor:
    """r_t = 1/c Σ_{i=1..c} cos(s_{t+1} - s_{t+1-i}, g_{t+1-i}) [T, N] for each step's next latent state, `arrived`
    [T, N, D]; `latent` and `goal` [T, N, D] belong to each step. Steps before the start of the episode count as 0."""
    horizon = memory.goals.shape[1]
    latents = torch.cat([memory.latents.transpose(0, 1), latent])
    goals = torch.cat([memory.goals.transpose(0, 1), goal])
    age, steps = ages(begins, horizon), len(latent)
    total = torch.zeros_like(arrived[..., 0])
    for i in range(horizon):
        rows = slice(horizon - i, horizon - i + steps)
        total = total + cosine_similarity(arrived - latents[rows], goals[rows], dim=-1) * (age >= i)
    return total / horizon


def transitions(latent: Tensor, arrived: Tensor, done: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """s_{t+c} - s_t [T, N, D], and the mask [T, N] of steps for which it is known.

    In the last c steps of an episode, its final state replaces s_{t+c}. If the episode continues after the segment, the
    last c - 1 steps are unknown. `done` [T, N] masks the last steps of episodes.
    """
    steps = len(latent)
    row = torch.arange(steps, device=latent.device).unsqueeze(-1).expand_as(done)
    end = torch.where(done, row, steps).flip(0).cummin(0).values.flip(0)  # the episode's last step
    last = torch.minimum(row + horizon - 1, end)
    known = last < steps
    there = last.clamp_max(steps - 1).unsqueeze(-1).expand_as(latent)
    return arrived.gather(0, there) - latent, known
