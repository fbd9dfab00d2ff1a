"""A level of the hierarchy, with its policy, learner, memory and timescale."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from gymnasium import spaces
from torch import Tensor, nn

from hrl.execution.modes import Execution
from hrl.hierarchy.clock import Period, Periods, Segment, Transition
from hrl.hierarchy.commands import Command, IssuedCommand
from hrl.hierarchy.config import LevelConfig
from hrl.hierarchy.exploration import Exploration
from hrl.hierarchy.learning import FromReplay, FromRollout, timescale_of
from hrl.hierarchy.level.building import new_encoder, new_learner, observation_mask, value_range
from hrl.hierarchy.level.contracts import Bonus, Model, Relabel, RewardTerm, Tuned
from hrl.hierarchy.relabelling.n_step import NStep
from hrl.hierarchy.setting import Setting
from hrl.learners import Batch, Build, Constraint, Reads, Terminating
from hrl.learners.protection import Protection
from hrl.memory.prioritised import PrioritisedReplay
from hrl.memory.ring import Replay
from hrl.memory.rollout import RolloutMemory
from hrl.memory.transitions import Transitions, read_transitions
from hrl.metrics import Means
from hrl.networks.layers import ActionFeatures
from hrl.networks.normaliser import RunningNorm
from hrl.spaces import Space, action_width
from hrl.state import Stateful
from hrl.types import UserError


class Level:
    """Acts on its own clock under a command from above, stores the transitions, and learns from them."""

    def __init__(
        self,
        name: str,
        config: LevelConfig,
        command: Command,
        actions: Space,
        memory: Replay,
        setting: Setting,
        period: Periods | Period = 1,
        learning_starts: int = 0,
        steps: Replay | None = None,
        testing: float = 0.0,
        relabels: Sequence[Relabel] = (),
        tuned: Sequence[Tuned] = (),
        models: Sequence[Model] = (),
        constraint: Constraint | None = None,
        issues: IssuedCommand | None = None,
        reads: Reads | None = None,
        pace: int | None = None,
        action_features: ActionFeatures | None = None,
        bonus: Bonus | None = None,
    ) -> None:
        """The level decides in the space `actions` every `period` environment steps. Its decisions issue the command
        `issues` to the level below, if there is one. `steps` is the memory of the environment steps within its
        decisions. `testing` is the fraction of its decisions during which the levels below act without exploration.
        `reads` is a function of another level for the learner, and `action_features` are features of decisions for its
        critic. `bonus` is added to the reward. The timescale is computed from `pace`, the environment steps per
        decision, by default `period`."""
        if not command.extrinsic and config.gamma == 1:
            raise UserError(f"{name}.gamma must be below 1, because the rewards for a subgoal never end.")
        device, num_envs, spec = setting.device, setting.num_envs, setting.spec
        self.name, self.config, self.command, self.actions = name, config, command, actions
        self.period = Period.of(period)
        self.memory, self.steps, self.testing, self.issues = memory, steps, testing, issues
        self.relabels, self.bonus = list(relabels), bonus
        self.models: list[Model] = [*models] if bonus is None else [*models, bonus]
        self.gamma = torch.tensor(config.gamma, device=device)
        self.observation_mask = observation_mask(name, config.masked_entries, spec.state_dim, device)
        self.normaliser = RunningNorm(spec.state_dim, spec.pixels).to(device) if config.normalize_observations else None
        self.continuous = isinstance(actions, spaces.Box)
        self._add_up_steps()
        self.encoder = new_encoder(setting, command)
        tunes = frozenset(name for one in tuned for name in one.tunes)
        build = Build(
            spec.state_dim + command.input_dim, actions, name, self.encoder, config.tasks,
            None if tunes & {"gamma", "reward"} else value_range(command, config.gamma, bonus),
            constraint, tunes, Execution() if tunes else setting.execution, command.input_dim, reads, action_features,
        )  # fmt: skip
        self.learner = new_learner(config, build, device)
        self.terminating = self.learner if isinstance(self.learner, Terminating) else None
        environments = num_envs * setting.processes.size
        rhythm = self.period if pace is None else Period.of(pace)
        self.timescale = timescale_of(config, environments, rhythm, learning_starts)
        self.segment = Segment.empty(
            num_envs, spec.state_dim, command.dim, action_width(actions), device,
            memory.width("mask"), self.learner.remembers,
        )  # fmt: skip
        warmup = config.random_warmup > 0
        self.exploration = Exploration(config.learner.exploring, num_envs, actions, device, warmup)
        self.metrics = Means(device)
        self.tuners = [make(self) for make in tuned]
        self.intrinsic_reward = next((t.intrinsic_reward for t in self.tuners if t.intrinsic_reward is not None), None)
        learning = FromRollout if isinstance(memory, RolloutMemory) else FromReplay
        self.learning = learning(self, setting)

    def _add_up_steps(self) -> None:
        """Relabel batches to n-step returns, if the learner requires them."""
        n_step = getattr(self.config.learner, "n_step", 1)
        if n_step > 1:
            if not self.command.extrinsic or self.relabels:
                raise UserError(
                    f"{self.name}.n_step must be 1 here: it adds up stored rewards, which hindsight and subgoals "
                    "change."
                )
            self.relabels.append(NStep(self.memory, n_step, self.config.gamma))

    # -- acting ----------------------------------------------------------------------------------------------

    def inputs(self, state: Tensor, target: Tensor) -> Tensor:
        """The networks' inputs [..., I]."""
        shown = state * self.observation_mask if self.config.masked_entries else state
        encoded = self.command.encode(state, target, shown)
        if self.normaliser is not None:
            shown = self.normaliser(state) * self.observation_mask
        return torch.cat([shown, encoded], -1)

    def decide(self, state: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The deterministic decision [..., A], within the bounds of a Box."""
        return self.within(self.learner.act(self.inputs(state, target), None, mask))

    def within(self, action: Tensor) -> Tensor:
        """A decision clipped to the bounds of a Box. Policies without a squashing function may exceed them."""
        return action.clamp(-1.0, 1.0) if self.continuous and self.learner.remembers else action

    def sample(self, state: Tensor, target: Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
        """A sampled decision [B, A], with the environments' mean noise but without random decisions."""
        action = self.learner.act(self.inputs(state, target), generator, mask)
        return self.within(self.exploration.noisy(action, self.exploration.mean_noise, generator))

    def explore(
        self,
        state: Tensor,
        target: Tensor,
        due: Tensor | None,
        generator: torch.Generator,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The decision [N, A] with exploration, for the environments that are `due` [N] (None for all), and the values
        [N] that the learner stores with it."""
        action, notes = self.learner.act_and_note(self.inputs(state, target), generator, mask)
        return self.exploration(action, due, generator, mask), notes

    @property
    def ends_early(self) -> bool:
        """Whether the command that the level obeys may end before its period."""
        return self.terminating is not None or cast(IssuedCommand, self.command).ends_early

    def ended(self, state: Tensor, target: Tensor, generator: torch.Generator | None) -> Tensor:
        """Whether [B] the command that the level obeys ends in this state, according to the command or the learner. The
        learner samples its answer, or takes the more likely one without a generator."""
        ended = cast(IssuedCommand, self.command).ended(state, target)
        if self.terminating is not None:
            ended = ended | self.terminating.ends(self.inputs(state, target), generator)
        return ended

    def log_likelihood(self, state: Tensor, target: Tensor, action: Tensor) -> Tensor:
        """Log-likelihood [...] of an action under the current policy, up to a constant: -½ ||a - μ||² for vectors,
        minus the number of entries that differ for choices."""
        error = action - self.decide(state, target)
        return -0.5 * error.square().sum(-1) if self.continuous else -(error != 0).float().sum(-1)

    # -- observing -------------------------------------------------------------------------------------------

    def observe(self, outcome: Transition, over: Tensor) -> None:
        """Called with every step's outcome, before a segment that ends with it is stored. `over` [N] masks environments
        where the command that the level obeys ends."""
        if self.normaliser is not None:
            self.normaliser.update(outcome.state, outcome.active)

    def truncate_episodes(self) -> None:
        """Truncate every open episode of the memory."""
        self.memory.truncate_episodes()

    def restart(self) -> None:
        """End all running random decisions."""
        self.exploration.restart()

    def pop_metrics(self) -> dict[str, float]:
        """`<level>/<name>` means since the last call. Waits for the device."""
        values = self.metrics.pop()
        for name, optimiser in self.learner.optimisers().items():
            values[f"{name.removesuffix('_optimiser')}_learning_rate"] = float(optimiser.lr)
        values |= {"memory_size": float(len(self.memory)), "updates": float(self.timescale.done)}
        return {f"{self.name}/{name}": value for name, value in values.items()}

    # -- learning --------------------------------------------------------------------------------------------

    def waits_at(self, steps: int) -> bool:
        """Whether the level has not started to learn after `steps` environment steps."""
        return steps < self.config.random_warmup

    def done_at(self, steps: int) -> bool:
        """Whether the level no longer learns after `steps` environment steps."""
        c = self.config
        return c.frozen or (c.learning_stops is not None and steps > c.learning_stops)

    def learns_at(self, steps: int) -> bool:
        """Whether the level learns after `steps` environment steps."""
        return not self.waits_at(steps) and not self.done_at(steps)

    def progress(self, steps: int, total: float) -> float:
        """The elapsed fraction of the level's learning period, in a run of `total` environment steps."""
        c = self.config
        end = total if c.learning_stops is None else min(c.learning_stops, total)
        return (steps - c.random_warmup) / max(end - c.random_warmup, 1)

    def learn(self, steps: int, total: float, generator: torch.Generator, in_haste: Callable[[], bool] = bool) -> None:
        """Train the models and make the updates that are due after `steps` of `total` environment steps."""
        due, progress = self.timescale.due(steps), self.progress(steps, total)
        self.warm_up(steps)
        if self.exploration.fraction:
            self.exploration.progress(steps / total)
        if self.done_at(steps):
            return
        for model in self.models:
            self.metrics.add(model.keep_up(self, steps, generator, in_haste))
        self.learning.learn(due, min(max(progress, 0.0), 1.0), generator, in_haste)

    def warm_up(self, steps: int) -> None:
        """Make all decisions random during a warmup, and drop its transitions, because the low level changes."""
        if self.exploration.warming_up and not self.waits_at(steps):
            self.memory.clear()
        self.exploration.warm_up(self.waits_at(steps))

    @property
    def requires_host(self) -> bool:
        """Whether sampling calls the host: True if the environment's own code computes the task's reward."""
        return any(getattr(part, "requires_host", False) for part in (self.command, *self.relabels))

    def transitions(self, size: int, generator: torch.Generator) -> Transitions:
        """Relabelled transitions, sampled from the memory."""
        rows = self.memory.draw(size, generator)
        transitions = read_transitions(self.memory, rows, self.command.extrinsic)
        if self.steps is not None:
            self.metrics.add({"steps_in_reach": self.steps.holds(transitions.steps).float().mean()})
        if isinstance(self.memory, PrioritisedReplay):
            transitions = transitions.changed(weight=self.memory.weights(rows))
        for relabel in self.relabels:
            transitions = relabel(transitions, generator)
        return transitions

    def batch(
        self,
        t: Transitions,
        gamma: Tensor | None = None,
        outer: bool = False,
        intrinsic_reward: RewardTerm | None = None,
    ) -> Batch:
        """Convert transitions to the learner's batch. Intrinsic rewards are computed here, from the relabelled target.

        An upper level that obeys a subgoal gets one reward per decision, for the resulting state (as in HAC). The end
        of the task is not terminal for a level that obeys a subgoal: it bootstraps there, as at a truncation. Ending
        the episode therefore neither avoids nor loses rewards, unless the command gives the end a cost. A command that
        ends early is terminal, with a value of 0, because another command follows. With `outer`, the reward is the
        outer level's objective: the task's reward without the learned term, if a reward is learned."""
        inputs = self.inputs(t.state, t.target)
        intrinsic_reward = intrinsic_reward if intrinsic_reward is not None else self.intrinsic_reward
        gamma = self.gamma if gamma is None else gamma
        if self.command.extrinsic or (outer and intrinsic_reward is not None):
            reward, ended = t.total(gamma), t.terminated
        else:
            reward, ended = self._obeyed(t)
        if self.bonus is not None and not outer:
            reward = reward + self.bonus(t.next_state)
        if t.penalty is not None:
            missed = t.penalty > 0
            reward, ended = torch.where(missed, -t.penalty, reward), ended | missed
        if intrinsic_reward is not None and not outer:
            reward = reward + intrinsic_reward(inputs, t.action)
        return Batch(
            inputs=inputs,
            action=t.action,
            reward=reward,
            next_inputs=self.inputs(t.next_state, t.next_target),
            discount=gamma**t.length * ~ended,
            weight=t.weight,
            mask=t.mask if self.issues is None else self.issues.available(t.state),
            next_mask=t.next_mask if self.issues is None else self.issues.available(t.next_state),
        )

    def _obeyed(self, t: Transitions) -> tuple[Tensor, Tensor]:
        """The intrinsic rewards [B], and the mask [B] of transitions in which the relabelled command ended early, or
        the task with a cost."""
        command = cast(IssuedCommand, self.command)
        reward = command.reward(t.state, t.next_state, t.target)
        ended = command.ended(t.next_state, t.target) if command.ends_early else torch.zeros_like(t.terminated)
        if command.termination_cost:
            reward, ended = reward - command.termination_cost * t.terminated, ended | t.terminated
        return reward, ended

    @property
    def protection(self) -> Protection | None:
        """The protection of the learner's actor; None without one."""
        return getattr(self.learner, "protection", None)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, Stateful]:
        """Everything that deciding depends on, by name."""
        networks: dict[str, Stateful] = {"net": self.learner}
        if self.normaliser is not None:
            networks["normaliser"] = self.normaliser
        if isinstance(self.command, nn.Module):  # its networks encode the command, or compute its reward
            networks["command"] = self.command
        return networks

    def parts(self) -> dict[str, Stateful]:
        """Everything that the level's next decisions and updates depend on, by name."""
        parts: dict[str, Any] = {**self.networks(), "memory": self.memory, "timescale": self.timescale}
        parts |= {"exploration": self.exploration, **self.learner.optimisers(), **self.learning.parts()}
        parts |= {f"tuner{number}": tuner for number, tuner in enumerate(self.tuners)}
        return parts | {f"model{number}": model for number, model in enumerate(self.models)}
