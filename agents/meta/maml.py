"""MAML: model-agnostic meta-learning for fast adaptation (Finn, Abbeel, Levine 2017, arXiv:1703.03400, section 4.2).

A round has many tasks. Within a task, a few policy-gradient steps adapt the policy, each on new episodes. The outer
level learns the initial parameters from the episodes *after* adaptation, with a gradient through the inner steps
(`first_order` ignores this dependence). The outer step is a trust-region step, as published.

With `options`, the policy is a controller over options; with `subgoals`, it is a controller that sets subgoals for a
low level, as in HIRO (see hrl/policies). `adapts` selects the level that adapts. All levels learn from the task's
return."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from hrl.agents.base import require_continuous
from hrl.agents.meta.base import AdaptingConfig
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.commands.building import build_goal_space
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.nested.levels.adaptation import Adaptation
from hrl.policies import Options, Subgoals, num_actions, policy_for
from hrl.types import BatchedEnv, Spec, UserError


@dataclass
class MAMLConfig(AdaptingConfig):
    """MAML: an initial policy that adapts to a task in a few gradient steps (Finn 2017)."""

    hidden: tuple[int, ...] = (100, 100)
    """Units of the hidden layers (published: 100, 100)."""
    std: float = 1.0
    """Initial standard deviation of continuous actions, in half-ranges (published: 1)."""
    options: int = 0
    """Number of options of a controller; 0 for none."""
    subgoals: int = 0
    """Steps between two subgoals of a controller that sets subgoals; 0 for none."""
    goal: GoalConfig = field(default_factory=GoalConfig)
    adapts: Literal["all", "high", "low"] = "all"
    """Parameters that adapt within a task: all, or those of one level. All tasks share the other parameters."""

    def adaptation(self, spec: Spec, device: torch.device) -> Adaptation:
        """The policy. All its parameters or one level adapt."""
        adapts = (lambda name: True) if self.adapts == "all" else (lambda name: name.startswith(f"{self.adapts}."))
        policy = self._policy(spec, device).to(device)
        return Adaptation(policy, adapts, self.inner_learning_rate, self.first_order, self.correction)

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        super().check()
        if not self.std > 0 or min(self.hidden, default=1) < 1 or min(self.options, self.subgoals) < 0:
            raise UserError(
                "--std and --hidden must be positive, and --options and --subgoals must not be negative, not "
                f"{self.std}, {self.hidden}, {self.options} and {self.subgoals}."
            )
        if self.options and self.subgoals:
            raise UserError(
                "A controller either chooses options or sets subgoals: set only one of --options, --subgoals."
            )
        levels = bool(self.options or self.subgoals)
        if levels and self.outer == "trust-region":
            raise UserError(
                "--outer trust-region needs a divergence in closed form, which a policy with levels does not have: "
                "use --outer adam."
            )
        if self.goal != GoalConfig() and not self.subgoals:
            raise UserError("--goal describes the space of subgoals, so it needs --subgoals above 0.")
        if self.adapts != "all" and not levels:
            raise UserError(f"--adapts {self.adapts} names a level, so it needs --options or --subgoals above 0.")

    def _policy(self, spec: Spec, device: torch.device) -> nn.Module:
        inputs = spec.state_dim + spec.goal_dim
        if self.options:
            return Options(inputs, num_actions(spec), self.options, self.hidden)
        if self.subgoals:
            require_continuous(spec, "A level that receives subgoals")
            space = build_goal_space(self.goal, spec, self.subgoals, _no_measure, device)
            subgoal = Subgoal(space, "distance")
            return Subgoals(spec.state_dim, inputs, spec.action_dim, subgoal, self.subgoals, self.hidden, self.std)
        return policy_for(spec, self.hidden, self.std)


def _no_measure() -> BatchedEnv:
    raise UserError("--subgoals needs the bounds of subgoals: set --goal.low and --goal.high.")
