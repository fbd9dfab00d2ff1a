"""A level of the hierarchy, and the contracts of its parts."""

from hrl.hierarchy.level.contracts import Bonus, Model, Relabel, RewardTerm, Tuned, Tuner
from hrl.hierarchy.level.level import Level

__all__ = ["Bonus", "Level", "Model", "Relabel", "RewardTerm", "Tuned", "Tuner"]
