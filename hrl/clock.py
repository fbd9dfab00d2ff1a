"""Per-environment clocks: what each upper level has decided, since when, and what it earned since."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Held:
    """The decision of one upper level that is in force in each of N environments."""

    target: Tensor
    """[N, G] the command, as issued."""
    decision: Tensor
    """[N, G] the same as decided, in [-1, 1]."""
    elapsed: Tensor
    """[N] environment steps since, int64; FRESH where nothing is in force."""

    @classmethod
    def nothing(cls, num_envs: int, dim: int, device: torch.device) -> "Held":
        """Nothing in force: every environment is due."""
        empty = torch.zeros(num_envs, dim, device=device)
        return cls(empty, empty, torch.full((num_envs,), FRESH, device=device))

    def due(self, period: int) -> Tensor:
        """Where [N] a new decision is to be taken."""
        return self.elapsed >= period

    def renewed(self, due: Tensor, decision: Tensor, target: Tensor) -> "Held":
        """With new decisions where due."""
        wide = due.unsqueeze(-1)
        return Held(
            torch.where(wide, target, self.target),
            torch.where(wide, decision, self.decision),
            torch.where(due, 0, self.elapsed),
        )

    def ticked(self, active: Tensor) -> "Held":
        """One environment step later. An environment that only reset has nothing in force."""
        return Held(self.target, self.decision, torch.where(active, self.elapsed + 1, FRESH))

    def dropped(self, where: Tensor) -> "Held":
        """With nothing in force where [N] its segment ended."""
        return Held(self.target, self.decision, torch.where(where, FRESH, self.elapsed))


FRESH = 1 << 40


@dataclass
class Segment:
    """The open decision of one upper level in each of N environments, for its replay."""

    state: Tensor
    """[N, D] when it was decided."""
    target: Tensor
    """[N, G] the command from above then."""
    first: Tensor
    """[N] row of its first step in the bottom level's ring."""
    reward: Tensor
    """[N] Σ γ^i r_i so far."""
    discount: Tensor
    """[N] γ^length so far."""
    tested: Tensor
    """[N] whether the levels below act without exploration, to test the subgoal."""

    @classmethod
    def empty(cls, num_envs: int, state_dim: int, target_dim: int, device: torch.device) -> "Segment":
        """No segment open."""
        zeros = torch.zeros(num_envs, device=device)
        return cls(
            state=torch.zeros(num_envs, state_dim, device=device),
            target=torch.zeros(num_envs, target_dim, device=device),
            first=torch.zeros(num_envs, dtype=torch.int64, device=device),
            reward=zeros,
            discount=zeros + 1,
            tested=torch.zeros(num_envs, dtype=torch.bool, device=device),
        )

    def open(self, due: Tensor, state: Tensor, target: Tensor, first: Tensor, tested: Tensor) -> None:
        """Begin a segment where due."""
        wide = due.unsqueeze(-1)
        self.state = torch.where(wide, state, self.state)
        self.target = torch.where(wide, target, self.target)
        self.first = torch.where(due, first, self.first)
        self.reward = torch.where(due, 0.0, self.reward)
        self.discount = torch.where(due, 1.0, self.discount)
        self.tested = torch.where(due, tested, self.tested)

    def pay(self, reward: Tensor, gamma: float, active: Tensor) -> None:
        """Add one environment step's reward where a step was taken."""
        self.reward = self.reward + torch.where(active, self.discount * reward, 0.0)
        self.discount = torch.where(active, self.discount * gamma, self.discount)
