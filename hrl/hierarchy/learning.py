"""Learning from a level's memory: gradient steps on batches of a replay, or passes over a rollout."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch

from hrl.execution.processes import least_of_processes
from hrl.hierarchy.clock import Period
from hrl.hierarchy.commands import Command
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.timescale import Timescale
from hrl.learners import DQN, Batch, Decisions, Learner, OnPolicyConfig, OnPolicyLearner
from hrl.memory.prioritised import PrioritisedReplay
from hrl.memory.ring import Replay, Rows
from hrl.memory.rollout import RolloutMemory
from hrl.memory.transitions import Transitions, read_transitions
from hrl.metrics import Means
from hrl.networks.normaliser import RewardScale
from hrl.state import Stateful

AT_ONCE = 16
"""Maximum number of batches sampled at once. One at a time, sampling would be half the cost of a small update."""


class Learning(Protocol):
    """The part of a level's interface that learning needs."""

    config: LevelConfig
    command: Command
    learner: Learner
    memory: Replay
    timescale: Timescale
    tuners: list[Any]
    metrics: Means

    @property
    def requires_host(self) -> bool:
        """Whether an update calls the host; then it is not captured."""

    def transitions(self, size: int, generator: torch.Generator) -> Transitions:
        """`size` transitions of the level's memory, relabelled."""

    def batch(self, t: Transitions) -> Batch:
        """Transitions as the learner sees them."""


def timescale_of(config: LevelConfig, environments: int, period: Period, learning_starts: int) -> Timescale:
    """The times and numbers of a level's updates. After the random warmup, a rollout of `n_steps` decisions of mean
    length is one round. A replay also waits for `learning_starts` environment steps, and until every environment has
    ended a segment."""
    learner = config.learner
    if isinstance(learner, OnPolicyConfig):
        every = learner.n_steps * period.mean * environments
        return Timescale(every, 1, config.schedule, config.warmup, config.random_warmup)
    replay = config.off_policy
    starts = max(learning_starts, config.random_warmup + environments * period.greatest)
    return Timescale(replay.train_freq, replay.gradient_steps, config.schedule, config.warmup, starts)


class FromReplay:
    """Gradient steps on relabelled batches of the replay."""

    def __init__(self, level: Learning, setting: Setting) -> None:
        self.level, self.learner, self.memory = level, level.learner, level.memory
        self.at_once = (
            1 if isinstance(self.memory, PrioritisedReplay) else AT_ONCE
        )  # each sample depends on the last errors
        self.batch_size = -(-level.config.off_policy.batch_size // setting.processes.size)  # this process's share
        if level.tuners:  # their transforms are not captured
            self._round = self._tuned_round
        elif level.requires_host:
            self._round = self._plain_round
            self._fit = setting.execution.function(self._fit)  # type: ignore[method-assign]
        else:
            self._round = setting.execution.function(self._plain_round)

    def parts(self) -> dict[str, Stateful]:
        """Empty: sampling from a replay has no state."""
        return {}

    def learn(
        self,
        updates: int,
        progress: float,
        generator: torch.Generator,
        in_haste: Callable[[], bool] = bool,
    ) -> None:
        """Make `updates` updates, or fewer if `in_haste` returns True before."""
        if isinstance(self.memory, PrioritisedReplay):
            self.memory.anneal(progress)
        for done in range(0, updates, self.at_once):
            if in_haste():
                return
            self.update(min(self.at_once, updates - done), progress, generator)

    def update(self, count: int, progress: float, generator: torch.Generator) -> None:
        """Sample and relabel `count` batches at once, and update the learner with each."""
        timescale = self.level.timescale
        phase = timescale.done % self.learner.cycle
        self.learner.set_learning_rate(timescale.factor(progress, count))
        self._round(count, phase, generator)

    def _plain_round(self, count: int, phase: int, generator: torch.Generator) -> None:
        t = self.level.transitions(count * self.batch_size, generator)
        self._fit(self.level.batch(t), phase, generator)
        if isinstance(self.memory, PrioritisedReplay) and isinstance(self.learner, DQN):
            assert self.learner.last_error is not None
            self.memory.prioritise(t.rows, self.learner.last_error)

    def _fit(self, batches: Batch, phase: int, generator: torch.Generator) -> None:
        for number, batch in enumerate(batches.split(self.batch_size), phase):
            self.level.metrics.add(self.learner.update(batch, number, generator))

    def _tuned_round(self, count: int, phase: int, generator: torch.Generator) -> None:
        """Before each update, each tuner adapts to improve the result of the update on the following batch."""
        level = self.level
        parts = level.transitions((count + 1) * self.batch_size, generator).split(self.batch_size)
        made = level.timescale.done - count
        for i, (now, following) in enumerate(pairwise(parts)):
            for tuner in level.tuners:
                level.metrics.add(tuner.step(made + i, now, following, generator))
            level.metrics.add(self.learner.update(level.batch(now), phase + i, generator))


class FromRollout:
    """Passes over the decisions since the last update."""

    def __init__(self, level: Learning, setting: Setting) -> None:
        assert isinstance(level.memory, RolloutMemory) and isinstance(level.learner, OnPolicyLearner)
        self.level, self.memory, self.learner = level, level.memory, level.learner
        config = level.config.learner
        assert isinstance(config, OnPolicyConfig)
        self.batch_size = -(-config.batch_size // setting.processes.size)
        normalise = config.normalize_reward
        self.reward_scale = RewardScale(setting.num_envs).to(setting.device) if normalise else None

    def parts(self) -> dict[str, Stateful]:
        """The state of the reward normalisation, by name."""
        return {} if self.reward_scale is None else {"reward_scale": self.reward_scale}

    def learn(
        self, updates: int, progress: float, generator: torch.Generator, in_haste: Callable[[], bool] = bool
    ) -> None:
        """Make one update if any is due. Only the last rollout is stored."""
        if updates and not in_haste():
            self.update(1, progress, generator)

    def update(self, count: int, progress: float, generator: torch.Generator) -> None:
        """Learn from the decisions since the last update. `count` is 1."""
        self.learner.set_learning_rate(self.level.timescale.factor(progress, count))
        if not least_of_processes(int(self.memory.has_unread)):
            return
        rollout = self.rollout(generator)
        self.memory.finish()
        if len(rollout.action):
            self.level.metrics.add(self.learner.learn(rollout, self.batch_size, progress, generator))

    def rollout(self, generator: torch.Generator) -> Any:
        """The decisions since the last update, in the learner's form. Waits for the device."""
        rows, there = self.memory.unread()  # [T, N]
        flat = Rows(rows.env.flatten(), rows.row.flatten())
        t = read_transitions(self.memory, flat, self.level.command.extrinsic)
        batch = self.level.batch(t)
        follows = torch.zeros(there.shape, dtype=torch.bool, device=there.device)
        under = (t.next_target.view(*there.shape, -1)[:-1] == t.target.view(*there.shape, -1)[1:]).all(-1)
        follows[:-1] = there[:-1] & there[1:] & under
        if self.reward_scale is not None:
            reward, discount = (x.view(there.shape) for x in (batch.reward, batch.discount))
            batch = batch._replace(reward=self.reward_scale.scaled(reward, discount, there).flatten())
        index = there.flatten().nonzero().squeeze(-1)
        index = index[: least_of_processes(len(index))]
        noted = {name: self.memory.get(flat, name).squeeze(-1) for name in self.learner.remembers}
        return self.learner.rollout(Decisions(batch, noted, follows, index))
