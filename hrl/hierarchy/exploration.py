"""Exploration of a level: Gaussian noise and repeated random decisions, with different amounts per environment."""

import torch
from torch import Tensor

from hrl.execution.processes import average_over_processes
from hrl.learners.base import Exploring
from hrl.spaces import Space, action_width, from_uniform


class Exploration:
    """Adds noise and random decisions to a level's actions in each of N environments.

    A random decision is repeated, as in εz-greedy exploration (Dabney 2021), because a single random step rarely moves
    a body far. Its duration is geometric with mean `hold`, and a fraction `random` of all decisions is random. During a
    `warmup`, all decisions are random.
    """

    def __init__(
        self, config: Exploring, num_envs: int, actions: Space, device: torch.device, warmup: bool = False
    ) -> None:
        self.noise, self.hold = graded(config.noise, num_envs, device), float(config.hold)
        self.share, self.fraction = graded(config.random, num_envs, device), config.fraction
        self.actions = actions
        self.mean_noise = self.noise.mean()
        self.shaken = max(config.noise) > 0
        self.anywhere = max(config.random) > 0 or config.fraction > 0 or warmup
        self.begins = torch.zeros_like(self.share)
        """[N, 1] probability of starting a random decision where none is running, such that the fraction results."""
        self.warming_up = warmup
        self.progress(0.0)
        self.held = torch.zeros(num_envs, action_width(actions), device=device)
        self.holding = torch.zeros(num_envs, 1, dtype=torch.bool, device=device)

    def noisy(self, action: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
        """[B, A] the policy's action plus Gaussian noise of this standard deviation [B, 1] or [], clipped."""
        if not self.shaken:
            return action
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        return torch.addcmul(action, noise, deviation).clamp_(-1.0, 1.0)

    def __call__(
        self,
        action: Tensor,
        due: Tensor | None,
        generator: torch.Generator,
        mask: Tensor | None = None,
        left: Tensor | None = None,
    ) -> Tensor:
        """[N, A] the explored action for the policy's `action`. `due` [N] masks the environments with a new decision
        (None for all), `mask` [N, K] the available choices. `left` [N] raises the share of random decisions: 0 leaves
        it as it is, and 1 makes all of them random."""
        action = self.noisy(action, self.noise, generator)
        if not self.anywhere and left is None:
            return action
        begins = self.begins
        if left is not None and not self.warming_up:
            begins = self._beginning(self.share + left.unsqueeze(-1) * (1.0 - self.share))
        uniform = torch.rand(len(action), action.shape[-1] + 1, generator=generator, device=action.device)
        # One number determines whether the last random decision continues (below 0), and if not, whether one starts.
        lot = torch.where(self.holding, (uniform[:, :1] - 1) * self.hold + 1, uniform[:, :1])
        if due is not None:  # where not due, nothing changes
            lot = torch.where(due.unsqueeze(-1), lot, torch.where(self.holding, -1.0, 1.0))
        torch.lt(lot, begins, out=self.holding)
        anything = from_uniform(self.actions, uniform[:, 1:])
        if mask is not None:
            drawn = torch.rand(mask.shape, generator=generator, device=mask.device)
            anything = torch.where(mask > 0.5, drawn, -1.0).argmax(-1, keepdim=True).float()
            self.holding &= (lot >= 0) | (mask.gather(-1, self.held.long()) > 0.5)  # end if no longer available
        torch.where(self.holding & (lot >= 0), anything, self.held, out=self.held)
        return torch.where(self.holding, self.held, action)

    def progress(self, done: float) -> None:
        """Set the fraction of random decisions at the fraction `done` of the run: 1 in a warmup, else as configured."""
        share = self.share
        if self.warming_up:
            share = torch.ones_like(share)
        elif self.fraction > 0:
            left = max(0.0, 1.0 - done / self.fraction)
            share = share + left * (1.0 - share)
        self.begins.copy_(self._beginning(share))

    def _beginning(self, share: Tensor) -> Tensor:
        """[N, 1] the probability that a random decision begins where none is running, for this share of them."""
        return share / self.hold / (1 - share + share / self.hold)

    def warm_up(self, on: bool) -> None:
        """Make all decisions random (`on`), or the configured fraction."""
        if on != self.warming_up:
            self.warming_up = on
            self.progress(0.0)

    def restart(self) -> None:
        """End all running random decisions."""
        self.holding.fill_(False)

    def state_dict(self) -> dict[str, Tensor]:
        """The fraction of random decisions. Running random decisions end at a checkpoint and are not saved."""
        return {"begins": self.begins, "warming_up": torch.tensor(self.warming_up)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.begins.copy_(state["begins"])
        self.warming_up = bool(state["warming_up"])


class SuccessRates:
    """How often each of K numbered commands was obeyed lately: exponential moving averages, 0 at first."""

    def __init__(self, count: int, window: float, device: torch.device) -> None:
        """`window` is the number of commands over which an average reaches."""
        self.keep = 1.0 - 1.0 / window
        self.rate = torch.zeros(count, device=device)
        """[K] in [0, 1]."""

    def of(self, target: Tensor) -> Tensor:
        """The rates [N] of commands [N, K], one-hot."""
        return target @ self.rate

    def update(self, target: Tensor, obeyed: Tensor, over: Tensor) -> None:
        """Add the commands [N, K], one-hot, that are over [N], and whether [N] each was obeyed. The commands of the
        processes of a run are averaged."""
        ended = target * over.unsqueeze(-1)
        counts = torch.cat([ended.sum(0), (ended * obeyed.unsqueeze(-1)).sum(0)])
        average_over_processes(counts)
        number, successes = counts.chunk(2)
        self.rate += (1.0 - self.keep**number) * (successes / number.clamp_min(1e-8) - self.rate)

    def state_dict(self) -> dict[str, Tensor]:
        """The rates."""
        return {"rate": self.rate}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.rate.copy_(state["rate"])


def graded(ends: tuple[float, ...], num_envs: int, device: torch.device) -> Tensor:
    """[N, 1] values interpolated from the first to the last environment; their mean for a single environment."""
    first, last = (ends[0], ends[-1]) if num_envs > 1 else ((ends[0] + ends[-1]) / 2,) * 2
    return torch.linspace(first, last, num_envs, device=device).unsqueeze(-1)
