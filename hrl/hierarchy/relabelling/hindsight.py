"""Hindsight: learn from a decision as though what came of it had been wanted (Andrychowicz 2017, Levy 2019).

Each relabelling is `(transitions, generator) -> transitions` with static shapes: a share of the batch is changed
through a mask.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hrl.hierarchy.commands import Subgoal, Task
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions

Strategy = Literal["future", "final", "random"]
"""What was reached at a random later moment of the episode, or at its end; or what has nothing to do with it."""


def later_states(
    replay: Replay, rows: Rows, strategy: Strategy, horizon: int | None, generator: torch.Generator
) -> Tensor:
    """States [B, D] from each row's own episode after it: uniformly within `horizon` rows, or the last one."""
    left = replay.end(rows) - rows.row
    if horizon is not None:
        left = left.clamp_max(horizon)
    if strategy == "final":
        return replay.get(rows.later(left), "state")
    uniform = torch.rand(left.shape, generator=generator, device=left.device, dtype=torch.float64)
    return replay.get(rows.later(1 + (uniform * left).long()), "state")


def chosen(batch: int, share: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """A mask [B] that is true with probability `share`."""
    return torch.rand(batch, generator=generator, device=device) < share


@dataclass
class HindsightGoals:
    """A share of the targets becomes what was reached later, or, `random`, any subgoal at all; intrinsic rewards follow
    when they are computed."""

    command: Subgoal
    replay: Replay
    share: float
    strategy: Strategy = "future"
    horizon: int | None = None

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        goal = self._goal(t, generator)
        mask = chosen(len(goal), self.share, generator, goal.device).unsqueeze(-1)
        return t.changed(target=torch.where(mask, goal, t.target), next_target=torch.where(mask, goal, t.next_target))

    def _goal(self, t: Transitions, generator: torch.Generator) -> Tensor:
        if self.strategy == "random":
            raw = torch.rand(t.target.shape, generator=generator, device=t.target.device) * 2 - 1
            return self.command.issue(t.state, raw)
        return self.command.project(later_states(self.replay, t.rows, self.strategy, self.horizon, generator))


@dataclass
class HindsightTask:
    """A share of the task's goals becomes what was reached later, or, `random`, another decision's goal. The task's
    reward of every step within the decision is computed again, up to where the episode would have ended."""

    command: Task
    replay: Replay
    steps: Replay
    """The bottom level's ring, which holds every environment step."""
    share: float
    gamma: float
    period: int
    strategy: Strategy = "future"
    info: bool = False
    """Whether the reward reads what the bottom level's ring remembers of each step's info."""

    @property
    def requires_host(self) -> bool:
        """Whether the task's reward asks the host."""
        return getattr(self.command.task_reward, "requires_host", False)

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        if self.strategy == "random":
            goal = t.target.roll(1, 0)
        else:
            goal = self.command.project(later_states(self.replay, t.rows, self.strategy, None, generator))
        # Steps that the bottom ring has written over can't be paid again: such a decision keeps its goal.
        mask = chosen(len(goal), self.share, generator, goal.device) & self.steps.holds(t.steps)
        paid, reached, by_goal = self.judged(t, goal)
        reward = (paid * self.gamma ** torch.arange(self.period, device=goal.device)).sum(-1)
        wide = mask.unsqueeze(-1)
        return t.changed(
            target=torch.where(wide, goal, t.target),
            next_target=torch.where(wide, goal, t.next_target),
            reward=torch.where(mask, reward, t.reward),
            terminated=torch.where(mask, reached | (t.terminated & ~by_goal), t.terminated),
            rewards=None if t.rewards is None else torch.where(wide, paid, t.rewards),
        )

    def judged(self, t: Transitions, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each decision earns under `goal`, r(s_{i+1}, goal) [B, period] at its steps until the goal ends it;
        whether it does; and whether the old goal was reached at its end, which was an end only because of that goal.
        """
        assert self.command.task_reward is not None
        i = torch.arange(self.period, device=goal.device)
        rows = self.steps.within(Rows(t.steps.env.unsqueeze(-1), t.steps.row.unsqueeze(-1) + 1 + i))
        achieved = self.command.project(self.steps.get(rows, "state"))  # [B, period, G]
        # The task is asked once, since it may be the environment's own code: every step, then the old goal.
        asked = torch.cat([achieved, self.command.project(t.next_state).unsqueeze(1)], 1)
        wanted = torch.cat([goal.unsqueeze(1).expand_as(achieved), t.target.unsqueeze(1)], 1)
        rewards, reaches = self.command.task_reward(asked, wanted, *self._info_of(rows, t))
        within = i < t.length.unsqueeze(-1)
        ends = reaches[:, :-1] & within
        ended_before = ends.long().cumsum(-1) - ends.long() > 0
        paid = self.command.scale_reward(rewards[:, :-1]) * (within & ~ended_before)
        return paid, ends.any(-1), reaches[:, -1]

    def _info_of(self, following: Rows, t: Transitions) -> tuple[Tensor, ...]:
        """What info said at each step, and at the last one again; nothing where it is not remembered."""
        if not self.info:
            return ()
        remembered = self.steps.get(following.later(-1), "info")  # a row holds what came of its action
        last = (t.length - 1).view(-1, 1, 1).expand(-1, 1, remembered.shape[-1])
        return (torch.cat([remembered, remembered.gather(1, last)], 1),)


@dataclass
class HindsightActions:
    """A share of the subgoals decided becomes the place that was reached (HAC's hindsight action transitions)."""

    command: Subgoal
    share: float

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        reached = self.command.retrace(t.state, self.command.project(t.next_state))
        mask = chosen(len(reached), self.share, generator, reached.device).unsqueeze(-1)
        return t.changed(action=torch.where(mask, reached, t.action))


@dataclass
class SubgoalTesting:
    """Subgoals that were tested without exploration below and missed are punished, as an end (HAC).

    Only decisions that stand in the batch as they were taken are judged: neither corrected nor replaced.
    """

    command: Subgoal
    replay: Replay
    penalty: float

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        tested = self.replay.count(t.rows, "tested") > 0
        as_taken = (t.action == self.replay.get(t.rows, "action")).all(-1)
        missed = ~self.command.reached(t.next_state, self.command.issue(t.state, t.action))
        return t.changed(penalty=torch.where(missed & tested & as_taken, self.penalty, 0.0))
