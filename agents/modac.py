"""MODAC: discovery of options via meta-learned subgoals (Veeriah et al. 2021, arXiv:2102.06741).

What an option is for is learned: a reward r_η(s, o, a) and an end β_η(s, o), slow; its policy learns on them, faster,
knowing no task; and a manager for each task, fastest, chooses from options and primitive actions on the task's reward,
at a cost each time it chooses. The episodes that follow an update of the options say what the tasks' return gained by
it; its gradient through the update teaches r_η and β_η. The formulas stand in agents/parts/discovery.py.

After discovery a new manager learns a new task over the options. That is how a run is evaluated: on held-out tasks,
with options that stay as they are. `--reward none` leaves options as they were born, `--reward task` has them learn on
the tasks' return itself, and `--options 0` leaves primitive actions alone.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from hrl.agents.base import RoundsConfig
from hrl.agents.parts.discovery import Discovery
from hrl.agents.parts.meta_policy import AdaptingPolicy
from hrl.learners.policy_gradient import Credit
from hrl.nested.levels.adaptation import Adaptation
from hrl.policies import Options, num_actions
from hrl.run.session import Session
from hrl.types import Spec, UserError


@dataclass
class MODACConfig(RoundsConfig):
    """MODAC: options whose rewards and ends are learned by the tasks' return through the options' learning (2021)."""

    family = True
    reward: Literal["learned", "task", "none"] = "learned"
    """What options learn on: the reward that is learned for them, the task's return, or nothing."""
    options: int = 4
    """Options that are discovered."""
    primitives: bool = True
    """Managers choose from primitive actions too (published)."""
    hidden: tuple[int, ...] = ()
    """Units of the hidden layers; none makes tables of everything, where observations are numbered."""
    tasks: int = 48
    """Tasks a round, each with a manager of its own."""
    episodes: int = 10
    """Episodes of a task a round, side by side."""
    lifetime: int = 20
    """Rounds that managers live; then tasks are drawn anew."""
    inner_lr: float = 10.0
    """The managers' step size, one step a round."""
    switching_cost: float = 0.001
    """Taken off the task's reward each time a manager chooses."""
    lr: float = 0.1
    """The options' learning rate of Adam, one step a round."""
    entropy: float = 0.05
    """Weight of the options' entropy at first; it falls to 0 on a line over the first half of the run."""
    value_lr: float = 0.05
    """Learning rate of the options' values."""
    value_updates: int = 5
    """Steps of the values a round."""
    reward_lr: float = 0.1
    """Learning rate of Adam of the options' rewards."""
    end_lr: float = 0.02
    """The same of where they end."""
    meta_updates: int = 3
    """Steps of both a round (published: 1)."""
    penalty: float = 1.0
    """Weight of the rewards' mean square (published: none)."""
    gamma: float = 0.95
    """Discount an environment step."""
    lam: float = 0.98
    """λ of generalised advantage estimation."""
    prior: float = 3.0
    """Visits for which the managers' fitted value of a state is taken as 0 beforehand."""
    eval_steps: int = 3
    """Steps that a new manager learns in evaluation."""
    eval_shrink: float = 1.0
    """Length of its steps after the first, over the first's."""
    eval_explore: bool = True
    """Judge by episodes with exploration, not by the likeliest actions."""

    @property
    def num_envs_required(self) -> tuple[int, str]:
        """Tasks times episodes."""
        return self.tasks * self.episodes, "--tasks times --episodes"

    @property
    def credit(self) -> Credit:
        """Sums over steps, advantages as they are, a value that goes on where the time limit cuts."""
        return Credit(
            self.gamma, self.lam, powers=False, ridge=self.prior, bootstrap=True, normalise=False, summed=True
        )

    def check(self) -> None:
        """Raise UserError where a value is invalid."""
        positive = (
            "tasks",
            "episodes",
            "lifetime",
            "inner_lr",
            "lr",
            "value_lr",
            "reward_lr",
            "end_lr",
            "prior",
            "eval_steps",
        )
        self.require(positive, lambda x: x > 0, "must be positive, not")
        weights = ("options", "switching_cost", "entropy", "value_updates", "meta_updates", "penalty")
        self.require(weights, lambda x: x >= 0, "must not be negative, but is")
        self.require(("gamma", "lam"), lambda x: 0 <= x <= 1, "must lie between 0 and 1, not at")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"--hidden must be positive layer sizes, not {self.hidden}.")
        if not self.options and not self.primitives:
            raise UserError("--options 0 leaves managers nothing to choose from where --primitives is False.")

    def learner(self, spec: Spec, session: Session) -> Discovery:
        """Managers adapt; options and what they are for are shared."""
        torch.manual_seed(session.run.seed)
        inputs = spec.state_dim + spec.goal_dim
        policy = Options(inputs, num_actions(spec), self.options, self.hidden, self.primitives).to(session.device)
        adaptation = Adaptation(policy, lambda name: name.startswith("high."), self.inner_lr)
        return Discovery(self, adaptation, spec, session.device, session.run.seed)

    def policy(self, learner: Discovery) -> AdaptingPolicy:
        """A new manager over the options."""
        return AdaptingPolicy(learner)
