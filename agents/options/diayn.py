"""DIAYN: diversity is all you need (Eysenbach, Gupta, Ibarz, Levine 2018, arXiv:1802.06070), with a controller.

Phase one learns skills without the task's reward. A skill z ~ p(z), uniform over K, is sampled for each period. The low
level π(a|s, z) learns with SAC. Its reward measures how well a discriminator recognises the skill (algorithm 1):

    r_z(s, a, s') = log q(z|s') - log p(z),   q ← argmax E[log q(z|s')]        (agents/parts/discriminator.py)

The reward of a stored transition is computed from the current discriminator when the transition is sampled. SAC's
entropy bonus keeps skills as random as possible while they stay distinguishable.

Phase two starts after --skill-steps in the same run: the low level stops learning, and a controller over the skills
learns from the task's reward (section 4.2.2). Until then, its decisions are uniformly random, which equals p(z).

The discriminator sees the projection of the state to the goal space (the paper's prior, such as x and y of an ant).
With --goal.relative, it sees the displacement since the skill started. Skills are then movements from any position
instead of positions, and periods can be short. With --preset published, a skill lasts for an episode: learn skills in a
first run, and a controller in a second run with --low.init-from RUN --low.frozen True --skill-steps 0 --high.period 20.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from hrl.agents.base import HierarchyConfig
from hrl.agents.parts.discriminator import DiscriminatedSkill, DiscriminatorConfig, SkillRecognition, SkillUsage
from hrl.hierarchy.clock import Period, Periods
from hrl.hierarchy.commands import Task
from hrl.hierarchy.commands.building import build_goal_space
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level, Relabel
from hrl.hierarchy.memories import make_memory, steps_held
from hrl.hierarchy.relabelling.hindsight import HindsightTask
from hrl.hierarchy.setting import Setting
from hrl.learners import Choice, DQNConfig, SACConfig
from hrl.memory.ring import Replay
from hrl.types import Spec, UserError

HINDSIGHT = 0.8
"""Default fraction of relabelled goals in a batch (Andrychowicz 2017: 4 of 5)."""


@dataclass
class Low(LevelConfig):
    """The low level, which learns the skills. masked_entries hides state entries from them.

    Published: SAC with an entropy weight of .1, batch_size 128, hidden 300 300.
    """

    learner: Choice = field(default_factory=lambda: SACConfig(ent_coef=0.1))


@dataclass
class High(LevelConfig):
    """The controller, which chooses skills and learns from the task's reward."""

    learner: Choice = field(default_factory=lambda: DQNConfig(random_actions=(0.05, 0.5), exploration_fraction=0.0))
    gamma: float = 0.999
    """Discount per environment step."""
    period: Periods = 20
    """Environment steps under one skill, or the bounds of a random period."""
    reward_scale: float = 1.0
    """Factor of the task's reward."""
    reward_offset: float = 0.0
    """Added to the task's reward of every step before scaling: -1 turns a sparse 0/1 reward into a cost per step."""


@dataclass
class DIAYNConfig(HierarchyConfig):
    """DIAYN: skills that a discriminator recognises, learned without reward, then a controller over them
    (Eysenbach 2018)."""

    essential: ClassVar[tuple[str, ...]] = ("skills", "skill_steps", "high.period", "goal.indices", "goal.relative")
    skills: int = 8
    """Number of skills, K (published: 50)."""
    skill_steps: int = 100_000
    """Environment steps during which the skills are learned. Afterwards, they are fixed, and the controller learns. 0
    with --low.frozen True, for skills from an earlier run."""
    low: Low = field(default_factory=Low)
    high: High = field(default_factory=High)
    goal: GoalConfig = field(default_factory=lambda: GoalConfig(relative=False))
    """The part of the state that the discriminator sees: goal.indices or goal.projection. Its bounds scale the
    discriminator's inputs."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    learning_starts: int = 1000
    """Environment steps before the first update, in both phases. On-policy learners start at the end of a rollout."""

    def build(self, setting: Setting) -> Hierarchy:
        """Build the agent of a resolved configuration. Raises UserError if it does not fit the environment."""
        spec, low, high, period = setting.spec, self.low, self.high, Period.of(self.high.period)
        skill = DiscriminatedSkill(self.skills, self.goal_space(setting), self.discriminator)
        task = Task.of(spec, self.goal, high.reward_scale, high.reward_offset, setting.device)
        held = steps_held(low, high, period, setting) if high.hindsight else 0
        steps = make_memory(low, skill, spec.actions, setting, held=held, bottom=True)
        decisions = make_memory(high, task, skill.space, setting, period, ("first",))
        recognition = SkillRecognition(skill, self.discriminator, setting, self.learning_starts)
        usage = SkillUsage(self.skills, setting.device)
        starts = self.skill_steps + self.learning_starts
        relabels = self.relabels(task, decisions, steps, setting)
        return Hierarchy(
            [
                Level("low", low, skill, spec.actions, steps, setting, 1, self.learning_starts, models=[recognition]),
                Level(
                    "high", high, task, skill.space, decisions, setting, period, starts, steps, relabels=relabels,
                    models=[usage], issues=skill,
                ),
            ],
            setting,
        )  # fmt: skip

    def goal_space(self, setting: Setting) -> GoalSpace:
        """The space that the discriminator sees."""
        longest = Period.of(self.high.period).greatest
        return build_goal_space(self.goal, setting.spec, longest, setting.measure, setting.device)

    def relabels(self, task: Task, decisions: Replay, steps: Replay, setting: Setting) -> list[Relabel]:
        """Hindsight on the task's goals, if it has any."""
        share, c = self.high.hindsight, self.high
        if not share:
            return []
        task.require_goals("high.hindsight")
        longest, info = Period.of(c.period).greatest, "info" in steps.fields
        span = min(longest, setting.spec.max_episode_steps or longest)  # no segment is longer
        return [HindsightTask(task, decisions, steps, share, c.gamma, span, c.hindsight_strategy, info)]

    def resolved(self, setting: Setting) -> Self:
        """A copy with the discriminator's space, the phases and the fraction of hindsight resolved."""
        self.check()
        relabels = setting.spec.task_reward is not None and not self.high.learner.on_policy
        default = HINDSIGHT if relabels else 0.0
        stops = self.low.learning_stops if self.low.learning_stops or self.low.frozen else self.skill_steps
        return replace(
            self,
            goal=self.goal_space(setting).declare(self.goal),
            low=replace(self.low, learning_stops=stops),
            high=replace(
                self.high,
                random_warmup=self.high.random_warmup or self.skill_steps,
                hindsight=default if self.high.hindsight is None else self.high.hindsight,
            ),
        )

    def describe(self, spec: Spec) -> list[str]:
        """Lines that describe the resolved options."""
        kind = "the displacement since a skill started, in" if self.goal.relative else "the resulting state:"
        seen = f"The discriminator sees {kind} {self.goal.source}."
        return [
            f"{self.skills} skills of {Period.of(self.high.period)} steps. {seen}",
            f"Skills: {self.low.learner.kind}, until step {self.low.learning_stops or 0:,}. Controller: "
            f"{self.high.learner.kind}, from step {self.high.random_warmup:,}, hindsight {self.high.hindsight:g}.",
        ]

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        for name, config in (("low", self.low), ("high", self.high)):
            config.check(f"{name}.")
        self.discriminator.check()
        Period.of(self.high.period).check("high.period", "environment step")
        if self.skills < 2:
            raise UserError(f"--skills must be at least 2, not {self.skills}.")
        if self.skill_steps < 0 or (self.skill_steps > 0) == self.low.frozen:
            raise UserError(
                "--skill-steps must be positive, or 0 with --low.frozen True and --low.init-from RUN, for the skills "
                "of an earlier run."
            )
        if self.low.hindsight or self.high.hindsight_horizon is not None:
            raise UserError("Skills have no goals to relabel: leave low.hindsight and high.hindsight_horizon unset.")
        if self.learning_starts < 0:
            raise UserError(f"--learning-starts must not be negative, but is {self.learning_starts}.")
        if self.discriminator.from_start and not self.goal.relative:
            raise UserError("--discriminator.from-start needs --goal.relative True.")
