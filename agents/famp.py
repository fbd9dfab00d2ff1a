"""FAMP: fast adaptation over meta-learned options (TMLR 2023).

A controller chooses options; each acts by a policy of its own until it ends. Within a task the controller alone adapts,
by a few steps of policy gradient from a start that is the same for all tasks and is not learned: every option alike.
The outer level learns the options, and when they end, by what the adapted controllers make of them:

    inner    ω_k = ω_{k-1} + α ∇_ω Σ_t A_t log π_ω(o_t | s_t)            at the steps where an option is chosen
    outer    ∇_θ Σ_k Σ_t A_t (log π_θ(a_t | s_t, o_t) + log β_θ) / (K + 1)    episodes before and after each of K steps

Advantages are generalised (λ), over a value that is fitted to each task's episodes.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from hrl.agents.base import AdaptingConfig
from hrl.learners.policy_gradient import Credit
from hrl.nested.levels.adaptation import Adaptation
from hrl.policies import Options, num_actions
from hrl.types import Spec, UserError


@dataclass
class FAMPConfig(AdaptingConfig):
    """FAMP: options that all tasks share, and a controller over them that adapts in a few gradient steps (2023)."""

    options: int = 4
    """Options that the controller chooses from (published: 4)."""
    hidden: tuple[int, ...] = ()
    """Units of the options' hidden layers; none makes them tables, where observations are numbered (published)."""
    tasks: int = 48
    """Tasks a round (published: 64)."""
    episodes: int = 10
    """Episodes of a task before each inner step, and after the last (published: 10)."""
    inner_lr: float = 10.0
    """Step size of adaptation (published: 10)."""
    inner_steps: int = 3
    """Steps of adaptation in training (published: 3)."""
    eval_shrink: float = 1.0
    """Length of steps of adaptation after the first, over the first's."""
    eval_explore: bool = True
    """Judge by episodes with exploration, not by the likeliest actions."""
    every_step: bool = True
    """Learn from all episodes, before adaptation and after every step of it, not from the last alone."""
    fixed_start: bool = True
    """Adaptation begins where it did at first; what the tasks share is learned alone (published)."""
    outer: Literal["trust-region", "adam"] = "adam"
    """The outer step. Options have no divergence in closed form, which a trust region needs."""
    lr: float = 0.05
    """Learning rate of the outer level (published: .01)."""
    gamma: float = 0.95
    """Discount an environment step (published: .95)."""
    lam: float = 0.98
    """λ of generalised advantage estimation (published: .98)."""
    entropy: float = 0.05
    """Weight of the actions' entropy in the outer loss at first; it keeps options from becoming one."""
    prior: float = 3.0
    """Visits for which the fitted value of a state is taken as 0 beforehand."""

    @property
    def credit(self) -> Credit:
        """Sums over steps, advantages as they are, a value that goes on where the time limit cuts."""
        return Credit(
            self.gamma, self.lam, powers=False, ridge=self.prior, bootstrap=True, normalise=False, summed=True
        )

    def check(self) -> None:
        """Raise UserError where a value is invalid."""
        super().check()
        if self.options < 1 or min(self.hidden, default=1) < 1 or not self.prior > 0:
            raise UserError(
                f"--options, --hidden and --prior must be positive, not {self.options}, {self.hidden} and {self.prior}."
            )
        if self.outer == "trust-region":
            raise UserError("Options leave the policy no divergence in closed form: use --outer adam.")

    def adaptation(self, spec: Spec, device: torch.device) -> Adaptation:
        """The controller adapts."""
        inputs = spec.state_dim + spec.goal_dim
        policy = Options(inputs, num_actions(spec), self.options, self.hidden).to(device)
        high = lambda name: name.startswith("high.")  # noqa: E731
        return Adaptation(policy, high, self.inner_lr, self.first_order, self.correction)
