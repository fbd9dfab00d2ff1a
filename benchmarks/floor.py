"""The floor row of the speed table compares our TD3 update with a minimal one, sampling included.

The plain update has no levels, relabelling, metrics or checkpoints. It consists of two networks of torch.nn, two fused
optimisers, and a replay of five tensors. On a GPU, two updates (one period of TD3's delay) are captured as one CUDA
graph.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from measuring import Options, Row, built, paired, rate, rolling
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from hrl.agents.flat import FlatTD3
from hrl.envs import EnvConfig, make_env

OBS, ACT, ROWS = 35, 8, 16_000
GAMMA, TAU, NOISE, CLIP, RATE = 0.99, 0.005, 0.2, 0.5, 1e-3


def floor(options: Options) -> Iterator[Row]:
    """Gradient updates per second from full replays, in rounds of 16."""
    for hidden, batch in ((300, 128), (256, 256)):
        env = make_env(EnvConfig("Noise-v0", num_envs=8), options.device)
        config = FlatTD3.of(
            hidden=(hidden, hidden), batch_size=batch, buffer_size=20_000, learning_rate=RATE, gamma=GAMMA, tau=TAU
        )
        agent = built(config, env, options)
        collect = rolling(agent, env, learn=False)
        for _ in range(ROWS // 8):
            collect()
        (level,) = agent.levels
        plain = PlainTD3(hidden, batch, torch.device(options.device))
        pair = captured(plain.pair) if options.device == "cuda" else plain.pair

        def eight(pair: Callable[[], None] = pair) -> None:
            for _ in range(8):
                pair()

        sides = paired(
            options,
            rate(lambda level=level, agent=agent: level.learning.update(16, 0.0, agent.generator), options, 16),
            rate(eight, options, 16),
        )
        bar = "≥ 0.9"
        yield Row(
            "floor", f"TD3 updates ÷ a plain update, {hidden}², batch {batch}", **sides, unit="updates/s", bar=bar
        )


class PlainTD3:
    """TD3 (Fujimoto 2018) in its shortest form, with a replay of random transitions."""

    def __init__(self, hidden: int, batch: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        with device:
            self.actor = perceptron(OBS, hidden, ACT)
            self.critics = nn.ModuleList(perceptron(OBS + ACT, hidden, 1) for _ in range(2))
            self.obs, self.next_obs = torch.randn(2, ROWS, OBS)
            self.act, self.reward = torch.rand(ROWS, ACT) * 2 - 1, torch.randn(ROWS, 1)
            self.going_on = (torch.rand(ROWS, 1) > 0.01).float()
        self.slow_actor, self.slow_critics = deepcopy(self.actor), deepcopy(self.critics)
        adam = {"lr": RATE, "fused": True, "capturable": device.type == "cuda"}
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), **adam)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), **adam)

    def pair(self) -> None:
        """Two updates of the critics, and one of the actor and the target networks."""
        self.update_critics()
        obs = self.update_critics()
        loss = -self.critics[0](torch.cat([obs, self.actor(obs).tanh()], -1)).mean()
        self.descend(self.actor_optimiser, loss)
        with torch.no_grad():
            for slow, fast in ((self.slow_actor, self.actor), (self.slow_critics, self.critics)):
                torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), TAU)

    def update_critics(self) -> Tensor:
        """One update of the critics. Returns the batch's observations."""
        index = (torch.rand(self.batch, device=self.device) * ROWS).long()
        obs, act, reward, after, going_on = (
            x.index_select(0, index) for x in (self.obs, self.act, self.reward, self.next_obs, self.going_on)
        )
        with torch.no_grad():
            noise = (torch.randn_like(act) * NOISE).clamp_(-CLIP, CLIP)
            following = torch.cat([after, (self.slow_actor(after).tanh() + noise).clamp_(-1, 1)], -1)
            least = torch.minimum(*(critic(following) for critic in self.slow_critics))
            target = reward + GAMMA * going_on * least
        both = torch.cat([obs, act], -1)
        self.descend(self.critic_optimiser, sum(mse_loss(critic(both), target) for critic in self.critics))
        return obs

    def descend(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step on the optimiser's parameters only."""
        parameters = optimiser.param_groups[0]["params"]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimiser.step()


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers with ReLU."""
    layers = nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    return nn.Sequential(*layers)


def captured(function: Callable[[], None]) -> Callable[[], None]:
    """The function as one CUDA graph."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
