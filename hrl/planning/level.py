"""A level that decides by planning: its subgoal is the next landmark on the shortest path to its goal."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.level import Level
from hrl.planning.landmarks import Landmarks
from hrl.state import Stateful


class PlannedLevel(Level):
    """Decides by planning where a path of landmarks leads to its goal. Elsewhere, its learner decides.

    The learner learns from all decisions, as in any level.
    """

    def __init__(self, *args: Any, landmarks: Landmarks, every: int, **options: Any) -> None:
        """`landmarks` are those of the level below. They are updated from the bottom level's memory after every `every`
        environment steps. The other arguments are those of `Level`."""
        super().__init__(*args, **options)
        self.landmarks, self.every = landmarks, every
        self.rounds = torch.zeros((), dtype=torch.int64)
        """Number of updates of the landmarks that were due so far."""

    # -- acting ----------------------------------------------------------------------------------------------

    def decide(self, state: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The planned decision [..., A], or the learner's where there is no path."""
        return self._planned(state, target, super().decide(state, target, mask))[0]

    def sample(self, state: Tensor, target: Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
        """The planned decision [B, A] with the environments' mean noise, or a sample of the learner's policy."""
        planned = self._planned(state, target, self.learner.act(self.inputs(state, target), generator, mask))[0]
        return self.within(self.exploration.noisy(planned, self.exploration.mean_noise, generator))

    def explore(
        self,
        state: Tensor,
        target: Tensor,
        due: Tensor | None,
        generator: torch.Generator,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The planned decision [N, A], or the learner's where there is no path, with exploration."""
        action, notes = self.learner.act_and_note(self.inputs(state, target), generator, mask)
        planned, found = self._planned(state, target, action)
        self.metrics.add_where("planned", found.float(), torch.ones_like(found) if due is None else due)
        return self.exploration(planned, due, generator, mask), notes

    def _planned(self, state: Tensor, target: Tensor, otherwise: Tensor) -> tuple[Tensor, Tensor]:
        """Decisions [N, A], `otherwise` where there is no path, and the mask [N] of paths found."""
        graph = self.landmarks
        place = graph.goal_place(target)
        route = graph.route(state, place, graph.to_goal(place))
        found = route.connected & graph.there.any()
        action = cast(Subgoal, self.issues).retrace(state, route.place)
        return torch.where(found.unsqueeze(-1), action, otherwise), found

    # -- learning --------------------------------------------------------------------------------------------

    def learn(self, steps: int, total: float, generator: torch.Generator, in_haste: Callable[[], bool] = bool) -> None:
        """Update the landmarks if due, and make the learner's updates that are due."""
        if steps // self.every > int(self.rounds) and not in_haste():
            self.rounds.fill_(steps // self.every)
            assert self.steps is not None
            self.landmarks.refresh(self.steps, generator)
            self.metrics.add({name: torch.tensor(x) for name, x in self.landmarks.facts.items()})
        super().learn(steps, total, generator, in_haste)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, Stateful]:
        """Everything that decisions depend on, by name."""
        return {**super().networks(), "landmarks": self.landmarks}

    def parts(self) -> dict[str, Stateful]:
        """Everything that the level's next decisions and updates depend on, by name."""
        return {**super().parts(), "planning": _Rounds(self.rounds)}


class _Rounds:
    """The number of rounds as a part of a checkpoint."""

    def __init__(self, rounds: Tensor) -> None:
        self.rounds = rounds

    def state_dict(self) -> dict[str, Tensor]:
        return {"rounds": self.rounds}

    def load_state_dict(self, state: Any) -> None:
        self.rounds.copy_(state["rounds"])
