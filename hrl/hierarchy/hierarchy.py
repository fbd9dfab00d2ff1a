"""The hierarchy: a stack of levels in training.

Level 0 acts in the environment at every step. Each level above decides once per period, and its decision is a
command to the level below. The training loop calls `act`, `observe` and `learn`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hrl.execution.modes import none_true
from hrl.hierarchy.clock import FRESH, Decision, Transition
from hrl.hierarchy.level import Level
from hrl.hierarchy.setting import Setting
from hrl.hierarchy.stack import Memory, Stack
from hrl.state import Stateful, gather, restore
from hrl.types import Observation, Step

RANK_SEED = 104_729
"""Difference between the seeds of two consecutive processes of a run."""


class Hierarchy(Stack):
    """A stack of levels in training, over N environments on one device."""

    def __init__(self, levels: Sequence[Level], setting: Setting) -> None:
        self.num_envs, self.processes = setting.num_envs, setting.processes
        seed = setting.seed + self.processes.rank * RANK_SEED
        super().__init__(levels, setting.device, torch.Generator(setting.device).manual_seed(seed))
        if [level.issues for level in self.levels] != [None, *self.commands]:
            raise ValueError("Each level must issue the command that the level below it obeys.")
        self.steps = 0
        self.memory: Memory = self.initial_state(self.num_envs)
        self.act = self._act if self.levels[0].learner.requires_host else setting.execution.function(self._act)
        self._observe_step = setting.execution.function(self._observe)

    # -- acting ----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _act(self, obs: Observation) -> Tensor:
        """Actions [N, A] for training, with exploration. Opens a segment where a level makes a new decision."""
        d = self._decide(obs, self.memory, "exploring")
        bottom, *upper = self.levels
        first = bottom.memory.cursor
        decision = Decision(obs.state, d.targets[0], d.actions[0], first, first, d.tests[0], d.notes[0], obs.mask)
        bottom.segment.begin(decision, counted=bool(bottom.memory.counters))
        for i, (level, due) in enumerate(zip(upper, d.due, strict=True), 1):
            if not none_true(due):
                below = self.levels[i - 1].memory.cursor
                decision = Decision(obs.state, d.targets[i], d.actions[i], first, below, d.tests[i], d.notes[i], None)
                level.segment.open(due, decision)
                self.memory[i - 1].assign(d.memory[i - 1])
        if bottom.learner.recurrent:
            self.memory[0].carried.copy_(d.memory[0].carried)
        return d.actions[0]

    # -- observing -------------------------------------------------------------------------------------------

    def observe(self, step: Step) -> None:
        """Add up rewards, advance clocks, and store ended segments in their level's memory, from the bottom up."""
        self._observe_step(Transition.of(step))
        self.steps += step.taken * self.processes.size

    @torch.inference_mode()
    def _observe(self, outcome: Transition) -> None:
        done = outcome.done
        ended = self._ended(self.memory, outcome.state, outcome.active, done, self.generator)
        for i, (level, over) in enumerate(zip(self.levels, [*ended[1:], done & outcome.active], strict=True)):
            extrinsic = level.command.extrinsic
            level.observe(outcome, over)
            if "reward" in level.memory.fields:
                reward = level.command.scale_reward(outcome.reward) if extrinsic else outcome.reward
                if i:
                    level.segment.add_reward(reward, level.config.gamma, outcome.active)
                else:
                    level.segment.set_reward(reward)
            if not extrinsic and not level.requires_host:
                reward = level.command.reward(level.segment.state, outcome.state, level.segment.target)
                level.metrics.add_where("intrinsic_reward", reward, ended[i])
            if not i:
                self._store(i, 1, outcome, ended[i], done)
            elif not none_true(ended[i]):
                self._measure(i, outcome, ended[i])
                self._store(i, self.memory[i - 1].elapsed + 1, outcome, ended[i], done)
        for held, following in zip(self.memory, self._ticked(self.memory, ended), strict=True):
            held.assign(following)

    def _measure(self, i: int, outcome: Transition, ended: Tensor) -> None:
        """Log how well the level below obeyed the commands of level i that ended."""
        held, below = self.memory[i - 1], self.levels[i - 1]
        for name, values in self.commands[i - 1].measure(outcome.state, held.target).items():
            below.metrics.add_where(name, values, ended & ~values.isnan())
        lasted = held.elapsed + 1
        for name, values in self.commands[i - 1].shares(held.target).items():
            below.metrics.add_where(name, values, ended, lasted)
        below.metrics.add_where("command_duration", lasted, ended)

    def _store(self, i: int, length: Tensor | int, outcome: Transition, ended: Tensor, done: Tensor) -> None:
        """Write level i's open segment. It becomes a transition of `length` [N] environment steps where `ended` [N].
        `done` [N] masks the ends of episodes."""
        level = self.levels[i]
        segment, top = level.segment, i == len(self.levels) - 1
        # The level's next decision overwrites target and mask, unless this was the last decision of the episode.
        following = {"state": outcome.state, "target": outcome.goal if top else segment.target}
        if outcome.mask is not None:
            following["mask"] = outcome.mask
        if "first" in level.memory.counters:
            following["first"] = segment.first + length
        if "below" in level.memory.counters:
            following["below"] = self.levels[i - 1].memory.last_row()
        level.memory.write(segment.row(outcome.info), following, segment.counters(), ended, done, outcome.terminated)

    # -- learning --------------------------------------------------------------------------------------------

    def learn(self, total_steps: float = math.inf, in_haste: Callable[[], bool] = bool) -> None:
        """Make the updates that each level's timescale requires. Learning-rate schedules end at `total_steps`. Skips
        the remaining updates as soon as `in_haste` returns True."""
        for level in self.levels:
            level.learn(self.steps, total_steps, self.generator, in_haste)

    def pop_metrics(self) -> dict[str, float]:
        """`<level>/<name>` means since the last call. Waits for the device."""
        return {name: value for level in self.levels for name, value in level.pop_metrics().items()}

    # -- checkpoint ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def truncate_episodes(self, obs: Observation) -> None:
        """Truncate every open segment and episode at `obs`, so that checkpoints need no simulator state."""
        always = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        nothing = torch.zeros(self.num_envs, device=self.device)
        info = torch.zeros(self.num_envs, 0, device=self.device)
        outcome = Transition(obs.state, obs.goal, nothing, ~always, always, always, info, obs.mask)
        for i, held in enumerate(self.memory, 1):
            level = self.levels[i]
            open_ = (held.elapsed > 0) & (held.elapsed < FRESH)
            # Without an open segment, keep the open row: it is the last observation of the previous segment.
            segment, first, below = level.segment, self.levels[0].memory.cursor, self.levels[i - 1].memory.cursor
            target = obs.goal if level is self.levels[-1] else segment.target
            empty = Decision(obs.state, target, segment.action, first, below, ~always, {}, None)
            segment.open(~open_, empty)
            self._store(i, torch.where(open_, held.elapsed, 0), outcome, open_, always)
        for level in self.levels:
            level.truncate_episodes()
        self.restart()

    def restart(self) -> None:
        """Drop all active commands: every level is due for a decision."""
        for level in self.levels:
            level.restart()
        for held, nothing in zip(self.memory, self.initial_state(self.num_envs), strict=True):
            held.assign(nothing)

    def parts(self) -> dict[str, Stateful]:
        """Everything that the agent's next steps depend on, named `<level>.<part>`."""
        return {f"{level.name}.{name}": part for level in self.levels for name, part in level.parts().items()}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the agent by name."""
        return gather(self.parts()) | {"generator": self.generator.get_state(), "steps": torch.tensor(self.steps)}

    def own_tensors(self) -> dict[str, Tensor]:
        """Memories, models and the random state, which may differ between the processes of a run, copied to the
        host."""
        differs = lambda name: ".memory." in name or ".model" in name or name == "generator"  # noqa: E731
        own = {name: x for name, x in self.tensors().items() if differs(name)}
        return {name: x.detach().cpu().clone() for name, x in own.items()}

    def fingerprint(self) -> str:
        """A checksum of the networks, which are equal in all processes of a run."""
        digest = hashlib.sha256()
        for tensor in self.network_tensors().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of `tensors`. Raises RuntimeError, ValueError or KeyError if it does not fit."""
        restore(self.parts(), tensors)
        self.generator.set_state(tensors["generator"].cpu())
        self.steps = int(tensors["steps"])
