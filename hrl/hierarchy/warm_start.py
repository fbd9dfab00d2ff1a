"""Continual learning: levels start from the levels of earlier runs, and can act in earlier tasks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.level import Level
from hrl.hierarchy.stack import Stack
from hrl.learners.protection import Material, ProtectConfig, protect
from hrl.types import UserError


def warm_start(agent: Hierarchy, sources: Mapping[Path, Hierarchy]) -> None:
    """Load each level with `init_from` from the level of the same name in that earlier run.

    Raises UserError if the two levels do not fit. The agents in `sources` must not be used afterwards.
    """
    for place, level in enumerate(agent.levels):
        run = level.config.init_from
        if run is None:
            continue
        names = [other.name for other in sources[run].levels]
        if level.name not in names:
            raise UserError(f"The run in {run} has no level {level.name}; its levels are {' and '.join(names)}.")
        number = names.index(level.name)
        _require_goals(agent.levels[: place + 1], sources[run].levels[: number + 1], run)
        _load_level(level, sources[run].levels[number], run, sources[run].generator)


def select_task(agent: Stack, task: int) -> None:
    """Select one of the tasks learned so far at all levels with several tasks. Raises UserError for unknown tasks."""
    levels = [level for level in agent.levels if level.config.tasks > 1 and not level.config.frozen]
    known = max((level.learner.task for level in levels), default=-1)
    if not levels:
        raise UserError(
            "This run has learned a single task, because none of its learning levels has --….tasks above 1: leave out "
            "the task."
        )
    if not 0 <= task <= known:
        raise UserError(f"This run has learned the tasks 0 to {known}, but not {task}: select one of these.")
    for level in levels:
        level.learner.choose_task(min(task, level.learner.task))
        if level.protection is not None:
            level.protection.select_task(task)


def _require_goals(mine: list[Level], theirs: list[Level], run: Path) -> None:
    """Raise UserError unless subgoals mean the same to a level that obeys them (its own command) or issues them (the
    command of the level below)."""
    for here, there in zip(mine[-2:], theirs[-2:], strict=False):
        if hasattr(here.command, "same") and not here.command.same(there.command):
            raise UserError(f"The run in {run} uses another goal space: set the --goal.… options from its config.json.")


def _load_level(level: Level, source: Level, run: Path, generator: torch.Generator) -> None:
    drawn = {name: x.clone() for name, x in level.learner.state_dict().items()}
    known = {name: x for name, x in source.learner.state_dict().items() if not name.startswith("protection.")}
    if {name: x.shape for name, x in known.items()} != {n: x.shape for n, x in drawn.items() if n in known}:
        raise UserError(
            f"The {level.name} level of the run in {run} has networks of other sizes: observations, goals and actions, "
            "and the options --….hidden, --….layer-norm, --….n-critics, --….tasks and --….learner, must be equal in "
            "both runs."
        )
    if not torch.equal(level.observation_mask, source.observation_mask):
        raise UserError(
            f"The {level.name} level of the run in {run} has other masked entries: set --….masked-entries to "
            f"{_unseen(source)}."
        )
    if (level.normaliser is None) != (source.normaliser is None):
        raise UserError(
            f"The {level.name} level of the run in {run} normalises its observations differently: set "
            "--….normalize-observations to the same value."
        )
    if level.normaliser is not None and source.normaliser is not None:
        level.normaliser.load_state_dict(source.normaliser.state_dict())
    new = level.config.tasks > 1 and not level.config.frozen
    task = source.learner.task + new
    if task >= level.config.tasks:
        raise UserError(
            f"The {level.name} level of the run in {run} has learned all its {task} tasks: start the first run with "
            "more --….tasks."
        )
    if level.protection is not None and not level.config.frozen:
        known |= _sealed(source, level.config.protect, run, generator)
    if getattr(level.config.learner, "ent_coef", None) is not None and "log_alpha" in known:
        known["log_alpha"] = drawn["log_alpha"]  # a fixed temperature, not a learned one
    level.learner.load_state_dict(known, strict=level.protection is None or not level.config.frozen)
    if new:
        level.learner.choose_task(task)
        if level.protection is not None:
            level.protection.begin(drawn)


def _unseen(level: Level) -> str:
    return " ".join(str(i) for i in (level.observation_mask == 0).nonzero().flatten().tolist()) or "(none)"


def _sealed(source: Level, config: ProtectConfig, run: Path, generator: torch.Generator) -> dict[str, Tensor]:
    """The state of a level's learner after its last task, with the weights to protect."""
    if source.protection is None:
        if config.by == "packnet" and source.learner.task:
            raise UserError(
                f"PackNet must be used from the first run on, but the {source.name} level of the run in {run} has "
                f"learned {source.learner.task + 1} tasks without it: start again, or use l2 or ewc."
            )
        protect(source.learner, config, source.name)
    assert source.protection is not None
    if source.protection.config.by != config.by:
        raise UserError(
            f"The {source.name} level of the run in {run} is protected by {source.protection.config.by}, not by "
            f"{config.by}: use the same protection."
        )
    if not len(source.memory):
        raise UserError(
            f"The run in {run} has no transitions, but protection needs some to find the weights to keep: train it "
            "for longer."
        )
    source.protection.config = config
    situations = lambda n: source.batch(source.transitions(n, generator)).inputs  # noqa: E731
    source.protection.seal(Material(situations, lambda n: source.learning.learn(n, 0.0, generator)))
    return source.learner.state_dict()
