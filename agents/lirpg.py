"""LIRPG: learning intrinsic rewards for policy gradient (Zheng, Oh, Singh 2018, arXiv:1804.06459), over many lives of
agents (What can learned intrinsic rewards capture?, Zheng et al. 2020, arXiv:1912.05500).

Round after round an agent makes a policy-gradient step on how its steps are credited: by the task's advantage, and by a
reward r_η(s, a) that is learned. The episodes that follow say what the task's return gained by that step; its
gradient through the step teaches r_η. After a lifetime the agent is born anew, and r_η stays: what it knows of the
task makes the next one learn faster. `--reward task` is the same agent without it. The formulas stand in
hrl/training/lifetimes.py.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from hrl.agents.base import RoundsConfig
from hrl.policies import policy_for
from hrl.run.session import Session
from hrl.training.actor import Actor
from hrl.training.lifetimes import Lifetimes
from hrl.types import Spec, UserError

QUIET = 0.01
"""Of the last layer's first weights: actions begin around 0."""


@dataclass
class LIRPGConfig(RoundsConfig):
    """LIRPG: a reward that a policy-gradient agent learns on, taught by the task's return (Zheng 2018, 2020)."""

    reward: Literal["learned", "task"] = "learned"
    """Beside the task's advantage a reward that is learned, or the task's alone."""
    episodes: int = 16
    """Episodes a round, side by side."""
    lifetime: int = 10
    """Rounds that an agent lives; 0 for one life as long as the run (Zheng 2018)."""
    hidden: tuple[int, ...] = (32, 32)
    """Units of the hidden layers of policy and value."""
    std: float = 0.6
    """Standard deviation of continuous actions at first, in half-ranges."""
    lr: float = 0.015
    """The policy's learning rate of Adam, one step a round."""
    value_lr: float = 3e-3
    """The value's."""
    value_updates: int = 5
    """Steps of the value a round."""
    weight: float = 10.0
    """Of the learned reward beside the task's normalised advantage (λ)."""
    reward_hidden: tuple[int, ...] = (32, 32)
    """Units of the learned reward's hidden layers."""
    reward_lr: float = 3e-3
    """The learned reward's learning rate."""
    reward_updates: int = 10
    """Steps of the learned reward a round (published: 1)."""
    penalty: float = 1.0
    """Weight of its mean square (published: none)."""
    gamma: float = 0.99
    """Discount an environment step."""
    lam: float = 0.95
    """λ of generalised advantage estimation."""

    @property
    def num_envs_required(self) -> tuple[int, str]:
        """Episodes."""
        return self.episodes, "--episodes"

    def check(self) -> None:
        """Raise UserError where a value cannot be meant."""
        self.require(("episodes", "std", "lr", "value_lr", "reward_lr"), lambda x: x > 0, "must be positive, not")
        weights = ("lifetime", "value_updates", "reward_updates", "weight", "penalty")
        self.require(weights, lambda x: x >= 0, "must not be negative, but is")
        self.require(("gamma", "lam"), lambda x: 0 <= x <= 1, "must lie between 0 and 1, not at")
        if min((*self.hidden, *self.reward_hidden), default=1) < 1:
            raise UserError(f"--hidden must be positive layer sizes, not {self.hidden} and {self.reward_hidden}.")

    def learner(self, spec: Spec, session: Session) -> Lifetimes:
        """Agents, and the reward that outlives them."""

        def policy() -> nn.Module:
            made = policy_for(spec, self.hidden, self.std, smooth=True)
            with torch.no_grad():
                for parameter in made.net[-1].parameters():
                    parameter.mul_(QUIET)
            return made

        return Lifetimes(self, policy, spec, session.device, session.run.seed)

    def policy(self, learner: Lifetimes) -> Actor:
        """The agent that lives."""
        return Actor(learner.policy, lambda: learner.agent.params, learner.device)
