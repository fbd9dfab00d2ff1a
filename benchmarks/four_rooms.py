"""Option-critic on four rooms, where the goal moves: episodes until it has recovered, against flat agents.

    python benchmarks/four_rooms.py --runs 20

The experiment of Bacon 2017 (figure 2): each run's goal moves once, after 1,000 episodes, to a random cell of the lower
right room. All runs of an agent go side by side, as the environments of one batch: the agent is the one of
`train.py option-critic`, except that every environment has tables of its own, each of which learns from its own
environment alone. The flat agents are option-critic with one option, which is an actor-critic, and SARSA. Results are in
results/four-rooms.json and are not repeated.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import tyro
from running import RESULTS, processor
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hrl.agents.option_critic import Low, OptionCritic, OptionCriticConfig, OptionLearnerConfig
from hrl.envs import EnvConfig, make_env
from hrl.envs.bridge import Bridge
from hrl.hierarchy.setting import Setting
from hrl.learners import Build
from hrl.learners.adam import FlatSGD
from hrl.networks.options import OptionNet
from hrl.report.statistics import student_interval

LIMIT = 1000
"""Steps of an episode, as published."""
WINDOW, CLOSE = 20, 1.25
"""A run has recovered at the first episode from which on WINDOW episodes take at most CLOSE times as many steps as its
episodes do at the end."""


@dataclass
class Options:
    """Run missing agents, and print the table."""

    agents: tuple[str, ...] = ("option-critic", "actor-critic", "sarsa")
    runs: int = 20
    """Runs per agent."""
    episodes: int = 1000
    """Episodes before the goal moves, and after."""
    deliberation_cost: float = OptionLearnerConfig.deliberation_cost
    again: bool = False
    """Repeat finished agents."""


class Agent(Protocol):
    """N agents in N environments."""

    def act(self, state: Tensor) -> Tensor: ...
    def learn(self, step: Any) -> None: ...
    def usage(self) -> tuple[Tensor, Tensor]:
        """The active option [N, K], one-hot, and whether it was chosen at this step [N]."""


class SeparateTables(OptionNet):
    """A table of zeros for each of N environments: the i-th row of a batch reads the i-th table."""

    def __init__(self, num_envs: int, width: int, outputs: int, options: int) -> None:
        super().__init__(nn.Sequential(), options)
        self.weight = nn.Parameter(torch.zeros(num_envs * width, outputs))
        self.first = torch.arange(num_envs) * width

    def each(self, state: Tensor) -> Tensor:
        """The outputs [N, K, O] of all options at one-hot states [N, D]."""
        return nn.functional.embedding(self.first + state.argmax(-1), self.weight).unflatten(-1, (self.options, -1))


class SeparateConfig(OptionLearnerConfig, listed=False):
    """The options of `Separate`; `batch_size` is the number of environments."""

    def build(self, build: Build) -> "Separate":
        """Build the learner."""
        return Separate(build, self)


class Separate(OptionCritic):
    """Option-critic with tables of its own for each environment. Losses are means over environments, so that step sizes
    are multiplied by their number."""

    def __init__(self, build: Build, config: OptionLearnerConfig) -> None:
        super().__init__(build, config)
        for optimiser in self.optimisers().values():
            optimiser.initial_lr *= config.batch_size
            optimiser.lr.fill_(optimiser.initial_lr)

    def network(self, width: int, outputs: int) -> OptionNet:
        """Tables of zeros."""
        return SeparateTables(self.config.batch_size, width, outputs, self.options)


class Options_:
    """The hierarchy of `train.py option-critic`."""

    def __init__(self, env: Bridge, options: int, cost: float, seed: int) -> None:
        config = OptionCriticConfig(options=options)
        config.low = replace(config.low, learner=SeparateConfig(batch_size=env.num_envs, deliberation_cost=cost))
        self.hierarchy = config.make(Setting(env.spec, env.num_envs, env.device, seed, lambda: env))

    def act(self, obs: Any) -> Tensor:
        self.acted = self.hierarchy.act(obs)
        return self.acted

    def usage(self) -> tuple[Tensor, Tensor]:
        held = self.hierarchy.memory[0]
        return held.target, held.elapsed == 0

    def learn(self, step: Any) -> None:
        self.hierarchy.observe(step)
        self.hierarchy.learn()


class Sarsa:
    """SARSA(0) with a softmax policy."""

    def __init__(
        self, env: Bridge, seed: int, rate: float = 0.5, temperature: float = 0.01, gamma: float = 0.99
    ) -> None:
        self.q = torch.zeros(env.num_envs, env.spec.state_dim, 4)
        self.rate, self.temperature, self.gamma = rate, temperature, gamma
        self.generator = torch.Generator().manual_seed(seed)
        self.rows, self.chosen = torch.arange(env.num_envs), None

    def _draw(self, state: Tensor) -> Tensor:
        logits = self.q[self.rows, state.argmax(-1)] / self.temperature
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generator).squeeze(-1)

    def act(self, obs: Any) -> Tensor:
        self.state = obs.state
        self.action = (
            self._draw(obs.state) if self.chosen is None else torch.where(self.anew, self._draw(obs.state), self.chosen)
        )
        return self.action.unsqueeze(-1).float()

    def usage(self) -> tuple[Tensor, Tensor]:
        return one_hot(self.action, 4).float(), torch.ones_like(self.action, dtype=torch.bool)

    def learn(self, step: Any) -> None:
        self.chosen, self.anew = self._draw(step.final.state), step.terminated | step.truncated
        here, there = self.state.argmax(-1), step.final.state.argmax(-1)
        after = self.q[self.rows, there, self.chosen] * ~step.terminated
        error = step.reward + self.gamma * after - self.q[self.rows, here, self.action]
        self.q[self.rows, here, self.action] += self.rate * error


def measure(name: str, options: Options, seed: int = 0) -> dict[str, Any]:
    """Run one agent in all environments until each has seen its last episode."""
    started = time.perf_counter()
    kwargs = {"moves_after": options.episodes, "max_episode_steps": LIMIT}
    env = make_env(EnvConfig("hrl/FourRooms-v0", kwargs, options.runs))
    torch.manual_seed(seed)
    agent: Any = Sarsa(env, seed)
    if name != "sarsa":
        agent = Options_(env, 4 if name == "option-critic" else 1, options.deliberation_cost, seed)
    total, rows = 2 * options.episodes, torch.arange(options.runs)
    lengths, length = (
        torch.zeros(options.runs, total + 1, dtype=torch.int64),
        torch.zeros(options.runs, dtype=torch.int64),
    )
    ended = torch.zeros_like(length)
    used, chosen, steps = torch.zeros(options.runs, 4), torch.zeros(options.runs), torch.zeros(options.runs)
    obs, vector_steps = env.reset(seed), 0
    while int(ended.min()) < total:
        action = agent.act(obs)
        option, anew = agent.usage()
        late = (ended >= options.episodes) & (ended < total)
        used[:, : option.shape[-1]] += option * late.unsqueeze(-1)
        chosen += anew & late
        steps += late
        step = env.step(action)
        agent.learn(step)
        length += 1
        done = step.terminated | step.truncated
        lengths[rows, ended.clamp_max(total)] = length
        ended += done
        length *= ~done
        obs, vector_steps = step.obs, vector_steps + 1
    usage = (used / steps.unsqueeze(-1)).sort(-1, descending=True).values
    return {
        "lengths": lengths[:, :total].tolist(), "usage": usage.tolist(), "duration": (steps / chosen).tolist(),
        "seconds": time.perf_counter() - started, "vector_steps": vector_steps,
        "machine": processor(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def main() -> None:
    """Run missing agents, then print the table."""
    options = tyro.cli(Options)
    for name in options.agents:
        r = measure(name, options)
        L = torch.tensor(r["lengths"]).float()
        E = options.episodes
        print(name, {k: r[k] for k in ("seconds", "vector_steps")})
        print("  before", [round(float(x)) for x in L[:, :E].mean(0).unflatten(0, (10, -1)).mean(-1)])
        print("  after ", [round(float(x)) for x in L[:, E:].mean(0).unflatten(0, (10, -1)).mean(-1)])
        print(
            "  first after, by 10", [round(float(x)) for x in L[:, E : E + 100].mean(0).unflatten(0, (10, -1)).mean(-1)]
        )
        print(
            "  usage",
            torch.tensor(r["usage"]).mean(0).tolist(),
            "second least",
            torch.tensor(r["usage"])[:, 1].min().item(),
            "duration",
            torch.tensor(r["duration"]).mean().item(),
            min(r["duration"]),
            max(r["duration"]),
            flush=True,
        )


if __name__ == "__main__":
    main()
