"""HRAC: adjacency computed by hand, and subgoals that stay within reach although straight lines mislead."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CPU, made, roll, setting
from gymnasium import spaces
from hrl_scripts import train
from runs import LINE, same_state, trained
from test_learners import batch

from hrl.agents.hrac import High, HRACConfig, Low
from hrl.agents.parts.adjacency import Adjacency, AdjacencyConfig, AdjacencyMatrix, contrastive
from hrl.cli import training
from hrl.envs import EnvConfig, make_env
from hrl.execution.processes import Processes
from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.commands.goals import GoalConfig
from hrl.hierarchy.hierarchy import Hierarchy
from hrl.learners import SAC, TD3
from hrl.memory.ring import Replay
from hrl.run.checkpoint import Checkpoints
from hrl.run.folder import RunFolder
from hrl.types import UserError

REACH = 6


class Bend(gym.Env[np.ndarray, np.ndarray]):
    """A corridor that bends back, ⊃: ten long, four up, ten back. A point moves along it by at most 1, and starts
    anywhere. Observes [x, y, something else]."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.along = self.np_random.uniform(0, 24)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        self.along = float(np.clip(self.along + action[0], 0, 24))
        return self._obs(), 0.0, False, False, {}

    def _obs(self) -> np.ndarray:
        return np.array([*place(self.along), 1.0], np.float32)


def place(along: float) -> tuple[float, float]:
    """(x, y) at this distance along the corridor."""
    return (along, 0.0) if along < 10 else (10.0, along - 10) if along < 14 else (24 - along, 4.0)


gym.register("Bend-v0", Bend, max_episode_steps=30)


def hrac(**changes: Any) -> HRACConfig:
    """A HRAC with few units for the bend, whose low level walks at random."""
    quiet: dict[str, Any] = {"hidden": (32,), "train_freq": 10**9, "buffer_size": 20_000}
    return HRACConfig(
        low=Low.of(**quiet, random_actions=(1.0, 1.0)),
        high=High.of(**quiet, period=REACH),
        goal=GoalConfig(indices=(0, 1), low=(-6.0,), high=(6.0,)),
        adjacency=AdjacencyConfig(every=10**6, learning_rate=1e-3, updates=400, **changes),
        learning_starts=0,
    )


@pytest.fixture(scope="module")
def walked() -> tuple[Hierarchy, Adjacency]:
    """An agent that walked at random, and its fitted model of adjacency."""
    env = make_env(EnvConfig("Bend-v0", num_envs=16))
    agent = hrac().make(setting(env))
    roll(agent, env, 500)
    (model,) = agent.levels[1].models
    assert isinstance(model, Adjacency)
    model.look()
    model.fit(agent.generator)
    return agent, model


# -- the matrix ----------------------------------------------------------------------------------------------


def step_all(ring: Replay, at: list[float], to: list[float], ended: list[bool]) -> None:
    row, following = ({"state": torch.tensor(x).unsqueeze(-1)} for x in (at, to))
    over = torch.tensor(ended)
    ring.write(row, following, {}, torch.ones_like(over), over, torch.zeros_like(over))


def adjacency_of(ring: Replay, k: int = 2) -> Adjacency:
    env = make_env(EnvConfig("Bend-v0", num_envs=2))
    agent = HRACConfig(high=High.of(period=k), goal=GoalConfig(indices=(0,), low=(-3.0,), high=(3.0,))).make(
        setting(env)
    )
    command = agent.levels[0].command
    assert isinstance(command, Subgoal)
    return Adjacency(command, ring, env.spec.state_dim, (), k, AdjacencyConfig())


def pairs(matrix: AdjacencyMatrix) -> set[tuple[int, int]]:
    """The pairs of different cells that are adjacent, the lower one first."""
    assert torch.equal(matrix.adjacent, matrix.adjacent.T) and bool(matrix.adjacent.diagonal().all())
    cell = matrix.cells.flatten().tolist()
    return {(cell[i], cell[j]) for i, j in matrix.adjacent.nonzero().tolist() if cell[i] < cell[j]}


def test_cells_within_k_steps_of_an_episode_are_adjacent():
    ring = Replay({"state": 1}, ("state",), (), 100, 2, CPU)
    model = adjacency_of(ring)
    # One goes 0 → 1 → 2.6, where its episode ends, and then 7 → 8; the other 20 → 19 → 18 → 17.
    step_all(ring, [0.0, 20.0], [1.2, 19.0], [False, False])
    step_all(ring, [1.2, 19.0], [2.6, 18.0], [True, False])
    model.look()
    assert model.matrix.cells.flatten().tolist() == [0, 1, 3, 18, 19, 20]
    assert pairs(model.matrix) == {(0, 1), (0, 3), (1, 3), (18, 19), (18, 20), (19, 20)}
    step_all(ring, [7.0, 18.0], [8.0, 17.0], [False, False])
    model.look()
    new = {(7, 8), (17, 18), (17, 19)}  # 19 → 17 began before the last look
    assert pairs(model.matrix) == {(0, 1), (0, 3), (1, 3), (18, 19), (18, 20), (19, 20)} | new
    assert model.matrix.holds(torch.tensor([[0.4], [0.0], [40.0]]), torch.tensor([[2.7], [7.0], [40.0]])).tolist() == [
        True, False, False,
    ]  # fmt: skip


def test_rows_that_were_written_over_are_not_read():
    ring = Replay({"state": 1}, ("state",), (), 2 * 16, 2, CPU)  # holds 16 rows an environment
    model = adjacency_of(ring)
    for t in range(40):
        step_all(ring, [float(t), 100.0 + t], [t + 1.0, 101.0 + t], [False, False])
    model.look()
    seen = [*range(24, 41), *range(124, 141)]
    assert model.matrix.cells.flatten().tolist() == seen
    assert pairs(model.matrix) == {(i, i + j) for i in seen for j in (1, 2) if i + j in seen}


def test_more_cells_than_the_matrix_may_have_are_reported():
    matrix = AdjacencyMatrix(1, 2, 1.0, 3, CPU)
    with pytest.raises(UserError, match=r"a larger adjacency\.cell"):
        matrix.add(torch.arange(4.0).reshape(4, 1, 1), torch.tensor([[2], [2], [1], [0]]))


# -- the network ---------------------------------------------------------------------------------------------


def test_the_contrastive_loss_matches_calculated_values():
    embedded = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.5]])
    adjacent = torch.tensor([[True, True, False], [True, True, True], [False, True, True]])
    # Apart: 5, .5 and √(9 + 12.25); the pulls beyond 1 and the push within 1.2, each pair twice of nine.
    expected = 2 * ((5 - 1) + (1.2 - 0.5) + (21.25**0.5 - 1)) / 9
    assert float(contrastive(embedded, adjacent, 1.0, 1.2)) == pytest.approx(expected)


def test_distances_are_those_through_the_corridor(walked):
    _, model = walked
    at = lambda along: torch.tensor([place(float(x)) for x in along])  # noqa: E731
    across = at(range(0, 8)), at(range(24, 16, -1))  # 4 in a straight line, 24 to 10 through the corridor
    assert bool((model.distance(*across) > 1.1).all()) and not bool(model.matrix.holds(*across).any())
    along = at(range(0, 22)), at(range(2, 24))
    assert bool((model.distance(*along) < 1.1).all()) and bool(model.matrix.holds(*along).all())


# -- the constraint ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_a_constraint_is_added_to_the_actors_loss(kind):
    torch.manual_seed(0)
    learner, b, noise = made(kind, 3, 2, hidden=(8,), learning_rate=1e-3), batch(), torch.randn(16, 2)
    free = learner.actor_objective(b, noise)
    learner.constraint = lambda inputs, action: 3 * inputs[:, 0] + action.sum(-1)
    with torch.no_grad():
        action = learner.mode(b.inputs) if kind is TD3 else learner.sample(b.inputs, noise)[0]
    added = (3 * b.inputs[:, 0] + action.sum(-1)).mean()
    torch.testing.assert_close(learner.actor_objective(b, noise), free + added)
    before, critic = learner.mode(b.inputs).mean().item(), [p.clone() for p in learner.critic.parameters()]
    learner.constraint = lambda inputs, action: 100 * action.sum(-1)
    for _ in range(20):
        learner.update_actor(b) if kind is TD3 else learner.update_actor_and_temperature(b, noise)
    assert learner.mode(b.inputs).mean().item() < before - 0.05
    assert all(torch.equal(p, q) for p, q in zip(learner.critic.parameters(), critic, strict=True))


def test_the_constraint_counts_the_excess_over_the_margin_after_the_first_fit(walked):
    agent, model = walked
    high, command = agent.levels[1], model.command
    state = torch.tensor([[1.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    raw = torch.tensor([[0.0, 4 / 6], [1 / 6, 0.0]])  # across the wall; one step along the corridor
    inputs = high.inputs(state, state[:, :0])
    apart = model.distance(state[:, :2], command.issue(state, raw)).detach()
    assert float(apart[0]) > 1.1 > float(apart[1])
    assert model.constraint(inputs, raw).tolist() == pytest.approx([20 * (float(apart[0]) - 1.1), 0.0])
    fresh = hrac().make(setting(make_env(EnvConfig("Bend-v0", num_envs=2)))).levels[1]
    assert fresh.learner.constraint(inputs, 50 * raw).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("relative", [True, False])
def test_subgoals_across_the_wall_move_to_reachable_positions(walked, relative):
    config = hrac()
    config.high.learner.actor_learning_rate = 1e-3
    if not relative:
        config.goal = GoalConfig(indices=(0, 1), low=(-2.0,), high=(12.0,), relative=False)
    high = config.make(setting(make_env(EnvConfig("Bend-v0", num_envs=16)))).levels[1]
    (model,) = high.models
    model.load_state_dict(walked[1].state_dict())
    # A critic that says nothing, and an actor that says: (2, 4) or straight up, on the other side of the wall.
    for parameter in high.learner.critic.parameters():
        parameter.data.zero_()
    *_, last = high.learner.actor
    last.weight.data.mul_(0.01)
    last.bias.data.copy_(torch.tensor([0.0, 4 / 6] if relative else [-3 / 7, -1 / 7]).atanh())
    along = torch.linspace(0, 7, 64)
    state = torch.tensor([[*place(float(x)), 1.0] for x in along])
    inputs = high.inputs(state, state[:, :0])

    def way() -> torch.Tensor:
        """The distance along the corridor between `along` and the point nearest to each subgoal."""
        everywhere = torch.linspace(0, 24, 97)
        places = torch.tensor([place(float(x)) for x in everywhere])
        subgoal = model.command.issue(state, high.learner.mode(inputs).detach())
        return (everywhere[torch.cdist(subgoal, places).argmin(-1)] - along).abs()

    assert bool((way() > 8).all())
    for _ in range(400):
        high.learner.update_actor(batch(64)._replace(inputs=inputs))
    assert bool((way() <= REACH).all())


# -- the agent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0, 10**6])
def test_it_looks_now_and_then_and_fits_when_that_is_due(wait):
    """It also does so while the high level waits: reachability does not depend on which level chose a subgoal."""
    env = make_env(EnvConfig("Bend-v0", num_envs=2))
    config = hrac()
    config.high.random_warmup = wait
    config.adjacency.every, config.adjacency.updates = 200, 1
    agent = config.make(setting(env))
    (model,) = agent.levels[1].models
    obs, cells, weights = env.reset(0), [], []
    for _ in range(125):
        step = env.step(agent.act(obs))
        agent.observe(step)
        agent.learn()
        cells.append(len(model.matrix))
        weights.append(float(model.weight))
        obs = step.obs
    assert weights == [0.0] * 99 + [20.0] * 26  # two steps a call
    assert cells[8] == 0 < cells[9] <= cells[124] <= 25
    metrics = agent.pop_metrics()
    assert metrics["high/cells"] > 1 and 0 <= metrics["high/subgoals_adjacent"] <= 1
    assert "high/adjacency_loss" in metrics
    agent.levels[1].config.frozen = True
    agent.steps = 10**6
    agent.learn()
    assert model.at == 240


def test_the_low_level_does_not_see_where_it_is_unless_subgoals_are_places():
    env = make_env(EnvConfig("Bend-v0", num_envs=2))

    def blind(config: HRACConfig) -> tuple[int, ...]:
        return config.make(setting(env)).levels[0].config.masked_entries

    assert blind(hrac()) == (0, 1)
    places = hrac()
    places.goal = GoalConfig(indices=(0, 1), low=(-2.0,), high=(12.0,), relative=False)
    assert blind(places) == ()
    everything = hrac()
    everything.goal = GoalConfig(low=(-6.0,), high=(6.0,))
    assert blind(everything) == ()
    mine, seeing = hrac(), hrac()
    mine.low.masked_entries, seeing.low.egocentric = (2,), False
    assert blind(mine) == (0, 1, 2) and blind(seeing) == ()


def test_a_run_that_is_resumed_equals_one_that_was_not_stopped(tmp_path):
    line = ["--adjacency.cell", "0.1", "--low.train-freq", "8", "--eval-freq", "0"]
    whole = trained(tmp_path / "whole", *line, algorithm="hrac")
    part = trained(tmp_path / "part", *line, "--total-steps", "500", algorithm="hrac")
    assert train.main(["--resume", str(part), "--total-steps", "1000", "--progress", "False"]) == 0
    assert same_state(whole, part)
    tensors = Checkpoints(whole / "checkpoints").last().tensors
    assert len(tensors["high.model0.cells"]) > 20 and float(tensors["high.model0.weight"]) == 20


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--adjacency.cell 0", "adjacency.cell must be positive"),
        ("--adjacency.near 1.2", "adjacency.near must be below adjacency.far"),
        ("--adjacency.weight -1", "adjacency.weight must not be negative"),
        ("--adjacency.hidden 0", "adjacency.hidden must be"),
        ("--high.masked-entries 0 1", "high.masked_entries [1]"),
        ("--high.period 0", "high.period must be at least 1"),
    ],
)
def test_invalid_options_raise_a_clear_error(option, words, tmp_path, capsys):
    assert train.main(["hrac", *LINE, "--log-dir", str(tmp_path), *option.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_learned_weights_are_kept_if_too_many_cells_are_visited(tmp_path, capsys):
    assert train.main(["hrac", *LINE, "--adjacency.limit", "2", "--log-dir", str(tmp_path)]) == 2
    assert "were visited" in capsys.readouterr().err
    found = RunFolder.resumable(tmp_path)
    assert found is not None and 0 < Checkpoints(found.checkpoints).steps < 500


def test_several_processes_raise_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "join_processes", lambda: Processes(0, 2))
    assert train.main(["hrac", *LINE, "--log-dir", str(tmp_path)]) == 2
    assert "run it in one" in capsys.readouterr().err
