"""A reward that outlives its agents: its meta-gradient by hand, late rewards, and exact resume."""

import json

import gymnasium as gym
import pytest
import torch
from conftest import CPU
from hrl_scripts import evaluate, train
from runs import run_of, same_state

from hrl.agents.meta.lirpg import Lifetimes, LIRPGConfig
from hrl.envs import EnvConfig, make_env
from hrl.envs.tasks.track import Track
from hrl.nested import Unrolled
from hrl.policies import Categorical, Gaussian
from hrl.policies.policy_gradient import normalised


def lives(**changes: object):
    config = LIRPGConfig(episodes=4, **changes)
    env = make_env(EnvConfig("hrl/Track-v0", num_envs=4, reward_delay=20))
    make = lambda: Gaussian(4, 2, (8,), -0.5, smooth=True)  # noqa: E731
    return Lifetimes(config, make, env.spec, CPU, 0), env


def test_the_reward_learns_from_the_gradient_of_the_return_by_each_steps_credit():
    """Compares with finite differences of the outer loss through the agent's own Adam step."""
    learner, env = lives()
    for _ in range(3):  # past the first steps, where Adam's direction is a sign
        learner.round(env, 0.0)
    before, state = learner.episodes, learner.agent
    credit = normalised(before.advantage, before.keep).double()
    inner, after = learner._inner(before), learner._next_episodes(env)
    held = learner.rule.__class__(learner.config.learning_rate, through_scale=True)
    inner.optimiser = held  # with the scale's part, so that differences see all there is
    outer = lambda p, c: -after.mean(learner.log_prob(p, after) * after.advantage)  # noqa: E731
    gradient = Unrolled(inner, 1)(outer, state, credit.float()).gradient
    way = gradient / gradient.norm()
    sides = [outer(inner.step(state, (credit + s * 0.5 * way).float()).params, None) for s in (1, -1)]
    assert float((sides[0] - sides[1]).detach()) == pytest.approx(float(gradient.norm()), rel=0.1)


def test_a_reward_follows_its_target():
    learner, env = lives(reward_updates=300, reward_learning_rate=1e-2)
    learner.round(env, 0.0)
    data = learner.episodes
    calls = []

    class Wanted:
        def __call__(self, *arguments: object) -> object:
            calls.append(arguments)
            return type("Estimate", (), {"gradient": -data.action[..., 0].sign()})  # more of the first action's sign

    learner._teach(Wanted(), learner.agent, data.advantage, data, data)
    paid = learner.intrinsic_reward(data)
    assert len(calls) == 1 and float((paid.sign() == data.action[..., 0].sign()).float().mean()) > 0.9
    assert paid.abs().max() <= 1


def test_agents_are_born_again_and_the_reward_stays():
    learner, env = lives(lifetime=2)
    first = {name: x.clone() for name, x in learner.agent.params.items()}
    learner.round(env, 0.0)
    assert learner.age == 1 and not torch.equal(first["net.0.weight"], learner.agent.params["net.0.weight"])
    learner.round(env, 0.0)
    assert (learner.life, learner.age) == (1, 0) and float(learner.agent.memory["count"]) == 0
    assert not torch.equal(first["net.0.weight"], learner.agent.params["net.0.weight"])
    assert float(learner.reward.net[-1].weight.abs().sum()) > 0  # it was 0 at first
    assert learner.steps == 4 * 100 * 3


def test_without_a_learned_reward_nothing_is_added_or_learned():
    learner, env = lives(reward="task")
    learner.round(env, 0.0)
    assert not learner.intrinsic_reward(learner.episodes).any() and "reward/gradient" not in learner.metrics


def test_numbered_actions_are_distinguished_by_the_reward():
    env = make_env(EnvConfig("hrl/KeyDoor-v0", num_envs=4))
    actions = int(env.spec.action_space.n)
    learner = Lifetimes(LIRPGConfig(episodes=4), lambda: Categorical(env.spec.state_dim, actions, ()), env.spec, CPU, 0)
    learner.round(env, 0.0)
    assert learner.intrinsic_reward(learner.episodes).shape == learner.episodes.reward.shape


# -- late rewards --------------------------------------------------------------------------------------------


def test_batched_and_single_environments_delay_rewards_alike():
    make = lambda vectorization: make_env(  # noqa: E731
        EnvConfig("hrl/Navigation-v0", {}, 3, vectorization, reward_delay=20)
    )
    batch, single = make("auto"), make("sync")
    assert not hasattr(batch.env.unwrapped, "envs") and hasattr(single.env.unwrapped, "envs")
    batch.reset(0), single.reset(0)
    goals = torch.tensor([[0.4, 0.1], [-0.3, 0.2], [0.05, -0.5]])
    batch.env.unwrapped.set_tasks(goals)
    for env, goal in zip(single.env.unwrapped.envs, goals, strict=True):
        env.unwrapped.batch.set_tasks(goal.unsqueeze(0))
    batch.reset(0), single.reset(0)
    for step in range(1, 131):  # past the episodes' end at 100
        action = torch.full((3, 2), -1.0 if step % 7 else 0.5)
        a, b = batch.step(action), single.step(action)
        torch.testing.assert_close(a.reward, b.reward)
        assert bool((a.reward != 0).all()) == (step % 20 == 0)


def test_the_point_moves_and_the_reward_is_the_remaining_distance():
    env = Track(2)
    env.reset(seed=0)
    env.point.copy_(torch.tensor([[0.0, 0.0], [1.45, -1.0]]))
    env.place.copy_(torch.tensor([[0.5, 0.0], [1.0, -1.0]]))
    reward, ended, success = env.advance(torch.tensor([[2.0, 0.0], [0.5, 0.0]]))  # actions are cut at 1, places at 1.5
    assert reward.tolist() == pytest.approx([-0.3, -0.5]) and not ended.any() and not success.any()
    assert env.place.abs().max() <= 1 and gym.spec("hrl/Track-v0").max_episode_steps == 100


def test_rewards_are_also_delayed_with_next_step_resets():
    batch, single = (
        make_env(EnvConfig("CartPole-v1", {}, 2, vectorization, reward_delay=4)) for vectorization in ("auto", "sync")
    )
    for env in (batch, single):
        env.reset(0)
    for step in range(60):
        action = torch.tensor([step % 3 == 0, step % 2 == 0]).long()
        torch.testing.assert_close(batch.step(action).reward, single.step(action).reward)


def test_agents_are_shown_the_tasks_goal():
    env = make_env(EnvConfig("hrl/PointMaze_UMaze-v0", {}, 4))
    learner = Lifetimes(LIRPGConfig(episodes=4), lambda: Gaussian(6, 2, (8,)), env.spec, CPU, 0)
    learner.collect(env)  # position, velocity and goal
    assert learner.collect(env).state.shape[-1] == 6


# -- whole runs ----------------------------------------------------------------------------------------------

LINE = ["--env", "hrl/Track-v0", "--episodes", "4", "--threads", "1", "--progress", "False", "--lifetime", "3"]


def test_a_run_resumes_exactly_and_is_evaluated(tmp_path, capsys):
    line = ["lirpg", *LINE, "--save-freq", "2000"]
    assert train.main([*line, "--total-steps", "4000", "--log-dir", str(tmp_path / "whole")]) == 0
    assert train.main([*line, "--total-steps", "2000", "--log-dir", str(tmp_path / "part")]) == 0
    part = run_of(tmp_path / "part")
    assert train.main(["--resume", str(part), "--total-steps", "4000", "--progress", "False"]) == 0
    assert same_state(run_of(tmp_path / "whole"), part)
    capsys.readouterr()
    assert evaluate.main([str(part), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_ep_length"] == 100


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--env", "hrl/Track-v0", "--learning-rate", "0"], "--learning-rate must be positive"),
    (["--env", "hrl/Track-v0", "--lifetime", "-1"], "--lifetime must not be negative"),
    (["--env", "hrl/Track-v0", "--lam", "2"], "--lam must be between 0 and 1"),
    (["--env", "hrl/Track-v0", "--num-envs", "8"], "set these options instead of --num-envs"),
    (["--env", "tasks:Switches-v0"], "needs discrete actions"),
])  # fmt: skip
def test_invalid_options_are_reported(arguments, sentence, tmp_path, capsys):
    assert train.main(["lirpg", *arguments, "--log-dir", str(tmp_path)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
