"""Per-environment clocks: the last decision of each upper level, its age, and the reward since then.

State that persists between steps is written in place, so that a captured graph finds it at the same address.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hrl.types import Step, UserError

Periods = int | tuple[int, int]
"""A period as an option: a number, or the bounds of a random period."""


@dataclass(frozen=True)
class Period:
    """Environment steps between two decisions of a level: uniform in {least, …, greatest} for each decision."""

    least: int = 1
    greatest: int = 1

    @classmethod
    def of(cls, given: "Periods | Period") -> "Period":
        """A constant period from a number, or a random period from its two bounds."""
        if isinstance(given, Period):
            return given
        return cls(given, given) if isinstance(given, int) else cls(*given)

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.greatest else f"{self.least} to {self.greatest}"

    def __mul__(self, other: "Period") -> "Period":
        """The period in environment steps of a level that decides every `self` decisions of a level with `other`."""
        return Period(self.least * other.least, self.greatest * other.greatest)

    @property
    def mean(self) -> int:
        """The mean, rounded down."""
        return (self.least + self.greatest) // 2

    def check(self, option: str, unit: str) -> None:
        """Raise UserError, naming the option, if a bound is invalid."""
        if self.least < 1:
            raise UserError(f"{option} must be at least 1 {unit}, not {self.least}.")
        if self.greatest < self.least:
            raise UserError(
                f"{option} must be one number, or two in ascending order, not {self.least} {self.greatest}."
            )

    def over(self, below: "Period") -> "Period":
        """The inverse of `*`: this period in decisions of a level with the period `below`."""
        return Period(self.least // below.least, self.greatest // below.greatest)

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """[N] durations of new decisions, int64; the mean without a generator. A constant period uses no random
        numbers."""
        if generator is None or self.least == self.greatest:
            return torch.full_like(like, self.mean, dtype=torch.int64)
        return torch.randint(self.least, self.greatest + 1, like.shape, generator=generator, device=like.device)


@dataclass(frozen=True)
class ActiveCommand:
    """The active command of one upper level in each of N environments."""

    target: Tensor
    """[N, G] the command, as issued."""
    elapsed: Tensor
    """[N] environment steps since it was issued, int64; FRESH where no command is active."""
    decisions: Tensor
    """[N] decisions of the level below that ended since then, int64."""
    lasts: Tensor
    """[N] decisions of the level below for which it may be active, int64."""
    carried: Tensor
    """[N, S] the recurrent state of the level below's policy under this command."""

    @classmethod
    def nothing(cls, num_envs: int, dim: int, carried: int, device: torch.device) -> "ActiveCommand":
        """No active command: every environment is due for a decision. `dim` and `carried` are widths."""
        elapsed = torch.full((num_envs,), FRESH, device=device)
        none, target = torch.zeros_like(elapsed), torch.zeros(num_envs, dim, device=device)
        return cls(target, elapsed, none, none.clone(), torch.zeros(num_envs, carried, device=device))

    def assign(self, other: "ActiveCommand") -> None:
        """Copy the tensors of another command into these, in place, except those that are the same tensor."""
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if theirs is not mine:
                mine.copy_(theirs)

    @property
    def due(self) -> Tensor:
        """Mask [N] of environments that need a new decision."""
        return self.elapsed >= FRESH

    @property
    def last(self) -> Tensor:
        """Mask [N] of environments where the next decision of the level below is the last one under the command."""
        return self.decisions + 1 >= self.lasts

    def renewed(self, due: Tensor, target: Tensor, lasts: Tensor) -> "ActiveCommand":
        """A copy with new targets [N, G] of age 0 and duration `lasts` [N] where `due` [N]."""
        return replace(
            self,
            target=torch.where(due.unsqueeze(-1), target, self.target),
            elapsed=self.elapsed.masked_fill(due, 0),
            decisions=self.decisions.masked_fill(due, 0),
            lasts=torch.where(due, lasts, self.lasts),
        )

    def ticked(self, active: Tensor, decided: Tensor) -> "ActiveCommand":
        """A copy one environment step later; `decided` [N] masks environments where a decision of the level below ended
        in it. An environment that only reset has no active command."""
        elapsed = torch.where(active, self.elapsed + 1, FRESH)
        return replace(self, elapsed=elapsed, decisions=self.decisions + decided)

    def dropped(self, where: Tensor) -> "ActiveCommand":
        """A copy without an active command where `where` [N] is true."""
        return replace(self, elapsed=self.elapsed.masked_fill(where, FRESH))


FRESH = 1 << 40
UNTIL_ENDED = FRESH
"""The period for commands that last until they end early."""


class Transition(NamedTuple):
    """The result of one action in each of N environments."""

    state: Tensor
    """[N, D] the true next observation."""
    goal: Tensor
    """[N, G] the task's goal there."""
    reward: Tensor
    """[N]"""
    terminated: Tensor
    """[N]"""
    truncated: Tensor
    """[N]"""
    active: Tensor
    """[N] False where the environment only reset."""
    info: Tensor
    """[N, K] entries of info that hindsight needs."""
    mask: Tensor | None
    """[N, K] choices available in the next state; None if the environment gives no mask."""

    @classmethod
    def of(cls, step: Step) -> "Transition":
        """The part of a step that levels learn from."""
        final, ends = step.final, (step.reward, step.terminated, step.truncated)
        return cls(final.state, final.goal, *ends, step.active, step.info, final.mask)

    @property
    def done(self) -> Tensor:
        """Whether [N] the episode ended."""
        return self.terminated | self.truncated


class Decision(NamedTuple):
    """A new decision of one level in each of N environments."""

    state: Tensor
    target: Tensor
    """The command from above."""
    action: Tensor
    first: Tensor
    """Row of the next environment step in the bottom level's ring."""
    below: Tensor
    """Row of the next decision of the level directly below, in that level's ring."""
    tested: Tensor
    notes: dict[str, Tensor]
    mask: Tensor | None


@dataclass
class Segment:
    """The open decision of one level in each of N environments, for its replay."""

    state: Tensor
    """[N, D] the state at the decision."""
    target: Tensor
    """[N, G] the command from above at the decision."""
    action: Tensor
    """[N, A] the decision, in [-1, 1]."""
    first: Tensor
    """[N] row of its first step in the bottom level's ring."""
    below: Tensor
    """[N] row of the first decision of the level directly below, in that level's ring."""
    mask: Tensor
    """[N, K] choices available at the decision; K = 0 if the environment gives no mask."""
    notes: dict[str, Tensor]
    """[N] values by name that the learner stores with the decision."""
    reward: Tensor
    """[N] Σ γ^i r_i so far."""
    discount: Tensor
    """[N] γ^length so far."""
    tested: Tensor
    """[N] whether the levels below act without exploration, to test the subgoal."""

    @classmethod
    def empty(
        cls,
        num_envs: int,
        state: int,
        target: int,
        action: int,
        device: torch.device,
        mask: int = 0,
        notes: tuple[str, ...] = (),
    ) -> "Segment":
        """A state without open segments; `state`, `target`, `action` and `mask` are widths."""
        return cls(
            state=torch.zeros(num_envs, state, device=device),
            target=torch.zeros(num_envs, target, device=device),
            action=torch.zeros(num_envs, action, device=device),
            first=torch.zeros(num_envs, dtype=torch.int64, device=device),
            below=torch.zeros(num_envs, dtype=torch.int64, device=device),
            mask=torch.ones(num_envs, mask, device=device),
            notes={name: torch.zeros(num_envs, device=device) for name in notes},
            reward=torch.zeros(num_envs, device=device),
            discount=torch.ones(num_envs, device=device),
            tested=torch.zeros(num_envs, dtype=torch.bool, device=device),
        )

    def begin(self, decision: "Decision", counted: bool) -> None:
        """Open a segment of one step in every environment, with its counters if they are `counted`."""
        for mine, given in self._pairs(decision, counted):
            mine.copy_(given)

    def open(self, due: Tensor, decision: "Decision") -> None:
        """Open a segment where due [N]."""
        wide = due.unsqueeze(-1)
        for mine, given in self._pairs(decision):
            torch.where(wide if mine.dim() == 2 else due, given, mine, out=mine)
        self.reward.masked_fill_(due, 0.0)
        self.discount.masked_fill_(due, 1.0)

    def _pairs(self, decision: "Decision", counted: bool = True) -> list[tuple[Tensor, Tensor]]:
        pairs = [(self.state, decision.state), (self.target, decision.target), (self.action, decision.action)]
        if counted:
            pairs += (self.first, decision.first), (self.below, decision.below), (self.tested, decision.tested)
        if decision.mask is not None and self.mask.shape[-1]:
            pairs.append((self.mask, decision.mask))
        return pairs + [(self.notes[name], x) for name, x in decision.notes.items()]

    def row(self, info: Tensor) -> dict[str, Tensor]:
        """The fields of the segment's row in the level's memory, with `info` [N, K]."""
        fixed = {"state": self.state, "target": self.target, "action": self.action, "reward": self.reward}
        return fixed | {"info": info, "mask": self.mask} | self.notes

    def counters(self) -> dict[str, Tensor]:
        """The counters of that row."""
        return {"first": self.first, "below": self.below, "tested": self.tested}

    def set_reward(self, reward: Tensor) -> None:
        """Set the reward [N] of segments of one step."""
        self.reward.copy_(reward)

    def add_reward(self, reward: Tensor, gamma: float, active: Tensor) -> None:
        """Add the rewards [N] of one environment step where `active` [N]."""
        self.reward.add_(torch.where(active, self.discount * reward, 0.0))
        torch.where(active, self.discount * gamma, self.discount, out=self.discount)
