"""Option-critic in four rooms with a moving goal: episodes until recovery, compared with flat agents.

    python benchmarks/four_rooms.py --runs 20

The experiment of Bacon 2017 (figure 2), on the map and with the slips of `hrl/FourRooms-v0`. Each run's goal moves
once, after 1,000 episodes of at most 1,000 steps, to a random cell of the lower right room. This cell is the same for
all agents. The runs of an agent are vectorised in numpy, with separate tables, because a torch agent in a single
environment takes 20 times as long. Before the runs, the updates of the tables are compared with those of the learner of
`train.py option-critic` on random transitions. The flat agents are option-critic with one option (an actor-critic), and
SARSA(0) with a softmax policy. Results are kept in results/four-rooms.json. Finished agents are not repeated.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium import spaces
from running import RESULTS, mean, processor

from hrl.agents.options.option_critic import OptionCritic, OptionLearnerConfig
from hrl.envs.tasks.grids import FourRooms
from hrl.learners import Batch, Build

GAMMA, LIMIT, CELLS = 0.99, 1000, 104
WINDOW, CLOSE = 20, 3.0
"""A run has recovered after the first WINDOW episodes with a mean of at most CLOSE times the steps of the best
policy."""
Array = np.ndarray


@dataclass
class Options:
    """Run missing agents, and print the table."""

    agents: tuple[str, ...] = ("option-critic", "option-critic-cost", "actor-critic", "sarsa")
    runs: int = 20
    """Runs per agent."""
    episodes: int = 1000
    """Episodes before the goal moves, and after."""


class OptionTables:
    """Option-critic with K options in N runs: the formulas of agents/options/option_critic.py on tables."""

    def __init__(self, runs: int, options: int, cost: float, rng: np.random.Generator) -> None:
        self.config, self.rng, self.n = OptionLearnerConfig(deliberation_cost=cost), rng, np.arange(runs)
        self.value, self.ends = np.zeros((2, runs, CELLS, options))
        self.action_value, self.policy = np.zeros((2, runs, CELLS, options, 4))
        self.epsilon = 0.01

    def begin(self, state: Array) -> None:
        """Choose an option in every run."""
        self.option, self.new_option = self._choose(state), np.ones(len(state), bool)

    def act(self, state: Array) -> Array:
        """A sample of π(·|s, ω) [N]."""
        self.chances = softmax(self.policy[self.n, state, self.option] / self.config.temperature)
        return draw(self.chances, self.rng)

    def learn(self, s: Array, a: Array, reward: Array, after: Array, ended: Array) -> None:
        """Update with one transition of each run."""
        c, n, o = self.config, self.n, self.option
        beta, value = sigmoid(self.ends[n, after, o]), self.value[n, after]
        y = reward + GAMMA * ~ended * ((1 - beta) * value[n, o] + beta * value.max(-1))
        self.value[n, s, o] += c.learning_rate * (y - self.value[n, s, o])
        self.action_value[n, s, o, a] += c.learning_rate * (y - self.action_value[n, s, o, a])
        gradient = np.eye(4)[a] - softmax(self.policy[n, s, o] / c.temperature)
        advantage = self.action_value[n, s, o, a] - self.value[n, s, o]
        self.policy[n, s, o] += c.intra_learning_rate * advantage[:, None] * gradient
        value = self.value[n, after]
        advantage = value[n, o] - value.max(-1) + c.deliberation_cost
        self.ends[n, after, o] -= c.termination_learning_rate * beta * (1 - beta) * advantage * ~ended

    def go_on(self, state: Array, done: Array) -> None:
        """Choose a new option where the active one ends in this state, or where the episode has ended."""
        chance = sigmoid(self.ends[self.n, state, self.option])
        self.new_option = done | (self.rng.random(len(state)) < chance)
        self.option = np.where(self.new_option, self._choose(state), self.option)

    def _choose(self, state: Array) -> Array:
        value = self.value[self.n, state]
        lot = np.where(value == value.max(-1, keepdims=True), self.rng.random(value.shape), -1)
        anything = self.rng.integers(value.shape[-1], size=len(state))
        return np.where(self.rng.random(len(state)) < self.epsilon, anything, lot.argmax(-1))


class Sarsa:
    """SARSA(0) with a softmax policy in N runs, with the step size and temperature of option-critic."""

    def __init__(self, runs: int, rng: np.random.Generator) -> None:
        self.q, self.rng, self.n = np.zeros((runs, CELLS, 4)), rng, np.arange(runs)

    def _draw(self, state: Array) -> Array:
        return draw(softmax(self.q[self.n, state] / OptionLearnerConfig.temperature), self.rng)

    def begin(self, state: Array) -> None:
        """Choose an action in every run."""
        self.action, self.option, self.new_option = self._draw(state), np.zeros_like(state), np.ones(len(state), bool)

    def act(self, state: Array) -> Array:
        """The actions [N] chosen at the last step."""
        return self.action

    def learn(self, s: Array, a: Array, reward: Array, after: Array, ended: Array) -> None:
        """Q(s, a) moves towards r + γ Q(s', a') for the next action a'."""
        self.action = self._draw(after)
        y = reward + GAMMA * ~ended * self.q[self.n, after, self.action]
        self.q[self.n, s, a] += OptionLearnerConfig.learning_rate * (y - self.q[self.n, s, a])

    def go_on(self, state: Array, done: Array) -> None:
        """Choose again where a new episode has started."""
        self.action = np.where(done, self._draw(state), self.action)


def softmax(x: Array) -> Array:
    """Probabilities [N, K] of logits."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))"""
    return 1 / (1 + np.exp(-x))


def draw(chances: Array, rng: np.random.Generator) -> Array:
    """Choices [N] with these probabilities [N, K]."""
    return (rng.random((len(chances), 1)) > chances.cumsum(-1)[:, :-1]).sum(-1)


AGENTS: dict[str, tuple[str, Callable[[int, np.random.Generator], Any]]] = {
    "option-critic": ("option-critic, 4 options", lambda runs, rng: OptionTables(runs, 4, 0.0, rng)),
    "option-critic-cost": (
        "the same, deliberation cost .02",
        lambda runs, rng: OptionTables(runs, 4, 0.02, rng),
    ),
    "actor-critic": ("actor-critic (one option)", lambda runs, rng: OptionTables(runs, 1, 0.0, rng)),
    "sarsa": ("SARSA(0)", Sarsa),
}


def require_same_updates(steps: int = 40) -> None:
    """Raise AssertionError unless the tables and the learner make the same updates."""
    rng = np.random.default_rng(0)
    tables = OptionTables(1, 4, 0.02, rng)
    config = OptionLearnerConfig(deliberation_cost=0.02)
    learner = OptionCritic(Build(CELLS + 4, spaces.Discrete(4), command=4), config)
    one = lambda i, size: torch.eye(size)[i]  # noqa: E731
    for _ in range(steps):
        s, after, o, a, ended = (int(rng.integers(k)) for k in (3, 3, 4, 4, 4))
        reward, tables.option = float(rng.random()), np.array([o])
        tables.learn(*(np.array([x]) for x in (s, a, reward, after, ended == 0)))
        inputs, following = (torch.cat([one(x, CELLS), one(o, 4)])[None] for x in (s, after))
        reward_, discount = torch.tensor([reward]), torch.tensor([GAMMA * (ended > 0)])
        learner.step(Batch(inputs, torch.tensor([[float(a)]]), reward_, following, discount))
    pairs = {"value": tables.value, "action_value": tables.action_value, "policy": tables.policy}
    for name, table in (pairs | {"termination": tables.ends}).items():
        weight = getattr(learner, name)[0].weight.detach().numpy().T
        assert np.allclose(weight, table[0].reshape(CELLS, -1), atol=1e-3) and np.abs(weight).max() > 0, name


def shortest(task: FourRooms, goal: int) -> float:
    """Steps of the best policy to a goal, averaged over the start cells."""
    reaches, steps = task.reaches.numpy(), np.zeros(CELLS)
    for _ in range(2000):
        there = steps[reaches]  # [cells, moves]
        cost = 1 + (1 - task.slip) * there + task.slip * (there.sum(-1, keepdims=True) - there) / 3
        steps = np.where(np.arange(CELLS) == goal, 0, cost.min(-1))
    return float(steps.sum() / (CELLS - 1))


def measure(name: str, options: Options) -> dict[str, Any]:
    """Run one agent in all runs until each has ended its last episode."""
    started, n, total = time.process_time(), options.runs, 2 * options.episodes
    task, rng = FourRooms(1), np.random.default_rng(list(AGENTS).index(name))
    later = np.random.default_rng(12345).choice(task.lower_right.numpy(), n)
    reaches, goal, agent = task.reaches.numpy(), np.full(n, task.fixed), AGENTS[name][1](n, rng)
    lengths, length, ended = np.zeros((n, total + 1), int), np.zeros(n, int), np.zeros(n, int)
    used, chosen = np.zeros((n, 4)), np.zeros(n)

    def starts() -> Array:
        state = rng.integers(CELLS - 1, size=n)
        return state + (state >= goal)

    state = starts()
    agent.begin(state)
    while ended.min() < total:
        late = (ended >= options.episodes) & (ended < total)
        used[np.arange(n), agent.option] += late
        chosen += agent.new_option & late
        action = agent.act(state)
        slips = rng.random(n) < task.slip
        after = reaches[state, np.where(slips, (action + 1 + rng.integers(3, size=n)) % 4, action)]
        reached = after == goal
        agent.learn(state, action, reached.astype(float), after, reached)
        length += 1
        done = reached | (length >= LIMIT)
        lengths[np.arange(n), np.minimum(ended, total)] = length
        ended, length = ended + done, length * ~done
        goal = np.where(ended >= options.episodes, later, goal)
        state = np.where(done, starts(), after)
        agent.go_on(state, done)
    after_move = lengths[:, options.episodes : total]
    best = np.array([shortest(task, int(g)) for g in later])
    windows = np.lib.stride_tricks.sliding_window_view(after_move, WINDOW, -1).mean(-1) <= CLOSE * best[:, None]
    return {
        "episodes": np.where(windows.any(-1), windows.argmax(-1), options.episodes).tolist(),
        "steps": after_move[:, :100].sum(-1).tolist(), "final": after_move[:, -100:].mean(-1).tolist(),
        "before": lengths[:, options.episodes - 100 : options.episodes].mean(-1).tolist(), "best": best.tolist(),
        "usage": (used / used.sum(-1, keepdims=True)).tolist(), "duration": (used.sum(-1) / chosen).tolist(),
        "seconds": time.process_time() - started, "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def main() -> None:
    """Run missing agents, then print the table."""
    options = tyro.cli(Options)
    require_same_updates()
    file = RESULTS / "four-rooms.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    key = f"{options.runs} runs, {options.episodes} episodes: "
    for name in options.agents:
        if key + name not in results:
            results[key + name] = measure(name, options)
            file.write_text(json.dumps(results) + "\n")
    columns = ("agent", "episodes to recover", "maximum", "steps of the first 100 episodes",
               "steps per episode at the end", "the best policy's", "second option's minimum fraction",
               "steps per option: mean", "minimum")  # fmt: skip
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name in options.agents:
        r = results[key + name]
        cells = [AGENTS[name][0], mean(r["episodes"], 0), f"{max(r['episodes'])}", mean(r["steps"], 0),
                 mean(r["final"], 0), mean(r["best"], 0)]  # fmt: skip
        if name.startswith("option-critic"):
            second = min(sorted(run)[-2] for run in r["usage"])
            cells += [f"{second:.2f}", f"{np.mean(r['duration']):.1f}", f"{min(r['duration']):.1f}"]
        print("| " + " | ".join([*cells, *[""] * (len(columns) - len(cells))]) + " |")


if __name__ == "__main__":
    main()
