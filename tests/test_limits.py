"""The limits of numeric options: the last accepted value, and the first refused one."""

import math
from dataclasses import replace
from typing import Any

import pytest

from hrl.agents.hiro import HIROConfig, Low, Middle
from hrl.hierarchy.clock import Period
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.config import LevelConfig
from hrl.learners import DQNConfig, PPOConfig, SACConfig, TD3Config
from hrl.learners.discrete_sac import DiscreteSACConfig
from hrl.learners.protection import ProtectConfig
from hrl.nested.levels.reward import IntrinsicConfig
from hrl.nested.levels.tuning import TuneConfig
from hrl.types import UserError

TINY = 1e-9
POSITIVE, NOT_NEGATIVE, COUNT, SHARE = (TINY, 0.0), (0.0, -TINY), (1, 0), (1.0, 1 + TINY)
REPLAY = [
    ("learning_rate", *POSITIVE), ("hidden", (1,), ()), ("hidden", (1,), (4, 0)), ("batch_size", *COUNT),
    ("buffer_size", *COUNT), ("train_freq", *COUNT), ("gradient_steps", 0, -1), ("tau", *POSITIVE), ("tau", *SHARE),
    ("random_actions", (0.0, 1.0), (-TINY, 1.0)), ("random_actions", (0.0, 1.0), (0.0, 1 + TINY)),
    ("random_hold", 1.0, 1 - TINY), ("learning_rate", TINY, math.nan),
]  # fmt: skip
ACTOR = [
    *REPLAY, ("actor_learning_rate", *POSITIVE), ("n_critics", *COUNT), ("min_q_weight", 0.0, -TINY),
    ("min_q_weight", *SHARE),
    ("action_noise", (0.0,), (-TINY,)), ("action_noise", (0.0, 1.0), (0.1, 0.2, 0.3)), ("action_noise", (0.0,), ()),
]  # fmt: skip
LEARNERS: list[tuple[Any, list[Any]]] = [
    (TD3Config(), [*ACTOR, ("policy_delay", *COUNT), ("target_noise", *NOT_NEGATIVE), ("noise_clip", *NOT_NEGATIVE),
                   ("action_l2", *NOT_NEGATIVE)]),
    (SACConfig(), [*ACTOR, ("ent_coef", *NOT_NEGATIVE)]),
    (DQNConfig(), [*REPLAY, ("n_step", *COUNT), ("max_grad_norm", *POSITIVE), ("priority_beta", 0.0, -TINY),
                   ("priority_beta", *SHARE), ("exploration_fraction", *SHARE)]),
    (DiscreteSACConfig(), [*REPLAY, ("actor_learning_rate", *POSITIVE), ("ent_coef", *NOT_NEGATIVE),
                           ("target_entropy", *POSITIVE), ("target_entropy", 1 - TINY, 1.0),
                           ("target_entropy", 0.5, 2.0)]),
    (PPOConfig(), [("n_steps", *COUNT), ("batch_size", *COUNT), ("n_epochs", *COUNT), ("clip_range", *POSITIVE),
                   ("clip_range_vf", *POSITIVE), ("max_grad_norm", *POSITIVE), ("target_kl", *POSITIVE),
                   ("ent_coef", *NOT_NEGATIVE), ("ent_coef_final", *NOT_NEGATIVE), ("vf_coef", *NOT_NEGATIVE),
                   ("policy_gain", *NOT_NEGATIVE), ("gae_lambda", 0.0, -TINY), ("gae_lambda", *SHARE)]),
]  # fmt: skip
LEVEL = [
    ("warmup", 0, -1), ("random_warmup", 0, -1), ("hindsight", 0.0, -TINY), ("hindsight", *SHARE),
    ("gamma", 0.0, -TINY), ("gamma", 1 - TINY, 1 + TINY), ("gamma", 1 - TINY, 1.0), ("tasks", *COUNT),
    ("hindsight_horizon", *COUNT), ("learning_stops", 1, 0),
]  # fmt: skip
HIGH = [
    ("period", *COUNT), ("candidates", 3, 2), ("subgoal_scale", *POSITIVE), ("hindsight_actions", 0.0, -TINY),
    ("hindsight_actions", *SHARE), ("testing", 0.0, -TINY), ("testing", *SHARE), ("period", (2, 2), (2, 1)),
    ("count_bonus", 0.0, -TINY), ("count_cell", *POSITIVE),
]  # fmt: skip
GOALS = [
    ("threshold", *POSITIVE), ("periods", (TINY,), (0.0,)), ("cells", 0, -1), ("cells", 2, 1),
]  # fmt: skip


def refused(config: Any, option: str, accepted: Any, wrong: Any, *arguments: Any) -> str:
    """The message for the wrong value; the other one must be accepted. If 0 is wrong, negative values are, too."""
    replace(config, **{option: accepted}).check(*arguments)
    if wrong == 0:
        refused(config, option, accepted, -1, *arguments)
    with pytest.raises(UserError, match=option.replace("_", "[-_]")) as error:
        replace(config, **{option: wrong}).check(*arguments)
    return str(error.value)


@pytest.mark.parametrize(("config", "option", "accepted", "wrong"), [
    (config, *limit) for config, limits in LEARNERS for limit in limits
])  # fmt: skip
def test_limits_of_learners(config, option, accepted, wrong):
    assert refused(config, option, accepted, wrong, "low.").startswith(f"low.{option} must")


@pytest.mark.parametrize(("option", "accepted", "wrong"), LEVEL)
def test_limits_of_levels(option, accepted, wrong):
    assert refused(LevelConfig(), option, accepted, wrong, "low.").startswith(f"low.{option} must")


@pytest.mark.parametrize(("option", "accepted", "wrong"), HIGH)
def test_limits_of_levels_that_set_subgoals(option, accepted, wrong):
    agent = HIROConfig()
    for level in ("middle", "high"):
        whole = {value: replace(agent, **{level: replace(getattr(agent, level), **{option: value})})
                 for value in (accepted, wrong)}  # fmt: skip
        whole[accepted].check()
        with pytest.raises(UserError, match=rf"^{level}\.{option} must"):
            whole[wrong].check()


@pytest.mark.parametrize(("config", "limits"), [
    (GoalConfig(), GOALS),
    (IntrinsicConfig(), [("learning_rate", *POSITIVE), ("scale", *POSITIVE), ("limit", *POSITIVE), ("horizon", *COUNT),
                         ("gamma", *POSITIVE), ("gamma", 1 - TINY, 1.0), ("check_every", 0, -1)]),
    (TuneConfig(), [("learning_rate", *POSITIVE), ("limit", *POSITIVE), ("every", *COUNT), ("gamma", *POSITIVE),
                      ("gamma", 1 - TINY, 1.0), ("check_every", 0, -1)]),
    (HIROConfig(), [("levels", 2, 1), ("levels", 8, 9), ("learning_starts", 0, -1)]),
])  # fmt: skip
def test_other_limits(config, limits):
    for option, accepted, wrong in limits:
        refused(config, option, accepted, wrong)


@pytest.mark.parametrize(("changes", "accepted"), [
    ({"strength": TINY}, True), ({"strength": 0.0}, False), ({"samples": 1}, True), ({"samples": 0}, False),
    ({"updates": 0}, True), ({"updates": -1}, False), ({"by": "ewc"}, True), ({"by": "packnet"}, False),
])  # fmt: skip
def test_limits_of_protection(changes, accepted):
    config = ProtectConfig(**changes)
    if accepted:
        return config.check("low.", tasks=1)
    with pytest.raises(UserError, match=r"low\.protect"):
        config.check("low.", tasks=1)


def test_packnet_needs_two_tasks():
    ProtectConfig(by="packnet").check("low.", tasks=2)


def test_limits_of_periods():
    Period.of((1, 1)).check("--period", "step")
    for bounds, words in (((0, 3), "at least 1 step, not 0"), ((3, 2), "ascending order, not 3 2")):
        with pytest.raises(UserError, match=words):
            Period.of(bounds).check("--period", "step")


@pytest.mark.parametrize(("field", "level"), [("low", Low), ("middle", Middle)])
def test_the_scale_of_a_reward_for_subgoals_is_positive(field, level):
    HIROConfig(**{field: level(reward_scale=TINY)}).check()
    with pytest.raises(UserError, match=f"{field}.reward_scale must be positive, not 0"):
        HIROConfig(**{field: level(reward_scale=0.0)}).check()
    with pytest.raises(UserError, match=f"{field}.termination_cost must be at least 0 and finite, not -1"):
        HIROConfig(**{field: level(termination_cost=-1.0)}).check()
