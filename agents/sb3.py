"""stable-baselines3's algorithms as baselines: same command, run folder, tags and evaluation as ours."""

import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger as SB3Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from hrl.agents.base import unseen
from hrl.stopping import Interrupted, close_within
from hrl.training.checkpoint import Checkpoint, Checkpoints
from hrl.training.episodes import EpisodeCounter, Finished
from hrl.training.reporter import Reporter
from hrl.training.session import Session, Which
from hrl.types import BatchedEnv, Observation, Step, UserError


@dataclass
class SB3Config:
    """What all of stable-baselines3's algorithms take. Everything else keeps its own defaults."""

    lr: float = 1e-3
    """Learning rate."""
    gamma: float = 0.99
    """Discount an environment step."""
    batch_size: int = 256
    """Transitions a gradient update."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers."""

    algorithm: ClassVar[type[BaseAlgorithm]]
    actions: ClassVar[tuple[type, ...]]
    resumable: ClassVar[bool] = False

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Further arguments of the algorithm; one episode of every environment takes so many steps at most."""
        return {}

    def check(self) -> None:
        """Raise UserError where a value cannot be meant."""
        for name in ("lr", "batch_size", "buffer_size", "n_steps", "tau"):
            if not getattr(self, name, 1) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"--hidden must be one or more positive layer sizes, not {self.hidden}.")
        if not 0 <= self.gamma <= 1:
            raise UserError(f"--gamma must lie between 0 and 1, not at {self.gamma}.")

    def make(self, session: Session) -> BaseAlgorithm:
        """The untrained model. Raises UserError where it can't handle the environment."""
        one = session.make_single()
        if not isinstance(one.action_space, self.actions):
            wanted = " or ".join(kind.__name__ for kind in self.actions)
            raise UserError(
                f"sb3-{self.algorithm.__name__.lower()} needs {wanted} actions, but {one.spec and one.spec.id} "
                f"has {one.action_space}."
            )
        self.check()
        goal_env = isinstance(one.observation_space, spaces.Dict)
        makers: list[Any] = [partial(session.make_single, i) for i in range(session.num_envs)]
        options = self.options(goal_env, session.num_envs * ((one.spec and one.spec.max_episode_steps) or 0))
        try:
            return self.algorithm(
                "MultiInputPolicy" if goal_env else "MlpPolicy", DummyVecEnv(makers), self.lr, gamma=self.gamma,
                batch_size=self.batch_size, policy_kwargs={"net_arch": list(self.hidden)},
                seed=session.run.seed, device=session.device, **options,
            )  # type: ignore[call-arg]  # fmt: skip
        except (AssertionError, ValueError) as error:
            raise UserError(f"stable-baselines3 refuses this: {error}") from error

    def train(self, session: Session) -> signal.Signals | None:
        """Run the algorithm's own loop, with our logging, evaluation and checkpoints."""
        if session.resume is not None:
            raise UserError(
                "stable-baselines3's algorithms cannot be resumed exactly; start a new run with more --total-steps."
            )
        if session.processes.size > 1:
            raise UserError("stable-baselines3's algorithms train in one process; start them without torchrun.")
        with session.stop.interruptible():
            model, bridge = self.make(session), session.make_env(1, None)
        session.begin(unseen(bridge.spec))
        watch = Watch(session, SB3Policy(model, bridge))
        model.set_logger(SB3Logger(folder=None, output_formats=[]))
        try:
            with watch.reporter.display, session.stop.interruptible():
                model.learn(session.run.total_steps, callback=watch)
        except Interrupted:
            pass
        except Exception:
            watch.save()  # what is there first
            raise
        finally:
            environments: Any = model.env
            reason = close_within(environments.close) or close_within(bridge.close)
            if reason:
                watch.reporter.display.say(f"warning: {bridge.spec.env_id} could not be closed: {reason}")
        watch.finish()
        return session.stop.signal

    def load(self, session: Session, which: Which) -> "SB3Policy":
        """The policy of a checkpoint."""
        model = self.make(session)
        try:
            model.policy.load_state_dict(session.checkpoint(which).tensors)
        except RuntimeError as error:
            raise UserError(f"The checkpoint in {session.folder.path} does not fit its configuration.") from error
        return SB3Policy(model, session.make_env(1, None))


@dataclass
class OffPolicy(SB3Config):
    """Those with a replay buffer; with hindsight (HER, future, 4 goals) on goal environments."""

    her: bool = True
    """Hindsight on goal environments."""
    buffer_size: int = 1_000_000
    """Capacity of the replay buffer."""
    learning_starts: int = 1000
    """Environment steps before the first update."""
    gradient_steps: int = -1
    """Updates a step of all environments; -1 for as many as there are environments."""
    tau: float = 0.005
    """Polyak averaging of the target networks."""

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Further arguments of the algorithm."""
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
    noise: float = 0.1
    """Standard deviation of Gaussian exploration noise, in half-ranges of the action."""

    def make(self, session: Session) -> BaseAlgorithm:
        """The untrained model, with exploration noise."""
        from stable_baselines3.common.noise import NormalActionNoise

        model = super().make(session)
        assert isinstance(model, TD3) and isinstance(model.action_space, spaces.Box)
        size = model.action_space.shape[0]
        model.action_noise = NormalActionNoise(np.zeros(size), np.full(size, self.noise))
        return model


@dataclass
class SB3SAC(OffPolicy):
    """stable-baselines3's SAC, with its HER on goal environments."""

    algorithm: ClassVar[type[BaseAlgorithm]] = SAC
    actions: ClassVar[tuple[type, ...]] = (spaces.Box,)
    lr: float = 3e-4
    """Learning rate."""


@dataclass
class SB3DQN(OffPolicy):
    """stable-baselines3's DQN, for discrete actions."""

    algorithm: ClassVar[type[BaseAlgorithm]] = DQN
    actions: ClassVar[tuple[type, ...]] = (spaces.Discrete,)
    lr: float = 1e-4
    """Learning rate."""
    tau: float = 1.0
    """Share of the network copied into the target at each of its updates."""


@dataclass
class SB3PPO(SB3Config):
    """stable-baselines3's PPO, on-policy, for continuous and discrete actions."""

    algorithm: ClassVar[type[BaseAlgorithm]] = PPO
    actions: ClassVar[tuple[type, ...]] = (
        spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary,
    )  # fmt: skip
    lr: float = 3e-4
    """Learning rate."""
    batch_size: int = 64
    """Transitions a gradient update."""
    n_steps: int = 2048
    """Steps of every environment from one round of updates to the next."""

    def options(self, goal_env: bool, one_episode: int) -> dict[str, Any]:
        """Further arguments of the algorithm."""
        return {"n_steps": self.n_steps}


class Watch(BaseCallback):
    """Our reporter and checkpoints inside stable-baselines3's loop."""

    def __init__(self, session: Session, policy: "SB3Policy") -> None:
        super().__init__()
        self.session, self.policy = session, policy
        self.reporter = Reporter(session, 0, policy.env.spec.max_episode_steps)
        self.checkpoints = Checkpoints(session.folder.checkpoints)

    def _on_training_start(self) -> None:
        self.counter = EpisodeCounter(self.training_env.num_envs, self.session.device)

    def _on_step(self) -> bool:
        steps, report = self.num_timesteps, self.reporter
        report.recent.add(self._finished(self.locals["rewards"], self.locals["dones"], self.locals["infos"]))
        if report.log_due(steps):
            report.log(steps, self._metrics())
        if report.eval_due(steps):
            self._evaluate()
        if report.save_due(steps):
            self.save()
        return not self.session.stop

    def _finished(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> Finished:
        observations = self.locals["new_obs"]
        for values in (*(observations.values() if isinstance(observations, dict) else [observations]), rewards):
            if not np.isfinite(values).all():
                raise UserError(
                    f"An observation or reward is NaN or infinite at environment step {self.num_timesteps}."
                )
        self.reporter.tells_success |= any("is_success" in i for i in infos)
        success = [bool(i.get("is_success", False)) for i in infos]
        on_device = partial(torch.as_tensor, device=self.session.device)
        done = on_device(dones, dtype=torch.bool)
        reward = on_device(rewards, dtype=torch.float32)
        return self.counter.add(reward, on_device(success), done, torch.ones_like(done))

    def _metrics(self) -> dict[str, float]:
        values = self.model.logger.name_to_value.items()
        return {f"policy/{n.removeprefix('train/')}": float(v) for n, v in values if n.startswith("train/")}

    def _evaluate(self) -> None:
        if self.reporter.evaluate(self.num_timesteps, self.policy):
            self.checkpoints.save_best(self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(dict(self.model.policy.state_dict()), {"steps": self.num_timesteps})

    def save(self) -> None:
        """A checkpoint: the policy's weights."""
        self.checkpoints.save(self._checkpoint())

    def finish(self) -> None:
        """The last evaluation and checkpoint."""
        self.reporter.log(self.num_timesteps, self._metrics())
        if self.session.run.eval_freq and not self.session.stop:
            with contextlib.suppress(Interrupted):
                self._evaluate()
        self.save()
        self.reporter.logger.close()


class SB3Policy:
    """A stable-baselines3 model as a policy of our evaluation."""

    def __init__(self, model: BaseAlgorithm, env: BatchedEnv) -> None:
        self.model, self.env, self.spec = model, env, env.spec

    def start(self, num_envs: int) -> None:
        """It remembers nothing."""

    def decide(self, obs: Observation, memory: None) -> tuple[Tensor, None, list[Tensor]]:
        """Deterministic actions: vectors in [-1, 1], or numbers for discrete actions."""
        actions, _ = self.predict(self._raw(obs))
        if self.model.action_space == self.spec.action_space:  # else the model decides as our agents do
            actions = self.env.from_action(actions)
        decided = torch.as_tensor(actions)
        return decided.float() if self.spec.continuous else decided, None, []

    def place(self, state: Tensor) -> Tensor | None:
        """The achieved goals [N, G] of a goal environment."""
        return state[:, list(self.spec.achieved)] if self.spec.achieved else None

    def after(self, memory: None, step: Step) -> tuple[None, dict[str, Tensor]]:
        """Nothing to remember or report."""
        return None, {}

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """The model's own `predict`."""
        return self.model.predict(observation, state, episode_start, deterministic)

    def _raw(self, obs: Observation) -> np.ndarray | Mapping[str, np.ndarray]:
        state = obs.state.cpu().numpy()
        space = self.model.observation_space
        if not isinstance(space, spaces.Dict):
            return state
        width = int(np.prod(space["observation"].shape or (1,)))
        parts = {
            "observation": state[:, :width],
            "achieved_goal": state[:, list(self.spec.achieved)],
            "desired_goal": obs.goal.cpu().numpy(),
        }
        return {key: x.reshape(-1, *(space[key].shape or ())) for key, x in parts.items()}
