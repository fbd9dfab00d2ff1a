"""MODAC: discovery of options via meta-learned subgoals (Veeriah et al. 2021, arXiv:2102.06741).

Learning has three timescales. On the slowest, each option's reward r_η(s, o, a) and termination β_η(s, o) are learned.
The options' policies learn faster, from these rewards, without information about the task. On the fastest, one manager
per task chooses among options and primitive actions, and learns from the task's reward minus a cost for each choice. On
the episodes after an update of the options, the gradient of the tasks' return through this update trains r_η and β_η.
The formulas are in agents/parts/discovery.py.

After discovery, a new manager over the options learns a new task. Evaluations do the same on held-out tasks, with fixed
options. `--reward none` keeps the initial options, `--reward task` trains them on the tasks' return, and `--options 0`
leaves only primitive actions.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from hrl.agents.base import RoundsConfig
from hrl.agents.meta.policy import AdaptingPolicy
from hrl.agents.parts.discovery import Discovery
from hrl.nested.levels.adaptation import Adaptation
from hrl.policies import Options, num_actions
from hrl.policies.policy_gradient import Credit
from hrl.run.session import Session
from hrl.types import Spec, UserError


@dataclass
class MODACConfig(RoundsConfig):
    """MODAC: options with rewards and terminations that are learned through the options' updates (Veeriah 2021)."""

    family = True
    reward: Literal["learned", "task", "none"] = "learned"
    """Objective of the options: their learned reward, the tasks' return, or none."""
    options: int = 4
    """Number of options to discover."""
    primitives: bool = True
    """Managers can also choose primitive actions (published)."""
    hidden: tuple[int, ...] = ()
    """Units of the hidden layers. Without hidden layers, all networks are tables for Discrete observations."""
    tasks: int = 48
    """Tasks per round, each with its own manager."""
    episodes: int = 10
    """Episodes per task and round, in parallel."""
    lifetime: int = 20
    """Rounds per lifetime of the managers. Afterwards, new tasks are sampled."""
    inner_learning_rate: float = 10.0
    """The managers' step size, with one step per round."""
    switching_cost: float = 0.001
    """Cost for each choice of a manager, subtracted from the task's reward."""
    learning_rate: float = 0.1
    """The options' learning rate of Adam, with one step per round."""
    entropy: float = 0.05
    """Initial weight of the options' entropy; it falls linearly to 0 over the first half of the run."""
    value_learning_rate: float = 0.05
    """Learning rate of the options' values."""
    value_updates: int = 5
    """Steps of the values per round."""
    reward_learning_rate: float = 0.1
    """Learning rate of Adam for the options' rewards."""
    end_learning_rate: float = 0.02
    """Learning rate of Adam for the options' terminations."""
    meta_updates: int = 3
    """Steps of rewards and terminations per round (published: 1)."""
    penalty: float = 1.0
    """Weight of the rewards' mean square (published: none)."""
    gamma: float = 0.95
    """Discount per environment step."""
    lam: float = 0.98
    """λ of generalised advantage estimation."""
    prior: float = 3.0
    """Number of additional visits with a return of 0 in the managers' fitted value of a state."""
    eval_steps: int = 3
    """Steps of a new manager in evaluation."""
    eval_shrink: float = 1.0
    """Step size of the manager's steps after the first in evaluation, relative to the first."""
    eval_explore: bool = True
    """Evaluate with exploration instead of the most likely actions."""

    @property
    def num_envs_required(self) -> tuple[int, str]:
        """Tasks times episodes."""
        return self.tasks * self.episodes, "--tasks times --episodes"

    @property
    def credit(self) -> Credit:
        """Losses summed over steps, advantages without normalisation, and bootstrapping at the time limit."""
        return Credit(
            self.gamma, self.lam, powers=False, ridge=self.prior, bootstrap=True, normalise=False, summed=True
        )

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        positive = (
            "tasks",
            "episodes",
            "lifetime",
            "inner_learning_rate",
            "learning_rate",
            "value_learning_rate",
            "reward_learning_rate",
            "end_learning_rate",
            "prior",
            "eval_steps",
        )
        self.require(positive, lambda x: x > 0, "must be positive, not")
        weights = ("options", "switching_cost", "entropy", "value_updates", "meta_updates", "penalty")
        self.require(weights, lambda x: x >= 0, "must not be negative, but is")
        self.require(("gamma", "lam"), lambda x: 0 <= x <= 1, "must be between 0 and 1, not")
        if min(self.hidden, default=1) < 1:
            raise UserError(f"--hidden must be positive layer sizes, not {self.hidden}.")
        if not self.options and not self.primitives:
            raise UserError("With --options 0 and --primitives False, managers have no choices: change one of the two.")

    def learner(self, spec: Spec, session: Session) -> Discovery:
        """Build the learner. Managers adapt to tasks, which share the options, their rewards and terminations."""
        torch.manual_seed(session.run.seed)
        inputs = spec.state_dim + spec.goal_dim
        policy = Options(inputs, num_actions(spec), self.options, self.hidden, self.primitives).to(session.device)
        adaptation = Adaptation(policy, lambda name: name.startswith("high."), self.inner_learning_rate)
        return Discovery(self, adaptation, spec, session.device, session.run.seed)

    def policy(self, learner: Discovery) -> AdaptingPolicy:
        """The policy of a new manager over the options."""
        return AdaptingPolicy(learner)
