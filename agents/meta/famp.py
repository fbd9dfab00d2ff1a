"""FAMP: fast adaptation over meta-learned options (TMLR 2023).

A controller chooses options; each option acts with its own policy until it ends. Within a task, only the controller
adapts, by a few policy-gradient steps from fixed initial values: equal probabilities for all options. The outer level
learns the options and their terminations from the episodes of the adapted controllers:

    inner    ω_k = ω_{k-1} + α ∇_ω Σ_t A_t log π_ω(o_t | s_t)            at the steps where an option is chosen
    outer    ∇_θ Σ_k Σ_t A_t (log π_θ(a_t | s_t, o_t) + log β_θ) / (K + 1)    episodes before and after each of K steps

Advantages are generalised advantage estimates (λ) with a value function that is fitted to each task's episodes.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from hrl.agents.meta.base import AdaptingConfig
from hrl.nested.levels.adaptation import Adaptation
from hrl.policies import Options, num_actions
from hrl.policies.policy_gradient import Credit
from hrl.types import Spec, UserError


@dataclass
class FAMPConfig(AdaptingConfig):
    """FAMP: options that all tasks share, and a controller over them that adapts in a few gradient steps (2023)."""

    options: int = 4
    """Number of options (published: 4)."""
    hidden: tuple[int, ...] = ()
    """Units of the options' hidden layers. Without hidden layers, options are tables for Discrete observations
    (published)."""
    tasks: int = 48
    """Tasks per round (published: 64)."""
    episodes: int = 10
    """Episodes per task before each inner step and after the last one (published: 10)."""
    inner_learning_rate: float = 10.0
    """Step size of adaptation (published: 10)."""
    inner_steps: int = 3
    """Adaptation steps in training (published: 3)."""
    eval_shrink: float = 1.0
    """Step size of adaptation steps after the first in evaluation, relative to the first."""
    eval_explore: bool = True
    """Evaluate with exploration instead of the most likely actions."""
    every_step: bool = True
    """Learn from all episodes, before adaptation and after each of its steps, instead of only from the last ones."""
    fixed_start: bool = True
    """Keep the initial values of the adapted parameters fixed; only the shared parameters are learned (published)."""
    outer: Literal["trust-region", "adam"] = "adam"
    """The outer step. A trust region is not possible, because options have no divergence in closed form."""
    learning_rate: float = 0.05
    """Learning rate of the outer level (published: .01)."""
    gamma: float = 0.95
    """Discount per environment step (published: .95)."""
    lam: float = 0.98
    """λ of generalised advantage estimation (published: .98)."""
    entropy: float = 0.05
    """Initial weight of the actions' entropy in the outer loss. The entropy keeps options different."""
    prior: float = 3.0
    """Number of additional visits with a return of 0 in the fitted value of a state."""

    @property
    def credit(self) -> Credit:
        """Losses summed over steps, advantages without normalisation, and bootstrapping at the time limit."""
        return Credit(
            self.gamma, self.lam, powers=False, ridge=self.prior, bootstrap=True, normalise=False, summed=True
        )

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        super().check()
        if self.options < 1 or min(self.hidden, default=1) < 1 or not self.prior > 0:
            raise UserError(
                f"--options, --hidden and --prior must be positive, not {self.options}, {self.hidden} and {self.prior}."
            )
        if self.outer == "trust-region":
            raise UserError(
                "--outer trust-region needs a divergence in closed form, which a policy with options does not have: "
                "use --outer adam."
            )

    def adaptation(self, spec: Spec, device: torch.device) -> Adaptation:
        """A policy with options; its controller adapts."""
        inputs = spec.state_dim + spec.goal_dim
        policy = Options(inputs, num_actions(spec), self.options, self.hidden).to(device)
        high = lambda name: name.startswith("high.")  # noqa: E731
        return Adaptation(policy, high, self.inner_learning_rate, self.first_order, self.correction)
