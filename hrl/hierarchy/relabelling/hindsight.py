"""Hindsight: learn from a decision as if its outcome had been the goal (Andrychowicz 2017, Levy 2019).

Each relabelling is a function (transitions, generator) -> transitions with static shapes. A mask selects the fraction
of the batch that changes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hrl.hierarchy.commands import DeclaredSubgoals, Subgoal, Task
from hrl.memory.ring import Replay, Rows
from hrl.memory.transitions import Transitions

Strategy = Literal["future", "final", "random"]
"""The new goal: reached at a random later time in the episode (future), reached at its end (final), or unrelated
(random)."""


def later_states(
    replay: Replay, rows: Rows, strategy: Strategy, horizon: int | None, generator: torch.Generator
) -> Tensor:
    """States [B, D] after each row in the same episode: uniform within `horizon` rows, or the last state."""
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
    """Replaces a fraction of the targets by goals reached later, or by arbitrary subgoals (`random`). Intrinsic rewards
    are computed afterwards, from the new targets."""

    command: Subgoal | Task
    """The command that the level obeys. A task does not support arbitrary goals (`random`)."""
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
            assert isinstance(self.command, Subgoal)
            return self.command.sample(t.state, generator)
        return self.command.project(later_states(self.replay, t.rows, self.strategy, self.horizon, generator))


@dataclass
class HindsightChoices:
    """Replaces a fraction of the declared subgoals by others that were not reached when the decision was taken: by a
    subgoal that was reached later (`future`, `final`), if there is one, or by any subgoal (`random`: all-goals
    updating, Kaelbling 1993)."""

    command: DeclaredSubgoals
    replay: Replay
    share: float
    strategy: Strategy = "random"
    horizon: int | None = None

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        eligible = ~self.command.reached(t.state)
        if self.strategy != "random":
            later = later_states(self.replay, t.rows, self.strategy, self.horizon, generator)
            eligible = eligible & self.command.reached(later)
        drawn = torch.rand(eligible.shape, generator=generator, device=eligible.device)
        goal = self.command.issue(t.state, torch.where(eligible, drawn, -1.0).argmax(-1, keepdim=True))
        mask = chosen(len(goal), self.share, generator, goal.device) & eligible.any(-1)
        mask = mask.unsqueeze(-1)
        return t.changed(target=torch.where(mask, goal, t.target), next_target=torch.where(mask, goal, t.next_target))


@dataclass
class HindsightTask:
    """Replaces a fraction of the task's goals by goals reached later, or by the goal of another decision (`random`).
    Recomputes the task's reward of every step within the decision, up to the step where the episode would have
    ended."""

    command: Task
    replay: Replay
    steps: Replay
    """The bottom level's ring, which holds every environment step."""
    share: float
    gamma: float
    period: int
    strategy: Strategy = "future"
    info: bool = False
    """Whether the reward reads the stored info of each step, from the bottom level's ring."""

    @property
    def requires_host(self) -> bool:
        """Whether the task's reward calls the host."""
        return getattr(self.command.task_reward, "requires_host", False)

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        if self.strategy == "random":
            goal = t.target.roll(1, 0)
        else:
            goal = self.command.project(later_states(self.replay, t.rows, self.strategy, None, generator))
        # A decision keeps its goal if the bottom ring has overwritten its steps: their rewards cannot be recomputed.
        mask = chosen(len(goal), self.share, generator, goal.device) & self.steps.holds(t.steps)
        rewards, reached, by_goal = self.goal_rewards(t, goal)
        reward = (rewards * self.gamma ** torch.arange(self.period, device=goal.device)).sum(-1)
        wide = mask.unsqueeze(-1)
        return t.changed(
            target=torch.where(wide, goal, t.target),
            next_target=torch.where(wide, goal, t.next_target),
            reward=torch.where(mask, reward, t.reward),
            terminated=torch.where(mask, reached | (t.terminated & ~by_goal), t.terminated),
            rewards=None if t.rewards is None else torch.where(wide, rewards, t.rewards),
        )

    def goal_rewards(self, t: Transitions, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rewards r(s_{i+1}, goal) [B, period] of each decision's steps, 0 after the step that reaches `goal`;
        whether [B] a step reaches `goal`; and whether [B] the final state reaches the old goal, so that only the old
        goal ended the episode.
        """
        assert self.command.task_reward is not None
        i = torch.arange(self.period, device=goal.device)
        rows = self.steps.within(Rows(t.steps.env.unsqueeze(-1), t.steps.row.unsqueeze(-1) + 1 + i))
        achieved = self.command.project(self.steps.get(rows, "state"))  # [B, period, G]
        # Use a single call for all steps and the old goal, because it may run the environment's own code.
        achieved_goals = torch.cat([achieved, self.command.project(t.next_state).unsqueeze(1)], 1)
        desired_goals = torch.cat([goal.unsqueeze(1).expand_as(achieved), t.target.unsqueeze(1)], 1)
        rewards, reaches = self.command.task_reward(achieved_goals, desired_goals, *self._info_of(rows, t))
        within = i < t.length.unsqueeze(-1)
        ends = reaches[:, :-1] & within
        ended_before = ends.long().cumsum(-1) - ends.long() > 0
        rewards = self.command.scale_reward(rewards[:, :-1]) * (within & ~ended_before)
        return rewards, ends.any(-1), reaches[:, -1]

    def _info_of(self, following: Rows, t: Transitions) -> tuple[Tensor, ...]:
        """The stored info of each step, followed by that of the last step again; () if info is not stored."""
        if not self.info:
            return ()
        stored = self.steps.get(following.later(-1), "info")  # a row contains the info of its own step
        last = (t.length - 1).view(-1, 1, 1).expand(-1, 1, stored.shape[-1])
        return (torch.cat([stored, stored.gather(1, last)], 1),)


@dataclass
class HindsightActions:
    """Replaces a fraction of the issued subgoals by the goals that were reached (HAC's hindsight action
    transitions)."""

    command: Subgoal
    share: float

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        reached = self.command.retrace(t.state, self.command.project(t.next_state))
        mask = chosen(len(reached), self.share, generator, reached.device).unsqueeze(-1)
        return t.changed(action=torch.where(mask, reached, t.action))


def missed_tests(command: Subgoal, replay: Replay, t: Transitions, decisions: int) -> Tensor:
    """Whether [B] the stored subgoal was tested and missed, although the level below had `decisions` decisions for it.

    A subgoal that was cut short, by the end of the episode or of a level above, is not missed. Where an episode ends,
    the last decision of the level below may be incomplete, so that no subgoal is missed there.
    """
    issued = command.issue(t.state, replay.get(t.rows, "action"))
    whole = (t.below_length >= decisions) & ~replay.over(t.rows)
    return (replay.count(t.rows, "tested") > 0) & whole & ~command.reached(t.next_state, issued)


@dataclass
class SubgoalTesting:
    """Penalises missed subgoals that were tested without exploration below, and makes them terminal (HAC).

    It only applies to decisions that no other relabelling has corrected or replaced.
    """

    command: Subgoal
    replay: Replay
    penalty: float
    decisions: int
    """Least number of decisions of the level below that a subgoal lasts, unless it is reached or cut short."""

    def __call__(self, t: Transitions, generator: torch.Generator) -> Transitions:
        as_taken = (t.action == self.replay.get(t.rows, "action")).all(-1)
        missed = missed_tests(self.command, self.replay, t, self.decisions)
        return t.changed(penalty=torch.where(missed & as_taken, self.penalty, 0.0))
