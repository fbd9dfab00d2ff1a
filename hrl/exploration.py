"""How a level explores: Gaussian noise, and bursts of random decisions, more of them in some environments."""

import torch
from torch import Tensor

from hrl.level_config import LevelConfig


class Exploration:
    """Decides in each of N environments when a level does something else than its policy says.

    A random decision is kept for a time, as in εz-greedy exploration (Dabney 2021): kept for one step it seldom moves
    a body anywhere. Its length is geometric, of mean `hold`, and a share `random` of all decisions is random.
    """

    def __init__(self, config: LevelConfig, num_envs: int, action_dim: int, device: torch.device) -> None:
        self.noise, self.hold = graded(config.noise, num_envs, device), float(config.hold)
        share = graded(config.random, num_envs, device)
        self.mean_noise = self.noise.mean()
        self.shaken = max(config.noise) > 0
        self.anywhere = max(config.random) > 0 or config.wait > 0
        self.ladder = share / self.hold / (1 - share + share / self.hold)
        """[N, 1] probability that a random decision begins where none goes on, so that the share comes out."""
        self.begins, self.wandering = self.ladder.clone(), False
        self.wander(config.wait > 0)
        self.held = torch.zeros(num_envs, action_dim, device=device)
        self.holding = torch.zeros(num_envs, 1, dtype=torch.bool, device=device)

    def noisy(self, action: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
        """[B, A] what a policy says, with noise of this deviation [B, 1] or []."""
        if not self.shaken:
            return action
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        return torch.addcmul(action, noise, deviation).clamp_(-1.0, 1.0)

    def __call__(self, action: Tensor, due: Tensor, generator: torch.Generator) -> Tensor:
        """[N, A] what is done where the policy says `action`; `due` [N] says who decides anew at all."""
        action = self.noisy(action, self.noise, generator)
        if not self.anywhere:
            return action
        uniform = torch.rand(len(action), action.shape[-1] + 1, generator=generator, device=action.device)
        # One number says whether the last random decision goes on (below 0), and if not, whether one begins.
        lot = torch.where(self.holding, (uniform[:, :1] - 1) * self.hold + 1, uniform[:, :1])
        lot = torch.where(due.unsqueeze(-1), lot, torch.where(self.holding, -1.0, 1.0))  # where not, all stays
        torch.lt(lot, self.begins, out=self.holding)
        torch.where(self.holding & (lot >= 0), uniform[:, 1:] * 2 - 1, self.held, out=self.held)
        return torch.where(self.holding, self.held, action)

    def wander(self, on: bool) -> None:
        """Decide at random throughout, or as was configured."""
        if on != self.wandering:
            self.wandering = on
            self.begins.copy_(torch.ones_like(self.ladder) if on else self.ladder)

    def restart(self) -> None:
        """Nothing goes on."""
        self.holding.fill_(False)


def graded(ends: tuple[float, ...], num_envs: int, device: torch.device) -> Tensor:
    """[N, 1] from the first environment's value to the last one's; of one environment alone, the mean."""
    first, last = (ends[0], ends[-1]) if num_envs > 1 else ((ends[0] + ends[-1]) / 2,) * 2
    return torch.linspace(first, last, num_envs, device=device).unsqueeze(-1)
