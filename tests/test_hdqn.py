"""h-DQN: declared subgoals, their rewards and ends, and the discount of a choice that lasted k steps."""

import importlib
import json

import pytest
import torch
from conftest import CPU, everything, roll, setting
from hrl_scripts import evaluate, train
from runs import ROOT, run_of, same_state
from tasks import LENGTHS

from hrl.agents.hdqn import HDQNConfig, High, Low
from hrl.envs import EnvConfig, make_env
from hrl.envs.tasks.grids import KEY_DOOR_SUBGOALS, KeyDoor
from hrl.hierarchy.commands import DeclaredSubgoals, Skill
from hrl.hierarchy.commands.declared import load_predicates
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.hierarchy.relabelling.hindsight import HindsightChoices
from hrl.training.policy import HierarchyPolicy
from hrl.types import UserError

PLACES = (3, 5)
BOTH = {"late": lambda state: state[..., 1] >= 3, "odd": lambda state: state[..., 0] % 2 == 1}


def late_or_odd(state: torch.Tensor) -> torch.Tensor:
    """A user's own function."""
    return torch.stack([predicate(state) for predicate in BOTH.values()], -1)


def as_numbers(state: torch.Tensor) -> torch.Tensor:
    """Not a predicate."""
    return state


def declared(reward="bonus", scale=1.0) -> DeclaredSubgoals:
    return DeclaredSubgoals(("late", "odd"), late_or_odd, reward, scale)


def on_the_ledger(period=4, steps=0, **low) -> Hierarchy:
    """Subgoals are to be at t = 3 and at t = 5 of an episode, exactly. Choices are random and nothing learns."""
    still = {"hidden": (8,), "train_freq": 10**9, "batch_size": 8, "buffer_size": 4000}
    config = HDQNConfig(
        points=PLACES, learning_starts=0,
        low=Low.of(**{"learner": "td3", "gamma": 0.8, **still, **low}),
        high=High.of(random_actions=(1.0, 1.0), exploration_fraction=0.0, gamma=0.9, period=period, **still),
    )  # fmt: skip
    config.goal = type(config.goal)(indices=(1,), threshold=0.25)
    env = make_env(EnvConfig("Ledger-v0", num_envs=3))
    agent = config.make(setting(env))
    roll(agent, env, steps)
    return agent


# -- the command -----------------------------------------------------------------------------------------------


def test_equal_names_are_the_same_command():
    other = DeclaredSubgoals(("odd", "late"), late_or_odd)
    assert declared().same(declared("sparse")) and not declared().same(other) and not declared().same(Skill(2))


def test_a_reached_subgoal_is_not_available_until_all_are_reached():
    state = torch.tensor([[0.0, 0], [0, 3], [1, 0], [1, 4]])
    assert declared().available(state).tolist() == [[1, 1], [0, 1], [1, 0], [1, 1]]


def test_a_subgoal_ends_where_it_is_reached_and_pays_there():
    command = declared()
    state, following = torch.tensor([[0.0, 2], [0, 2], [0, 3]]), torch.tensor([[0.0, 3], [0, 3], [0, 4]])
    target = command.issue(state, torch.tensor([[0.0], [1], [0]]))  # late, odd, late
    assert target.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert command.ended(following, target).tolist() == [True, False, True]
    assert command.ended(state, target).tolist() == [False, False, True]
    assert command.reward(state, following, target).tolist() == [1, 0, 1]
    assert declared(scale=3.0).reward(state, following, target).tolist() == [3, 0, 3]
    assert declared("sparse", 2.0).reward(state, following, target).tolist() == [0, -2, 0]


def test_values_of_subgoals_are_bounded():
    assert declared(scale=3.0).value_range(0.9) == (0.0, 3.0)
    assert declared("sparse", 2.0).value_range(0.9) == (pytest.approx(-20.0), 0.0)


def test_every_subgoal_has_its_own_rate_of_success():
    target, state = torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.tensor([[0.0, 3], [0, 2], [0, 2]])
    measured = {name: x.tolist() for name, x in declared().measure(state, target).items()}
    assert measured["subgoal_reach_rate"] == [1, 0, 0]
    assert measured["reach_rate_late"][:2] == [1, 0] and measured["reach_rate_odd"][2] == 0
    assert measured["reach_rate_odd"][0] != measured["reach_rate_odd"][0]  # not a number: it was not its turn


def test_rates_count_only_the_commands_they_are_about():
    agent = on_the_ledger(period=10, steps=3 * sum(LENGTHS))
    metrics = agent.pop_metrics()
    t = everything(agent, 1)
    for number, name in enumerate(("3", "5")):
        mine = t.action.squeeze(-1) == number
        reached = t.next_state[:, 1] == PLACES[number]
        assert metrics[f"low/reach_rate_{name}"] == pytest.approx(float(reached[mine].float().mean()))
        share = float((t.length * mine).sum() / t.length.sum())
        assert metrics[f"low/usage_{name}"] == pytest.approx(share)


def test_evaluations_count_each_subgoal_only_where_it_was_chosen():
    env = make_env(EnvConfig("Ledger-v0", num_envs=4))
    policy = HierarchyPolicy(on_the_ledger(), env)
    memory, obs = policy.start(4), env.reset(0)
    total = dict.fromkeys(("subgoal_reach_rate", "reach_rate_3", "reach_rate_5"), torch.zeros(2))
    for _ in range(40):
        action, memory, _ = policy.decide(obs, memory)
        step = env.step(action)
        memory, rates = policy.after(memory, step)
        total = {name: x + rates[name].sum(-1) for name, x in total.items()}
        obs = step.obs
    whole, *each = total.values()
    assert whole[1] > 10 and torch.equal(each[0] + each[1], whole)  # sums of successes, and numbers of subgoals


# -- transitions of both levels ----------------------------------------------------------------------------------


def test_a_choice_that_ends_after_k_steps_is_discounted_by_gamma_to_the_k():
    """The ledger pays t + 1. Choices last to their place, four steps, or to the episode's end."""
    agent = on_the_ledger(steps=4 * sum(LENGTHS))
    t = everything(agent, 1)
    batch = agent.levels[1].batch(t)
    lengths = set()
    for i, (episode, start) in enumerate(t.state.long().tolist()):
        place, last = PLACES[int(t.action[i])], LENGTHS[episode % 4]
        end = min(place if place > start else last, start + 4, last)
        k, terminated = end - start, end == last and episode % 2 == 1
        assert int(t.length[i]) == k and t.next_state[i].tolist() == [episode, end]
        assert float(batch.reward[i]) == pytest.approx(sum(0.9**j * (start + j + 1) for j in range(k)))
        assert float(batch.discount[i]) == pytest.approx(0.0 if terminated else 0.9**k)
        assert batch.next_mask is not None and batch.next_mask[i].tolist() == [end != 3, end != 5]
        assert start != place  # a reached subgoal is never chosen
        lengths.add(k)
    assert lengths == {1, 2, 3, 4}


def test_a_low_level_is_paid_at_its_subgoal_which_ends_there_and_the_task_does_not():
    agent = on_the_ledger(steps=3 * sum(LENGTHS))
    t = everything(agent, 0)
    batch = agent.levels[0].batch(t)
    place = torch.tensor(PLACES)[t.target.argmax(-1)]
    reached = t.next_state[:, 1] == place
    assert reached.any() and (t.terminated & ~reached).any()
    assert torch.equal(batch.reward, reached.float())
    torch.testing.assert_close(batch.discount, torch.where(reached, 0.0, 0.8))
    assert torch.equal(batch.next_inputs[:, 2:], t.target)  # bootstraps under the same subgoal


@pytest.mark.parametrize("strategy", ["random", "future", "final"])
def test_hindsight_replaces_subgoals_by_those_that_are_or_were_still_ahead(strategy):
    agent = on_the_ledger(steps=3 * sum(LENGTHS))
    t, replay = everything(agent, 0), agent.levels[0].memory
    relabel = HindsightChoices(declared(), replay, 1.0, strategy)
    changed = relabel(t, torch.Generator().manual_seed(0))
    assert torch.equal(changed.target, changed.next_target)
    seen = set()
    for i, (episode, start) in enumerate(t.state.long().tolist()):
        ahead = [k for k, done in enumerate((start >= 3, episode % 2 == 1)) if not done]
        if strategy != "random":  # episodes keep their number, and only those longer than 2 get late
            ahead = [k for k in ahead if k == 0 and LENGTHS[episode % 4] >= 3]
        new = int(changed.target[i].argmax())
        unchanged = torch.equal(changed.target[i], t.target[i])
        assert new in ahead or unchanged
        if strategy != "future":  # a later moment may come before t = 3
            assert new in ahead or not ahead
        seen.add(new)
    assert seen == {0, 1}
    untouched = HindsightChoices(declared(), replay, 0.0, strategy)(t, torch.Generator())
    assert torch.equal(untouched.target, t.target)


def test_every_subgoal_has_the_success_rate_of_its_own_uses():
    agent = on_the_ledger(explore_by_success=True, success_window=4)
    env, by_hand = make_env(EnvConfig("Ledger-v0", num_envs=3)), [0.0, 0.0]
    low, obs = agent.levels[0], env.reset(0)
    for _ in range(3 * sum(LENGTHS)):
        action = agent.act(obs)
        chosen, step = low.segment.target.argmax(-1), env.step(action)
        agent.observe(step)
        over = agent.memory[0].due & step.active
        before = list(by_hand)
        for number in (0, 1):
            results = (step.final.state[:, 1] == PLACES[number])[over & (chosen == number)].float()
            if len(results):  # k results at once count as 1 - (3/4)^k of their mean
                by_hand[number] += (1 - 0.75 ** len(results)) * (float(results.mean()) - before[number])
        assert low.success.rate.tolist() == pytest.approx(by_hand, abs=1e-5)
        obs = step.obs
    assert 0 < by_hand[0] < 1 and 0 < by_hand[1] < 1


def test_exploration_under_a_subgoal_falls_with_its_success():
    agent = on_the_ledger(explore_by_success=True, random_actions=(0.0, 0.0), action_noise=(0.0,))
    low = agent.levels[0]
    low.success.rate.copy_(torch.tensor([1.0, 0.25]))
    state, target = torch.zeros(3, 2), torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    generator, due = torch.Generator().manual_seed(0), torch.ones(3, dtype=torch.bool)
    explored = torch.stack([low.explore(state, target, due, generator)[0] for _ in range(1000)])
    random = (explored != low.decide(state, target)).squeeze(-1).float().mean(0)
    assert random.tolist() == pytest.approx([0.0, 0.75, 0.0], abs=0.05)
    with pytest.raises(UserError, match="explores by sampling"):
        HDQNConfig(points=PLACES, low=Low.of(learner="ppo", explore_by_success=True)).check()


# -- declarations ------------------------------------------------------------------------------------------------


def test_predicates_are_a_dictionary_or_a_function():
    spec, state = make_env(EnvConfig("Ledger-v0")).spec, torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    for path, names in (("test_hdqn:BOTH", ("late", "odd")), ("test_hdqn:late_or_odd", ("0", "1"))):
        found, reached = load_predicates(path, spec, CPU)
        assert found == names and reached(state).tolist() == [[False, True], [True, False]]


def test_the_key_is_taken_then_the_door_is_open_then_the_goal_is_reached():
    spec = make_env(EnvConfig("hrl/KeyDoor-v0")).spec
    names, reached = load_predicates("hrl.envs.tasks.grids:KEY_DOOR_SUBGOALS", spec, CPU)
    assert names == tuple(KEY_DOOR_SUBGOALS) == ("key", "door", "goal")
    grid = KeyDoor(1, size=6)
    grid.reset(seed=0)
    grid.places.copy_(torch.tensor([[[1, 1]], [[2, 1]], [[1, 3]], [[1, 4]]]))  # agent, key, door, goal
    seen = [reached(grid.observe())[0].tolist()]
    for move in (2, 0, 1, 1, 1):  # down to the key, up, right, against the door and into it, right
        grid.advance(torch.tensor([move]))
        seen.append(reached(grid.observe())[0].tolist())
    nothing, key, door = [False] * 3, [True, False, False], [True, True, False]
    assert seen == [nothing, key, key, key, door, [True, True, True]]


def test_subgoals_of_minigrid_are_told_from_numbers_and_from_the_image(monkeypatch):
    pytest.importorskip("minigrid")
    monkeypatch.syspath_prepend(ROOT)
    door_key = importlib.import_module("examples.door_key")
    forms = []
    for name, predicates in (("DoorKey", door_key.SUBGOALS), ("DoorKeyImage", door_key.IN_THE_IMAGE)):
        env = make_env(EnvConfig(f"examples.door_key:{name}-8x8-v0"))
        task = env.env.envs[0].unwrapped  # type: ignore[attr-defined]
        state, seen = env.reset(3).state, []
        (key,) = [item for item in task.grid.grid if item is not None and item.type == "key"]
        (door,) = [item for item in task.grid.grid if item is not None and item.type == "door"]
        row = door.cur_pos[1]
        for place, action in (
            ((key.cur_pos[0], key.cur_pos[1]), 3),
            ((door.cur_pos[0], row), 5),
            ((door.cur_pos[0], row), 2),
            ((6, 6), 2),
        ):  # in front of each, facing right: pick up, toggle, walk into the door, and onto the goal
            seen.append([bool(predicate(state)) for predicate in predicates.values()])
            task.agent_pos, task.agent_dir = (place[0] - 1, place[1]), 0
            state = env.step(torch.tensor([[float(action)]])).final.state
        forms.append([*seen, [bool(predicate(state)) for predicate in predicates.values()]])
    assert (
        forms[0]
        == forms[1]
        == [[False] * 3, [True, False, False], [True, True, False], [True, True, False], [True] * 3]
    )


@pytest.mark.parametrize(("options", "words"), [
    ({}, "give either --subgoals module:NAME, or --points"),
    ({"subgoals": "test_hdqn:BOTH", "points": (1.0,)}, "give either"),
    ({"subgoals": "test_hdqn:nothing"}, "--subgoals test_hdqn:nothing cannot be used"),
    ({"subgoals": "test_hdqn:as_numbers"}, "to bool"),
    ({"points": (1.0,)}, "--points needs --goal.threshold"),
    ({"points": (1.0, 2.0, 3.0), "threshold": 0.1}, r"needs 2 numbers per position .*but has 3 numbers"),
    ({"subgoals": "test_hdqn:BOTH", "period": 0}, "high.period must be at least 1"),
])  # fmt: skip
def test_declarations_that_do_not_fit_are_told(options, words):
    config = HDQNConfig(low=Low.of(learner="td3"), high=High(period=options.pop("period", 5)))
    config.goal = type(config.goal)(threshold=options.pop("threshold", None))
    for name, value in options.items():
        setattr(config, name, value)
    with pytest.raises(UserError, match=words):
        config.make(setting(make_env(EnvConfig("Ledger-v0", num_envs=1))))


# -- runs --------------------------------------------------------------------------------------------------------


def test_a_resumed_run_equals_one_that_was_not_stopped_and_can_be_evaluated(tmp_path, capsys):
    line = ["hdqn", "--env", "hrl/KeyDoor-v0", "--preset", "debug", "--threads", "1", "--progress", "False"]
    line += ["--eval-freq", "0", "--save-freq", "300"]
    for level in ("low", "high"):  # random decisions do not fall with the run, whose length differs
        line += [f"--{level}.exploration-fraction", "0", f"--{level}.random-actions", "0.2", "0.5"]
    line += ["--low.explore-by-success", "True"]
    for steps in ("300", "600"):
        assert train.main([*line, "--log-dir", str(tmp_path / steps), "--total-steps", steps]) == 0
    part, whole = run_of(tmp_path / "300"), run_of(tmp_path / "600")
    assert train.main(["--resume", str(part), "--total-steps", "600", "--progress", "False"]) == 0
    assert same_state(part, whole)
    capsys.readouterr()
    assert evaluate.main([str(whole), "--episodes", "2", "--json"]) == 0  # needs no --trust: the subgoals are ours
    rates = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(0 <= rate <= 1 for name, rate in rates.items() if name.startswith("reach_rate"))
    assert {f"reach_rate_{name}" for name in KEY_DOOR_SUBGOALS} & rates.keys()
