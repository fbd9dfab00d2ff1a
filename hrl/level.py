"""A level: one member of the stack, with its own policy, learner, replay and timescale."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.clock import Segment
from hrl.commands import Command
from hrl.execution import Execution
from hrl.exploration import Exploration
from hrl.learners import LEARNERS, Batch, Metrics
from hrl.learners.adam import FlatAdam
from hrl.learners.protection import Protection, protect
from hrl.level_config import LevelConfig
from hrl.metrics import Means
from hrl.replay.ring import Replay
from hrl.replay.transitions import Transitions, sample_transitions
from hrl.timescale import Timescale
from hrl.types import UserError

Relabel = Callable[[Transitions, torch.Generator], Transitions]

AT_ONCE = 16
"""Batches that are sampled together, at most. One at a time, half the cost of a small update is in sampling."""


Shaping = Callable[[Tensor, Tensor], Tensor]
"""(inputs [B, I], action [B, A]) -> what is added to the reward [B]."""


class Tuner(Protocol):
    """Adapts while a level learns what it learns by (see hrl/nested/tuning.py and reward.py)."""

    def step(self, number: int, now: Transitions, following: Transitions, generator: torch.Generator) -> Metrics:
        """Move it by how the update of this number, on `now`, would do on `following`."""

    def optimisers(self) -> list[FlatAdam]:
        """Those whose gradients are averaged over the processes of a run."""

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""


class Model(Protocol):
    """What a level keeps up beside its learning, such as a model of its world (see hrl/adjacency.py).

    It runs as it is written, outside of what is compiled or captured; what updates read of it changes in place.
    """

    def keep_up(self, steps: int, generator: torch.Generator, in_haste: Callable[[], bool] = bool) -> Metrics:
        """Called before a level's updates, after `steps` environment steps: nothing to do most of the time."""

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave; they may have grown."""


class Level:
    """Acts on its own clock under a command from above, stores what came of it, and learns from that."""

    def __init__(
        self,
        name: str,
        config: LevelConfig,
        command: Command,
        action_dim: int,
        state_dim: int,
        num_envs: int,
        device: torch.device,
        period: int = 1,
        starts: int = 0,
        counters: tuple[str, ...] = (),
        stores_reward: bool = False,
        steps: Replay | None = None,
        held: int = 0,
        info_dim: int = 0,
        acts_only: bool = False,
    ) -> None:
        """`steps` is the ring of environment steps that the level's decisions are made of, `held` the number of rows
        that the level's own ring holds for levels above, `info_dim` the width of the info it remembers. A level that
        acts only has hardly a ring."""
        if not command.extrinsic and config.gamma == 1:
            raise UserError(f"{name}.gamma must be below 1: where the task ends, a subgoal's reward counts for ever.")
        self.stores_reward = stores_reward or command.extrinsic
        self.name, self.config, self.command, self.period = name, config, command, period
        self.batch_size = config.batch_size  # this process's share of a batch
        self.gamma = torch.tensor(config.gamma, device=device)
        self.sight = self._sight(state_dim, device)
        self.tuners: list[Tuner] = []
        self.models: list[Model] = []
        self.shaping: Shaping | None = None
        self.judged_by_task = False
        values = command.value_range(config.gamma) if config.clip_values else None
        make = LEARNERS[config.learner]
        with device:
            self.learner = make(state_dim + command.input_dim, action_dim, config, values)
        protect(self.learner, config.protect)
        self.timescale = Timescale(config.every, config.updates, config.schedule, config.warmup, starts)
        self.start_after(num_envs)
        self.steps = steps
        capacity = 1 if acts_only else config.replay
        self.replay = self._make_replay(state_dim, action_dim, num_envs, device, counters, capacity, held, info_dim)
        self.segment = Segment.empty(num_envs, state_dim, command.dim, action_dim, device)
        self.exploration = Exploration(config, num_envs, action_dim, device)
        self.relabels: list[Relabel] = []
        self.metrics = Means(device)

    def _sight(self, state_dim: int, device: torch.device) -> Tensor:
        """[D] 1 where the networks are shown the state, 0 where they are blind."""
        outside = [i for i in self.config.blind if not 0 <= i < state_dim]
        if outside:
            raise UserError(
                f"{self.name}.blind {outside}: the observation has {state_dim} entries (0 to {state_dim - 1})."
            )
        sight = torch.ones(state_dim, device=device)
        sight[list(self.config.blind)] = 0.0
        return sight

    def _make_replay(
        self,
        state_dim: int,
        action_dim: int,
        num_envs: int,
        device: torch.device,
        counters: tuple[str, ...],
        capacity: int,
        held: int,
        info_dim: int,
    ) -> Replay:
        fields = {"state": state_dim, "target": self.command.dim, "action": action_dim}
        if self.stores_reward:
            fields["reward"] = 1
        if info_dim:
            fields["info"] = info_dim
        following = ("state", "target") if self.command.extrinsic else ("state",)
        try:
            return Replay(fields, following, counters, capacity, num_envs, device, held)
        except RuntimeError as error:
            raise UserError(f"A replay of {max(capacity, held):,} transitions does not fit into memory.") from error

    # -- acting ----------------------------------------------------------------------------------------------

    def inputs(self, state: Tensor, target: Tensor) -> Tensor:
        """What the networks see [..., I]."""
        shown = state * self.sight if self.config.blind else state
        return torch.cat([shown, self.command.encode(state, target, shown)], -1)

    def decide(self, state: Tensor, target: Tensor) -> Tensor:
        """The deterministic decision [..., A] in [-1, 1]."""
        return self.learner.act(self.inputs(state, target), None)

    def noisy(self, state: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """The decision [B, A] with noise alone, the environments' mean, in any environments."""
        action = self.learner.act(self.inputs(state, target), generator)
        return self.exploration.noisy(action, self.exploration.mean_noise, generator)

    def explore(self, state: Tensor, target: Tensor, due: Tensor, generator: torch.Generator) -> Tensor:
        """The decision [N, A] with exploration, for those environments that are due [N]."""
        return self.exploration(self.learner.act(self.inputs(state, target), generator), due, generator)

    # -- learning --------------------------------------------------------------------------------------------

    def start_after(self, environments: int) -> None:
        """Make no update before every one of them has ended a segment: there may be nothing to learn from."""
        self.timescale.starts = max(self.timescale.starts, self.config.wait + environments * self.period)

    def waits_at(self, steps: int) -> bool:
        """Whether its time to learn is yet to come, after `steps` environment steps."""
        return steps < self.config.wait

    def done_at(self, steps: int) -> bool:
        """Whether its time to learn is over."""
        c = self.config
        return c.frozen or (c.until is not None and steps > c.until)

    def learns_at(self, steps: int) -> bool:
        """Whether its time to learn is now."""
        return not self.waits_at(steps) and not self.done_at(steps)

    def progress(self, steps: int, total: float) -> float:
        """The share of its time to learn that has passed, where the run has `total` environment steps."""
        c = self.config
        end = total if c.until is None else min(c.until, total)
        return (steps - c.wait) / max(end - c.wait, 1)

    def learn(self, steps: int, total: float, generator: torch.Generator, in_haste: Callable[[], bool] = bool) -> None:
        """Keep up the models, and make the updates that are due, after `steps` environment steps of `total`."""
        due = self.timescale.due(steps)
        self.wander(steps)
        if self.done_at(steps):
            return
        for model in self.models:
            self.metrics.add(model.keep_up(steps, generator, in_haste))
        self.rehearse(due, generator, self.progress(steps, total), in_haste)

    def wander(self, steps: int) -> None:
        """Decide at random while the level waits. What came of it is forgotten then: another low level did it."""
        if self.exploration.wandering and not self.waits_at(steps):
            self.replay.forget()
        self.exploration.wander(self.waits_at(steps))

    def rehearse(
        self,
        updates: int,
        generator: torch.Generator,
        progress: float = 0.0,
        in_haste: Callable[[], bool] = bool,
    ) -> None:
        """Updates on the replay as it is, as long as nothing is `in_haste`."""
        for done in range(0, updates, AT_ONCE):
            if in_haste():
                return
            self.update(min(AT_ONCE, updates - done), progress, generator)

    def update(self, count: int, progress: float, generator: torch.Generator) -> None:
        """Sample and relabel `count` batches in one go, and make an update of the learner with each."""
        phase = self.timescale.done % self.learner.cycle
        self.learner.set_learning_rate(self.timescale.factor(progress, count))
        self._round(count, phase, generator)

    def _round(self, count: int, phase: int, generator: torch.Generator) -> None:
        if self.tuners:
            return self._tuned_round(count, phase, generator)
        self._fit(self.batch(self.sample(count * self.batch_size, generator)), phase, generator)

    def _fit(self, batches: Batch, phase: int, generator: torch.Generator) -> None:
        for number, batch in enumerate(batches.split(self.batch_size), phase):
            self.metrics.add(self.learner.update(batch, number, generator))

    def _tuned_round(self, count: int, phase: int, generator: torch.Generator) -> None:
        """Before each update, the tuners ask what would make it do best on the batch after."""
        parts = self.sample((count + 1) * self.batch_size, generator).split(self.batch_size)
        made = self.timescale.done - count
        for i, (now, following) in enumerate(pairwise(parts)):
            for tuner in self.tuners:
                self.metrics.add(tuner.step(made + i, now, following, generator))
            self.metrics.add(self.learner.update(self.batch(now), phase + i, generator))

    def execute(self, execution: Execution) -> None:
        """Run updates in this way from now on."""
        if self.tuners:  # their transforms are not captured
            return
        for name in self.learner.formulas:
            setattr(self.learner, name, execution.formula(getattr(self.learner, name)))
        if self.asks_host:
            self._fit = execution.function(self._fit)  # type: ignore[method-assign]
        else:
            self._round = execution.function(self._round)  # type: ignore[method-assign]

    @property
    def asks_host(self) -> bool:
        """Whether sampling asks the host: where a task's reward is the environment's own code, not on tensors."""
        return any(getattr(relabel, "asks_host", False) for relabel in self.relabels)

    def sample(self, size: int, generator: torch.Generator) -> Transitions:
        """Relabelled transitions."""
        rows = self.replay.draw(size, generator)
        transitions = sample_transitions(self.replay, rows, self.command.extrinsic)
        if self.steps is not None:
            self.metrics.add({"steps_in_reach": self.steps.holds(transitions.steps).float().mean()})
        for relabel in self.relabels:
            transitions = relabel(transitions, generator)
        return transitions

    def batch(
        self, t: Transitions, gamma: Tensor | None = None, outer: bool = False, shaping: "Shaping | None" = None
    ) -> Batch:
        """As the learner sees it. An intrinsic reward is computed here, from the target after relabelling.

        An upper level that obeys a subgoal is paid once a decision, for where it led (as in HAC). Where the task ends,
        a level that obeys a subgoal is paid as if it stayed there for ever, Σ_k γ^k r(s', s') = r(s', s') / (1 - γ): an
        end is no way to escape from rewards that are negative. `outer` gives what an outer level judges by: the task's
        reward where `judged_by_task`, without the shaping that is learned.
        """
        inputs = self.inputs(t.state, t.target)
        own = self.command.extrinsic or (outer and self.judged_by_task)
        gamma = self.gamma if gamma is None else gamma
        if own:
            reward = t.total(gamma)
        else:
            reward = self.command.reward(t.state, t.next_state, t.target)
            staying = self.command.reward(t.next_state, t.next_state, t.target) / (1 - gamma**self.period)
            reward = reward + torch.where(t.terminated, gamma**t.length * staying, 0.0)
        shaping = shaping if shaping is not None else self.shaping
        if shaping is not None and not outer:
            reward = reward + shaping(inputs, t.action)
        return Batch(
            inputs=inputs,
            action=t.action,
            reward=reward,
            next_inputs=self.inputs(t.next_state, t.next_target),
            discount=gamma**t.length * ~t.terminated,
        )

    @property
    def protection(self) -> Protection | None:
        """What guards the learner's actor, if anything does."""
        return getattr(self.learner, "protection", None)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the level by name: networks, optimisers, replay, tuners, models."""
        tensors = {f"net.{name}": x for name, x in self.learner.state_dict().items()}
        tensors |= {f"replay.{name}": x for name, x in self.replay.state_dict().items()}
        for name, optimiser in self.learner.optimisers().items():
            tensors |= {f"{name}.{key}": x for key, x in optimiser.state.items()}
        for number, tuner in enumerate(self.tuners):
            tensors |= {f"tuner{number}.{name}": x for name, x in tuner.tensors().items()}
        for number, model in enumerate(self.models):
            tensors |= {f"model{number}.{name}": x for name, x in model.tensors().items()}
        return tensors

    def load_networks(self, tensors: dict[str, Tensor]) -> None:
        """Take over the networks alone. Raises RuntimeError where their sizes are others."""
        self.learner.load_state_dict(under("net.", tensors))

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        self.load_networks(tensors)
        self.replay.load_state_dict(under("replay.", tensors))
        for name, optimiser in self.learner.optimisers().items():
            optimiser.load_state(under(f"{name}.", tensors))
        for number, tuner in enumerate(self.tuners):
            tuner.load_tensors(under(f"tuner{number}.", tensors))
        for number, model in enumerate(self.models):
            model.load_tensors(under(f"model{number}.", tensors))

    def counters(self) -> dict[str, Any]:
        """Host numbers of the level."""
        return {"timescale": self.timescale.state_dict(), "wandering": self.exploration.wandering}

    def load_counters(self, counters: dict[str, Any]) -> None:
        """Take over what `counters` gave."""
        self.timescale.load_state_dict(counters["timescale"])
        self.exploration.wander(counters["wandering"])


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose name begins with the prefix, named without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
