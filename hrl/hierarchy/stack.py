"""A stack of levels on different clocks: their decisions and their networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from hrl.execution.modes import none_true
from hrl.hierarchy.clock import ActiveCommand, Transition
from hrl.hierarchy.commands import IssuedCommand
from hrl.hierarchy.level import Level
from hrl.state import Stateful, gather, restore
from hrl.types import Observation, Step

ActionMode = Literal["greedy", "noisy", "exploring"]
"""greedy: the modes of the policies, and the means of random periods. noisy: samples, as in training. exploring: also
random decisions and subgoal tests, only in the training environments."""
Memory = list[ActiveCommand]
"""The active command of every upper level, lowest first: the complete state of acting between steps."""


@dataclass
class Decisions:
    """The decisions of one pass down the stack. Lists start with the lowest level."""

    actions: list[Tensor]
    """[N, A] the decision of each level; the first is the action in the environment."""
    targets: list[Tensor]
    """The command that each level obeys now; the last is the task's goal."""
    due: list[Tensor]
    """Mask [N] of environments where each upper level made a new decision; the lowest level decides at every step."""
    tests: list[Tensor]
    """Mask [N] of environments where all levels below act without exploration, to test the command."""
    notes: list[dict[str, Tensor]]
    """[N] values that each level's learner stores with its decision."""
    memory: Memory


class Stack:
    """Levels, lowest first, that decide from the top down. All memory of acting is passed in and out."""

    def __init__(self, levels: Sequence[Level], device: torch.device, generator: torch.Generator) -> None:
        """`generator` draws noise, tests of commands, and random periods."""
        self.levels, self.device, self.generator = list(levels), device, generator
        self.commands = [cast(IssuedCommand, level.command) for level in self.levels[:-1]]
        """The commands that upper levels issue to those below, lowest first."""
        self.horizons = [above.period.over(below.period) for below, above in pairwise(self.levels)]
        """Decisions of the level below within one command of each upper level, lowest first."""
        self.tests = any(level.testing for level in self.levels)

    def lowest(self, count: int) -> "Stack":
        """The `count` lowest levels. The highest of them obeys the observation's goal."""
        return Stack(self.levels[:count], self.device, self.generator)

    def initial_state(self, num_envs: int) -> Memory:
        """The initial memory: every level is due for a decision."""
        pairs = zip(self.levels, self.commands, strict=False)
        return [
            ActiveCommand.nothing(num_envs, command.dim, level.learner.state_dim, self.device)
            for level, command in pairs
        ]

    @torch.inference_mode()
    def decide(self, obs: Observation, memory: Memory, how: ActionMode) -> Decisions:
        """Decide from the top down: each level that is due makes a new decision, the others keep their active
        command."""
        return self._decide(obs, memory, how)

    def _decide(self, obs: Observation, memory: Memory, how: ActionMode) -> Decisions:
        state, renewed = obs.state, list(memory)
        targets: list[Tensor] = [obs.goal]
        actions: list[Tensor] = []
        due: list[Tensor] = []
        tests: list[Tensor] = []
        notes: list[dict[str, Tensor]] = []
        above = torch.zeros(len(state), dtype=torch.bool, device=self.device)
        greedy = above
        for i in range(len(self.levels) - 1, 0, -1):
            level, command = self.levels[i], self.commands[i - 1]
            above = above | memory[i - 1].due
            action, noted = level.segment.action, level.segment.notes
            if not none_true(above):
                mask = command.available(state)
                action, noted = self._decision(level, state, targets[0], above, greedy, how, mask)
                issued, lasts = command.issue(state, level.within(action)), command.duration(action)
                if lasts is None:
                    lasts = self.horizons[i - 1].draw(above, None if how == "greedy" else self.generator)
                renewed[i - 1] = memory[i - 1].renewed(above, issued, lasts)
            if how == "exploring" and level.testing:
                greedy = greedy | torch.where(above, self._draw_tests(len(state), level), level.segment.tested)
            target = command.with_goal(renewed[i - 1].target, obs.goal)
            for column, answer in ((actions, action), (due, above), (tests, greedy), (targets, target)):
                column.insert(0, answer)
            notes.insert(0, noted)
        bottom = self.levels[0]
        if bottom.learner.recurrent:
            action, carried = bottom.learner.act_on(
                bottom.inputs(state, targets[0]), renewed[0].carried, renewed[0].elapsed == 0
            )
            renewed[0], noted = replace(renewed[0], carried=carried), {}
        else:
            action, noted = self._decision(bottom, state, targets[0], None, greedy, how, obs.mask)
        return Decisions([action, *actions], targets, due, [greedy, *tests], [noted, *notes], renewed)

    def _decision(
        self,
        level: Level,
        state: Tensor,
        target: Tensor,
        due: Tensor | None,
        greedy: Tensor,
        how: ActionMode,
        mask: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if how == "greedy":
            return level.decide(state, target, mask), {}
        if how == "noisy":
            return level.sample(state, target, self.generator, mask), {}
        explored, notes = level.explore(state, target, due, self.generator, mask)
        if self.tests:
            explored = torch.where(greedy.unsqueeze(-1), level.decide(state, target, mask), explored)
        return explored, notes

    def _draw_tests(self, num_envs: int, level: Level) -> Tensor:
        return torch.rand(num_envs, generator=self.generator, device=self.device) < level.testing

    # -- clocks ----------------------------------------------------------------------------------------------

    def after(self, memory: Memory, step: Step) -> Memory:
        """The memory after a step: clocks advance, and commands with an ended segment are dropped. Random ends take the
        more likely outcome."""
        outcome = Transition.of(step)
        return self._ticked(memory, self._ended(memory, outcome.state, outcome.active, outcome.done, None))

    def after_state(self, memory: Memory, state: Tensor, how: ActionMode) -> Memory:
        """The memory after a step to this state [N, D] of the same episode."""
        always = torch.ones(len(state), dtype=torch.bool, device=self.device)
        generator = None if how == "greedy" else self.generator
        return self._ticked(memory, self._ended(memory, state, always, ~always, generator))

    def _ticked(self, memory: Memory, ended: list[Tensor]) -> Memory:
        active, below = ended[0], zip(memory, ended[:-1], ended[1:], strict=True)
        return [held.ticked(active, decided).dropped(end) for held, decided, end in below]

    def _ended(
        self, memory: Memory, state: Tensor, active: Tensor, done: Tensor, generator: torch.Generator | None
    ) -> list[Tensor]:
        """Masks [N] of environments where each level's segment ends with a step to this state [N, D]: the level below
        has used all its decisions, or the command, the episode or the segment of the level above ends. Random ends are
        sampled with the generator."""
        over, below = [], active
        for held, level in zip(memory, self.levels, strict=False):
            below = below & held.last
            if level.ends_early:
                below = below | (active & level.ended(state, held.target, generator))
            over.append(below)
        ended: list[Tensor] = []
        above = done & active
        for mask in over[::-1]:
            above = above | mask
            ended.insert(0, above)
        return [active, *ended]

    # -- networks --------------------------------------------------------------------------------------------

    def network_tensors(self) -> dict[str, Tensor]:
        """The tensors of the networks, which acting needs."""
        return gather(self._networks())

    def network_parameters(self) -> dict[str, Tensor]:
        """The parameters among `network_tensors`."""
        modules = {part: x for part, x in self._networks().items() if isinstance(x, nn.Module)}
        return {f"{part}.{name}": p.data for part, x in modules.items() for name, p in x.named_parameters()}

    def load_networks(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of `network_tensors`, for acting. Raises RuntimeError if the sizes differ."""
        restore(self._networks(), tensors)

    def _networks(self) -> dict[str, Stateful]:
        return {f"{level.name}.{name}": part for level in self.levels for name, part in level.networks().items()}
