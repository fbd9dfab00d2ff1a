"""The hierarchy: a stack of learners on different clocks.

Level 0 acts in the environment at every step. Each level above decides once a period, and its decision is a
command to the level below. `act`, `observe` and `learn` are the whole way of the data.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hrl.clock import FRESH, ActiveCommand, Transition
from hrl.commands import Subgoal
from hrl.execution import Execution, none_true
from hrl.level import Level, under
from hrl.processes import ALONE, Processes
from hrl.types import Observation, Step

RANK_SEED = 104_729
"""What sets the random states of two processes of a run apart."""

ActionMode = Literal["greedy", "noisy", "exploring"]
"""As policies say; with their noise; or with random decisions and tests too, which the training environments alone
have."""
Memory = list[ActiveCommand]
"""What every upper level has in force, lowest first. All that acting remembers from step to step."""


@dataclass
class Decisions:
    """One pass down the stack. Lists are lowest level first."""

    actions: list[Tensor]
    """[N, A] what each level decided, in [-1, 1]; the first acts in the environment."""
    targets: list[Tensor]
    """The command each level obeys now; the last is the task's goal."""
    due: list[Tensor]
    """Where [N] each upper level decided anew; the lowest does at every step."""
    tests: list[Tensor]
    """Where [N] everything below a level acts without exploration, to test its subgoal."""
    memory: Memory


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
        self.processes = ALONE
        self.generator = torch.Generator(device).manual_seed(seed)
        self.memory: Memory = self.initial_state(num_envs)

    def join(self, processes: Processes) -> None:
        """Learn together with the same hierarchy in other processes. Call it before `execute`."""
        self.processes = processes
        if processes.size > 1:
            self.generator.manual_seed(self.generator.initial_seed() + processes.rank * RANK_SEED)
            for level in self.levels:
                level.batch_size = -(-level.config.batch_size // processes.size)
                level.start_after(processes.size * self.num_envs)
                outer = [optimiser for tuner in level.tuners for optimiser in tuner.optimisers()]
                for optimiser in (*level.learner.optimisers().values(), *outer):
                    optimiser.average = processes.average

    def execute(self, execution: Execution) -> None:
        """Run acting, observing and updates in this way from now on. Results stay the same."""
        self.act = execution.function(self.act)  # type: ignore[method-assign]
        self._observe = execution.function(self._observe)  # type: ignore[method-assign]
        for level in self.levels:
            level.execute(execution)

    # -- acting ----------------------------------------------------------------------------------------------

    def initial_state(self, num_envs: int) -> Memory:
        """The memory at the beginning: every level is due."""
        return [ActiveCommand.nothing(num_envs, below.command.dim, self.device) for below in self.levels[:-1]]

    @torch.inference_mode()
    def decide(self, obs: Observation, memory: Memory, how: ActionMode) -> Decisions:
        """From the top down: each level whose clock is due decides anew, the others keep to what they said."""
        state, renewed = obs.state, list(memory)
        targets: list[Tensor] = [obs.goal]
        actions: list[Tensor] = []
        due: list[Tensor] = []
        tests: list[Tensor] = []
        above = torch.zeros(len(state), dtype=torch.bool, device=self.device)
        greedy = above
        for i in range(len(self.levels) - 1, 0, -1):
            level, command = self.levels[i], self._subgoal(i)
            above = above | memory[i - 1].due(level.period)
            action = level.segment.action
            if not none_true(above):
                action = self._decision(level, state, targets[0], above, greedy, how)
                renewed[i - 1] = memory[i - 1].renewed(above, command.issue(state, action))
            if how == "exploring" and self.testing:
                greedy = greedy | torch.where(above, self._draw_tests(len(state)), level.segment.tested)
            for answers, answer in ((actions, action), (due, above), (tests, greedy), (targets, renewed[i - 1].target)):
                answers.insert(0, answer)
        always = torch.ones_like(above)
        actions.insert(0, self._decision(self.levels[0], state, targets[0], always, greedy, how))
        return Decisions(actions, targets, due, [greedy, *tests], renewed)

    def _decision(
        self, level: Level, state: Tensor, target: Tensor, due: Tensor, greedy: Tensor, how: ActionMode
    ) -> Tensor:
        if how == "greedy":
            return level.decide(state, target)
        if how == "noisy":
            return level.noisy(state, target, self.generator)
        explored = level.explore(state, target, due, self.generator)
        if not self.testing:
            return explored
        return torch.where(greedy.unsqueeze(-1), level.decide(state, target), explored)

    @torch.inference_mode()
    def act(self, obs: Observation) -> Tensor:
        """Actions [N, A] in [-1, 1] for training: explores, and opens a segment where a level decided anew."""
        d = self.decide(obs, self.memory, "exploring")
        bottom, *upper = self.levels
        first = bottom.replay.cursor
        bottom.segment.begin(obs.state, d.targets[0], d.actions[0], first, d.tests[0])
        for i, (level, due) in enumerate(zip(upper, d.due, strict=True)):
            if not none_true(due):
                level.segment.open(due, obs.state, d.targets[i + 1], d.actions[i + 1], first, d.tests[i + 1])
                self.memory[i].assign(d.memory[i])
        return d.actions[0]

    def _subgoal(self, level: int) -> Subgoal:
        command = self.levels[level - 1].command
        assert isinstance(command, Subgoal)
        return command

    def _draw_tests(self, num_envs: int) -> Tensor:
        return torch.rand(num_envs, generator=self.generator, device=self.device) < self.testing

    # -- observing -------------------------------------------------------------------------------------------

    def observe(self, step: Step) -> None:
        """From the bottom up: pay rewards, tick clocks, and hand segments that ended to their level's replay."""
        self._observe(Transition.of(step))
        self.steps += step.taken * self.processes.size

    @torch.inference_mode()
    def _observe(self, outcome: Transition) -> None:
        ended = self._ended(self.memory, outcome)
        for i, level in enumerate(self.levels):
            if level.stores_reward:
                paid = level.command.shape(outcome.reward) if level.command.extrinsic else outcome.reward
                level.segment.pay(paid, level.config.gamma, outcome.active)
            if not level.command.extrinsic:
                reward = level.command.reward(level.segment.state, outcome.state, level.segment.target)
                level.metrics.add_where("intrinsic_reward", reward, ended[i])
            if not i:
                self._store(level, 1, outcome, ended[i])
            elif not none_true(ended[i]):
                self._measure_reach(i, outcome, ended[i])
                self._store(level, self.memory[i - 1].elapsed + 1, outcome, ended[i])
        for held, following in zip(self.memory, self._ticked(self.memory, outcome, ended), strict=True):
            held.assign(following)

    def after(self, memory: Memory, step: Step) -> Memory:
        """What is in force after a step: clocks tick, and segments that ended are forgotten."""
        outcome = Transition.of(step)
        return self._ticked(memory, outcome, self._ended(memory, outcome))

    def _ticked(self, memory: Memory, outcome: Transition, ended: list[Tensor]) -> Memory:
        return [held.ticked(outcome.active).dropped(end) for held, end in zip(memory, ended[1:], strict=True)]

    def _ended(self, memory: Memory, outcome: Transition) -> list[Tensor]:
        """Where [N] each level's segment ends with this step: its period, the episode, or the level above."""
        ended: list[Tensor] = []
        above = outcome.done & outcome.active
        for i in range(len(self.levels) - 1, 0, -1):
            held = memory[i - 1]
            above = above | (outcome.active & (held.elapsed + 1 >= self.levels[i].period))
            if self.early:
                above = above | (outcome.active & self._subgoal(i).reached(outcome.state, held.target))
            ended.insert(0, above)
        return [outcome.active, *ended]

    def _measure_reach(self, i: int, outcome: Transition, ended: Tensor) -> None:
        """How near the level below came to the subgoals of level i that ended."""
        command, metrics = self._subgoal(i), self.levels[i - 1].metrics
        distance = command.distance(outcome.state, self.memory[i - 1].target)
        metrics.add_where("subgoal_distance", distance, ended)
        metrics.add_where("subgoal_reached", (distance <= command.space.threshold).float(), ended)

    def _store(self, level: Level, length: Tensor | int, outcome: Transition, ended: Tensor) -> None:
        """Write the open segment; where it ended [N] it becomes a transition, `length` [N] environment steps long."""
        segment = level.segment
        row = {name: getattr(segment, name) for name in ("state", "target", "action", "reward")}
        row["info"] = outcome.info
        target = outcome.goal if level.command.extrinsic else segment.target
        following = {"state": outcome.state, "target": target}
        counters = {"first": segment.first, "tested": segment.tested}
        if "first" in level.replay.counters:
            following["first"] = segment.first + length
        level.replay.write(row, following, counters, ended, outcome.done, outcome.terminated)

    # -- learning --------------------------------------------------------------------------------------------

    def learn(self, total_steps: float = math.inf, in_haste: Callable[[], bool] = bool) -> None:
        """Each level updates as its timescale says; learning-rate schedules fall until the run's `total_steps`. Updates
        that are left are skipped as soon as `in_haste` says so."""
        for level in self.levels:
            level.learn(self.steps, total_steps, self.generator, in_haste)

    def pop_metrics(self) -> dict[str, float]:
        """`<level>/<name>` means since the last call. Waits for the device."""
        metrics: dict[str, float] = {}
        for level in self.levels:
            values = level.metrics.pop()
            rates = {n.removesuffix("_optimiser"): float(o.lr) for n, o in level.learner.optimisers().items()}
            values["learning_rate"] = rates["critic"]
            values["actor_learning_rate"] = rates["actor"]
            values["replay_size"] = float(len(level.replay))
            values["updates"] = float(level.timescale.done)
            metrics |= {f"{level.name}/{name}": value for name, value in values.items()}
        return metrics

    # -- checkpoint ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def cut(self, obs: Observation) -> None:
        """End every open segment and episode as truncated at `obs`, so that no simulator state need be saved."""
        always = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        nothing = torch.zeros(self.num_envs, device=self.device)
        info = torch.zeros(self.num_envs, 0, device=self.device)
        outcome = Transition(obs.state, obs.goal, nothing, ~always, always, always, info)
        for level, held in zip(self.levels[1:], self.memory, strict=True):
            open_ = (held.elapsed > 0) & (held.elapsed < FRESH)
            # Where no segment is open, the open row is the last observation of the one before: it stays.
            segment, first = level.segment, self.levels[0].replay.cursor
            target = obs.goal if level.command.extrinsic else segment.target
            segment.open(~open_, obs.state, target, segment.action, first, ~always)
            self._store(level, torch.where(open_, held.elapsed, 0), outcome, open_)
        for level in self.levels:
            level.replay.close()
        self.restart()

    def restart(self) -> None:
        """Forget what is in force: every level is due."""
        for level in self.levels:
            level.exploration.restart()
        for held, nothing in zip(self.memory, self.initial_state(self.num_envs), strict=True):
            held.assign(nothing)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the agent by name."""
        tensors = {f"{level.name}.{name}": x for level in self.levels for name, x in level.tensors().items()}
        return tensors | {"generator": self.generator.get_state()}

    def own_tensors(self) -> dict[str, Tensor]:
        """Those that differ between the processes of a run, copied to the host: replays and the random state."""
        own = {name: x for name, x in self.tensors().items() if ".replay." in name or name == "generator"}
        return {name: x.detach().cpu().clone() for name, x in own.items()}

    def fingerprint(self) -> str:
        """A checksum of the networks, which are equal in all processes of a run."""
        digest = hashlib.sha256()
        for tensor in self.network_tensors().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

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
