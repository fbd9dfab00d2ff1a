"""The memory that a level's learner needs: a replay, or a rollout."""

import os

from hrl.hierarchy.clock import Period, Periods
from hrl.hierarchy.commands import Command
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.setting import Setting
from hrl.learners import DQNConfig, OnPolicyConfig, ReplayConfig
from hrl.memory.prioritised import PrioritisedReplay
from hrl.memory.ring import Replay
from hrl.memory.rollout import RolloutMemory
from hrl.spaces import Space, action_width
from hrl.types import UserError


def make_memory(
    config: LevelConfig,
    command: Command,
    actions: Space,
    setting: Setting,
    period: Periods | Period = 1,
    counters: tuple[str, ...] = (),
    rewards: bool = False,
    held: int = 0,
    bottom: bool = False,
) -> Replay:
    """The memory of a level that decides in `actions` under `command`, every `period` environment steps.

    `counters` are integers that each decision has in addition to its fields. `rewards` stores the environment's reward
    even if the level does not learn from it. `held` is the minimum number of rows, which levels above read. The
    `bottom` level also stores action masks and the info that hindsight needs. Raises UserError if the memory is too
    large."""
    spec, device, num_envs = setting.spec, setting.device, setting.num_envs
    fields = {"state": spec.state_dim, "target": command.dim, "action": action_width(actions)}
    following = ("state", "target") if command.extrinsic else ("state",)
    if rewards or command.extrinsic:
        fields["reward"] = 1
    if bottom and spec.info_dim:
        fields["info"] = spec.info_dim
    if bottom and spec.mask_dim:
        fields["mask"] = spec.mask_dim
        following = (*following, "mask")
    learner = config.learner
    # Above the bottom level, the previous frames are not in the previous rows.
    images: dict[str, int] = {"pixels": spec.pixels, "frames": spec.frames if bottom else 1}
    rows, option = 1, "n_steps" if learner.on_policy else "buffer_size"
    try:
        if isinstance(learner, OnPolicyConfig):
            fields |= dict.fromkeys(learner.remembers, 1)
            decisions = 1 if setting.acts_only else max(learner.n_steps * Period.of(period).mean, -(-held // num_envs))
            rows = decisions * num_envs
            _require_room(2 * rows, fields, spec.pixels // images["frames"], setting, option)
            return RolloutMemory(fields, following, counters, decisions, num_envs, device, **images)
        assert isinstance(learner, ReplayConfig)
        rows = 1 if setting.acts_only else learner.buffer_size
        _require_room(max(rows, held), fields, spec.pixels // images["frames"], setting, option)
        if isinstance(learner, DQNConfig) and learner.prioritised:
            beta = learner.priority_beta
            return PrioritisedReplay(fields, following, counters, rows, num_envs, device, held, **images, beta=beta)
        return Replay(fields, following, counters, rows, num_envs, device, held, **images)
    except RuntimeError as error:
        raise UserError(_too_large(max(rows, held), "", option)) from error


def steps_held(low: LevelConfig, high: LevelConfig, period: Period, setting: Setting) -> int:
    """Environment steps that the low level's memory must hold for a high level that reads the steps of all its stored
    decisions. 0 if the low level's `buffer_size` holds the complete run."""
    total = setting.total_steps
    if high.learner.on_policy or setting.acts_only:
        return 0
    if not low.learner.on_policy and total is not None and total <= low.off_policy.buffer_size // 2:
        return 0  # half, because ends of episodes also take rows
    decisions = max(high.off_policy.buffer_size // setting.num_envs, 16) + 2
    return decisions * period.greatest * setting.num_envs


def _require_room(rows: int, fields: dict[str, int], pixels: int, setting: Setting, option: str) -> None:
    """Raise UserError if the host has too little memory. Without this check, a run would fail later."""
    size = rows * (4 * (sum(fields.values()) - setting.spec.pixels) + pixels)
    if setting.device.type == "cpu" and hasattr(os, "sysconf"):
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > room:
            needs = f": it needs {size / 2**30:,.1f} GiB, but only {room / 2**30:,.1f} GiB are available"
            raise UserError(_too_large(rows, needs, option))


def _too_large(rows: int, needs: str, option: str) -> str:
    return f"A memory of {rows:,} transitions is too large{needs}. Set a smaller {option}."
