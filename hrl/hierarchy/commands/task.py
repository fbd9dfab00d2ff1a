"""The task as the command to the top level: the environment's goal and reward."""

import torch
from torch import Tensor

from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace, Select
from hrl.types import Spec, TaskReward, UserError


class Task:
    """The command to the top level: the environment's desired goal, if it has one, and its reward."""

    extrinsic = True

    def __init__(
        self,
        goal_dim: int,
        goals: GoalSpace | None = None,
        task_reward: TaskReward | None = None,
        reward_range: tuple[float, float] | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        penalty: float = 0.0,
    ) -> None:
        """`scale` and `offset` apply to each step's reward; `penalty` is the extra cost of a missed subgoal."""
        self.dim = goal_dim
        self.goals = goals
        self.task_reward = task_reward
        self.reward_range = reward_range
        self.scale, self.offset = scale, offset
        self.penalty = penalty
        self.input_dim = goal_dim * 2 + 2 * goals.feature_dim if goals is not None else goal_dim

    @classmethod
    def of(
        cls,
        spec: Spec,
        goal: GoalConfig,
        scale: float,
        offset: float,
        device: torch.device,
        penalty: float = 0.0,
    ) -> "Task":
        """The task of an environment. Its goals have the position features that the goal space declares."""
        goal.check()
        if not spec.goal_dim:
            return cls(0, scale=scale, offset=offset, penalty=penalty)
        unit = torch.ones(spec.goal_dim, device=device)
        select = Select(torch.tensor(spec.achieved, device=device))
        space = GoalSpace(select, -unit, unit, relative=False, periods=goal.periods)
        return cls(spec.goal_dim, space, spec.task_reward, spec.reward_range, scale, offset, penalty)

    def require_goals(self, option: str) -> None:
        """Raise UserError if the task has no goal to relabel."""
        if self.task_reward is None:
            raise UserError(
                f"{option} relabels the task's goal, but this environment has none "
                f"(no achieved_goal and desired_goal in its observation); set {option} 0."
            )
        if fault := getattr(self.task_reward, "fault", None):
            raise UserError(f"{fault} (--{option} 0)")

    def scale_reward(self, reward: Tensor) -> Tensor:
        """The reward that the level learns from: (r + offset) * scale for each environment step."""
        return reward if (self.offset, self.scale) == (0, 1) else (reward + self.offset) * self.scale

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """Displacement to the desired goal, the goal itself, and the position features of state and goal."""
        if self.goals is None:
            return target
        features = [self.goals.features(self.goals.project(shown)), self.goals.features(target)]
        return torch.cat([target - self.goals.project(state), target, *features], -1)

    def project(self, state: Tensor) -> Tensor:
        """The achieved goal of a goal environment."""
        assert self.goals is not None
        return self.goals.project(state)

    def reward(self, state: Tensor, next_state: Tensor, target: Tensor) -> Tensor:
        """The task's reward [...] of one step, recomputed (goal environments only)."""
        assert self.task_reward is not None
        return self.scale_reward(self.task_reward(self.project(next_state), target)[0])

    def value_range(self, gamma: float) -> tuple[float, float] | None:
        """Bounds of the discounted return if the bounds of a step's reward are known. They include 0, the value after
        the end. None without a discount, because the number of steps is unknown."""
        if self.reward_range is None or gamma == 1:
            return None
        low, high = sorted((r + self.offset) * self.scale for r in self.reward_range)
        return min(low / (1.0 - gamma), -self.penalty, 0.0), max(high / (1.0 - gamma), 0.0)
