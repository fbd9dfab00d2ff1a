"""HiPPO: sub-policy adaptation for hierarchical reinforcement learning (Li, Florensa, Clavera, Abbeel 2019,
arXiv:1906.05862).

PPO trains two levels. A manager π_hi(z|s) chooses one of K latents z, and a sub-policy π_lo(a|s, z) acts under it for p
steps, with p ~ U{5, …, 15} sampled for each latent. If every action is likely under one latent only, the gradient of a
trajectory's log-probability is the sum of the gradients of both levels (lemma 1):

    ∇ log P(τ) ≈ Σ_k ∇ log π_hi(z_k | s_k) + Σ_t ∇ log π_lo(a_t | s_t, z_t).

The terms of each level are weighted with a separate advantage, computed from the same rewards. The manager's decisions
last p steps, so its advantages are discounted by γ^p. The sub-policy's baseline V(s, z) may depend on the latent
without a bias (lemma 2). At the end of a period, it bootstraps from V(s', z') of the next latent, because its return is
that of the complete episode. Both levels clip the ratio of their decisions (algorithm 2), after the same rollouts.

In evaluation, a latent lasts for the mean period. `--preset published` has the paper's settings. The defaults differ:
minibatches are small, rollouts are short, and the sub-policies can start with different actions (skill_gain,
latent_scale), so that latents have an effect from the start.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from hrl.agents.base import HierarchyConfig
from hrl.hierarchy.clock import Period, Periods
from hrl.hierarchy.commands import Skill, Task
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.setting import Setting
from hrl.learners import Choice, PPOConfig
from hrl.types import Spec, UserError


class SubPolicy(Skill):
    """The command to act under one of K latents. The level below observes the one-hot latent and the task's goal, and
    learns from the task's reward, like the manager."""

    def __init__(self, count: int, task: Task, scale: float = 1.0) -> None:
        super().__init__(count, goal_dim=task.dim)
        self.task, self.input_dim, self.scale = task, count + task.input_dim, scale

    def encode(self, state: Tensor, target: Tensor, shown: Tensor) -> Tensor:
        """The one-hot latent times `scale`, and the goal in the manager's encoding."""
        latent, goal = target[..., : self.own], target[..., self.own :]
        return torch.cat([self.scale * latent, self.task.encode(state, goal, shown)], -1)

    def scale_reward(self, reward: Tensor) -> Tensor:
        """The reward that the task's command gives to the manager."""
        return self.task.scale_reward(reward)


@dataclass
class HiPPOConfig(LevelConfig, HierarchyConfig):
    """HiPPO: one PPO over a manager and the sub-policies that it chooses for random periods (Li 2019).

    All options apply to both levels. n_steps and batch_size are in environment steps. The manager makes one decision
    per mean period, and as many gradient steps as the sub-policies."""

    essential: ClassVar[tuple[str, ...]] = ("latents", "period", "learning_rate", "n_steps", "gamma")
    learner: Choice = field(
        default_factory=lambda: PPOConfig(learning_rate=3e-3, clip_range=0.1, n_steps=250, batch_size=256)
    )
    gamma: float = 0.999
    """Discount per environment step (published: .999)."""
    latents: int = 6
    """Number of latents, K (published: 6)."""
    period: Periods = (5, 15)
    """Environment steps under one latent: the bounds of a random period (published: 5 15), or one number. Evaluation
    uses the mean."""
    skill_gain: float = 1.0
    """Initial gain of the sub-policies' last layer, instead of policy_gain. With a larger gain, untrained sub-policies
    differ more, and random latents lead further."""
    latent_scale: float = 1.0
    """Factor of the one-hot latent among the sub-policies' inputs. Where states and goals are larger than 1, untrained
    sub-policies react to these alone; a larger factor makes them differ."""
    hidden_from_skills: tuple[int, ...] = ()
    """State entries that are hidden from the sub-policies, in addition to masked_entries."""
    reward_scale: float = 1.0
    """Factor of the task's reward."""
    reward_offset: float = 0.0
    """Added to the task's reward before scaling: -1 turns a sparse 0/1 reward into a cost per step."""
    goal: GoalConfig = field(default_factory=GoalConfig)
    """There are no subgoals; only the position features of the goal space are used."""

    def resolved(self, setting: Setting) -> Self:
        """A copy with rollouts of equal duration at both levels: `n_steps` is rounded up to a multiple of the mean
        period."""
        self.check()
        mean = Period.of(self.period).mean
        return replace(self, learner=replace(self.ppo, n_steps=-(-self.ppo.n_steps // mean) * mean))

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent. Raises UserError if it does not fit the environment."""
        spec, period = setting.spec, Period.of(self.period)
        task = Task.of(spec, self.goal, self.reward_scale, self.reward_offset, setting.device)
        latent = SubPolicy(self.latents, task, self.latent_scale)
        masked = (*self.masked_entries, *self.hidden_from_skills)
        low = replace(self, masked_entries=masked, learner=replace(self.ppo, policy_gain=self.skill_gain))
        decisions = {name: max(getattr(self.ppo, name) // period.mean, 1) for name in ("n_steps", "batch_size")}
        high = replace(self, learner=replace(self.ppo, **decisions))  # as many gradient steps as below
        steps = make_memory(low, latent, spec.actions, setting, bottom=True)
        chosen = make_memory(high, task, latent.space, setting, period, ("first",))
        return Hierarchy(
            [
                Level("low", low, latent, spec.actions, steps, setting),
                Level("high", high, task, latent.space, chosen, setting, period, issues=latent),
            ],
            setting,
        )

    @property
    def ppo(self) -> PPOConfig:
        """The options of PPO."""
        return cast(PPOConfig, self.learner)

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved options."""
        return [
            f"A manager chooses one of {self.latents} sub-policies every {Period.of(self.period)} steps; both levels "
            f"learn with PPO every {self.ppo.n_steps} steps of each environment."
        ]

    def check(self, prefix: str = "") -> None:
        """Raise UserError if a value is invalid."""
        super().check(prefix)
        if not self.learner.on_policy:
            raise UserError(f"HiPPO is a PPO over both levels: --learner must be ppo, not {self.learner.kind}.")
        if self.latents < 2:
            raise UserError(f"--latents must be at least 2, not {self.latents}.")
        if not self.skill_gain >= 0:
            raise UserError(f"--skill-gain must not be negative, but is {self.skill_gain}.")
        if not self.latent_scale > 0:
            raise UserError(f"--latent-scale must be positive, not {self.latent_scale}.")
        Period.of(self.period).check("--period", "environment step")
