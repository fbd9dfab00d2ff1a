"""Flat and hierarchical stochastic policies as functions of their parameters, for on-policy learning."""

from hrl.policies.base import StochasticPolicy, choose, gather_actions, num_actions, policy_input
from hrl.policies.directions import Directions
from hrl.policies.flat import Categorical, Gaussian, policy_for
from hrl.policies.options import Options
from hrl.policies.subgoals import Subgoals

__all__ = [
    "Categorical",
    "Directions",
    "Gaussian",
    "Options",
    "StochasticPolicy",
    "Subgoals",
    "choose",
    "gather_actions",
    "num_actions",
    "policy_for",
    "policy_input",
]  # fmt: skip
