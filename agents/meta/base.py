"""The base class of algorithms that learn to adapt to tasks."""

from abc import abstractmethod
from dataclasses import dataclass

import torch

from hrl.agents.base import RoundsConfig
from hrl.agents.meta.learner import MetaLearner, MetaSettings
from hrl.agents.meta.policy import AdaptingPolicy
from hrl.nested.levels.adaptation import Adaptation
from hrl.run.session import Session
from hrl.types import Spec, UserError


@dataclass
class AdaptingConfig(MetaSettings, RoundsConfig):
    """The base class of algorithms that meta-learn to adapt. A subclass defines the policy and the parameters that
    adapt."""

    family = True

    @abstractmethod
    def adaptation(self, spec: Spec, device: torch.device) -> Adaptation:
        """The policy and its adapted parameters. Raises UserError if it does not support the environment."""

    @property
    def num_envs_required(self) -> tuple[int, str]:
        """Tasks times episodes."""
        return self.tasks * self.episodes, "--tasks times --episodes"

    def learner(self, spec: Spec, session: Session) -> MetaLearner:
        """Build the outer level's learner."""
        torch.manual_seed(session.run.seed)
        adaptation = self.adaptation(spec, session.device)
        if self.fixed_start and not adaptation.shared:
            raise UserError(
                "With --fixed-start, there is nothing to learn if all parameters adapt: set --adapts to a level."
            )
        return MetaLearner(self, adaptation, spec, session.device, session.run.seed)

    def policy(self, learner: MetaLearner) -> AdaptingPolicy:
        """The policy before adaptation."""
        return AdaptingPolicy(learner)
