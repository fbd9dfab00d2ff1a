"""MAML: model-agnostic meta-learning for fast adaptation (Finn, Abbeel, Levine 2017, arXiv:1703.03400, section 4.2).

Many tasks at a time. Within a task, the policy is adapted by a few steps of policy gradient, each on fresh episodes.
The outer level moves where adaptation begins, so that the episodes *after* it are good: its gradient goes through
the inner steps (`first_order` leaves that out). As published, the outer step is a trust-region step.

With `options`, the policy is a controller over options (see hrl/policies.py), and `adapts` says which level adapts.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from hrl.agents.base import AdaptingConfig
from hrl.nested.adaptation import Adaptation
from hrl.policies import Options, numbered, policy_for
from hrl.types import Spec, UserError


@dataclass
class MAMLConfig(AdaptingConfig):
    """MAML: an initial policy that adapts to a task in a few gradient steps (Finn 2017)."""

    hidden: tuple[int, ...] = (100, 100)
    """Units of the hidden layers (published: 100, 100)."""
    std: float = 1.0
    """Standard deviation of continuous actions at first, in half-ranges (published: 1)."""
    options: int = 0
    """Options that a controller chooses from; 0 for a policy without levels."""
    adapts: Literal["all", "high", "low"] = "all"
    """What adapts within a task: everything, or one level of a policy with options; the rest all tasks share."""

    def adaptation(self, spec: Spec, device: torch.device) -> Adaptation:
        """Everything adapts, or one level of a policy with options."""
        adapts = (lambda name: True) if self.adapts == "all" else (lambda name: name.startswith(f"{self.adapts}."))
        return Adaptation(self._policy(spec).to(device), adapts, self.inner_lr, self.first_order, self.correction)

    def check(self) -> None:
        """Raise UserError where a value cannot be meant."""
        super().check()
        if not self.std > 0 or min(self.hidden, default=1) < 1 or self.options < 0:
            raise UserError(
                f"--std and --hidden must be positive and --options not negative, "
                f"not {self.std}, {self.hidden} and {self.options}."
            )
        if self.options and self.outer == "trust-region":
            raise UserError("--options leaves the policy no divergence in closed form: use --outer adam.")

    def _policy(self, spec: Spec) -> nn.Module:
        if not self.options:
            if self.adapts != "all":
                raise UserError(f"--adapts {self.adapts} names a level, so it needs --options above 0.")
            return policy_for(spec, self.hidden, self.std)
        return Options(spec.state_dim + spec.goal_dim, numbered(spec), self.options, self.hidden)
