"""Skills that learn below their controller: their memories, rewards, updates, and whole runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import all_rows, everything, roll, setting
from hrl_scripts import evaluate, train
from runs import same_state, trained
from tasks import LENGTHS

import hrl
from hrl.agents.options.skills import Below, Controller, SkillsConfig
from hrl.api.sessions import trained_policy
from hrl.api.trust import Trust
from hrl.envs import EnvConfig, make_env
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.learners import DQNConfig
from hrl.memory.transitions import read_transitions
from hrl.run.checkpoint import Checkpoints

LEDGER = ["--env", "tasks:Ledger-v0", "--hidden", "8", "--eval-freq", "0", "--total-steps", "200"]
OFTEN = ["--batch-size", "16", "--train-freq", "8", "--learning-starts", "50"]


def twice_the_time(state, next_state):
    return 2.0 * next_state[..., 1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small runs: two that can learn on as skills, one that sees one entry alone, and one of two levels."""
    folder = tmp_path_factory.mktemp("skills")
    line = {
        "sac": (*LEDGER, *OFTEN), "ppo": (*LEDGER, "--n-steps", "20", "--batch-size", "16", "--n-epochs", "1"),
        "td3": ("--hidden", "8", "--eval-freq", "0", "--total-steps", "200"),
        "hiro": ("--eval-freq", "0", "--total-steps", "200"),
    }  # fmt: skip
    return {name: trained(folder / name, *words, algorithm=name) for name, words in line.items()}


def controlled(runs: dict[str, Path], *, period: int = 3, reward: str = "") -> tuple[Hierarchy, SkillsConfig]:
    env = make_env(EnvConfig("Ledger-v0", num_envs=2))
    high = Controller(DQNConfig(hidden=(8,), batch_size=8, random_actions=(1.0, 1.0)), period=period)
    words = (f"{runs['sac']},name=sac{reward}", f"{runs['ppo']},name=ppo")
    config = SkillsConfig(skill=words, skills=Below(trainable=True), high=high)
    load = lambda path: trained_policy(path, "best", Trust(True))  # noqa: E731
    agent = config.make(replace(setting(env), env=env, load_policy=load))
    roll(agent, env, 60)
    return agent, config


def test_a_step_enters_only_the_memory_of_the_skill_that_took_it(runs):
    agent, _ = controlled(runs)
    bottom, steps = agent.levels[0], everything(agent, 0)
    for number, skill in enumerate(bottom.skills):
        memory = skill.level.memory
        t = read_transitions(memory, all_rows(memory), True)
        mine = steps.target[:, number] == 1
        assert 20 < len(t.action) == int(mine.sum())
        of_all = {tuple(row) for row in torch.cat([steps.state, steps.action], -1)[mine].tolist()}
        assert {tuple(row) for row in torch.cat([t.state, t.action], -1).tolist()} == of_all
        for (episode, begins), (same, ends) in zip(t.state.tolist(), t.next_state.tolist(), strict=True):
            assert (same, ends) == (episode, begins + 1)  # no transition crosses a use of another skill
        torch.testing.assert_close(t.reward, t.next_state[:, 1])
        last = t.next_state[:, 1] == torch.tensor(LENGTHS)[t.state[:, 0].long() % 4]
        assert torch.equal(t.terminated, last & (t.state[:, 0] % 2 == 1)) and t.terminated.any()


def test_skills_act_as_their_runs_do_until_they_learn(runs):
    agent, _ = controlled(runs)
    state = torch.tensor([[1.0, 2.0], [4.0, 0.0]])
    actions = agent.levels[0].decide(state, torch.eye(2)).numpy() * 3 + 1
    alone = [
        hrl.load(runs[name], trust=True).policy().predict(x.numpy())[0]
        for name, x in zip(("sac", "ppo"), state, strict=True)
    ]
    np.testing.assert_allclose(actions[:, 0], np.stack(alone)[:, 0], atol=1e-5)


def test_a_skill_may_have_a_reward_of_its_own(runs):
    agent, _ = controlled(runs, reward=",reward=test_trainable_skills:twice_the_time")
    for skill, factor in zip(agent.levels[0].skills, (2.0, 1.0), strict=True):
        t = read_transitions(skill.level.memory, all_rows(skill.level.memory), True)
        torch.testing.assert_close(t.reward, factor * t.next_state[:, 1])


def test_each_skill_learns_on_its_own_clock(runs):
    agent, _ = controlled(runs)
    sac, ppo = (skill.level for skill in agent.levels[0].skills)
    before = [{n: x.clone() for n, x in level.learner.state_dict().items()} for level in (sac, ppo)]
    agent.levels[0].learn(64, 1000.0, agent.generator)  # 32 steps a skill: before the first update of both
    assert (sac.timescale.done, ppo.timescale.done) == (0, 0)
    agent.levels[0].learn(164, 1000.0, agent.generator)  # 82 steps: 4 times 8 after 50, 2 times 20 steps in 2 places
    assert (sac.timescale.done, ppo.timescale.done) == (4, 1)
    for level, old in zip((sac, ppo), before, strict=True):
        assert any(not torch.equal(x, old[name]) for name, x in level.learner.state_dict().items())


def test_a_held_random_decision_waits_while_another_skill_acts(runs):
    agent, _ = controlled(runs)
    exploration = agent.levels[0].skills[0].level.exploration
    exploration.anywhere = True  # its own share of random decisions is 0, so that a held one ends at the next decision
    exploration.holding[:] = True
    target, always = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.ones(2, dtype=torch.bool)
    agent.levels[0].explore(torch.zeros(2, 2), target, always, agent.generator)
    assert exploration.holding.flatten().tolist() == [True, False]


def test_a_skill_without_a_step_of_its_own_does_not_learn(runs):
    agent, _ = controlled(runs)
    skill = agent.levels[0].skills[0]
    skill.level.memory.clear()
    agent.levels[0].learn(164, 1000.0, agent.generator)
    assert skill.level.timescale.done == 0 and not skill.started and agent.levels[0].skills[1].started


def test_a_stopped_run_resumes_exactly_and_its_policy_is_the_trained_one(runs, tmp_path):
    line = ["--skill", f"{runs['sac']},name=sac", "--skill", f"{runs['ppo']},name=ppo", "--skills.trainable", "True"]
    line += ["--env", "tasks:Ledger-v0", "--high.period", "3", "--learning-starts", "50", "--total-steps", "600"]
    line += ["--high.exploration-fraction", "0", "--trust"]
    whole = trained(tmp_path / "whole", *line, algorithm="skills")
    part = trained(tmp_path / "part", *line, "--total-steps", "300", algorithm="skills")
    assert train.main(["--resume", str(part), "--total-steps", "600", "--progress", "False", "--trust"]) == 0
    assert same_state(whole, part)
    tensors = Checkpoints(whole / "checkpoints").last().tensors
    assert int(tensors["low.sac.timescale.done"]) > 10 and int(tensors["low.ppo.timescale.done"]) > 2
    bottom = hrl.load(whole, trust=True).policy("last").agent.levels[0]
    old = trained_policy(runs["sac"], "best", Trust(True)).agent.levels[0].learner
    for name, x in bottom.skills[0].level.learner.state_dict().items():
        assert torch.equal(x, tensors[f"low.sac.net.{name}"])
        assert not name.startswith("actor") or not torch.equal(x, old.state_dict()[name])
    assert evaluate.main([str(whole), "--episodes", "2", "--trust"]) == 0


@pytest.mark.parametrize(
    ("skill", "sentence"),
    [
        ("test_skills:up", "cannot learn: --skills.trainable needs runs of td3, sac, dqn, discrete-sac or ppo"),
        ("sb3:model.zip:PPO", "cannot learn"),
        ("hiro", "cannot learn"),
        ("td3", "its run observed 2 numbers and goals of 1, but here are 2 and 0"),
        ("sac,observe=1", "its run observed 2 numbers and goals of 0, but here are 1 and 0"),
    ],
)
def test_skills_that_cannot_learn_are_refused_with_one_sentence(skill, sentence, runs, tmp_path, capfd):
    name, comma, rest = skill.partition(",")
    line = ["skills", "--env", "tasks:Ledger-v0", "--preset", "debug", "--log-dir", str(tmp_path), "--trust"]
    line += ["--skill", f"{runs.get(name, name)}{comma}{rest}", "--skills.trainable", "True"]
    assert train.main(line) == 2
    error = capfd.readouterr().err
    assert sentence in error and "Traceback" not in error and error.count("\n") == 1


def test_a_reward_of_a_skill_that_does_not_learn_is_refused(tmp_path, capfd):
    line = ["skills", "--env", "tasks:Ledger-v0", "--preset", "debug", "--log-dir", str(tmp_path)]
    assert train.main([*line, "--skill", "test_skills:up,reward=test_trainable_skills:twice_the_time"]) == 2
    assert "add --skills.trainable True" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("trainable", "least", "greatest"), [("False", 0.0, 0.5), ("True", 0.9, 1.0)])
def test_an_untrained_skill_learns_the_task_below_its_controller(trainable, least, greatest, tmp_path, capsys):
    line = ["--preset", "none", "--num-envs", "4", "--eval-freq", "0", "--save-freq", "0"]
    sizes = ["--hidden", "32", "32", "--batch-size", "64", "--train-freq", "4", "--learning-starts", "400"]
    values = ["--gamma", "0.95", "--reward-offset", "-1", "--total-steps", "200"]
    skill = trained(tmp_path / "skill", *line, *sizes, *values, algorithm="td3")
    line += ["--skill", str(skill), "--skills.trainable", trainable, "--trust", "--high.period", "5"]
    run = trained(tmp_path / "run", *line, "--high.hidden", "16", "--total-steps", "4000", algorithm="skills")
    capsys.readouterr()
    assert evaluate.main([str(run), "--episodes", "100", "--max-steps", "100", "--trust", "--json"]) == 0
    assert least <= json.loads(capsys.readouterr().out)["success_rate_any"] <= greatest
