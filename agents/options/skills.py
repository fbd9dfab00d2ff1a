"""A controller over existing skills (options with fixed policies; Sutton, Precup, Singh 1999).

Every decision of the controller μ selects one of K frozen policies. The policy acts for k environment steps, until its
period is over, its own end condition holds, or the episode ends. The controller learns from the discounted sum of the
task's rewards during these steps, and bootstraps with the discount of the skill's duration:

    Q(s_t, z) ← Σ_{i<k} γ^i r_{t+i} + γ^k max_{z' available in s_{t+k}} Q(s_{t+k}, z')

The policies are trained runs, models of stable-baselines3 or sb3-contrib, and plain functions, mixed as needed. Each
receives the environment's own observation or a selection of its entries, and has its own duration, availability, end
and recurrent state (agents/parts/skill_sources.py). A function can also take a latent vector. The controller then
chooses this vector (with td3 or sac).

A policy without a recurrent state acts the same in a state whether or not its execution starts there. One execution of
k steps therefore gives k transitions of 1 to k steps (intra-option learning; Sutton, Precup, Singh 1998). They form a
fraction of each batch.

With `--skills.trainable`, the skills continue to learn below the controller. Each has the learner and options of its
run, and its own memory (agents/parts/trainable_skills.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import torch
import tyro
from torch import Tensor

from hrl.agents.base import HierarchyConfig
from hrl.agents.parts.skill_sources import SkillSource, imported, load_skill
from hrl.agents.parts.trainable_skills import ByThemselves, SkillsLevel, load_trainable
from hrl.hierarchy.clock import Period
from hrl.hierarchy.commands import IssuedCommand, Latent, Skill, Task
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Relabel
from hrl.hierarchy.memories import make_memory, steps_held
from hrl.hierarchy.relabelling.hindsight import HindsightTask
from hrl.hierarchy.relabelling.late_starts import LateStarts
from hrl.hierarchy.setting import Setting
from hrl.learners import Build, Choice, DQNConfig, Learner, ReplayConfig
from hrl.memory.ring import Replay
from hrl.policies.frozen import Frozen, FrozenPolicies
from hrl.types import BatchedEnv, Spec, UserError

HINDSIGHT = 0.8
"""Default fraction of relabelled goals in a batch (Andrychowicz 2017: 4 of 5)."""
LATE = 0.8
"""Default fraction of a batch whose executions start late."""


@dataclass
class Controller(LevelConfig):
    """The level that selects skills and learns from the task's reward."""

    learner: Choice = field(
        default_factory=lambda: DQNConfig(hidden=(128, 128), batch_size=256, train_freq=4, random_actions=(0.05, 0.3))
    )
    gamma: float = 0.99
    """Discount per environment step."""
    period: int = 10
    """Environment steps of one execution of a skill, unless the skill has its own period."""
    durations: tuple[int, ...] = ()
    """Durations in environment steps. The controller chooses one of them with the skill, instead of using `period`."""
    late_starts: float | None = None
    """Fraction of a batch in which a skill's execution starts at a random step of the stored one. Default: .8, or 0
    with recurrent skills or a learner without a replay."""
    reward_scale: float = 1.0
    """Factor of the task's reward."""
    reward_offset: float | None = None
    """Added to the task's reward of every step before scaling. Default: minus the maximum reward if the goal reward
    has only two values, which makes every step before the goal cost; else 0."""


@dataclass
class Fixed(ReplayConfig):
    """The learner of the level below. Its policies do not learn."""

    policies: tuple[Frozen, ...] = ()
    env: BatchedEnv | None = None

    def build(self, build: Build) -> Learner:
        """The policies as one learner."""
        assert self.env is not None
        return FrozenPolicies(build, self.policies, self.env)


@dataclass
class Below:
    """The options of the level of skills."""

    trainable: bool = False
    """The skills continue to learn below the controller, from the task's reward or from their own
    (,reward=module:function). All of them must be runs of one level: td3, sac, dqn, discrete-sac or ppo."""


@dataclass
class SkillsConfig(HierarchyConfig):
    """A controller over existing skills: trained runs, stable-baselines3's models, and functions."""

    essential: ClassVar[tuple[str, ...]] = ("skill", "high.learner", "high.period", "high.gamma")
    skill: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A skill; repeat the option for each: a run folder, sb3:FILE.zip:CLASS, or module:function, optionally followed by
    ,name=TEXT ,period=N ,observe=0-26+30 ,available=module:function ,ends=module:function ,latent=N
    ,reward=module:function."""
    skills: Below = field(default_factory=Below)
    high: Controller = field(default_factory=Controller)
    goal: GoalConfig = field(default_factory=GoalConfig)
    """The controller uses only the position features of the goal space."""
    learning_starts: int = 1000
    """Environment steps before the first update. Learners with a rollout start at its end."""

    def sources(self) -> list[SkillSource]:
        """The skills. Raises UserError if there are none, or if they cannot be combined."""
        skills = [SkillSource.parse(text) for text in self.skill]
        if not skills:
            raise UserError("Give at least one --skill: a run folder, sb3:FILE.zip:CLASS, or module:function.")
        if len(skills) > 1 and any(skill.latent for skill in skills):
            raise UserError("A skill with a latent vector must be the only one: the controller chooses the vector.")
        names = [skill.name for skill in skills]
        twice = {name for name in names if names.count(name) > 1}
        return [
            replace(s, name=f"{s.name}{number}") if s.name in twice else s for number, s in enumerate(skills)
        ]  # metrics need different names

    def build(self, setting: Setting) -> Hierarchy:
        """Load the skills and build the agent. Raises UserError if they do not fit the environment."""
        spec, c, skills = setting.spec, self.high, self.sources()
        learns = self.skills.trainable
        policies = () if learns else tuple(load_skill(skill, setting) for skill in skills)
        command = self.command(skills, setting)
        task = Task.of(spec, self.goal, c.reward_scale, c.reward_offset or 0.0, setting.device)
        period = int(self.durations(skills).max())
        learner = ByThemselves(buffer_size=16) if learns else Fixed(buffer_size=16, policies=policies, env=setting.env)
        low = LevelConfig(learner, frozen=True, hindsight=0.0)
        late = self.late_starts(policies)
        held = steps_held(low, c, Period.of(period), setting) if c.hindsight or late else 0
        below = make_memory(low, command, spec.actions, setting, held=held, bottom=True)
        memory = make_memory(c, task, command.space, setting, period, ("first",))
        bottom = Level("low", low, command, spec.actions, below, setting) if not learns else SkillsLevel(
            "low", low, command, spec.actions, below, setting,
            skills=[load_trainable(skill, setting) for skill in skills],
        )  # fmt: skip
        controller = Level(
            "high", c, task, command.space, memory, setting, period, self.learning_starts, below,
            relabels=self.relabels(task, memory, below, period, late, spec), issues=command,
        )  # fmt: skip
        return Hierarchy([bottom, controller], setting)

    def command(self, skills: list[SkillSource], setting: Setting) -> IssuedCommand:
        """The controller's decision: one of K skills, with one of D durations, or a latent vector."""
        goal_dim = setting.spec.goal_dim
        if skills[0].latent:
            return Latent(skills[0].latent, goal_dim=goal_dim)
        durations = self.durations(skills).to(setting.device)
        return Skill(
            len(skills), available=available_of(skills), ends=ends_of(skills), goal_dim=goal_dim, durations=durations,
            names=tuple(skill.name for skill in skills),
        )  # fmt: skip

    def durations(self, skills: list[SkillSource]) -> Tensor:
        """[K, D] environment steps of every skill for each of the D durations to choose from."""
        c = self.high
        rows = [(skill.period,) * len(c.durations or (0,)) if skill.period else c.durations or (c.period,)
                for skill in skills]  # fmt: skip
        return torch.tensor(rows)

    def late_starts(self, policies: Sequence[Frozen]) -> float:
        """The fraction of executions that start late. Raises UserError if recurrent skills do not allow it."""
        c, recurrent = self.high, [policy.name for policy in policies if policy.width]
        if c.late_starts is None:
            return 0.0 if recurrent or c.learner.on_policy else LATE
        if c.late_starts and recurrent:
            raise UserError(
                f"high.late_starts must be 0: {', '.join(recurrent)} has a recurrent state, so it cannot start late."
            )
        return c.late_starts

    def relabels(
        self, task: Task, memory: Replay, steps: Replay, period: int, late: float, spec: Spec
    ) -> list[Relabel]:
        """Late starts, and hindsight on the task's goals, if it has any."""
        c, span = self.high, min(period, spec.max_episode_steps or period)
        relabels: list[Relabel] = [LateStarts(task, steps, late, c.gamma, span)] if late else []
        if c.hindsight:
            task.require_goals("high.hindsight")
            info = "info" in steps.fields
            relabels.append(HindsightTask(task, memory, steps, c.hindsight, c.gamma, span, c.hindsight_strategy, info))
        return relabels

    def resolved(self, setting: Setting) -> Self:
        """A copy with the defaults of hindsight and the reward's offset resolved."""
        self.check()
        c, spec = self.high, setting.spec
        relabels = spec.task_reward is not None and not c.learner.on_policy
        share = (HINDSIGHT if relabels else 0.0) if c.hindsight is None else c.hindsight
        offset = -max(spec.reward_range) if spec.reward_range is not None else 0.0
        return replace(
            self,
            high=replace(c, hindsight=share, reward_offset=offset if c.reward_offset is None else c.reward_offset),
        )

    def describe(self, spec: Spec) -> list[str]:
        """Lines about the skills and the controller."""
        skills = self.sources()
        rows = zip(skills, self.durations(skills).tolist(), strict=True)
        listed = [f"{skill.name} ({' or '.join(map(str, row))} steps)" for skill, row in rows]
        return [f"Skills: {', '.join(listed)}.", f"Controller: {self.high.learner.kind}, discount {self.high.gamma:g}."]

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        rewarded = [skill.name for skill in self.sources() if skill.reward]
        if rewarded and not self.skills.trainable:
            raise UserError(f"The skill {rewarded[0]} has a reward but does not learn; add --skills.trainable True.")
        self.high.check("high.")
        if self.high.period < 1 or min(self.high.durations, default=1) < 1:
            raise UserError(
                f"high.period and high.durations must be at least 1 environment step, not {self.high.period} and "
                f"{self.high.durations}."
            )
        late = self.high.late_starts
        if late is not None and not 0 <= late <= (not self.high.learner.on_policy):
            raise UserError(
                f"high.late_starts must lie between 0 and 1, and be 0 for a learner without a replay, not {late}."
            )
        if self.learning_starts < 0:
            raise UserError(f"--learning-starts must not be negative, but is {self.learning_starts}.")


def available_of(skills: list[SkillSource]) -> Callable[[Tensor], Tensor] | None:
    """state [..., D] -> [..., K] whether each skill can start; all of them where none can. None without conditions."""
    functions = [None if skill.available is None else imported(skill.available) for skill in skills]
    if not any(functions):
        return None

    def available(state: Tensor) -> Tensor:
        always = torch.ones(state.shape[:-1], dtype=torch.bool, device=state.device)
        mask = torch.stack([always if function is None else function(state).bool() for function in functions], -1)
        return (mask | ~mask.any(-1, keepdim=True)).float()

    return available


def ends_of(skills: list[SkillSource]) -> Callable[[Tensor, Tensor], Tensor] | None:
    """(state [..., D], target [..., G]) -> [...] whether the active skill ends. None if no skill has a condition."""
    functions = [None if skill.ends is None else imported(skill.ends) for skill in skills]
    if not any(functions):
        return None

    def ends(state: Tensor, target: Tensor) -> Tensor:
        never = torch.zeros(state.shape[:-1], dtype=torch.bool, device=state.device)
        each = torch.stack([never if function is None else function(state).bool() for function in functions], -1)
        return (each & (target[..., : len(functions)] > 0.5)).any(-1)

    return ends
