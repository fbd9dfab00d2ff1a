"""FeUdal networks: directional goals, their reward, the transition policy gradient, and learning from segments."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CPU
from gymnasium.vector import AutoresetMode
from hrl_scripts import evaluate, train
from runs import run_of, same_state
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hrl.agents.feudal import Feudal, FeudalConfig
from hrl.envs import EnvConfig, make_env
from hrl.networks.recurrent import DilatedLSTM, ages, recent_sum
from hrl.policies.directions import Directions, Memory, Segment, intrinsic_reward, transitions
from hrl.spaces import unit_box

R2 = 2**-0.5


def column(*rows: Any) -> Tensor:
    """The values of one environment as [T, 1, ...]."""
    return torch.tensor(rows).unsqueeze(1)


def small(
    env_id: str = "hrl/KeyDoor-v0", num_envs: int = 3, autoreset: Any = None, **options: Any
) -> tuple[Feudal, Any]:
    """A small learner, and environments."""
    kind = {} if autoreset is None else {"autoreset": autoreset}
    env = make_env(EnvConfig(env_id, num_envs=num_envs), **kind)
    given = {"horizon": 3, "latent_dim": 6, "units": 5, "hidden": (8,), "embedding_dim": 4, "num_minibatches": 1}
    config = FeudalConfig(**{**given, "n_steps": 12, **options})
    session: Any = SimpleNamespace(num_envs=num_envs, device=CPU, run=SimpleNamespace(seed=0))
    return config.learner(env.spec, session), env


# -- directions ----------------------------------------------------------------------------------------------


def test_the_reward_is_the_mean_cosine_of_displacement_and_directions():
    """s goes (0,0), (1,0), (1,1), (0,1) under the directions right, up, right, with c = 2."""
    latent = column([0.0, 0.0], [1.0, 0.0], [1.0, 1.0])
    arrived = column([1.0, 0.0], [1.0, 1.0], [0.0, 1.0])
    goal = column([1.0, 0.0], [0.0, 1.0], [1.0, 0.0])
    memory = Memory((), (), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))  # type: ignore[arg-type]
    begins = column(True, False, False)
    reward = intrinsic_reward(latent, goal, arrived, begins, memory)
    assert reward.flatten().tolist() == pytest.approx([(1 + 0) / 2, (1 + R2) / 2, (-1 + R2) / 2])
    anew = intrinsic_reward(latent, goal, arrived, column(True, False, True), memory)  # the last step is a first one
    assert anew.flatten().tolist() == pytest.approx([(1 + 0) / 2, (1 + R2) / 2, (-1 + 0) / 2])


def test_the_reward_looks_back_into_the_last_segment():
    memory = Memory((), (), column([0.0, 0.0], [0.0, -1.0]).movedim(1, 0), column([9.0, 9.0], [0.0, 1.0]).movedim(1, 0))  # type: ignore[arg-type]
    here, there, goal = column([0.0, 0.0]), column([2.0, 0.0]), column([1.0, 0.0])
    reward = intrinsic_reward(here, goal, there, column(False), memory)
    assert float(reward) == pytest.approx((1 + 1 / 5**0.5) / 2)  # (2, -1) along (0, -1)


def test_the_goals_of_an_episodes_last_steps_add_up():
    history = column(1.0, 2.0, 4.0, 8.0, 16.0).unsqueeze(-1)  # two steps before the segment, and three in it
    running = recent_sum(history, ages(column(False, False, False), 2), 3)
    assert running.flatten().tolist() == [7, 14, 28]
    assert recent_sum(history, ages(column(False, True, False), 2), 3).flatten().tolist() == [7, 8, 24]
    assert recent_sum(history, ages(column(True, False, False), 2), 3).flatten().tolist() == [4, 12, 28]


def test_ways_end_at_c_steps_or_with_the_episode():
    at = column([0.0], [1.0], [3.0], [6.0], [0.0], [10.0])
    following = column([1.0], [3.0], [6.0], [-5.0], [10.0], [30.0])
    way, known = transitions(at, following, column(False, False, False, True, False, False), 3)
    assert way.flatten().tolist()[:4] == [6 - 0, -5 - 1, -5 - 3, -5 - 6]
    assert known.flatten().tolist() == [True, True, True, True, False, False]
    way, known = transitions(at, following, column(*[False] * 6), 2)
    assert known.flatten().tolist() == [True] * 5 + [False] and float(way[4]) == 30


@pytest.mark.parametrize("advantage", [3.0, -3.0])
def test_the_transition_policy_gradient_matches_calculated_values(advantage):
    """At θ = (2, 0), ∂cos((0, 5), θ / |θ|)/∂θ = (0, 1 / 2): towards the way the state went."""
    learner, _ = small(normalize_advantage=False)
    theta, way = torch.tensor([2.0, 0.0], requires_grad=True), torch.tensor([0.0, 5.0])
    cosine = lambda: cosine_similarity(way, theta / theta.norm(), dim=-1).view(1, 1)  # noqa: E731
    loss = learner.surrogate(cosine() - cosine().detach(), torch.full((1, 1), advantage), torch.ones(1, 1))
    (gradient,) = torch.autograd.grad(loss, theta)
    assert gradient.tolist() == pytest.approx([0.0, -advantage / 2])
    before = float(cosine())
    theta = (theta - 0.1 * gradient).detach()
    assert (float(cosine()) > before) == (advantage > 0)


def test_no_level_learns_from_the_others_loss():
    learner, env = small()
    experience, _ = learner.collect(env)
    segment, targets, _ = learner.targets(experience)
    now, _ = learner.policy.replay(segment)
    worker = now.log_prob.sum() + now.worker_value.sum()
    manager = cosine_similarity(targets.way, now.own, dim=-1).sum() + now.manager_value.sum()
    for loss, other in ((worker, learner.policy.high), (manager, learner.policy.low)):
        gradients = torch.autograd.grad(loss, list(other.parameters()), retain_graph=True, allow_unused=True)
        assert all(g is None or not g.any() for g in gradients)
    assert not targets.way.requires_grad
    assert torch.autograd.grad(manager, learner.policy.high["space"].weight)[0].any()


# -- recurrence ----------------------------------------------------------------------------------------------


def test_one_core_in_turn_updates_at_a_step():
    core, x = DilatedLSTM(2, 3, 3), torch.randn(5, 1, 2, requires_grad=True)
    state, hidden = core.start(1, CPU), []
    for t in range(5):
        before, (output, state) = state, core(x[t], state)
        assert all(torch.equal(new[:, :-1], old[:, 1:]) for new, old in zip(state, before, strict=True))
        hidden.append(state[0][:, -1])
        torch.testing.assert_close(output, torch.stack(hidden[-3:]).sum(0) / 3)
    (gradient,) = torch.autograd.grad(hidden[4].sum(), x)  # h_4 follows h_1, and no other
    assert gradient.abs().sum((1, 2)).gt(0).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_segment_at_once_equals_its_steps_and_so_do_the_gradients(dilation):
    torch.manual_seed(0)
    core = DilatedLSTM(4, 5, dilation).double()
    x, weight = torch.randn(2, 10, 3, 4).double().unbind(0)
    x.requires_grad_(True)
    begins = torch.rand(10, 3) < 0.25
    before = tuple(torch.randn(2, 3, dilation, 5).double().unbind(0))
    age = ages(begins, dilation)
    whole = core.unroll(x, age, before)
    state, outputs, ahead = before, [], []
    for t in range(10):
        state = tuple(torch.where(begins[t].view(-1, 1, 1), 0.0, s) for s in state)
        output, state = core(x[t], state)
        outputs.append(output), ahead.append(core(weight[t], state)[0])
    steps = torch.stack(outputs)
    torch.testing.assert_close(whole.output, steps)
    torch.testing.assert_close(core.peek(weight, age, whole), torch.stack(ahead))
    loss = lambda y: (y * y.detach().cos()).sum()  # noqa: E731
    gradients = [torch.autograd.grad(loss(y), [x, *core.parameters()]) for y in (whole.output, steps)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


# -- segments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["hrl/KeyDoor-v0", "GoalLine-v0"])
def test_a_replayed_segment_equals_the_original(env_id):
    """Also across segments, in which the policy's memory goes on, and with random goals."""
    learner, env = small(env_id, random_goals=0.3, n_steps=7)
    learner.collect(env)
    policy, seen = learner.policy, []
    act = policy.act

    def noted(state: Tensor, memory: Memory, generator: Any) -> Any:
        action, after = act(state, memory, generator)
        z = policy.percept(state)
        head = policy.head(policy.low["core"](z, memory.worker)[0], memory.goals.sum(1) + after.goals[:, -1])
        seen.append((policy.distribution.log_prob(head, action, None), after.latents[:, -1]))
        return action, after

    policy.act = noted
    experience, _ = learner.collect(env)
    now, following = policy.replay(Segment(*experience[:4], experience.memory), experience.final)
    torch.testing.assert_close(now.log_prob, torch.stack([x for x, _ in seen]))
    torch.testing.assert_close(now.latent, torch.stack([x for _, x in seen]))
    assert following is not None
    goes_on = ~experience.done[:-1] & ((experience.note - now.own).norm(dim=-1) < 1e-4)[1:]  # no random goal next
    for next_value, value in zip(following, (now.worker_value, now.manager_value, now.latent), strict=True):
        torch.testing.assert_close(next_value[:-1][goes_on], value[1:][goes_on])
    assert goes_on.any() and (experience.note.norm(dim=-1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_a_segment_contains_the_true_transitions(mode):
    """The ledger observes (episode, t); the reward is t + 1. Odd episodes terminate."""
    learner, env = small("Ledger-v0", 2, mode, n_steps=10)
    names, taken = ("state", "final", "reward", "done", "terminated", "begins"), 0
    for _ in range(3):
        e, ended = learner.collect(env)
        e = e._replace(**{name: getattr(e, name)[e.active] for name in names})
        assert torch.equal(e.final[:, 1], e.state[:, 1] + 1) and torch.equal(e.final[:, 0], e.state[:, 0])
        assert torch.equal(e.reward, e.final[:, 1]) and torch.equal(e.begins, e.state[:, 1] == 0)
        assert torch.equal(e.terminated, e.done & (e.state[:, 0] % 2 == 1))
        assert sum(int(x.done.sum()) for x in ended) == int(e.done.sum()) > 0
        lengths = torch.cat([x.values[x.done, 1] for x in ended])
        assert sorted(lengths.tolist()) == sorted(e.final[e.done, 1].tolist())
        taken += len(e.reward)
        assert learner.steps == taken


def test_truncation_bootstraps_and_termination_does_not():
    learner, env = small("Ledger-v0", 2, n_steps=10, gae_lambda=0.0, intrinsic_weight=2.0)
    e, _ = learner.collect(env)
    _, targets, _ = learner.targets(e)
    now, following = learner.policy.replay(Segment(*e[:4], e.memory), e.final)
    assert following is not None and bool((e.done & ~e.terminated).any()) and bool(e.terminated.any())
    paid = 2 * intrinsic_reward(now.latent, e.note, following.latent, e.begins, e.memory)
    worker = e.reward + paid + torch.where(e.terminated, 0.0, 0.99 * following.worker_value)
    manager = e.reward + torch.where(e.terminated, 0.0, 0.999 * following.manager_value)
    torch.testing.assert_close(targets.worker_return, worker)
    torch.testing.assert_close(targets.manager_return, manager)


def test_without_exploration_no_direction_is_random():
    policy = Directions(3, unit_box(2), (4,), 5, 2, 4, horizon=2, random_goals=1.0)
    action, memory = policy.act(torch.ones(6, 3), policy.start(6, CPU), None)
    assert (action == action[0]).all() and (policy.note(memory) == policy.note(memory)[0]).all()
    _, memory = policy.act(torch.ones(6, 3), policy.start(6, CPU), torch.Generator().manual_seed(0))
    assert policy.note(memory).std(0).min() > 0.1


# -- whole runs ----------------------------------------------------------------------------------------------

LINE = ["--env", "hrl/KeyDoor-v0", "--preset", "debug", "--threads", "1", "--progress", "False", "--eval-freq", "0"]


def test_a_run_resumes_exactly_and_is_evaluated(tmp_path, capsys):
    line = ["feudal", *LINE, "--save-freq", "400"]
    assert train.main([*line, "--total-steps", "800", "--log-dir", str(tmp_path / "whole")]) == 0
    assert train.main([*line, "--total-steps", "400", "--log-dir", str(tmp_path / "part")]) == 0
    part = run_of(tmp_path / "part")
    assert train.main(["--resume", str(part), "--total-steps", "800", "--progress", "False"]) == 0
    assert same_state(run_of(tmp_path / "whole"), part)
    capsys.readouterr()
    assert evaluate.main([str(part), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 3


def test_it_learns_from_images(tmp_path):
    line = [
        "feudal",
        "--env",
        "tasks:Picture-v0",
        "--env-kwargs",
        "kind=dict",
        *LINE[2:],
        "--total-steps",
        "160",
        "--num-envs",
        "1",
    ]  # fewer than minibatches
    assert train.main([*line, "--log-dir", str(tmp_path)]) == 0


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--horizon", "0"], "--horizon must be positive, not 0"),
    (["--intrinsic-weight", "-1"], "--intrinsic-weight must not be negative"),
    (["--random-goals", "2"], "--random-goals must be between 0 and 1"),
    (["--n-steps", "10", "--horizon", "10"], "--n-steps must be above --horizon"),
    (["--hidden", "0"], "--hidden must be positive layer sizes"),
])  # fmt: skip
def test_a_bad_option_raises_a_clear_error(arguments, sentence, tmp_path, capsys):
    assert train.main(["feudal", *LINE, *arguments, "--log-dir", str(tmp_path)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
