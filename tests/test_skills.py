"""A controller over existing skills."""

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import everything, roll, setting
from gymnasium import spaces
from hrl_scripts import evaluate, train
from runs import ROOT, run_of, same_state, trained
from stable_baselines3 import PPO
from tasks import LENGTHS, Picture

import hrl
from hrl.agents.options.skills import Controller, SkillsConfig
from hrl.agents.parts.skill_sources import load_model
from hrl.envs import EnvConfig, make_env
from hrl.envs.spaces.flatten import batched, flatten_batch, unflatten_batch
from hrl.hierarchy.commands import Skill
from hrl.learners import DQNConfig
from hrl.types import UserError

GAMMA = 0.9
SMALL = DQNConfig(hidden=(8,), batch_size=8, random_actions=(1.0, 1.0))


def up(observation):
    return np.full((len(observation), 1), 1.5, np.float32)


def down(observation):
    return np.full((len(observation), 1), -1.0, np.float32)


def early(state):
    return state[..., 1] < 2


def second(state):
    return state[..., 1] == 2


def steered(observation, latent):
    return latent[:, :1] + observation[:, 1:]


class Count:
    """Acts by the number of its calls since it began, which it keeps in a state of the form [layers, N, 1]."""

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        count = np.zeros((1, len(observation), 1), np.float32) if state is None else state[0].copy()
        count[:, np.asarray(episode_start, dtype=bool)] = 0.0
        count += 1
        return count[0] / 10, (count,)


count = Count()


def controller(*skills, num_envs=2, env="Ledger-v0", **options):
    """An agent with random decisions over these skills, and its environments."""
    made = make_env(EnvConfig(env, num_envs=num_envs))
    high = Controller(SMALL, gamma=GAMMA, **options)
    config = SkillsConfig(skill=tuple(f"test_skills:{skill}" for skill in skills), high=high)
    return config.make(replace(setting(made), env=made)), made


def test_each_skill_lasts_its_own_time_and_is_discounted_by_it():
    agent, env = controller("up,period=2", "down,period=4")
    roll(agent, env, 60)
    t = everything(agent, 1)
    batch = agent.levels[1].batch(t)
    assert set(t.action.flatten().tolist()) == {0.0, 1.0}
    for b in range(len(t.length)):
        begins, episode = int(t.state[b, 1]), int(t.state[b, 0])
        left = LENGTHS[episode % 4] - begins
        length = min((2, 4)[int(t.action[b, 0])], left)
        assert int(t.length[b]) == length
        assert float(t.reward[b]) == pytest.approx(sum(GAMMA**i * (begins + i + 1) for i in range(length)))
        over = length == left and episode % 2 == 1
        assert float(batch.discount[b]) == pytest.approx(0.0 if over else GAMMA**length)


def test_a_use_of_a_skill_is_also_a_use_from_each_of_its_later_steps():
    agent, env = controller("up,period=2", "down,period=4", late_starts=1.0)
    roll(agent, env, 60)
    t = everything(agent, 1)
    (late,) = agent.levels[1].relabels
    found = set()
    for seed in range(20):
        changed = late(t, torch.Generator().manual_seed(seed))
        i = changed.state[:, 1] - t.state[:, 1]
        assert torch.equal(changed.length, t.length - i.long()) and (i >= 0).all() and (changed.length >= 1).all()
        found |= set(i.tolist())
        for b in range(len(t.length)):
            first = int(changed.state[b, 1])
            wanted = sum(GAMMA**j * (first + j + 1) for j in range(int(changed.length[b])))
            assert float(changed.reward[b]) == pytest.approx(wanted, rel=1e-5)
    assert found == {0, 1, 2, 3} and torch.equal(changed.next_state, t.next_state)
    unchanged = replace(late, share=0.0)(t, torch.Generator())
    for name in ("state", "reward", "length"):
        assert torch.equal(getattr(unchanged, name), getattr(t, name))
    assert torch.equal(unchanged.steps.row, t.steps.row)


def test_the_skills_own_actions_reach_the_environment():
    agent, env = controller("up", "down", period=3)
    roll(agent, env, 30)
    low = everything(agent, 0)
    wanted = torch.where(low.target[:, 0] > 0, 1.5, -1.0)  # the actions lie in -2 to 4
    torch.testing.assert_close(low.action[:, 0], (wanted - 1) / 3)


def test_a_decision_is_a_skill_and_one_of_the_durations():
    skill = Skill(2, durations=torch.tensor([[1, 3], [5, 5]]))
    assert skill.space.n == 4
    decisions = torch.arange(4.0).unsqueeze(-1)
    assert skill.duration(decisions).tolist() == [1, 3, 5, 5]
    assert skill.issue(torch.zeros(4, 2), decisions).argmax(-1).tolist() == [0, 0, 1, 1]
    agent, env = controller("up", "down,period=2", durations=(1, 4))
    roll(agent, env, 60)
    t = everything(agent, 1)
    lasting = torch.tensor([1, 4, 2, 2])[t.action.flatten().long()]
    whole = t.state[:, 1] + lasting < torch.tensor(LENGTHS)[t.state[:, 0].long() % 4]
    assert torch.equal(t.length[whole], lasting[whole]) and whole.sum() > 10


def test_a_skill_begins_only_where_it_is_available_and_ends_by_itself():
    agent, env = controller("up,available=test_skills:early", "down,ends=test_skills:second", period=3)
    roll(agent, env, 80)
    t = everything(agent, 1)
    begins, first = t.state[:, 1], t.action[:, 0] == 0
    assert first.any() and (begins[first] < 2).all()
    ended = ~first & (begins < 2) & (t.state[:, 0] % 4 != 3)  # episodes of one step end before
    assert ended.any() and (t.next_state[ended, 1] == 2).all()


def test_a_recurrent_skill_begins_anew_with_every_command_and_every_episode():
    agent, env = controller("count", "up", num_envs=3, period=3)
    roll(agent, env, 60)
    low = everything(agent, 0)
    calls = ((low.action[:, 0] * 3 + 1) * 10).round()
    mine = low.target[:, 0] > 0
    t = low.state[:, 1]
    in_episode = t % 3 + 1  # the first decision of an episode is at its first step
    assert torch.equal(calls[mine], in_episode[mine]) and set(in_episode[mine].tolist()) == {1.0, 2.0, 3.0}


def test_a_controller_steers_a_skill_by_a_latent_vector():
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    config = SkillsConfig(skill=("test_skills:steered,latent=2",), high=Controller.of(learner="td3", hidden=(8,)))
    agent = config.make(replace(setting(env), env=env))
    roll(agent, env, 20)
    low = everything(agent, 0)
    wanted = (low.target[:, :1] + low.state[:, 1:] - 1) / 3
    torch.testing.assert_close(low.action, wanted, atol=1e-5, rtol=1e-5)


def test_runs_models_and_functions_act_as_they_do_alone(tmp_path):
    own = trained(tmp_path / "own", "--env", "tasks:Ledger-v0", "--hidden", "8", algorithm="sac")
    single = make_env(EnvConfig("Ledger-v0")).env.envs[0]  # type: ignore[attr-defined]
    model = PPO("MlpPolicy", single, n_steps=8, batch_size=8, seed=0)
    model.save(tmp_path / "model.zip")
    line = ["--env", "tasks:Ledger-v0", "--high.period", "2", "--trust", "--skill", "test_skills:up"]
    line += ["--skill", str(own), "--skill", f"sb3:{tmp_path / 'model.zip'}:PPO,observe=0-1"]
    run = trained(tmp_path / "run", *line, algorithm="skills")
    agent = hrl.load(run, trust=True).policy("last").agent
    state = torch.tensor([[1.0, 2.0], [4.0, 0.0], [5.0, 1.0]])
    bottom = agent.levels[0]
    actions = bottom.decide(state, torch.eye(3))
    alone = np.stack([up(state[:1]), hrl.load(own).policy().predict(state[1:2].numpy())[0],
                      model.predict(state[2:].numpy(), deterministic=True)[0]])  # fmt: skip
    np.testing.assert_allclose(actions.numpy() * 3 + 1, alone[:, 0], atol=1e-5)
    assert evaluate.main([str(run), "--episodes", "2", "--trust"]) == 0


@pytest.mark.parametrize(("algorithm", "words"), [("hiro", ()), ("hac", ("--levels", "3")), ("landmarks", ()),
                                                  ("ppo", ())])  # fmt: skip
def test_a_hierarchys_run_is_a_skill(algorithm, words, tmp_path):
    """Its state between two steps has parts without entries."""
    own = trained(tmp_path / "own", "--total-steps", "300", *words, algorithm=algorithm)
    line = ["--skill", str(own), "--skill", f"{own},period=3,name=short", "--total-steps", "200", "--trust"]
    run = trained(tmp_path / "run", *line, algorithm="skills")
    assert evaluate.main([str(run), "--episodes", "2", "--trust"]) == 0


def test_a_models_mode_is_set_once(tmp_path):
    single = make_env(EnvConfig("Ledger-v0")).env.envs[0]  # type: ignore[attr-defined]
    PPO("MlpPolicy", single, n_steps=8, batch_size=8, seed=0).save(tmp_path / "model.zip")
    loaded, plain = load_model(f"sb3:{tmp_path / 'model.zip'}:PPO", torch.device("cpu")), PPO.load(tmp_path / "model")
    observations = np.arange(6, dtype=np.float32).reshape(3, 2)
    found, expected = (model.predict(observations, deterministic=True)[0] for model in (loaded, plain))
    np.testing.assert_array_equal(found, expected)
    loaded.policy.set_training_mode(True)
    assert not any(module.training for module in loaded.policy.modules())


def test_a_stopped_run_resumes_exactly(tmp_path):
    line = ["--skill", "test_skills:count", "--skill", "test_skills:down", "--env", "tasks:Ledger-v0"]
    line += ["--high.period", "3", "--learning-starts", "50", "--total-steps", "600"]
    line += ["--high.exploration-fraction", "0"]  # random decisions would fall with the run, whose length differs
    whole = trained(tmp_path / "whole", *line, algorithm="skills")
    part = trained(tmp_path / "part", *line, "--total-steps", "300", algorithm="skills")
    resumed = ["--resume", str(part), "--total-steps", "600", "--progress", "False", "--trust"]
    assert train.main(resumed) == 0
    assert same_state(whole, part)


@pytest.mark.parametrize(
    ("skills", "sentence"),
    [
        ([], "Give at least one --skill"),
        (["test_skills:nothing"], "cannot be imported"),
        (["test_skills:up,period=0"], "period must be a positive whole number"),
        (["test_skills:up,colour=red"], "must be one of name=…"),
        (["test_skills:up,observe=7"], "observes entries [7]"),
        (["test_skills:steered,latent=2", "test_skills:up"], "must be the only one"),
        (["sb3:none.zip:PPO"], "none.zip does not exist"),
        (["test_skills:second"], "does not fit"),
        (["no-such-run"], "no-such-run"),
        (["test_skills:count", "--high.late-starts=0.5"], "count has a recurrent state"),
        (["test_skills:up", "--high.late-starts=2"], "between 0 and 1"),
    ],
)
def test_invalid_skills_are_refused_with_one_sentence(skills, sentence, tmp_path, capfd):
    line = ["skills", "--env", "tasks:Ledger-v0", "--preset", "debug", "--log-dir", str(tmp_path)]
    words = [word for skill in skills for word in ([skill] if skill.startswith("--") else ["--skill", skill])]
    assert train.main([*line, *words]) == 2
    error = capfd.readouterr().err
    assert sentence in error and "Traceback" not in error and error.count("\n") <= 2
    assert not list(Path(tmp_path).rglob("config.json"))


def test_a_run_whose_skills_name_modules_is_not_loaded_without_trust(tmp_path):
    run = trained(tmp_path, "--env", "tasks:Ledger-v0", "--skill", "test_skills:up", algorithm="skills")
    with pytest.raises(UserError, match="add --trust"):
        hrl.load(run_of(tmp_path)).policy()
    hrl.load(run, trust=True).policy()


def test_the_task_of_one_direction_pays_for_the_velocity_along_it(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    env = gym.make("examples.directions:Direction-v0", angle=90.0)
    assert env.reset(seed=0)[0].shape == (2,)
    for _ in range(3):
        velocity, reward, *_ = env.step(np.array([0.3, 1.0], np.float32))
    assert velocity[1] > 0.1 and reward == pytest.approx(min(velocity[1], 2.0) - abs(velocity[0]))
    env.close()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 3), np.float32),
        spaces.Discrete(3, start=2),
        spaces.MultiDiscrete([[2, 3], [4, 2]]),
        spaces.Dict(a=Picture("image").observation_space, b=spaces.Discrete(3), c=spaces.MultiBinary(2)),
        spaces.Tuple([spaces.Box(0, 255, (2, 8, 9, 3), np.uint8), spaces.Box(-1, 1, (1,), np.float64)]),
    ],
)
def test_flattening_can_be_undone(space):
    space.seed(0)
    raw = batched([space.sample() for _ in range(4)])
    flat = flatten_batch(space, raw, torch.device("cpu"))
    again = unflatten_batch(space, flat)
    assert torch.equal(flatten_batch(space, again, torch.device("cpu")), flat)
    for one, other in zip(_arrays(raw), _arrays(again), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-6)


def _arrays(raw):
    parts = raw.values() if isinstance(raw, dict) else raw if isinstance(raw, tuple) else [raw]
    return [np.asarray(part) for part in parts]
