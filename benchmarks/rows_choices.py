"""Rows of the speed table about DQN and PPO."""

from collections.abc import Iterator
from typing import Literal

import gymnasium as gym
import numpy as np
from measuring import Noise, Options, Row, built, paired, rate, rolling, sb3
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from hrl.agents.flat import FlatDQN, FlatPPO
from hrl.envs import EnvConfig, make_env


def dqn_updates(options: Options) -> Iterator[Row]:
    """Gradient updates per second including sampling, from full replays in rounds of 16. Neither side uses double Q
    learning, which stable-baselines3 does not have."""
    for hidden, batch in ((256, 64), (64, 32)):
        env = make_env(EnvConfig("NumberedNoise-v0", num_envs=8), options.device)
        config = FlatDQN.of(hidden=(hidden, hidden), batch_size=batch, buffer_size=20_000, double=False)
        agent = built(config, env, options)
        collect = rolling(agent, env, learn=False)
        for _ in range(2000):
            collect()
        (level,) = agent.levels
        model = sb3(
            DQN, NumberedNoise(), options.device, batch_size=batch, buffer_size=20_000, learning_starts=0,
            policy_kwargs={"net_arch": [hidden, hidden]},
        )  # fmt: skip
        model.learn(1, reset_num_timesteps=False)
        rng = np.random.default_rng(0)
        for _ in range(16_000):
            obs, action = rng.standard_normal((2, 1, 35), np.float32), rng.integers(8, size=(1, 1))
            model.replay_buffer.add(obs[0], obs[1], action, rng.standard_normal(1), np.zeros(1), [{}])
        sides = paired(
            options,
            rate(lambda level=level, agent=agent: level.learning.update(16, 0.0, agent.generator), options, 16),
            rate(lambda model=model, batch=batch: model.train(gradient_steps=16, batch_size=batch), options, 16),
        )
        yield Row("m", f"DQN updates, {hidden}², batch {batch}", **sides, unit="updates/s", bar="≥ 1.3")


def ppo_steps(options: Options) -> Iterator[Row]:
    """The whole loop of PPO with 16 environments: rollouts of 128 steps, ten epochs in minibatches of 256. With worker
    processes, ours have one process per core, and stable-baselines3's one per environment."""
    for env_id in ("CartPole-v1", "Pendulum-v1", "HalfCheetah-v5"):
        yield _ppo_row(options, env_id, "sync", DummyVecEnv)
    yield _ppo_row(options, "HalfCheetah-v5", "async", SubprocVecEnv)


def _ppo_row(options: Options, env_id: str, vectorization: Literal["sync", "async"], form: type[VecEnv]) -> Row:
    env = make_env(EnvConfig(env_id, num_envs=16, vectorization=vectorization), options.device)
    agent = built(FlatPPO.of(n_steps=128, batch_size=256), env, options)
    step = rolling(agent, env, learn=True)
    peers = form([lambda: gym.make(env_id)] * 16)
    model = sb3(PPO, peers, options.device, n_steps=128, batch_size=256)

    def ours() -> None:
        for _ in range(128):
            step()

    sides = paired(
        options,
        rate(ours, options, 128 * 16, together=1),
        rate(lambda: model.learn(128 * 16, reset_num_timesteps=False), options, 128 * 16, together=1),
    )
    env.close()
    peers.close()
    where = ", worker processes" if vectorization == "async" else ""
    return Row("n", f"PPO training, {env_id} ×16{where}", **sides, unit="steps/s", bar="≥ 2")


class NumberedNoise(Noise):
    """The environment of random observations with eight discrete actions."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(8)


gym.register("NumberedNoise-v0", NumberedNoise, max_episode_steps=200)
