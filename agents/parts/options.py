"""Two levels; the low level consists of options. A policy over options chooses one option, which acts until it ends."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from hrl.agents.base import HierarchyConfig
from hrl.hierarchy.clock import UNTIL_ENDED
from hrl.hierarchy.commands import Skill, Task
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level
from hrl.hierarchy.memories import make_memory
from hrl.hierarchy.setting import Setting
from hrl.learners import LearnerConfig, Reads
from hrl.types import Spec, UserError


@dataclass
class OptionsConfig(HierarchyConfig):
    """The base class of algorithms that learn options: the low level has their policies and terminations, the high
    level the policy over options. Both levels learn from the task's reward."""

    learners: ClassVar[tuple[type[LearnerConfig], type[LearnerConfig]]]
    """The learners of the low and the high level."""
    options: int = 4
    """Number of options."""
    low: LevelConfig = field(default_factory=LevelConfig)
    """The options' policies and terminations."""
    high: LevelConfig = field(default_factory=LevelConfig)
    """The policy over options."""
    reward_scale: float = 1.0
    """Factor of the task's reward."""

    def resolved(self, setting: Setting) -> Self:
        """The configuration, after checks."""
        self.check()
        self.require(setting.spec)
        return self

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        if self.options < 1:
            raise UserError(f"--options must be at least 1, not {self.options}.")
        for (name, level), kind in zip((("low", self.low), ("high", self.high)), self.learners, strict=True):
            if not isinstance(level.learner, kind):
                raise UserError(
                    f"--{name}.learner cannot be changed, because options need this algorithm's update rule."
                )
            level.check(f"{name}.")
        if self.low.normalize_observations != self.high.normalize_observations:
            raise UserError("--low.normalize-observations and --high.normalize-observations must be the same.")
        if self.low.masked_entries != self.high.masked_entries:
            raise UserError("--low.masked-entries and --high.masked-entries must be the same.")

    def require(self, spec: Spec) -> None:
        """Raise UserError if the environment does not fit."""
        if spec.goal_dim or spec.images:
            raise UserError(
                f"Options observe one vector, but {spec.env_id} has {'images' if spec.images else 'a separate goal'}: "
                "use an environment that observes a vector, which includes the goal."
            )

    def describe(self, spec: Spec) -> list[str]:
        """A line that describes both levels."""
        return [
            f"Low level: {self.options} options that learn by {self.low.learner.kind}; one of them acts until it ends. "
            f"High level: {self.high.learner.kind} over options."
        ]

    def build_with(self, setting: Setting, low_reads: Any = None, high_reads: Any = None) -> Hierarchy:
        """Build both levels. `low_reads` and `high_reads` are functions (learner of the other level, state [..., D]) ->
        [..., K] that a level's learner uses."""
        spec, options = setting.spec, Skill(self.options, scale=self.reward_scale)
        task = Task.of(spec, GoalConfig(), self.reward_scale, 0.0, setting.device)
        below = make_memory(self.low, options, spec.actions, setting, bottom=True)
        above = make_memory(self.high, task, options.space, setting, counters=("first",))
        levels: list[Level] = []

        def reads(function: Any, number: int) -> Reads | None:
            return None if function is None else lambda state: function(levels[number].learner, state)

        low = Level("low", self.low, options, spec.actions, below, setting, reads=reads(low_reads, 1))
        high = Level(
            "high", self.high, task, options.space, above, setting, UNTIL_ENDED, steps=below, issues=options,
            reads=reads(high_reads, 0), pace=1,
        )  # fmt: skip
        levels += [low, high]
        return Hierarchy(levels, setting)
