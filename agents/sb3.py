"""stable-baselines3's algorithms as baselines, with the same command line, run folder, tags and evaluation as ours."""

import signal
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from hrl.agents.base import unseen
from hrl.agents.parts.sb3_model import SB3Policy, SB3Trainee
from hrl.run.checkpoint import Which
from hrl.run.session import Session
from hrl.run.trainer import Trainer
from hrl.types import UserError


@dataclass
class SB3Config:
    """Options of all algorithms of stable-baselines3. Other arguments keep stable-baselines3's defaults."""

    learning_rate: float = 1e-3
    """Learning rate."""
    gamma: float = 0.99
    """Discount per environment step."""
    batch_size: int = 256
    """Transitions per gradient update."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers."""

    algorithm: ClassVar[type[BaseAlgorithm]]
    actions: ClassVar[tuple[type, ...]]
    resumable: ClassVar[bool] = False

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Additional arguments of the algorithm. `one_episode` is the maximum number of steps of one episode in every
        environment."""
        return {}

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        for name in ("learning_rate", "batch_size", "buffer_size", "n_steps", "tau"):
            if not getattr(self, name, 1) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"--hidden must be one or more positive layer sizes, not {self.hidden}.")
        if not 0 <= self.gamma <= 1:
            raise UserError(f"--gamma must be between 0 and 1, not {self.gamma}.")

    def make(self, session: Session) -> BaseAlgorithm:
        """The untrained model. Raises UserError if it does not support the environment."""
        one = session.make_single()
        if not isinstance(one.action_space, self.actions):
            accepted = " or ".join(kind.__name__ for kind in self.actions)
            raise UserError(
                f"sb3-{self.algorithm.__name__.lower()} needs {accepted} actions, but {one.spec and one.spec.id} "
                f"has {one.action_space}."
            )
        self.check()
        goal_env = isinstance(one.observation_space, spaces.Dict)
        makers: list[Any] = [partial(session.make_single, i) for i in range(session.num_envs)]
        options = self.options(goal_env, session.num_envs * ((one.spec and one.spec.max_episode_steps) or 0))
        try:
            return self.algorithm(
                "MultiInputPolicy" if goal_env else "MlpPolicy",
                DummyVecEnv(makers),
                self.learning_rate,
                gamma=self.gamma,
                batch_size=self.batch_size,
                policy_kwargs={"net_arch": list(self.hidden)},
                seed=session.run.seed,
                device=session.device,
                **options,
            )  # type: ignore[call-arg]
        except (AssertionError, ValueError) as error:
            raise UserError(f"stable-baselines3 rejects this configuration: {error}") from error

    def train(self, session: Session) -> signal.Signals | None:
        """Train with the algorithm's method `learn`, and with our logging, evaluation and checkpoints."""
        if session.resume is not None:
            raise UserError(
                "stable-baselines3's algorithms cannot be resumed exactly: start a new run with more --total-steps."
            )
        if session.processes.size > 1:
            raise UserError("stable-baselines3's algorithms train in one process: start them without torchrun.")
        with session.stop.interruptible():
            model, bridge = self.make(session), session.make_env(1)
        return Trainer(SB3Trainee(model, bridge, session), session, unseen(bridge.spec)).run()

    def load(self, session: Session, which: Which) -> SB3Policy:
        """The policy of a checkpoint."""
        model = self.make(session)
        try:
            model.policy.load_state_dict(session.checkpoint(which).tensors)
        except RuntimeError as error:
            raise UserError(f"The checkpoint in {session.folder.path} does not fit its configuration.") from error
        return SB3Policy(model, session.make_env(1))


@dataclass
class OffPolicy(SB3Config):
    """Options of algorithms with a replay buffer, with hindsight (HER, future, 4 goals) on goal environments."""

    her: bool = True
    """Hindsight on goal environments."""
    buffer_size: int = 1_000_000
    """Capacity of the replay buffer."""
    learning_starts: int = 1000
    """Environment steps before the first update."""
    gradient_steps: int = -1
    """Updates per step of all environments; -1 for one update per environment."""
    tau: float = 0.005
    """Polyak averaging of the target networks."""

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Additional arguments of the algorithm."""
        options: dict[str, Any] = {
            "buffer_size": self.buffer_size, "learning_starts": self.learning_starts, "train_freq": 1,
            "gradient_steps": self.gradient_steps, "tau": self.tau,
        }  # fmt: skip
        if goal_env and self.her:
            # Hindsight needs a finished episode before the first update.
            options["learning_starts"] = max(self.learning_starts, one_episode + 1)
            options["replay_buffer_class"] = HerReplayBuffer
            options["replay_buffer_kwargs"] = {"n_sampled_goal": 4, "goal_selection_strategy": "future"}
        return options


@dataclass
class SB3TD3(OffPolicy):
    """stable-baselines3's TD3, with its HER on goal environments."""

    algorithm: ClassVar[type[BaseAlgorithm]] = TD3
    actions: ClassVar[tuple[type, ...]] = (spaces.Box,)
    action_noise: float = 0.1
    """Standard deviation of Gaussian exploration noise, in half-ranges of the action."""

    def make(self, session: Session) -> BaseAlgorithm:
        """The untrained model, with exploration noise."""
        from stable_baselines3.common.noise import NormalActionNoise

        model = super().make(session)
        assert isinstance(model, TD3) and isinstance(model.action_space, spaces.Box)
        size = model.action_space.shape[0]
        model.action_noise = NormalActionNoise(np.zeros(size), np.full(size, self.action_noise))
        return model


@dataclass
class SB3SAC(OffPolicy):
    """stable-baselines3's SAC, with its HER on goal environments."""

    algorithm: ClassVar[type[BaseAlgorithm]] = SAC
    actions: ClassVar[tuple[type, ...]] = (spaces.Box,)
    learning_rate: float = 3e-4
    """Learning rate."""


@dataclass
class SB3DQN(OffPolicy):
    """stable-baselines3's DQN, for discrete actions."""

    algorithm: ClassVar[type[BaseAlgorithm]] = DQN
    actions: ClassVar[tuple[type, ...]] = (spaces.Discrete,)
    learning_rate: float = 1e-4
    """Learning rate."""
    tau: float = 1.0
    """Weight of the network in each update of the target network."""
    train_freq: int = 4
    """Steps of every environment between two rounds of updates."""
    target_update_interval: int = 10_000
    """Environment steps between two updates of the target network."""
    exploration_fraction: float = 0.1
    """Fraction of the run over which the fraction of random actions falls."""
    exploration_final_eps: float = 0.05
    """Final fraction of random actions."""

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Additional arguments of the algorithm."""
        own = ("train_freq", "target_update_interval", "exploration_fraction", "exploration_final_eps")
        return super().options(goal_env, one_episode) | {name: getattr(self, name) for name in own}


@dataclass
class SB3PPO(SB3Config):
    """stable-baselines3's PPO, on-policy, for continuous and discrete actions."""

    algorithm: ClassVar[type[BaseAlgorithm]] = PPO
    actions: ClassVar[tuple[type, ...]] = (
        spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary,
    )  # fmt: skip
    learning_rate: float = 3e-4
    """Learning rate."""
    batch_size: int = 64
    """Transitions per gradient update."""
    n_steps: int = 2048
    """Steps of every environment between two rounds of updates."""

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Additional arguments of the algorithm."""
        return {"n_steps": self.n_steps}
