"""Steps between a state and a goal position, computed from the value of a goal-conditioned level.

A sparse reward is constant until the position is reached, and constant afterwards. Let `never` be the value of never
reaching the position, `there` the value of having reached it, and n the number of steps until then:

    V = never + γⁿ (there - never),        n = log((V - never) / (there - never)) / log γ.

For rewards of -1 and 0, this is n = log(1 + (1 - γ) V) / log γ (Eysenbach 2019, arXiv:1906.05253). The minimum of the
critics gives the larger distance. For other rewards, and for values with an entropy bonus, n is fitted to the value: a
state that was visited k steps after another one gives a pair (V, k), and an isotonic regression gives the mean of k for
each V.

A position counts as reached within a threshold, so V does not include the remaining distance. The steps for it are
added at the median speed of the hops between landmarks.
"""

import math
from typing import Any, Protocol

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from hrl.hierarchy.commands import Subgoal, Task
from hrl.hierarchy.commands.goals import GoalSpace
from hrl.hierarchy.level import Level
from hrl.memory.ring import Rows
from hrl.report.evaluation import success_radius
from hrl.types import Spec, UserError

CHUNK = 1 << 15
"""Maximum number of pairs of states and positions that a network evaluates at once."""
PAIRS = 20_000
KNOTS = 64
SPAN = 4
"""A calibration covers this multiple of the longest hop, to distinguish positions out of reach from near ones."""


class Visited(Protocol):
    """The interface of visited states: a replay, or a dataset."""

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """Uniformly drawn rows [B]."""

    def get(self, rows: Rows, name: str) -> Tensor:
        """A field of rows [..., width], such as "state"."""

    def end(self, rows: Rows) -> Tensor:
        """The last row [B] of the episode of each row [B]."""


def steps_of_value(value: Tensor, gamma: float, never: float, there: float) -> Tensor:
    """n [...] from the formula above for values [...]: infinite for `never` and below, 0 for `there` and above."""
    share = ((value - never) / (there - never)).clamp(0.0, 1.0)
    return share.log() / math.log(gamma)


def fitted_steps(value: np.ndarray, steps: np.ndarray, knots: int = KNOTS) -> tuple[np.ndarray, np.ndarray]:
    """A decreasing curve of steps over values: the isotonic regression of M pairs at `knots` quantiles of the values.
    Returns values [K], increasing, and steps [K]."""
    order = np.argsort(value, kind="stable")
    fit = isotonic_regression(steps[order].astype(np.float64), increasing=False).x
    at = np.unique(np.linspace(0, len(value) - 1, knots).round().astype(int))
    values, first = np.unique(value[order][at], return_index=True)
    return values, fit[at][first]


class StepDistance(Protocol):
    """The interface of steps between states and positions, for graphs of landmarks."""

    goals: GoalSpace
    """The space of the positions."""
    device: torch.device
    threshold: float
    """Distance in goal space within which a position counts as reached; 0 if unknown."""

    def place(self, state: Tensor) -> Tensor:
        """The positions [..., G] of states [..., D] in goal space."""

    def apart(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [...] between two positions [..., G] in goal space."""

    def __call__(self, state: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Environment steps [...] from states [..., D] until positions [..., G] count as reached (infinite for never),
        and the steps [...] to the exact positions."""

    def fit(self, replay: Visited, longest: float, generator: torch.Generator) -> None:
        """Calibrate the steps with visited states, if necessary."""

    def longest(self, default: float) -> float:
        """Environment steps of the longest hop, after `fit`, or `default`."""

    def measure_speed(self, state: Tensor, place: Tensor, apart: Tensor, longest: float) -> None:
        """Measure the speed, if necessary, over hops of up to `longest` steps from states [E, D] to positions
        [E, G].
        `apart` [E] are their distances in goal space."""

    def tensors(self) -> dict[str, Tensor]:
        """The fitted tensors by name."""


class Distance:
    """Steps from states to positions under one level."""

    def __init__(self, level: Level, spec: Spec, kind: str) -> None:
        """Raises UserError if the level has no value of positions, or if `kind` needs a sparse reward."""
        command: Any = level.command
        if not isinstance(command, Subgoal | Task) or command.goals is None:
            raise UserError(
                f"A planner needs a level that obeys goals, but the level {level.name!r} obeys "
                f"{'a task without goals' if isinstance(command, Task) else type(command).__name__.lower()}."
            )
        self.level, self.device = level, level.gamma.device
        self.command: Subgoal | Task = command
        self.goals: GoalSpace = command.goals
        self.ends = self._ends(spec)
        if kind == "value" and self.ends is None:
            raise UserError(
                f"planner.distance value needs a sparse reward and a learner without an entropy bonus at the level "
                f"{level.name!r}; use calibrated."
            )
        self.exact = kind != "calibrated" and self.ends is not None
        self.travelled = kind == "travelled" or (
            kind == "auto" and isinstance(command, Subgoal) and command.kind == "progress"
        )
        """Whether the value does not tell the steps: progress has the same value at every distance."""
        self.threshold = self._threshold(spec)
        """Distance in goal space within which a position counts as reached; 0 if it is unknown."""
        # Changed in place, for checkpoints and captured functions.
        self.slowness = torch.zeros((), device=self.device)
        """Steps per unit of goal space."""
        self.curve = torch.zeros(2, KNOTS, device=self.device)
        """Calibrated values, increasing, and steps."""

    def _ends(self, spec: Spec) -> tuple[float, float] | None:
        """The values of never reaching a position and of having reached it, if the reward is sparse."""
        gamma, command = self.level.config.gamma, self.command
        if self.level.learner.entropy_bonus or not 0 < gamma < 1 or self.level.intrinsic_reward is not None:
            return None
        if isinstance(command, Subgoal):
            return (-command.scale / (1 - self.discount), 0.0) if command.kind == "sparse" else None
        if command.reward_range is None or command.task_reward is None or command.scale <= 0:
            return None
        least, most = ((r + command.offset) * command.scale for r in command.reward_range)
        goal = torch.zeros(1, spec.goal_dim, device=self.device)
        info = (torch.zeros(1, spec.info_dim, device=self.device),) if spec.info_dim else ()
        ends = bool(command.task_reward(goal, goal, *info)[1])
        return least / (1 - gamma), most if ends else most / (1 - gamma)

    @property
    def discount(self) -> float:
        """γ between two rewards: a level that obeys a subgoal gets one reward per decision."""
        return self.level.config.gamma**self.unit

    @property
    def unit(self) -> int:
        """Environment steps between two rewards."""
        return 1 if self.command.extrinsic else self.level.period.greatest

    def _threshold(self, spec: Spec) -> float:
        if isinstance(self.command, Subgoal):
            return self.goals.threshold
        return success_radius(spec, torch.zeros(spec.goal_dim, device=self.device)) or 0.0

    def place(self, state: Tensor) -> Tensor:
        """The positions [..., G] of states [..., D] in the level's goal space."""
        return self.command.project(state)

    def apart(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [...] between two positions [..., G] in goal space."""
        return self.goals.distance(a, b)

    @torch.no_grad()
    def value(self, state: Tensor, place: Tensor) -> Tensor:
        """The level's value [...] of states [..., D] with positions [..., G] as goals."""
        inputs = self.level.inputs(state.expand(*place.shape[:-1], -1), place)
        flat = inputs.reshape(-1, inputs.shape[-1])
        parts = [self.level.learner.value(part) for part in flat.split(CHUNK)]
        return torch.cat(parts).view(inputs.shape[:-1])

    def __call__(self, state: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Environment steps [...] from states [..., D] until positions [..., G] count as reached (infinite for never),
        and the steps [...] to the exact positions."""
        value = self.value(state, place)
        if not self.exact:
            steps = interpolated(value, *self.curve)
            return steps, steps
        rest = self.apart(self.place(state), place).clamp_max(self.threshold)
        steps = self.to_threshold(value)
        return steps, steps + rest * self.slowness

    def to_threshold(self, value: Tensor) -> Tensor:
        """Environment steps [...] until a position counts as reached, from values [...] under a sparse reward."""
        assert self.ends is not None
        return self.unit * steps_of_value(value, self.discount, *self.ends)

    def fit(self, replay: Visited, longest: float, generator: torch.Generator) -> None:
        """Calibrate the steps with pairs of states from a replay, unless the value alone determines them."""
        if self.exact:
            return
        rows, span = replay.draw(PAIRS, generator), int(SPAN * longest)
        left = (replay.end(rows) - rows.row).clamp(max=span)
        steps = 1 + (torch.rand(len(left), generator=generator, device=self.device) * left).long()
        steps = torch.minimum(steps, left)
        later = replay.get(rows.later(steps), "state")
        value = self.value(replay.get(rows, "state"), self.place(later))
        knots = fitted_steps(value.numpy(force=True), steps.numpy(force=True))
        for mine, given in zip(self.curve, knots, strict=True):
            mine.copy_(torch.as_tensor(np.pad(given, (0, KNOTS - len(given)), mode="edge"), dtype=torch.float32))

    def longest(self, default: float) -> float:
        """The default."""
        return default

    def measure_speed(self, state: Tensor, place: Tensor, apart: Tensor, longest: float) -> None:
        """Set the speed to the median over hops from states [E, D] to positions [E, G] at distances `apart` [E]."""
        if not self.exact or not self.threshold:
            return
        steps = self.to_threshold(self.value(state, place))
        used = (apart > self.threshold) & (steps >= 1) & (steps <= longest)
        if bool(used.any()):
            self.slowness.copy_((steps[used] / (apart[used] - self.threshold)).median())

    def tensors(self) -> dict[str, Tensor]:
        """The speed and the calibration."""
        return {"slowness": self.slowness, "curve": self.curve}


def interpolated(value: Tensor, values: Tensor, steps: Tensor) -> Tensor:
    """Steps [...] of values [...] by linear interpolation between K knots; infinite below the lowest value."""
    right = torch.searchsorted(values, value.contiguous()).clamp(1, len(values) - 1)
    left = right - 1
    share = ((value - values[left]) / (values[right] - values[left]).clamp_min(1e-9)).clamp(0.0, 1.0)
    between = torch.lerp(steps[left], steps[right], share)
    return torch.where(value < values[0], torch.inf, between)
