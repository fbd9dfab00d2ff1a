"""Discrete actions: learners, masks, prioritised replay, several steps, and images."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import everything, roll, setting, small_hiro, stack
from gymnasium import spaces
from hrl_scripts import train
from stable_baselines3.common.evaluation import evaluate_policy
from tasks import LENGTHS, Masked

from hrl.agents.flat import FlatConfig, FlatDiscreteSAC, FlatDQN, FlatPPO
from hrl.envs import EnvConfig, make_env
from hrl.envs.spaces.images import first_channels, image_shape
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.relabelling.n_step import NStep
from hrl.learners import DQN, TD3, Batch, Build, DiscreteSAC, DiscreteSACConfig, DQNConfig, PPOConfig
from hrl.memory.prioritised import PrioritisedReplay
from hrl.memory.ring import Rows
from hrl.networks.distributions import Categoricals
from hrl.spaces import Choices
from hrl.training.policy import HierarchyPolicy
from hrl.types import UserError
from hrl.variants import flat

CPU = torch.device("cpu")


def a_batch(choices: int, mask: torch.Tensor | None = None) -> Batch:
    torch.manual_seed(1)
    action = torch.randint(0, choices, (6, 1)).float()
    discount = torch.tensor([0.9, 0.81, 0.0, 0.9, 0.9, 0.9])
    return Batch(torch.randn(6, 3), action, torch.randn(6), torch.randn(6, 3), discount, next_mask=mask)


@pytest.mark.parametrize("double", [True, False])
def test_dqns_target_matches_a_calculated_value(double):
    torch.manual_seed(0)
    mask = torch.ones(6, 4)
    mask[0, 0] = mask[3, 2] = 0
    learner = DQN(Build(3, spaces.Discrete(4)), DQNConfig(hidden=(8,), double=double))
    for parameter in learner.target_critic.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    b = a_batch(4, mask)
    online, slow = learner.critic(b.next_inputs), learner.target_critic(b.next_inputs)
    for i in range(6):
        allowed = [k for k in range(4) if mask[i, k]]
        best = max(allowed, key=lambda k: float((online if double else slow)[i, k]))
        assert float(learner.target(b)[i]) == pytest.approx(
            float(b.reward[i] + b.discount[i] * slow[i, best]), abs=1e-5
        )


def test_dueling_advantages_have_mean_zero():
    learner = DQN(Build(3, spaces.Discrete(4)), DQNConfig(hidden=(8,), dueling=True))
    x = torch.randn(5, 3)
    torch.testing.assert_close(learner.critic(x).mean(-1), learner.critic.value(x).squeeze(-1))


def test_discrete_sacs_target_matches_a_calculated_value():
    torch.manual_seed(0)
    learner = DiscreteSAC(Build(3, spaces.Discrete(3)), DiscreteSACConfig(hidden=(8,), ent_coef=0.3))
    b = a_batch(3)
    probs = learner.actor(b.next_inputs).softmax(-1)
    q = torch.minimum(*learner.target_critic(b.next_inputs))
    value = (probs * (q - 0.3 * probs.log())).sum(-1)
    torch.testing.assert_close(learner.target(b), b.reward + b.discount * value)


def test_joint_choices_are_numbered_and_named():
    choices = Choices((2, 3))
    assert choices.entries.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert choices.number(choices.entries).tolist() == list(range(6))


def test_several_choices_have_the_distribution_of_torchs():
    head, action = torch.randn(5, 5), torch.tensor([[0.0, 2], [1, 0], [1, 1], [0, 0], [1, 2]])
    ours = Categoricals((2, 3))
    theirs = [torch.distributions.Categorical(logits=part) for part in head.split((2, 3), -1)]
    torch.testing.assert_close(
        ours.log_prob(head, action, None), sum(d.log_prob(a) for d, a in zip(theirs, action.T, strict=True))
    )
    _, entropy = ours.log_prob_and_entropy(head, action, None)
    torch.testing.assert_close(entropy, sum(d.entropy() for d in theirs).mean())
    drawn = torch.stack([ours.sample(head, torch.Generator().manual_seed(k), None) for k in range(4000)])
    torch.testing.assert_close((drawn[:, 0, 1] == 2).float().mean(), theirs[1].probs[0, 2], atol=0.03, rtol=0)
    assert torch.equal(ours.sample(head, None, None)[:, 0], theirs[0].probs.argmax(-1).float())


@pytest.mark.parametrize("config", [DQNConfig, DiscreteSACConfig, PPOConfig])
def test_learners_act_on_inputs_of_any_leading_dimensions(config):
    """The off-policy correction asks for the actions of every candidate at every step at once."""
    torch.manual_seed(0)
    learner = config(hidden=(8,)).build(Build(3, spaces.Discrete(4)))
    inputs = torch.randn(2, 5, 3)
    each = torch.stack([learner.act(part, None) for part in inputs])
    assert torch.equal(learner.act(inputs, None), each) and each.shape == (2, 5, 1)


@pytest.mark.parametrize("config", [FlatDQN, FlatDiscreteSAC, FlatPPO])
def test_masked_actions_are_never_taken(config: type[FlatConfig]):
    Masked.violations.clear()
    env = make_env(EnvConfig("Masked-v0", num_envs=2))
    agent = config.of(hidden=(8,), batch_size=8, learning_starts=0, hindsight=0.0).make(setting(env))
    assert env.spec.mask_dim == 3
    obs = env.reset(0)
    for _ in range(150):
        step = env.step(agent.act(obs))
        agent.observe(step)
        agent.learn(1000)
        obs = step.obs
    assert not Masked.violations and agent.steps == 300
    t = everything(agent, 0)
    assert (t.mask.sum(-1) == 2).all() and (t.mask.gather(-1, t.action.long()) == 1).all()
    assert (agent.decide(obs, [], "greedy").actions[0].long() != (obs.mask == 0).long().argmax(-1, keepdim=True)).all()


def test_a_mask_reaches_the_lowest_level_of_a_hierarchy():
    Masked.violations.clear()
    env = make_env(EnvConfig("Masked-v0", num_envs=2))
    config = small_hiro(correction=False)
    config.low = flat(config.low, {"learner": "dqn", "random_actions": (0.5, 0.9), "exploration_fraction": 0.0})
    roll(config.make(setting(env)), env, 60)
    assert not Masked.violations


def prioritised(beta: float = 1.0) -> PrioritisedReplay:
    ring = PrioritisedReplay({"state": 1, "action": 1}, ("state",), (), 100, 1, CPU, alpha=0.5, beta=beta)
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    for length in (3, 2):
        for t in range(length):
            row = {"state": torch.zeros(1, 1), "action": torch.zeros(1, 1)}
            ring.write(row, row, {}, yes, yes if t + 1 == length else no, no)
    return ring


def test_priorities_are_drawn_from_in_proportion_and_weights_make_up_for_it():
    ring = prioritised()  # rows 0 1 2 (3 is final) 4 5 (6 is final)
    rows = Rows(torch.zeros(5, dtype=torch.int64), torch.tensor([0, 1, 2, 4, 5]))
    ring.prioritise(rows, torch.tensor([16.0, 4.0, 1.0, 0.25, 4.0]))
    drawn = ring.draw(20_000, torch.Generator().manual_seed(0)).row
    share = torch.tensor([(drawn == r).float().mean() for r in rows.row])
    expected = torch.tensor([4.0, 2, 1, 0.5, 2]) / 9.5
    torch.testing.assert_close(share, expected, atol=0.01, rtol=0)
    assert not ((drawn == 3) | (drawn >= 6)).any()
    torch.testing.assert_close(ring.weights(rows), (1 / expected) / (1 / expected).max(), rtol=1e-4, atol=1e-4)
    assert float(ring.largest) == pytest.approx(4.0, abs=1e-4)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 0.4), (0.5, 0.7), (1.0, 1.0)])
def test_the_weights_exponent_rises_linearly_to_1(progress, beta):
    ring = prioritised(0.4)
    ring.anneal(progress)
    assert float(ring.beta) == pytest.approx(beta)


def test_n_step_returns_sum_the_rewards_within_the_episode():
    env = make_env(EnvConfig("Ledger-v0", num_envs=1))
    agent = FlatConfig.of(hidden=(4,), learning_starts=0, gamma=0.5).make(setting(env))
    roll(agent, env, 2 * sum(LENGTHS))
    t = everything(agent, 0)
    changed = NStep(agent.levels[0].memory, 3, 0.5)(t, torch.Generator())
    for i, (episode, start) in enumerate(t.state.long().tolist()):
        rest = list(range(start, min(start + 3, LENGTHS[episode % 4])))
        assert float(changed.reward[i]) == pytest.approx(sum(0.5 ** (k - start) * (k + 1) for k in rest))
        assert changed.next_state[i].tolist() == [episode, rest[-1] + 1] and int(changed.length[i]) == len(rest)
        assert bool(changed.terminated[i]) == (episode % 2 == 1 and rest[-1] + 1 == LENGTHS[episode % 4])


def test_several_decisions_of_a_high_level_add_up_by_the_steps_between_them():
    """Decisions of four steps, fewer at an episode's end; the ledger's reward is t + 1, and γ is .9."""
    agent = stack(make_env(EnvConfig("Ledger-v0", num_envs=1)))
    roll(agent, make_env(EnvConfig("Ledger-v0", num_envs=1)), 2 * sum(LENGTHS))
    t = everything(agent, 2)
    changed = NStep(agent.levels[2].memory, 2, 0.9)(t, torch.Generator())
    for i, (episode, start) in enumerate(t.state.long().tolist()):
        rest = list(range(start, min(start + 8, LENGTHS[episode % 4])))
        assert int(changed.length[i]) == len(rest)
        assert float(changed.reward[i]) == pytest.approx(sum(0.9 ** (k - start) * (k + 1) for k in rest))


def test_several_steps_and_hindsight_raise_an_error_together():
    discrete = small_hiro(correction=False)
    discrete.low = flat(discrete.low, {"learner": "dqn", "n_step": 3})
    with pytest.raises(UserError, match="which hindsight and subgoals change"):
        discrete.make(setting(make_env(EnvConfig("CartPole-v1", num_envs=1))))


# -- images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "expected"), [
    ((96, 96, 3), (3, 96, 96)), ((3, 96, 96), (3, 96, 96)), ((84, 84), (1, 84, 84)), ((4, 84, 84), (4, 84, 84)),
    ((4, 84, 84, 3), (12, 84, 84)), ((7, 7, 3), (3, 7, 7)), ((6, 9, 3), None), ((5,), None),
])  # fmt: skip
def test_channels_are_found_wherever_they_stand(shape, expected):
    assert image_shape(spaces.Box(0, 255, shape, np.uint8)) == expected
    assert image_shape(spaces.Box(0, 1, shape, np.float32)) is None


def test_channels_come_first_and_frames_before_them():
    stack = np.arange(2 * 3 * 8 * 9 * 3).reshape(2, 3, 8, 9, 3)  # two stacks of three frames
    found = first_channels(stack).reshape(2, 3, 3, 8, 9)
    assert found[1, 2, 0, 4, 5] == stack[1, 2, 4, 5, 0]


@pytest.mark.parametrize("kind", ["image", "first", "dict"])
def test_an_agent_sees_an_image(kind):
    env = make_env(EnvConfig("Picture-v0", {"kind": kind}, num_envs=8))
    assert env.spec.images == ((3, 9, 9),) and env.spec.state_dim == 243 + 2 * (kind == "dict")
    assert env.spec.left_out == (("text (Text)",) if kind == "dict" else ())
    options = {"hidden": (32,), "learning_rate": 3e-3, "learning_starts": 100, "train_freq": 8, "gamma": 0.0}
    agent = FlatDQN.of(**options, buffer_size=5000, clip_values=False).make(setting(env))
    obs, rewards = env.reset(0), []
    for _ in range(220):
        step = env.step(agent.act(obs))
        agent.observe(step)
        agent.learn(1760)
        obs = step.obs
        rewards.append(step.reward)
    assert agent.levels[0].memory.bytes.shape[1] == 243
    assert float(torch.stack(rewards[-40:]).mean()) > 0.85  # by chance .5


@pytest.mark.parametrize("shared", [True, False])
def test_levels_share_an_encoder_or_have_separate_ones(shared):
    env = make_env(EnvConfig("Picture-v0", {"kind": "dict"}, num_envs=4))
    config = small_hiro(correction=False)
    config.low = flat(config.low, {"learner": "dqn", "batch_size": 8})
    config.goal = GoalConfig(indices=(0, 1), low=(-1.0,), high=(1.0,))
    config.encoder = "shared" if shared else "separate"
    agent = config.make(setting(env))
    low, high = agent.levels
    named = [name for name in agent.tensors() if name.startswith("high.net") and ".nets." in name]
    assert bool(named) != shared
    obs = env.reset(0)
    for _ in range(60):
        step = env.step(agent.act(obs))
        agent.observe(step)
        agent.learn(240)
        obs = step.obs
    assert isinstance(high.learner, TD3)
    inputs = high.inputs(obs.state, obs.goal)
    online, copied = (critic.encoder(inputs)[:, -128:] for critic in (high.learner.critic, high.learner.target_critic))
    seen = low.learner.critic.encoder(low.inputs(obs.state, low.segment.target))[:, -128:]  # type: ignore[union-attr]
    assert torch.equal(online, seen) == shared
    assert not shared or (torch.equal(online, copied) and not online.requires_grad)


@pytest.mark.parametrize("single", [True, False])
def test_predict_takes_only_available_actions(single):
    env = make_env(EnvConfig("Masked-v0", num_envs=1))
    policy = HierarchyPolicy(FlatDQN.of(hidden=(8,)).make(setting(env)), env)
    seen = np.zeros(2, np.float32) if single else np.zeros((1, 2), np.float32)
    for kept in range(3):
        mask = np.arange(3) == kept
        action, _ = policy.predict(seen, action_masks=mask if single else mask[None])
        assert np.ravel(action).item() == kept + 1  # its actions begin at 1
    with pytest.raises(UserError, match=r"must have shape \[N, n\] for a choice of one of n actions"):
        policy.predict(seen, action_masks=np.ones(4))


def test_the_log_likelihood_of_choices_counts_the_entries_that_differ():
    (level,) = FlatDQN.of(hidden=(8,)).make(setting(make_env(EnvConfig("Masked-v0")))).levels
    state, target = torch.rand(4, 5, 2), torch.zeros(4, 5, 0)
    action = level.decide(state, target)
    assert level.log_likelihood(state, target, action).tolist() == [[0.0] * 5] * 4
    action[1, 2] += 1
    assert level.log_likelihood(state, target, action).nonzero().tolist() == [[1, 2]]
    assert level.log_likelihood(state, target, action).sum() == -1


@pytest.mark.parametrize(("words", "sentence"), [
    # 100 Gi rows: two images of 9 x 9 x 3 pixels, of which one is stored; action and reward of 4 bytes.
    ("dqn --env tasks:Picture-v0 --frame-stack 2 --buffer-size 107374182400",
     "A memory of 107,374,182,400 transitions is too large: it needs 25,100.0 GiB"),
    # PPO stores twice its rollout, and a log-probability with each decision.
    ("ppo --env tasks:Picture-v0 --frame-stack 2 --n-steps 53687091200", "needs 25,500.0 GiB"),
    ("ppo --env tasks:Picture-v0 --n-steps 53687091200", "Set a smaller n_steps."),
])  # fmt: skip
def test_a_memory_that_is_too_large_raises_an_error(words, sentence, tmp_path, capsys):
    assert train.main([*words.split(), "--log-dir", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("config", [FlatDQN, FlatDiscreteSAC, FlatPPO])
def test_stable_baselines3_evaluates_policies_with_discrete_actions(config):
    bridge = make_env(EnvConfig("CartPole-v1", num_envs=1))
    policy = HierarchyPolicy(config.of(hidden=(8,)).make(setting(bridge)), bridge)
    mean, _ = evaluate_policy(policy, gym.make("CartPole-v1"), n_eval_episodes=3)  # type: ignore[arg-type]
    assert 5 < float(mean) < 200
    action, _ = policy.predict(np.zeros(4, np.float32))
    assert action.shape == () and bridge.spec.action_space.contains(action[()])


def test_overwritten_rows_have_no_priority():
    """Episodes of one decision fill a ring of 18 rows several times: a final row replaces a decision."""
    ring = PrioritisedReplay({"state": 1, "action": 1}, ("state",), (), 16, 1, CPU)
    yes, no, row = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool), torch.zeros(1, 1)
    for number in range(60):
        ends = yes if number % 3 else no  # lengths of one and two
        ring.write({"state": row, "action": row}, {"state": row}, {}, yes, ends, no)
        drawn = ring.draw(50, torch.Generator().manual_seed(number))
        assert ring.holds(drawn).all() and not ring.is_final(drawn).any()
        assert int((ring.priority > 0).sum()) == len({int(r) for r in ring.draw(2000, torch.Generator()).row})
