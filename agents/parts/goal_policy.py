"""The policies of an offline learner that reaches goals, for evaluations, programs and planners."""

from typing import Any, Protocol

import torch
from torch import Tensor

from hrl.hierarchy.stack import ActionMode
from hrl.training.predicting import PredictingPolicy, PredictState
from hrl.types import BatchedEnv, Spec, Step


class GoalLearner(Protocol):
    """The interface of the learner."""

    spec: Spec
    device: torch.device

    def act(self, state: Tensor, goal: Tensor, mask: Tensor | None = None) -> Tensor:
        """The most likely actions [N, A] towards goals [N, G]."""

    def act_low(self, state: Tensor, subgoal: Tensor, mask: Tensor | None = None) -> Tensor:
        """The most likely actions [N, A] of the low policy alone towards near goals [N, G]."""

    def distance(self, state: Tensor, goal: Tensor) -> Tensor:
        """Estimated environment steps [...] from states [..., D] to goals [..., G]."""


class GoalPolicy(PredictingPolicy):
    """Acts towards the observed goals without memory: the high policy decides at every step. Actions are deterministic
    in every mode."""

    def __init__(self, learner: GoalLearner, env: BatchedEnv | None = None, levels: int = 2) -> None:
        """With `levels=1`, the low policy alone acts towards the goals."""
        super().__init__(learner.device, env)
        self.learner = learner
        self._towards = learner.act if levels == 2 else learner.act_low
        self._achieved = torch.tensor(learner.spec.achieved, device=learner.device)

    def start(self, num_envs: int) -> PredictState:
        """None."""
        return ()

    def act(self, obs: Any, memory: PredictState, how: ActionMode) -> tuple[Tensor, PredictState, list[Tensor]]:
        """The most likely actions [N, A]. Subgoals are representations, so pictures cannot show them."""
        return self._towards(obs.state, obs.goal, obs.mask), (), []

    def place(self, state: Tensor) -> Tensor:
        """The achieved goals [N, G]."""
        return state[:, self._achieved]

    def after(self, memory: PredictState, step: Step) -> tuple[PredictState, dict[str, Tensor]]:
        """No memory and no metrics."""
        return (), {}

    def restarted(self, memory: PredictState, where: Tensor) -> PredictState:
        """None."""
        return ()

    def following(self, memory: PredictState, state: Tensor, how: ActionMode) -> PredictState:
        """None."""
        return ()

    def pack(self, memory: PredictState) -> PredictState:
        """None."""
        return ()

    def unpack(self, state: PredictState) -> PredictState:
        """None."""
        return ()

    def distance(self, state: Tensor, goal: Tensor) -> Tensor:
        """Estimated environment steps [...] from states [..., D] to goals [..., G]."""
        return self.learner.distance(state, goal)
