"""PPOC by hand: values and terminations at the next state, advantages at both levels, resume, and bad input."""

import math

import pytest
import torch
from conftest import everything, setting
from gymnasium import spaces
from hrl_scripts import train
from runs import run_of, same_state

from hrl.agents.options.ppoc import OptionPPO, OptionPPOConfig, PPOCConfig, over_options
from hrl.envs import EnvConfig, make_env
from hrl.learners import Batch, Build, Decisions
from hrl.spaces import unit_box
from hrl.types import UserError
from hrl.variants import flat

STATE, OPTIONS = 3, 4
CHOSEN = torch.tensor([0.1, 0.2, 0.3, 0.4])


def learner(**options: float) -> OptionPPO:
    """Four options with random networks, chosen with fixed probabilities."""
    torch.manual_seed(0)
    reads = lambda state: CHOSEN.expand(len(state), OPTIONS)  # noqa: E731
    config = OptionPPOConfig(hidden=(5,), normalize_advantage=False, gae_lambda=0.8, **options)  # type: ignore[arg-type]
    made = OptionPPO(Build(STATE + OPTIONS, unit_box(2), command=OPTIONS, reads=reads), config)
    for parameter in made.parameters():
        parameter.data.normal_()
    return made


def under(state: torch.Tensor, option: torch.Tensor) -> torch.Tensor:
    return torch.cat([state, torch.eye(OPTIONS)[option]], -1)


def steps() -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Three steps of one environment, the options of which end after each; the task ends with the last step."""
    torch.manual_seed(1)
    state, option = torch.randn(4, STATE), torch.tensor([2, 0, 3, 1])
    inputs, after = under(state[:3], option[:3]), under(state[1:], option[1:])
    return Batch(inputs, torch.randn(3, 2), torch.randn(3), after, torch.tensor([0.9, 0.9, 0.0])), state, option


@torch.no_grad()
def q_of(made: OptionPPO, state: torch.Tensor, option: int) -> float:
    return float(made.critic(under(state, torch.tensor(option)).unsqueeze(0)))


@torch.no_grad()
def beta_of(made: OptionPPO, state: torch.Tensor, option: int) -> float:
    return 1 / (1 + math.exp(-float(made.termination(under(state, torch.tensor(option)).unsqueeze(0)))))


def arrived(made: OptionPPO, state: torch.Tensor, option: int) -> tuple[float, float, float]:
    """Q_Ω(s', ω), V_Ω(s') and β(s', ω)."""
    values = [q_of(made, state, k) for k in range(OPTIONS)]
    return values[option], sum(float(CHOSEN[k]) * values[k] for k in range(OPTIONS)), beta_of(made, state, option)


def test_a_step_bootstraps_from_the_option_that_acted_or_a_new_one():
    made, (batch, state, option) = learner(), steps()
    for t, found in enumerate(made.next_values(batch).tolist()):
        value, anew, beta = arrived(made, state[t + 1], int(option[t]))
        assert found == pytest.approx((1 - beta) * value + beta * anew, abs=1e-5)


def test_advantages_of_steps_continue_where_an_option_ends():
    made, (batch, state, option) = learner(), steps()
    value = torch.tensor([q_of(made, state[t], int(option[t])) for t in range(3)])
    noted = {"log_prob": torch.zeros(3)}
    follows = torch.tensor([True, True, False]).unsqueeze(-1)
    rollout = made.rollout(Decisions(batch, noted, follows, torch.arange(3)))
    delta = batch.reward + batch.discount * made.next_values(batch) - value
    last = float(delta[2])
    middle = float(delta[1]) + 0.9 * 0.8 * last
    expected = [float(delta[0]) + 0.9 * 0.8 * middle, middle, last]
    assert rollout.advantage.tolist() == pytest.approx(expected, abs=1e-5)
    assert rollout.next_inputs is not None and torch.equal(rollout.next_inputs, batch.next_inputs)
    assert float(delta[2]) == pytest.approx(float(batch.reward[2] - value[2]))  # the task's end


@pytest.mark.parametrize("cost", [0.0, 0.5])
def test_the_termination_loss_is_taken_at_the_next_state(cost):
    made, (batch, state, option) = learner(deliberation_cost=cost), steps()
    noted = {"log_prob": torch.zeros(3)}
    rollout = made.rollout(Decisions(batch, noted, torch.zeros(3, 1, dtype=torch.bool), torch.arange(3)))
    loss, chance = made.termination_loss(rollout)
    total = 0.0
    for t in range(3):
        value, anew, beta = arrived(made, state[t + 1], int(option[t]))
        assert float(chance[t]) == pytest.approx(beta, abs=1e-5)
        total += beta * (value - anew + cost) * (t < 2)  # nothing ends where the task has ended
    assert float(loss.detach()) == pytest.approx(total / 3, abs=1e-5)
    touched = torch.autograd.grad(loss, list(made.critic.parameters()), allow_unused=True)
    assert all(x is None for x in touched)  # the advantage is a constant


def test_the_termination_gradient_matches_calculated_values():
    made, (batch, state, _) = learner(deliberation_cost=0.2), steps()
    noted = {"log_prob": torch.zeros(3)}
    one = made.rollout(Decisions(batch, noted, torch.zeros(3, 1, dtype=torch.bool), torch.tensor([0])))
    bias = made.termination[-1].bias
    (gradient,) = torch.autograd.grad(made.termination_loss(one)[0], [bias])
    value, anew, beta = arrived(made, state[1], 2)
    expected = [0.0] * OPTIONS
    expected[2] = beta * (1 - beta) * (value - anew + 0.2)
    assert gradient.tolist() == pytest.approx(expected, abs=1e-5)


def test_an_advantage_is_measured_in_deviations_if_they_are_normalised():
    made, (batch, _, _) = learner(), steps()
    noted = {"log_prob": torch.zeros(3)}
    rollout = made.rollout(Decisions(batch, noted, torch.zeros(3, 1, dtype=torch.bool), torch.arange(3)))
    made.config.deliberation_cost = 0.0
    plain = made.termination_loss(rollout)[0]
    made.config.normalize_advantage = True
    torch.testing.assert_close(made.termination_loss(rollout)[0], plain / rollout.advantage.std())


def test_an_option_ends_at_first_with_the_given_probability_and_its_policy_is_its_own():
    reads = lambda state: CHOSEN.expand(len(state), OPTIONS)  # noqa: E731
    build = Build(STATE + OPTIONS, spaces.Discrete(3), command=OPTIONS, reads=reads)
    made = OptionPPO(build, OptionPPOConfig(hidden=(8,), termination_init=0.25))
    inputs = under(torch.randn(4000, STATE), torch.randint(0, OPTIONS, (4000,)))
    ends = made.ends(inputs, torch.Generator().manual_seed(0))
    assert float(ends.float().mean()) == pytest.approx(0.25, abs=0.03) and not made.ends(inputs, None).any()
    names = {id(p) for p in made.termination.parameters()}
    assert not names & {id(p) for p in made.policy_optimiser.parameters}
    assert names == {id(p) for p in made.termination_optimiser.parameters}


# -- in the hierarchy --------------------------------------------------------------------------------------------------


def agent(env_id: str = "CartPole-v1", num_envs: int = 2, **low: float):
    env = make_env(EnvConfig(env_id, num_envs=num_envs))
    config = PPOCConfig()
    small = {"hidden": (8,), "n_steps": 200, "n_epochs": 1}
    config.low, config.high = flat(config.low, {**small, **low}), flat(config.high, small)
    return config.make(setting(env)), env


def test_the_policy_over_options_learns_from_whole_options_and_the_low_level_from_steps():
    made, env = agent("MountainCar-v0", num_envs=3, termination_init=0.3)
    obs, acted = env.reset(0), []
    for _ in range(100):
        action = made.act(obs)
        acted.append((made.memory[0].target.argmax(-1), made.memory[0].elapsed == 0))
        step = env.step(action)
        made.observe(step)
        obs = step.obs
    option, anew = (torch.stack(x) for x in zip(*acted, strict=True))
    low, high = everything(made, 0), everything(made, 1)
    assert len(low.reward) == 300 and 60 < len(high.reward) < 160
    for env_number in range(3):
        starts = anew[:, env_number].nonzero().squeeze(-1)
        mine = high.rows.env == env_number
        count = int(mine.sum())
        assert torch.equal(high.length[mine], starts.diff()[:count]) and count >= len(starts) - 1
        assert torch.equal(high.action[mine, 0].long(), option[starts, env_number][:count])
    gamma = made.levels[1].config.gamma
    whole = torch.tensor([-sum(gamma**i for i in range(int(k))) for k in high.length])  # a reward of -1 each step
    torch.testing.assert_close(high.reward, whole)
    batch = made.levels[1].batch(high)
    torch.testing.assert_close(batch.discount, gamma**high.length * ~high.terminated)


def test_terminations_read_the_policy_over_options():
    made, env = agent()
    low, high = (level.learner for level in made.levels)
    state = env.reset(0).state
    chances = high.distribution.log_probs(high.actor(state), None).exp().squeeze(-2)
    torch.testing.assert_close(low.over_options(state), chances)
    high.actor[-1].bias.data += torch.tensor([2.0, 0.0, 0.0, 0.0])
    assert (low.over_options(state)[:, 0] > 0.6).all() and torch.equal(
        low.over_options(state), over_options(high, state)
    )


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_run_resumes_exactly(env, tmp_path):
    line = ["ppoc", "--env", env, "--preset", "debug", "--threads", "1", "--progress", "False", "--eval-freq", "0"]
    for name, total in (("whole", "600"), ("part", "300")):
        given = ["--log-dir", str(tmp_path / name), "--total-steps", total, "--save-freq", "300"]
        assert train.main([*line, *given]) == 0
    whole, part = (run_of(tmp_path / name) for name in ("whole", "part"))
    assert train.main(["--resume", str(part), "--total-steps", "600", "--progress", "False"]) == 0
    assert same_state(whole, part)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"deliberation_cost": -1.0}, "low.deliberation_cost must not be negative"),
    ({"termination_init": 1.0}, "low.termination_init must be between 0 and 1"),
    ({"normalize_observations": True}, "must be the same"),
])  # fmt: skip
def test_invalid_options_raise_a_clear_error(options, sentence):
    with pytest.raises(UserError, match=sentence):
        agent(**options)
