"""Skills that learn below their controller. Each is the level of a trained run, with its own learner, memory and clock.

The controller's command selects one of K skills in every environment. The selected skill acts, and only its memory
stores the step. Where the controller switches to another skill, the stream of the previous one ends as at a truncation,
and its value there is bootstrapped. Each skill's clock counts 1/K of the environment steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrl.agents.flat import FlatConfig
from hrl.agents.parts.skill_sources import SkillSource, imported, load_policy
from hrl.hierarchy.clock import Decision, Transition
from hrl.hierarchy.level import Level
from hrl.hierarchy.setting import Setting
from hrl.learners import Batch, Build, DQNConfig, Learner, Metrics, ReplayConfig
from hrl.state import Stateful
from hrl.training.policy import HierarchyPolicy
from hrl.types import BatchedEnv, Spec, UserError

SkillReward = Callable[[Tensor, Tensor], Tensor]
"""(state [N, D], next state [N, D]) -> reward [N]."""


@dataclass
class TrainableSkill:
    """One skill."""

    name: str
    level: Level
    entries: Tensor | None
    """Entries of the state that the skill observes, int64; None for all."""
    reward: SkillReward | None
    """The skill's own reward; None for the task's."""
    started: bool = False
    """Whether the skill's memory already holds a decision."""

    def seen(self, state: Tensor) -> Tensor:
        """The state [..., E] as the skill observes it."""
        return state if self.entries is None else state.index_select(-1, self.entries)

    def goal(self, goal: Tensor) -> Tensor:
        """The task's goal [..., G], or nothing [..., 0] for a skill that was trained without goals."""
        return goal[..., : self.level.command.dim]

    def explore(
        self, state: Tensor, goal: Tensor, due: Tensor, generator: torch.Generator, mask: Tensor | None
    ) -> Tensor:
        """The skill's action [N, A] with exploration, which becomes its open decision."""
        level, seen, goal = self.level, self.seen(state), self.goal(goal)
        action, notes = level.explore(seen, goal, due, generator, mask)
        row, untested = level.memory.cursor, torch.zeros_like(due)
        level.segment.begin(Decision(seen, goal, action, row, row, untested, notes, mask), counted=True)
        return action

    def observe(self, state: Tensor, outcome: Transition, used: Tensor) -> None:
        """Store the outcome of the skill's open decision where [N] it acted. Elsewhere, truncate its episode."""
        level = self.level
        reward = outcome.reward if self.reward is None else self.reward(state, outcome.state)
        mine = outcome._replace(state=self.seen(outcome.state), goal=self.goal(outcome.goal), active=used)
        level.observe(mine, mine.done & used)
        level.segment.set_reward(level.command.scale_reward(reward))
        level.memory.truncate_episodes(~used)
        following = {"state": mine.state, "target": mine.goal}
        if mine.mask is not None:
            following["mask"] = mine.mask
        row, counters = level.segment.row(mine.info), level.segment.counters()
        level.memory.write(row, following, counters, used, mine.done, mine.terminated)

    def learn(self, steps: int, total: float, generator: torch.Generator, in_haste: Callable[[], bool]) -> None:
        """Make the updates that are due on the skill's clock. Updates before its first execution are skipped."""
        if self.started or len(self.level.memory) > 0:
            self.started = True
            self.level.learn(steps, total, generator, in_haste)
        else:
            self.level.timescale.due(steps)


class SkillsLevel(Level):
    """The level of K trainable skills. The command selects one of them in every environment."""

    def __init__(self, *args: Any, skills: Sequence[TrainableSkill], **options: Any) -> None:
        """The other arguments are those of `Level`; the command is a `Skill` that passes on the task's goal."""
        self.skills = list(skills)
        super().__init__(*args, **options)

    def _split(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The selected skill [..., K], one-hot, and the task's goal [..., G]."""
        return target[..., : len(self.skills)], target[..., len(self.skills) :]

    def _selected(self, target: Tensor, act: Callable[[TrainableSkill, Tensor, Tensor], Tensor]) -> Tensor:
        """The action [..., A] of the selected skill. `act` gets a skill, the mask [...] of its use, and the goal."""
        command, goal = self._split(target)
        actions = [act(skill, used > 0.5, goal) for skill, used in zip(self.skills, command.unbind(-1), strict=True)]
        return (torch.stack(actions, -1) * command.unsqueeze(-2)).sum(-1)

    # -- acting ----------------------------------------------------------------------------------------------

    def decide(self, state: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The selected skill's deterministic action [..., A]."""
        return self._selected(
            target, lambda skill, _, goal: skill.level.decide(skill.seen(state), skill.goal(goal), mask)
        )

    def sample(self, state: Tensor, target: Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
        """A sample [B, A] of the selected skill's actions."""
        return self._selected(
            target, lambda skill, _, goal: skill.level.sample(skill.seen(state), skill.goal(goal), generator, mask)
        )

    def explore(
        self, state: Tensor, target: Tensor, due: Tensor | None, generator: torch.Generator, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The selected skill's action [N, A] with its exploration."""
        act = lambda skill, used, goal: skill.explore(state, goal, used if due is None else due & used, generator, mask)  # noqa: E731
        return self._selected(target, act), {}

    # -- observing and learning ------------------------------------------------------------------------------

    def observe(self, outcome: Transition, over: Tensor) -> None:
        """Store each step in the memory of the skill that acted."""
        super().observe(outcome, over)
        command, _ = self._split(self.segment.target)
        for skill, used in zip(self.skills, command.unbind(-1), strict=True):
            skill.observe(self.segment.state, outcome, (used > 0.5) & outcome.active)

    def learn(self, steps: int, total: float, generator: torch.Generator, in_haste: Callable[[], bool] = bool) -> None:
        """Make the updates of all skills that are due."""
        count = len(self.skills)
        for skill in self.skills:
            skill.learn(steps // count, total / count, generator, in_haste)

    def truncate_episodes(self) -> None:
        """Truncate every open episode."""
        super().truncate_episodes()
        for skill in self.skills:
            skill.level.truncate_episodes()

    def restart(self) -> None:
        """End all held random decisions."""
        super().restart()
        for skill in self.skills:
            skill.level.restart()

    @property
    def requires_host(self) -> bool:
        """Whether the batches of any skill call the host."""
        return any(skill.level.requires_host for skill in self.skills)

    def pop_metrics(self) -> dict[str, float]:
        """The level's metrics, and `<skill>/<name>`."""
        metrics = super().pop_metrics()
        for skill in self.skills:
            own = skill.level.pop_metrics()
            metrics |= {f"{skill.name}/{name.partition('/')[2]}": x for name, x in own.items()}
        return metrics

    # -- checkpoint ------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, Stateful]:
        """The networks of all skills."""
        own = [(skill.name, skill.level.networks()) for skill in self.skills]
        return super().networks() | {f"{name}.{part}": x for name, parts in own for part, x in parts.items()}

    def parts(self) -> dict[str, Stateful]:
        """Everything that the skills' next decisions and updates depend on."""
        own = [(skill.name, skill.level.parts()) for skill in self.skills]
        return super().parts() | {f"{name}.{part}": x for name, parts in own for part, x in parts.items()}


@dataclass
class ByThemselves(ReplayConfig):
    """The learner of a level of skills that have their own learners."""

    def build(self, build: Build) -> Learner:
        """A learner without networks."""
        return NoLearner(build)


class NoLearner(Learner):
    """Neither acts nor learns."""

    def act(self, inputs: Tensor, generator: torch.Generator | None, mask: Tensor | None = None) -> Tensor:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def update(self, batch: Batch, number: int, generator: torch.Generator) -> Metrics:
        """Raises NotImplementedError."""
        raise NotImplementedError


# -- from a run --------------------------------------------------------------------------------------------------


def load_trainable(skill: SkillSource, setting: Setting) -> TrainableSkill:
    """The best policy of a run as a skill that continues to learn. Random decisions keep their final fraction. Raises
    UserError if the policy cannot learn, or if it does not fit the environment."""
    policy = None if skill.latent or ":" in skill.source else load_policy(skill, setting)
    agent = policy.agent if isinstance(policy, HierarchyPolicy) else None
    config = agent.levels[0].config if agent is not None and len(agent.levels) == 1 else None
    if policy is None or agent is None or not isinstance(config, FlatConfig):
        raise UserError(
            f"The skill {skill.source} cannot learn: --skills.trainable needs runs of td3, sac, dqn, discrete-sac or "
            "ppo."
        )
    assert isinstance(policy, HierarchyPolicy) and policy.env is not None and setting.env is not None
    _require_fit(skill, policy.env, setting.env)
    learner = config.learner
    if isinstance(learner, DQNConfig):
        learner = replace(learner, exploration_fraction=0.0)
    config = replace(config, learner=learner, frozen=False, init_from=None, random_warmup=0)
    trained = config.make(replace(setting, spec=policy.env.spec))
    trained.load_networks(agent.network_tensors())
    entries = torch.tensor(skill.observe, device=setting.device) if skill.observe else None
    return TrainableSkill(skill.name, trained.levels[0], entries, imported(skill.reward) if skill.reward else None)


def _require_fit(skill: SkillSource, own: BatchedEnv, env: BatchedEnv) -> None:
    """Raise UserError unless a run's observations and actions are those of the environment."""
    spec, width = env.spec, len(skill.observe) or env.spec.state_dim
    if own.spec.state_dim != width or own.spec.goal_dim not in (0, spec.goal_dim) or _others(own.spec) != _others(spec):
        raise UserError(
            f"The skill {skill.name} does not fit {spec.env_id}: its run observed {own.spec.state_dim} numbers and "
            f"goals of {own.spec.goal_dim}, but here are {width} and {spec.goal_dim}. Select the entries that it "
            f"observes with {skill.source},observe=0-{max(own.spec.state_dim - 1, 0)}."
        )
    if own.spec.actions != spec.actions or not all(
        np.array_equal(own.to_action(x), env.to_action(x)) for x in _corners(spec)
    ):
        raise UserError(
            f"The skill {skill.name} cannot learn in {spec.env_id}, which has other actions than its run: "
            f"{spec.action_space} instead of {own.spec.action_space}, or another --action-scale."
        )


def _others(spec: Spec) -> tuple[int, ...]:
    """Sizes of the parts of an observation other than state and goal."""
    return spec.pixels, spec.mask_dim


def _corners(spec: Spec) -> list[np.ndarray]:
    """The minimum and the maximum action [1, A] of a Box."""
    return [np.full((1, spec.action_dim), x, np.float32) for x in (-1.0, 1.0)] if spec.continuous else []
