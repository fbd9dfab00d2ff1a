"""Discovered options: credit by hand, meta-gradients of rewards and ends by finite differences, and resume."""

import json

import pytest
import torch
from conftest import CPU
from hrl_scripts import evaluate, train
from runs import run_of, same_state

from hrl.agents.meta.modac import MODACConfig
from hrl.agents.parts.discovery import Discovery
from hrl.envs import EnvConfig, make_env
from hrl.nested.inner import State
from hrl.nested.levels.adaptation import Adaptation
from hrl.nested.levels.reward import OptionReward
from hrl.nested.optimisers import FunctionalAdam
from hrl.nested.trees import tree_map
from hrl.policies import Options
from hrl.policies.policy_gradient import discounted, option_advantages

LIMIT = 30


def discovery(**changes: object):
    """A small agent on Taxi, and its environments."""
    config = MODACConfig(**{"tasks": 4, "episodes": 3, "options": 2, **changes})
    env = make_env(EnvConfig("hrl/Taxi-v0", {"max_episode_steps": LIMIT}, config.tasks * config.episodes))
    torch.manual_seed(0)
    policy = Options(env.spec.state_dim, 5, config.options, config.hidden, config.primitives)
    adaptation = Adaptation(policy, lambda name: name.startswith("high."), config.inner_learning_rate)
    return Discovery(config, adaptation, env.spec, CPU, 0), env


# -- how options are credited --------------------------------------------------------------------------------


def test_a_discount_may_differ_from_step_to_step():
    reward, gamma = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [0.25], [9.0]])
    assert discounted(reward, gamma).flatten().tolist() == [1 + 0.5 * (2 + 0.25 * 4), 2 + 0.25 * 4, 4]


def test_an_options_advantage_ends_where_the_option_does():
    # γ = 1, λ = .5. The option stays from the first step to the second, is left there, and another begins.
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.5], [1.0], [3.0]])
    following = torch.tensor([[1.0], [8.0], [5.0]])  # V of each step's own option, at the next state
    end, stays = torch.tensor([[0.2], [0.75], [1.0]]), torch.tensor([[1.0], [0.0], [0.0]])
    last = 4 - 3  # ended for certain: nothing follows
    middle = 2 + 0.25 * 8 - 1  # left: the value alone says what would have followed
    first = 1 + 0.8 * 1 - 0.5 + 0.5 * 0.8 * middle
    found = option_advantages(reward, value, following, 1 - end, stays, 0.5)
    assert found.flatten().tolist() == pytest.approx([first, middle, last])


def test_a_primitive_action_is_an_option_that_takes_it_and_ends():
    policy = Options(2, 3, 2, (4,), primitives=True)
    state, noise = torch.randn(5, 2), torch.full((5, 3), 0.999)  # the last of equal choices: action 2
    action, memory = policy.act(state, policy.start(5, CPU), noise)
    assert action.tolist() == [2] * 5 and memory[0].tolist() == [4] * 5
    _, (_, anew) = policy.act(state, memory, noise)
    assert bool(anew.all())
    both = torch.stack([state, state]), torch.stack([action, action]), tree_map(lambda x: torch.stack([x, x]), memory)
    torch.testing.assert_close(policy.acted(*both), torch.zeros(2, 5))  # certain
    assert policy.high.weight.shape == (5, 2) and bool((policy.entropy(*both[::2]).abs() < 1e-6).all())


def test_options_are_distinguished_by_their_reward():
    reward = OptionReward(3, 2, 4, ())
    reward.net[0].weight.data = torch.arange(24.0).view(8, 3) / 10
    state, option, action = torch.eye(3), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 3])
    torch.testing.assert_close(reward(state, option, action), torch.tensor([0.0, 1.3, 2.3]).tanh())


def test_the_state_after_each_step_is_stored():
    learner, env = discovery(episodes=30)
    learner.round(env, 0.0)
    lived = learner.lived
    option, anew = lived.data.memory
    going = lived.data.keep[:, 1:] > 0
    assert torch.equal(lived.following[:, :-1][going], lived.data.state[:, 1:][going])
    assert torch.equal(lived.stays[:, :-1][going], 1.0 - anew[:, 1:][going].float())
    length = lived.data.keep.sum(1).long()
    last = (length - 1).unsqueeze(1)
    delivered = lived.data.success.gather(1, last)[:, 0]
    assert bool(delivered.any()) and bool((delivered == 0).any())
    assert torch.equal(lived.goes_on.gather(1, last)[:, 0], 1 - delivered)  # cut by the time limit, it goes on
    assert not lived.stays.gather(1, last).any() and torch.equal(lived.mine, lived.data.keep * (option < 2))


# -- what their rewards and ends are taught ------------------------------------------------------------------


@pytest.mark.parametrize("part", ["reward", "end"])
@pytest.mark.parametrize("primitives", [True, False])
def test_option_rewards_learn_from_the_return_through_the_update(part, primitives):
    """Compares with finite differences in η of the return after a step on A^o(η), in float64."""
    learner, env = discovery(primitives=primitives, penalty=0.0)
    for _ in range(3):
        learner.round(env, 0.0)
    double = lambda x: x.double() if x.is_floating_point() else x  # noqa: E731
    before, after = (tree_map(double, x) for x in (learner.lived, learner._next_episodes(env)))
    learner.own, learner.eta, learner.options, learner.pace = (
        tree_map(double, x) for x in (learner.own, learner.eta, learner.options, learner.pace)
    )
    learner.value.double()
    learner.rule = FunctionalAdam(0.1)  # through its scale too, so that differences see all there is
    inner, state = learner._inner(before, 0.05), State(learner.options, learner.pace, 0)
    with torch.no_grad():
        credit = learner.credit(learner.eta, before)
    learner.options = inner.step(state, credit).detached().params
    wanted, loss = learner.meta_loss(inner, state, credit, before, after)

    def outer(eta):
        with torch.no_grad():
            moved = inner.step(state, learner.credit(eta, before)).params
            return float(learner._acted(moved, after) + learner._ended(eta["end"], after))

    size = float(wanted.norm() * before.mine.sum().sqrt())
    gradient = tree_map(lambda g: g * size, torch.func.grad(loss)(learner.eta))[part]
    length = sum(float(g.square().sum()) for g in gradient.values()) ** 0.5
    assert length > 0
    width = 1e-5 / length
    sides = [
        outer(learner.eta | {part: {name: x + s * width * gradient[name] for name, x in learner.eta[part].items()}})
        for s in (1, -1)
    ]
    assert (sides[0] - sides[1]) / (2 * width) == pytest.approx(length**2, rel=1e-4)


def test_a_reward_follows_its_target():
    learner, env = discovery(meta_updates=50, penalty=0.0)
    learner.round(env, 0.0)
    before, state = learner.lived, State(learner.options, learner.pace, 0)
    credit = learner.credit(learner.eta, before).detach()
    inner = learner._inner(before, 0.0)
    wanted, _ = learner.meta_loss(inner, state, credit, before, before)
    first = float((wanted * learner.credit(learner.eta, before)).sum())
    learner._teach(inner, state, credit, before, before)
    assert float((wanted * learner.credit(learner.eta, before)).sum()) > first + 0.1 * float(wanted.abs().sum())
    assert float(learner.intrinsic_reward(learner.eta["reward"], before).abs().max()) <= 1


# -- who learns what -----------------------------------------------------------------------------------------


def copied(learner):
    return {name: x.clone() for name, x in learner.networks().items()}


def moved(learner, env) -> set[str]:
    """Which of these a round changes: the managers' initial parameters, options, rewards, ends."""
    before = copied(learner)
    learner.round(env, 0.0)
    names = {name for name, x in copied(learner).items() if not torch.equal(x, before[name])}
    return {".".join(name.split(".")[:3]) if "low" in name else name.split(".")[0] for name in names}


def test_the_inner_update_changes_options_only_and_discovery_their_rewards():
    learner, env = discovery(meta_updates=0)
    learner.eta["reward"]["net.0.bias"] += torch.randn(10)
    own = learner.adaptation.initial["high.weight"].clone()
    assert moved(learner, env) == {"policy.low.act"}
    assert torch.equal(learner.adaptation.initial["high.weight"], own) and bool((learner.own["high.weight"] != 0).any())
    learner, env = discovery(learning_rate=1e-12)
    assert moved(learner, env) >= {"policy.low.end", "reward"}
    learner, env = discovery(reward="none")
    assert moved(learner, env) == set()
    learner, env = discovery(options=0)
    assert moved(learner, env) == set() and learner.metrics["discovery/steps_a_choice"] == 1
    learner, env = discovery(reward="task")
    assert moved(learner, env) == {"policy.low.act", "policy.low.end"}


def test_managers_are_born_again_with_each_draw_of_tasks_and_choices_cost():
    learner, env = discovery(lifetime=2, switching_cost=0.5)
    learner.round(env, 0.0)
    _, anew = learner.lived.data.memory
    paid = (learner.lived.data.reward + 0.5 * anew)[learner.lived.data.keep > 0]
    assert {round(float(x), 4) for x in paid} <= {-0.1, 1.9}
    assert bool(learner.own["high.weight"].any()) and learner.age == 1
    tasks = learner.tasks
    learner.round(env, 0.0)
    learner.round(env, 0.0)
    assert learner.age == 1 and not torch.equal(tasks, learner.tasks)


# -- whole runs ----------------------------------------------------------------------------------------------

LINE = ["--env", "hrl/Taxi-v0", "--env-kwargs", f"max_episode_steps={LIMIT}", "--tasks", "4", "--episodes", "3"]
LINE += ["--threads", "1", "--progress", "False", "--eval-freq", "0", "--eval-episodes", "3"]


def test_a_run_resumes_exactly_and_is_evaluated(tmp_path, capsys):
    line = ["modac", *LINE, "--save-freq", "2000", "--preset", "none"]
    line += ["--entropy", "0"]  # it falls over the run, and its length differs below
    assert train.main([*line, "--total-steps", "4000", "--log-dir", str(tmp_path / "whole")]) == 0
    assert train.main([*line, "--total-steps", "2000", "--log-dir", str(tmp_path / "part")]) == 0
    part = run_of(tmp_path / "part")
    assert train.main(["--resume", str(part), "--total-steps", "4000", "--progress", "False"]) == 0
    assert same_state(run_of(tmp_path / "whole"), part)
    capsys.readouterr()
    assert evaluate.main([str(part), "--episodes", "3", "--json"]) == 0
    assert {f"return_after_{k}" for k in range(4)} <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--env", "Pendulum-v1"], "Pendulum-v1 was created as a single task"),
    (["--env", "hrl/Navigation-v0"], "needs discrete actions"),
    (["--env", "hrl/Taxi-v0", "--learning-rate", "0"], "--learning-rate must be positive"),
    (["--env", "hrl/Taxi-v0", "--lifetime", "0"], "--lifetime must be positive"),
    (["--env", "hrl/Taxi-v0", "--switching-cost", "-1"], "--switching-cost must not be negative"),
    (["--env", "hrl/Taxi-v0", "--gamma", "2"], "--gamma must be between 0 and 1"),
    (["--env", "hrl/Taxi-v0", "--hidden", "0"], "--hidden must be positive layer sizes"),
    (["--env", "hrl/Taxi-v0", "--num-envs", "8"], "set these options instead of --num-envs"),
    (["--env", "hrl/Taxi-v0", "--options", "0", "--primitives", "False"], "managers have no choices"),
])  # fmt: skip
def test_invalid_options_are_reported(arguments, sentence, tmp_path, capsys):
    assert train.main(["modac", *arguments, "--log-dir", str(tmp_path)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
