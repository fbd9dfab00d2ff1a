"""DIAYN: the discriminator and the reward from it, skills per period, and the two phases of a run."""

import math

import pytest
import torch
from conftest import CPU, everything, setting
from hrl_scripts import train
from runs import LINE, same_state, trained
from torch import nn

from hrl.agents.options.diayn import DIAYNConfig, High, Low
from hrl.agents.parts.discriminator import DiscriminatedSkill, DiscriminatorConfig, SkillRecognition
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.commands.goals import GoalConfig, GoalSpace, Select
from hrl.memory.ring import Replay
from hrl.run.checkpoint import Checkpoints

SMALL = {"hidden": (8,), "batch_size": 16, "train_freq": 8}


def goals(relative: bool, periods: tuple[float, ...] = ()) -> GoalSpace:
    """The first entry of the state, between -2 and 6 as a position, ±4 as a displacement."""
    low, high = (-4.0, 4.0) if relative else (-2.0, 6.0)
    bounds = torch.tensor([low]), torch.tensor([high])
    return GoalSpace(Select(torch.tensor([0])), *bounds, relative, periods=periods)


def by_hand(relative: bool) -> DiscriminatedSkill:
    """Two skills, with logits (x, -x) of what the discriminator sees."""
    skill = DiscriminatedSkill(2, goals(relative), DiscriminatorConfig())
    skill.net = nn.Linear(1, 2, bias=False)  # type: ignore[assignment]
    skill.net.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    return skill


def diayn(num_envs: int = 2, period: int | tuple[int, int] = 3, low: str = "sac", high: str = "dqn", **options: object):
    env = make_env(EnvConfig("GoalLine-v0", num_envs=num_envs))
    ppo = {"hidden": (8,), "batch_size": 16, "n_steps": 10, "n_epochs": 2}
    config = DIAYNConfig(
        low=Low.of(learner=low, **SMALL),
        high=High.of(learner=high, period=period, **(ppo if high == "ppo" else SMALL)),
        goal=GoalConfig(relative=True, low=(-1.0,), high=(1.0,)),
        discriminator=DiscriminatorConfig(hidden=(8,), batch_size=16, train_freq=8),
        learning_starts=20,
        **{"skills": 3, "skill_steps": 10**6, **options},  # type: ignore[arg-type]
    )
    return config.make(setting(env)), env


def run(agent, env, steps: int, learn: bool = True) -> None:
    obs = env.reset(0)
    for _ in range(steps):
        step = env.step(agent.act(obs))
        if learn:
            agent.learn()
        agent.observe(step)
        obs = step.obs


@pytest.mark.parametrize("relative", [False, True])
def test_the_reward_matches_calculated_values(relative):
    """log q(z|s') - log p(z) with q(0|x) = 1 / (1 + e^(-2x)) and p(z) = 1/2."""
    skill = by_hand(relative)
    start, reached = torch.tensor([[1.0, 9.0], [1.0, 9.0]]), torch.tensor([[4.0, 7.0], [4.0, 7.0]])
    target = skill.issue(start, torch.tensor([[0.0], [1.0]]))
    assert target.tolist() == [[1, 0, 1], [0, 1, 1]]
    x = (4 - 1) / 4 if relative else (4 - 2) / 4  # the displacement, or the position, in half-ranges
    paid = skill.reward(start, reached, target)
    expected = [-math.log(1 + math.exp(-2 * x)) + math.log(2), -math.log(1 + math.exp(2 * x)) + math.log(2)]
    assert paid.tolist() == pytest.approx(expected, rel=1e-5)
    assert skill.measure(reached, target)["skill_recognised"].tolist() == [1, 0]
    shown = skill.encode(reached, target, reached)
    assert shown.tolist() == ([[1, 0, x], [0, 1, x]] if relative else [[1, 0], [0, 1]])
    assert skill.number(target).tolist() == [0, 1] and skill.dim == 3 and skill.input_dim == shown.shape[-1]


def test_an_untrained_discriminator_gives_no_reward():
    skill = by_hand(relative=True)
    skill.net.weight.data.zero_()
    start = torch.zeros(2, 2)
    assert skill.reward(start, start + 1, skill.issue(start, torch.tensor([[0.0], [1.0]]))).tolist() == [0, 0]


def test_it_may_see_where_the_skill_began():
    skill = DiscriminatedSkill(2, goals(True, (8.0,)), DiscriminatorConfig(from_start=True))
    seen: list[torch.Tensor] = []
    skill.net.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    start = torch.tensor([[1.0, 9.0]])
    skill.logits(torch.tensor([[4.0, 7.0]]), skill.issue(start, torch.tensor([[0.0]])))
    angle = 2 * math.pi / 8
    torch.testing.assert_close(seen[0], torch.tensor([[0.75, 0.25, math.sin(angle), math.cos(angle)]]))


def test_it_learns_which_skill_led_where():
    """Skill 0 leads to x = -3 and skill 1 to x = +3, in a ring that is written by hand."""
    torch.manual_seed(0)
    env = make_env(EnvConfig("GoalLine-v0", num_envs=4))
    skill = DiscriminatedSkill(2, goals(True), DiscriminatorConfig(hidden=(8,)))
    config = DiscriminatorConfig(learning_rate=0.01, batch_size=64, train_freq=40, gradient_steps=2)
    trained = SkillRecognition(skill, config, setting(env), learning_starts=100)
    memory = Replay({"state": 1, "target": 3}, ("state",), (), 200, 4, CPU)
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    start, number = torch.zeros(4, 1), torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    target, reached = skill.issue(start, number), 6 * number - 3
    for _ in range(20):
        memory.write({"state": start, "target": target}, {"state": reached}, {}, yes, yes, no)
    level = type("", (), {"memory": memory})()
    generator = torch.Generator().manual_seed(0)
    assert trained.keep_up(level, 99, generator) == {}
    before = skill.reward(start, reached, target)
    due = [bool(trained.keep_up(level, steps, generator)) for steps in range(100, 4000, 20)]
    assert due[:5] == [False, False, True, False, True]
    after = skill.reward(start, reached, target)
    assert float(before.mean()) < 0.5 < 0.65 < float(after.min()) < math.log(2)


def test_stored_transitions_get_the_reward_of_the_current_discriminator():
    agent, env = diayn()
    run(agent, env, 12, learn=False)
    low = agent.levels[0]
    t, skill = everything(agent, 0), low.command
    assert isinstance(skill, DiscriminatedSkill) and "reward" not in low.memory.fields
    before = low.batch(t)
    skill.net[-1].bias.data += torch.tensor([5.0, 0.0, 0.0])
    after = low.batch(t)
    first = skill.number(t.target) == 0
    assert first.any() and (~first).any()
    assert (after.reward[first] > before.reward[first]).all() and (after.reward[~first] < before.reward[~first]).all()
    assert not after.reward.requires_grad
    torch.testing.assert_close(after.discount, torch.full_like(after.discount, low.config.gamma))  # no end of its own


@pytest.mark.parametrize("period", [3, (2, 4)])
def test_a_skill_is_drawn_uniformly_for_each_period_and_kept_for_it(period):
    agent, env = diayn(num_envs=50, period=period)
    run(agent, env, 60, learn=False)
    low, high = everything(agent, 0), everything(agent, 1)
    skill = agent.levels[0].command
    assert isinstance(skill, DiscriminatedSkill)
    for i in range(0, len(high.state), 10):
        inside = (low.rows.env == high.rows.env[i]) & (low.rows.row >= high.steps.row[i])
        inside &= low.rows.row < high.steps.row[i] + high.length[i]
        expected = skill.issue(high.state[i], high.action[i])
        assert int(inside.sum()) == int(high.length[i]) and (low.target[inside] == expected).all()
        assert float(expected[-1]) == float(high.state[i, 1])  # where it began
    share = high.action.flatten().long().bincount(minlength=3) / len(high.action)
    assert len(high.action) > 700 and float((share - 1 / 3).abs().max()) < 0.06


@pytest.mark.parametrize("high", ["dqn", "discrete-sac", "ppo"])
def test_the_controller_begins_when_the_skills_are_finished(high):
    agent, env = diayn(high=high, skill_steps=200)
    learned: list[list[bool]] = []
    obs, before = env.reset(0), None
    for _ in range(400):
        step = env.step(agent.act(obs))
        agent.learn(800)
        now = [torch.cat([p.detach().flatten().clone() for p in level.learner.parameters()]) for level in agent.levels]
        now.append(torch.cat([p.detach().flatten().clone() for p in agent.levels[0].command.parameters()]))
        if before is not None:
            learned.append([not torch.equal(a, b) for a, b in zip(before, now, strict=True)])
        agent.observe(step)
        obs, before = step.obs, now
    low, controller, recognises = ([i for i, each in enumerate(learned) if each[k]] for k in range(3))
    assert 5 < min(low) < 20 and 90 < max(low) <= 101 and max(recognises) <= 101  # two steps a call
    assert min(controller) > 100 and max(controller) > 350
    metrics = agent.pop_metrics()
    assert {"low/discriminator_accuracy", "low/skill_recognised", "low/intrinsic_reward"} <= metrics.keys()
    assert 0.3 < metrics["high/skill_entropy"] <= 1


def test_random_decisions_of_the_first_phase_are_not_learned_from():
    """PPO learns from decisions of its own policy alone, also from none that was still open."""
    agent, env = diayn(num_envs=1, period=5, high="ppo", skill_steps=42)
    high, obs, open_ = agent.levels[1], env.reset(0), None
    for _ in range(60):
        action = agent.act(obs)
        if open_ is None and not high.waits_at(agent.steps):
            open_ = int(high.segment.first)  # a random decision that is still open
        agent.learn(400)
        agent.observe(step := env.step(action))
        obs = step.obs
        rows, there = high.memory.unread()
        if open_ is not None and there.any():
            t = everything(agent, 1)
            assert int(t.steps.row[t.rows.row == rows.row[there].min()]) > open_
            return
    raise AssertionError("it never learned")


def test_the_discriminator_is_saved_with_the_networks():
    agent, env = diayn()
    run(agent, env, 60)
    again, _ = diayn()
    again.load_networks(agent.network_tensors())
    state = torch.randn(20, 3)
    target = agent.commands[0].issue(state, torch.randint(3, (20, 1)).float())
    one, other = (a.levels[0].command.reward(state, state + 1, target) for a in (agent, again))
    assert torch.equal(one, other) and float(one.abs().max()) > 0.01


@pytest.mark.parametrize("steps", ["500", "700"])
def test_a_run_that_is_resumed_equals_one_that_was_not_stopped(steps, tmp_path):
    """At the end of the first phase, and in the middle of the second."""
    line = ["--high.period", "2", "6"]
    whole = trained(tmp_path / "whole", *line, "--save-freq", steps, algorithm="diayn")
    part = trained(tmp_path / "part", *line, "--save-freq", steps, "--total-steps", steps, algorithm="diayn")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)
    tensors = Checkpoints(whole / "checkpoints").last().tensors
    assert float(tensors["low.model0.adam.steps"]) > 50 and "low.command.net.0.weight" in tensors


def test_skills_of_an_earlier_run_get_a_controller(tmp_path):
    first = trained(tmp_path / "skills", algorithm="diayn")
    line = ["--low.init-from", str(first), "--low.frozen", "True", "--skill-steps", "0", "--high.period", "4"]
    second = trained(tmp_path / "controller", *line, algorithm="diayn")
    one, other = (Checkpoints(run / "checkpoints").last().tensors for run in (first, second))
    names = [name for name in one if name.startswith("low.net.actor")]
    assert names and all(torch.equal(one[name], other[name]) for name in names)
    assert int(other["high.timescale.done"]) > 100


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--skills 1", "--skills must be at least 2"),
        ("--skill-steps 0", "--skill-steps must be positive"),
        ("--low.frozen True", "--skill-steps must be positive, or 0 with --low.frozen True"),
        ("--discriminator.batch-size 0", "discriminator.batch_size must be positive"),
        ("--discriminator.from-start True", "needs --goal.relative True"),
        ("--low.hindsight 0.5", "Skills have no goals to relabel"),
        ("--high.period 0", "high.period must be at least 1"),
        ("--high.learner td3", "supports only vectors (Box)"),
    ],
)
def test_invalid_options_raise_a_clear_error(option, words, tmp_path, capsys):
    assert train.main(["diayn", *LINE, "--log-dir", str(tmp_path), *option.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
