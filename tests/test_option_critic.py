"""Option-critic by hand: one transition's updates, options that end and are chosen again, a goal that moves, resume."""

import math

import pytest
import torch
from conftest import setting
from gymnasium import spaces
from hrl_scripts import train
from runs import run_of, same_state
from safetensors.torch import load_file

from hrl.agents.options.option_critic import Greedy, OptionCritic, OptionCriticConfig, OptionLearnerConfig
from hrl.envs import EnvConfig, make_env
from hrl.envs.tasks.grids import FourRooms
from hrl.learners import Batch, Build, Terminating
from hrl.networks.options import OptionNet, ends_now
from hrl.run.checkpoint import Checkpoints
from hrl.types import UserError

STATES, OPTIONS, ACTIONS = 3, 2, 2
S, NEXT = 0, 2
"""The states before and after the one transition."""


def learner(**options: float) -> OptionCritic:
    """Two options and two actions in three numbered states, with tables of random entries."""
    torch.manual_seed(0)
    given = {"learning_rate": 0.5, "intra_learning_rate": 0.2, "termination_learning_rate": 0.3, "temperature": 0.5}
    made = OptionCritic(
        Build(STATES + OPTIONS, spaces.Discrete(ACTIONS), command=OPTIONS), OptionLearnerConfig(**(given | options))
    )
    for parameter in made.parameters():
        parameter.data.normal_()
    return made


def inputs(state: int, option: int) -> torch.Tensor:
    return torch.cat([torch.eye(STATES)[state], torch.eye(OPTIONS)[option]]).unsqueeze(0)


def transition(option: int = 1, action: int = 0, discount: float = 0.9) -> Batch:
    """From S to NEXT under an option, with a reward of 2. The next inputs hold another option, chosen there."""
    return Batch(
        inputs(S, option), torch.tensor([[float(action)]]), torch.tensor([2.0]), inputs(NEXT, 1 - option),
        torch.tensor([discount]),
    )  # fmt: skip


def table(net: OptionNet) -> torch.Tensor:
    """[states, options, outputs]"""
    return net[0].weight.detach().T.unflatten(-1, (OPTIONS, -1)).clone()  # type: ignore[union-attr, operator]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("common", [False, True])
def test_the_active_options_outputs_count(common):
    layer, state = torch.nn.Linear(3, 8 + 2 * common), torch.randn(5, 3)
    net = OptionNet(torch.nn.Sequential(layer), 4, 2, common)
    each = net.each(state)
    out = layer(state)
    torch.testing.assert_close(each[:, 1], out[:, 2:4] + (out[:, 8:] if common else 0.0))
    assert each.shape == (5, 4, 2)
    for k in range(4):
        torch.testing.assert_close(net(torch.cat([state, torch.eye(4)[k].expand(5, 4)], -1)), each[:, k])


@pytest.mark.parametrize("option", [0, 1])
def test_the_target_bootstraps_from_the_option_that_acted_and_from_the_best_one(option):
    made = learner()
    value = [float(x) for x in table(made.option_value)[NEXT, :, 0]]
    beta = sigmoid(float(table(made.termination)[NEXT, option, 0]))
    arrived = (1 - beta) * value[option] + beta * max(value)
    assert float(made.target(transition(option))) == pytest.approx(2 + 0.9 * arrived, abs=1e-5)
    assert float(made.target(transition(option, discount=0.0))) == 2


def test_both_critics_move_towards_the_target():
    made, y = learner(), float(learner().target(transition()))
    value, action_value = table(made.option_value), table(made.action_value)
    made.step(transition())
    expected, of_action = value.clone(), action_value.clone()
    expected[S, 1, 0] += 0.5 * (y - value[S, 1, 0])
    of_action[S, 1, 0] += 0.5 * (y - action_value[S, 1, 0])
    torch.testing.assert_close(table(made.option_value), expected)
    torch.testing.assert_close(table(made.action_value), of_action)


def test_a_policy_moves_by_the_advantage_of_the_updated_critics():
    made = learner()
    before, chances = table(made.policy), (table(made.policy)[S, 1] / 0.5).softmax(-1)
    made.step(transition())
    advantage = table(made.action_value)[S, 1, 0] - table(made.option_value)[S, 1, 0]
    before[S, 1] += 0.2 * advantage * (torch.tensor([1.0, 0.0]) - chances)  # the temperature cancels
    torch.testing.assert_close(table(made.policy), before)


@pytest.mark.parametrize("cost", [0.0, 0.7])
def test_the_termination_moves_where_the_option_may_end_and_nowhere_else(cost):
    made = learner(deliberation_cost=cost)
    before = table(made.termination)
    beta = sigmoid(float(before[NEXT, 0, 0]))
    made.step(transition(option=0))
    value = table(made.option_value)[NEXT, :, 0]
    advantage = float(value[0] - value.max())
    assert advantage < 0
    before[NEXT, 0, 0] -= 0.3 * beta * (1 - beta) * (advantage + cost)
    torch.testing.assert_close(table(made.termination), before)


def test_nothing_ends_where_the_task_has_ended():
    made = learner()
    before = table(made.termination)
    made.step(transition(option=0, discount=0.0))
    assert torch.equal(table(made.termination), before)


def test_updates_use_several_environments_one_after_another():
    together, apart = learner(), learner()
    two = Batch(*(torch.cat([x, y]) for x, y in zip(transition(0)[:5], transition(0, 1)[:5], strict=True)))
    together.learn(two, 1, 0.0, torch.Generator())
    for action in (0, 1):
        apart.step(transition(0, action))
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_policy_over_options_is_greedy_and_breaks_ties_at_random():
    values = torch.tensor([[1.0, 3.0, 3.0, 0.0]]).expand(4000, 4)
    greedy = Greedy(Build(STATES, spaces.Discrete(4), reads=lambda state: values))
    drawn = greedy.act(torch.zeros(4000, STATES), torch.Generator().manual_seed(0)).squeeze(-1)
    assert set(drawn.tolist()) == {1, 2} and float((drawn == 1).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert (greedy.act(torch.zeros(4000, STATES), None) == 1).all()


# -- in the hierarchy --------------------------------------------------------------------------------------------------


def agent(num_envs: int = 3, **options: int):
    env = make_env(EnvConfig("hrl/FourRooms-v0", {"max_episode_steps": 40}, num_envs))
    return OptionCriticConfig(**options).make(setting(env)), env  # type: ignore[arg-type]


def test_options_that_end_are_chosen_again_and_no_others():
    made, env = agent()
    made.levels[0].learner.termination[0].weight.data[:] = torch.tensor([[-50.0], [50.0], [-50.0], [50.0]])
    made.levels[0].done_at = lambda steps: True  # type: ignore[method-assign]
    obs, lasted = env.reset(0), {k: set() for k in range(4)}
    for _ in range(150):
        action = made.act(obs)
        option, elapsed = made.memory[0].target.argmax(-1), made.memory[0].elapsed.clone()
        step = env.step(action)
        made.observe(step)
        over, anew = step.terminated | step.truncated, made.memory[0].elapsed > 1000
        assert torch.equal(anew, over | (option == 1) | (option == 3))
        for k, age, end in zip(option.tolist(), elapsed.tolist(), over.tolist(), strict=True):
            lasted[k].add((age, end))
        obs = step.obs
    assert {age for age, _ in lasted[1] | lasted[3]} == {0} and max(age for age, _ in lasted[0] | lasted[2]) == 39
    metrics = made.pop_metrics()
    shares = [metrics[f"low/usage_{k}"] for k in range(4)]
    assert sum(shares) == pytest.approx(1) and shares[0] + shares[2] > 0.9
    assert metrics["low/command_duration"] > 1


def test_ends_are_draws_from_their_probability_in_training_and_the_more_likely_answer_in_evaluation():
    made, env = agent(2000)
    made.levels[0].learner.termination[0].weight.data.fill_(math.log(0.3 / 0.7))  # β = .3
    obs = env.reset(0)
    step = env.step(made.act(obs))
    before = made.generator.get_state()
    after = made.after(made.memory, step)
    assert torch.equal(made.generator.get_state(), before)
    done = step.terminated | step.truncated
    assert torch.equal(after[0].elapsed > 1000, done)
    made.observe(step)
    assert float((made.memory[0].elapsed > 1000)[~done].float().mean()) == pytest.approx(0.3, abs=0.04)
    assert ends_now(torch.tensor([0.4, 0.6]), None).tolist() == [False, True]
    assert ends_now(torch.tensor([0.4, 0.6]), torch.tensor([0.3, 0.7])).tolist() == [True, False]
    assert isinstance(made.levels[0].learner, Terminating) and not isinstance(made.levels[1].learner, Terminating)


def test_a_low_level_learns_from_each_step_once_and_with_the_option_that_acted():
    made, env = agent(2)
    seen, obs = [], env.reset(0)
    low = made.levels[0].learner
    asked, low.step = low.step, lambda batch: (seen.append(batch), asked(batch))[1]
    acted = []
    for _ in range(60):
        action = made.act(obs)
        acted.append((obs.state, made.memory[0].target.clone(), action))
        step = env.step(action)
        made.observe(step)
        made.learn()
        obs = step.obs
    assert len(seen) == 120 and made.levels[0].timescale.done == 60
    for batch, env_number, t in ((seen[2 * t + e], e, t) for t in range(60) for e in range(2)):
        state, option, action = (x[env_number] for x in acted[t])
        assert torch.equal(batch.inputs[0], torch.cat([state, option])) and torch.equal(batch.action[0], action)


# -- four rooms, and whole runs ----------------------------------------------------------------------------------------


def test_each_environments_goal_moves_once_after_its_own_episodes():
    task = FourRooms(400, max_episode_steps=5, moves_after=2)
    task.reset(seed=0)
    episodes, goals = torch.ones(400), [task.goal.clone()]
    for _ in range(20):
        _, _, terminated, truncated, _ = task.step(torch.randint(0, 4, (400,)))
        episodes += terminated | truncated
        assert torch.equal(task.goal == 62, episodes <= 2) and torch.equal(task.episodes.float(), episodes)
        goals.append(task.goal.clone())
    places = task.cells[task.goal]
    assert (places[:, 0] > 7).all() and (places[:, 1] > 6).all() and len(task.goal.unique()) == 20
    moves = (torch.stack(goals).diff(dim=0) != 0).sum(0)
    assert (moves == 1).all() and (task.cell != task.goal).all()
    with pytest.raises(ValueError, match="moves_after of FourRooms must be a whole number of at least 0, not -1"):
        FourRooms(1, moves_after=-1)
    with pytest.raises(ValueError, match="a whole number from 0 to 103, not 104"):
        FourRooms(1, goal=104)


LINE = [
    "option-critic", "--env", "hrl/FourRooms-v0", "--env-kwargs", "moves_after=3", "max_episode_steps=50", "--preset",
    "debug", "--threads", "1", "--progress", "False", "--eval-freq", "0", "--save-freq", "100",
]  # fmt: skip


def test_a_run_resumes_exactly_also_after_its_goals_have_moved(tmp_path):
    for name, steps in (("whole", "400"), ("part", "200")):
        assert train.main([*LINE, "--log-dir", str(tmp_path / name), "--total-steps", steps]) == 0
    whole, part = (run_of(tmp_path / name) for name in ("whole", "part"))
    kept = load_file(Checkpoints(part / "checkpoints").all()[-1] / "tensors.safetensors")
    assert (kept["env.goal"] != 62).all() and (kept["env.episodes"] > 3).all()
    assert train.main(["--resume", str(part), "--total-steps", "400", "--progress", "False"]) == 0
    assert same_state(whole, part)


@pytest.mark.parametrize(("env", "options", "sentence"), [
    ("Pendulum-v1", {}, "use ppoc"), ("tasks:GoalLine-v0", {}, "a separate goal"),
    ("CartPole-v1", {"options": 0}, "--options must be at least 1"),
])  # fmt: skip
def test_environments_that_do_not_fit_raise_a_clear_error(env, options, sentence):
    with pytest.raises(UserError, match=sentence):
        OptionCriticConfig(**options).make(setting(make_env(EnvConfig(env, num_envs=1))))


def test_another_update_rule_raises_an_error(capsys):
    assert train.main([*LINE, "--low.learner", "dqn"]) == 2
    assert "low.learner cannot be dqn, because" in capsys.readouterr().err
