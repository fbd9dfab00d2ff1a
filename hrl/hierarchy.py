"""The hierarchy: a stack of learners on different clocks.

Level 0 acts in the environment at every step. Each level above decides once a period, and its decision is a
command to the level below. `act`, `observe` and `learn` are the whole way of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hrl.clock import FRESH, Held
from hrl.commands import Subgoal
from hrl.level import Level, under
from hrl.metrics import Means
from hrl.types import Observation, Step

Memory = list[Held]
"""What every upper level has in force, lowest first. All that acting remembers from step to step."""


@dataclass
class Decisions:
    """One pass down the stack."""

    action: Tensor
    """[N, A] of the bottom level, in [-1, 1]."""
    memory: Memory
    targets: list[Tensor]
    """The command each level obeys now, lowest first; the last is the task's goal."""
    due: list[Tensor]
    """Where [N] each upper level decided anew, lowest first."""
    tests: list[Tensor]
    """Where [N] everything below each upper level acts without exploration, to test its subgoal."""


class Hierarchy:
    """Levels, lowest first, over N environments on one device."""

    def __init__(
        self,
        levels: Sequence[Level],
        num_envs: int,
        device: torch.device,
        seed: int,
        testing: float = 0.0,
        early: bool = False,
    ) -> None:
        self.levels = list(levels)
        self.num_envs, self.device = num_envs, device
        self.testing = testing
        self.early = early
        self.steps = 0
        self.generator = torch.Generator(device).manual_seed(seed)
        self.metrics = Means()
        self.memory: Memory = self.nothing_held(num_envs)

    # -- acting ----------------------------------------------------------------------------------------------

    def nothing_held(self, num_envs: int) -> Memory:
        """The memory at the beginning: every level is due."""
        return [Held.nothing(num_envs, below.command.dim, self.device) for below in self.levels[:-1]]

    @torch.no_grad()
    def decide(self, obs: Observation, memory: Memory, explore: bool) -> Decisions:
        """From the top down: each level whose clock is due decides anew, the others keep to what they said."""
        target, state = obs.goal, obs.state
        renewed, targets = list(memory), [target]
        due: list[Tensor] = []
        tests: list[Tensor] = []
        above = torch.zeros(len(state), dtype=torch.bool, device=self.device)
        greedy = above
        for i in range(len(self.levels) - 1, 0, -1):
            level, command = self.levels[i], self._subgoal(i)
            above = above | memory[i - 1].due(level.period)
            decision = self._decision(level, state, target, greedy, explore)
            renewed[i - 1] = memory[i - 1].renewed(above, decision, command.issue(state, decision))
            if explore and self.testing:
                greedy = greedy | torch.where(above, self._draw_tests(len(state)), level.segment.tested)
            target = renewed[i - 1].target
            targets.insert(0, target)
            due.insert(0, above)
            tests.insert(0, greedy)
        action = self._decision(self.levels[0], state, target, greedy, explore)
        return Decisions(action, renewed, targets, due, tests)

    def _decision(self, level: Level, state: Tensor, target: Tensor, greedy: Tensor, explore: bool) -> Tensor:
        if not explore:
            return level.decide(state, target)
        explored = level.explore(state, target, self.generator)
        if not self.testing:
            return explored
        return torch.where(greedy.unsqueeze(-1), level.decide(state, target), explored)

    def act(self, obs: Observation) -> Tensor:
        """Actions [N, A] in [-1, 1] for training: explores, and opens a segment where a level decided anew."""
        d = self.decide(obs, self.memory, explore=True)
        for i, level in enumerate(self.levels[1:], 1):
            first = self.levels[0].replay.cursor
            level.segment.open(d.due[i - 1], obs.state, d.targets[i], first, d.tests[i - 1])
        self.memory, self.current, self._state = d.memory, d, obs.state
        return d.action

    def _subgoal(self, level: int) -> Subgoal:
        command = self.levels[level - 1].command
        assert isinstance(command, Subgoal)
        return command

    def _draw_tests(self, num_envs: int) -> Tensor:
        return torch.rand(num_envs, generator=self.generator, device=self.device) < self.testing

    # -- observing -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def observe(self, step: Step) -> None:
        """From the bottom up: pay rewards, tick clocks, and hand segments that ended to their level's replay."""
        done = step.terminated | step.truncated
        ended = self._ended(self.memory, step)
        self._store_step(step, done)
        for i, level in enumerate(self.levels[1:], 1):
            if level.command.extrinsic:
                level.segment.pay(level.command.shape(step.reward), level.config.gamma, step.active)
            self._store_segment(i, step, ended[i - 1], done)
        self.memory = self._ticked(self.memory, step, ended)
        self.steps += step.taken

    def after(self, memory: Memory, step: Step) -> Memory:
        """What is in force after a step: clocks tick, and segments that ended are forgotten."""
        return self._ticked(memory, step, self._ended(memory, step))

    def _ticked(self, memory: Memory, step: Step, ended: list[Tensor]) -> Memory:
        return [held.ticked(step.active).dropped(end) for held, end in zip(memory, ended, strict=True)]

    def _ended(self, memory: Memory, step: Step) -> list[Tensor]:
        """Where [N] each upper level's segment ends with this step: its period, the episode, or the level above."""
        ended: list[Tensor] = []
        above = (step.terminated | step.truncated) & step.active
        for i in range(len(self.levels) - 1, 0, -1):
            held = memory[i - 1]
            above = above | (step.active & (held.elapsed + 1 >= self.levels[i].period))
            if self.early:
                above = above | (step.active & self._subgoal(i).reached(step.final.state, held.target))
            ended.insert(0, above)
        return ended

    def _store_step(self, step: Step, done: Tensor) -> None:
        bottom = self.levels[0]
        row = {"state": self._state, "target": self.current.targets[0], "action": self.current.action}
        if bottom.command.extrinsic:
            row["reward"] = bottom.command.shape(step.reward)
        else:
            reward = bottom.command.reward(step.final.state, self.current.targets[0])
            bottom.metrics.add_where("intrinsic_reward", reward, step.active)
        following = {"state": step.final.state, "target": step.final.goal}
        bottom.replay.write(row, following, {}, step.active, done, step.terminated)

    def _store_segment(self, i: int, step: Step, ended: Tensor, done: Tensor) -> None:
        level, held, command = self.levels[i], self.memory[i - 1], self._subgoal(i)
        distance = command.distance(step.final.state, held.target)
        self.levels[i - 1].metrics.add_where("subgoal_distance", distance, ended)
        reached = (distance <= command.space.threshold).float()
        self.levels[i - 1].metrics.add_where("subgoal_reached", reached, ended)
        length = held.elapsed + step.active.long()
        self._write_segment(level, held, length, step.final, ended, done, step.terminated)

    def _write_segment(
        self,
        level: Level,
        held: Held,
        length: Tensor,
        final: Observation,
        keep: Tensor,
        done: Tensor,
        terminated: Tensor,
    ) -> None:
        segment = level.segment
        row = {
            "state": segment.state,
            "target": segment.target,
            "action": held.decision,
            "reward": segment.reward,
        }
        target = final.goal if level.command.extrinsic else segment.target
        following = {"state": final.state, "target": target, "first": segment.first + length}
        counters = {"first": segment.first, "tested": segment.tested}
        level.replay.write(row, following, counters, keep, done, terminated)

    # -- learning --------------------------------------------------------------------------------------------

    def learn(self, progress: float) -> None:
        """Each level updates as its timescale says; `progress` in [0, 1] moves learning-rate schedules."""
        for level in self.levels:
            level.learn(self.steps, progress, self.generator)

    def pop_metrics(self) -> dict[str, float]:
        """`<level>/<name>` means since the last call. Waits for the device."""
        metrics: dict[str, float] = {}
        for level in self.levels:
            values = level.metrics.pop()
            rates = {n.removesuffix("_optimiser"): float(o.lr) for n, o in level.learner.optimisers().items()}
            values["learning_rate"] = rates["critic"]
            values["actor_learning_rate"] = rates["actor"]
            values["replay_size"] = float(len(level.replay))
            values["updates"] = float(level.learner.updates)
            metrics |= {f"{level.name}/{name}": value for name, value in values.items()}
        return metrics

    # -- checkpoint ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def cut(self, obs: Observation) -> None:
        """End every open segment and episode as truncated at `obs`, so that no simulator state need be saved."""
        always = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        for level, held in zip(self.levels[1:], self.memory, strict=True):
            open_ = (held.elapsed > 0) & (held.elapsed < FRESH)
            # Where no segment is open, the open row is the last observation of the one before: it stays.
            target = obs.goal if level.command.extrinsic else level.segment.target
            level.segment.open(~open_, obs.state, target, self.levels[0].replay.cursor, ~always)
            length = torch.where(open_, held.elapsed, 0)
            self._write_segment(level, held, length, obs, open_, always, ~always)
        for level in self.levels:
            level.replay.close()
        self.restart()

    def restart(self) -> None:
        """Forget what is in force: every level is due."""
        self.memory = self.nothing_held(self.num_envs)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the agent by name."""
        tensors = {f"{level.name}.{name}": x for level in self.levels for name, x in level.tensors().items()}
        return tensors | {"generator": self.generator.get_state()}

    def network_tensors(self) -> dict[str, Tensor]:
        """The networks alone, enough to act."""
        return {
            f"{level.name}.net.{name}": x for level in self.levels for name, x in level.learner.state_dict().items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for level in self.levels:
            level.load_tensors(under(f"{level.name}.", tensors))
        self.generator.set_state(tensors["generator"].cpu())

    def load_networks(self, tensors: dict[str, Tensor]) -> None:
        """Take over the networks alone, to act. Raises RuntimeError where their sizes are others."""
        for level in self.levels:
            level.load_networks(under(f"{level.name}.", tensors))

    def counters(self) -> dict[str, Any]:
        """Host numbers of the agent."""
        return {"steps": self.steps, "levels": {level.name: level.counters() for level in self.levels}}

    def load_counters(self, counters: dict[str, Any]) -> None:
        """Take over what `counters` gave."""
        self.steps = counters["steps"]
        for level in self.levels:
            level.load_counters(counters["levels"][level.name])
