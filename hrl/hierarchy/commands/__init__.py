"""Commands that levels obey: the task, or a decision of the level above."""

from hrl.hierarchy.commands.base import Command, IssuedCommand
from hrl.hierarchy.commands.choices import Direction, Latent, Skill
from hrl.hierarchy.commands.declared import DeclaredSubgoals
from hrl.hierarchy.commands.subgoal import GridSubgoal, Subgoal
from hrl.hierarchy.commands.task import Task

__all__ = [
    "Command", "DeclaredSubgoals", "Direction", "GridSubgoal", "IssuedCommand", "Latent", "Skill", "Subgoal", "Task",
]  # fmt: skip
