"""Adjacency of positions within k steps (HRAC: Zhang, Guo, Tan, Hu, Chen 2020, arXiv:2006.11485).

Positions are rounded to grid cells. Two cells are adjacent if an episode went from one to the other within k steps; a
matrix A over all visited cells records this. A network ψ learns distances from it (section 4.2) by minimising

    E_ij [ A_ij max(0, ||ψ_i - ψ_j|| - ε₁) + (1 - A_ij) max(0, ε₂ - ||ψ_i - ψ_j||) ]   with ε₁ < ε₂,

and the actor that sets subgoals is constrained to subgoals adjacent to the current position (section 4.3):

    η max(0, ||ψ(φ(s)) - ψ(φ(s) + g)|| - (ε₁ + ε₂) / 2).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.hierarchy.commands import Subgoal
from hrl.hierarchy.level import Level
from hrl.learners import Metrics
from hrl.learners.adam import FlatAdam
from hrl.memory.ring import Replay, Rows
from hrl.networks.layers import mlp
from hrl.state import gather, restore
from hrl.types import UserError

LOOKS = 10
"""Number of matrix updates between two fits of the network."""


@dataclass
class AdjacencyConfig:
    """Options of the adjacency matrix, the network and the constraint."""

    cell: float = 1.0
    """Width of a cell, in goal space (published: 1)."""
    limit: int = 5000
    """Maximum number of visited cells, and thereby maximum size of the matrix."""
    hidden: tuple[int, ...] = (128, 128, 128)
    """Units of the network's hidden layers (published: 128, 128, 128)."""
    embedding: int = 32
    """Dimension of the embedding in which distances measure adjacency (published: 32)."""
    learning_rate: float = 2e-4
    """The network's learning rate (published: 2e-4)."""
    near: float = 1.0
    """Adjacent cells are pulled within this distance, ε₁ (published: 1)."""
    far: float = 1.2
    """Other cells are pushed beyond this distance, ε₂ (published: 1.2)."""
    every: int = 50_000
    """Environment steps between two fits (published: 50,000)."""
    updates: int = 1000
    """Gradient updates per fit (published: 25 times over all pairs)."""
    batch_size: int = 256
    """Cells per update, with all their pairs (published: 64 pairs)."""
    weight: float = 20.0
    """η, the weight of the constraint in the actor's loss (published: 20)."""

    def check(self) -> None:
        """Raise UserError if a value is invalid."""
        for name in ("cell", "limit", "embedding", "learning_rate", "near", "every", "updates", "batch_size"):
            if not getattr(self, name) > 0:
                raise UserError(f"adjacency.{name} must be positive, not {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"adjacency.hidden must be one or more positive layer sizes, not {self.hidden}.")
        if not self.near < self.far:
            raise UserError(f"adjacency.near must be below adjacency.far, but they are {self.near} and {self.far}.")
        if not self.weight >= 0:
            raise UserError(f"adjacency.weight must not be negative, but is {self.weight}.")


class AdjacencyMatrix:
    """The M cells visited so far, and their adjacency within k steps, in either direction."""

    def __init__(self, dim: int, k: int, width: float, limit: int, device: torch.device) -> None:
        self.k, self.width, self.limit = k, width, limit
        self.cells = torch.zeros(0, dim, dtype=torch.int64, device=device)
        """[M, G] cell coordinates, int64, sorted."""
        self.adjacent = torch.zeros(0, 0, dtype=torch.bool, device=device)
        """[M, M] symmetric; every cell is adjacent to itself."""

    def __len__(self) -> int:
        """M, the number of visited cells."""
        return len(self.cells)

    def cell(self, place: Tensor) -> Tensor:
        """The cell [..., G] of a position [..., G]."""
        return (place / self.width).round().long()

    def add(self, place: Tensor, ahead: Tensor) -> None:
        """Add N parallel walks: positions [L, N, G], and the number [L, N] of following positions that belong to the
        same walk, at most k."""
        walked = ahead > 0
        walked[1:] |= ahead[:-1] > 0  # where a walk ends
        number = torch.zeros_like(ahead)
        number[walked] = self._numbered(self.cell(place[walked]))
        for j in range(1, min(self.k, len(ahead) - 1) + 1):
            within = ahead[:-j] >= j
            a, b = number[:-j][within], number[j:][within]
            self.adjacent[a, b] = True
            self.adjacent[b, a] = True

    def _numbered(self, cell: Tensor) -> Tensor:
        """The indices [n] of cells [n, G]; new cells get a row and a column. Raises UserError for too many cells."""
        known = len(self)
        self.cells, number = torch.unique(torch.cat([self.cells, cell]), dim=0, return_inverse=True)
        if len(self) > self.limit:
            raise UserError(
                f"More than {self.limit} cells of width {self.width} were visited. Start a new run with a larger "
                "adjacency.cell or with subgoals of fewer entries (goal.indices), or raise the adjacency limit "
                "in the run's config.json and continue with --resume."
            )
        moved = number[:known]
        grown = torch.eye(len(self), dtype=torch.bool, device=cell.device)
        grown[moved.unsqueeze(-1), moved] = self.adjacent
        self.adjacent = grown
        return number[known:]

    def holds(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether [...] the cells of positions a and b [..., G] are adjacent; False if one was not visited."""
        (here, left), (there, right) = self._find(a), self._find(b)
        return left & right & self.adjacent[here, there]

    def _find(self, place: Tensor) -> tuple[Tensor, Tensor]:
        same = (self.cell(place).unsqueeze(-2) == self.cells).all(-1)  # [..., M]
        return same.to(torch.uint8).argmax(-1), same.any(-1)


def contrastive(embedded: Tensor, adjacent: Tensor, near: float, far: float) -> Tensor:
    """The network's loss [] over all pairs of cells: embedded [B, E], adjacent [B, B]."""
    # Avoid matrix products, which are inexact for near points.
    distance = torch.cdist(embedded, embedded, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(adjacent, (distance - near).clamp_min(0.0), (far - distance).clamp_min(0.0)).mean()


class Adjacency:
    """A level's model of adjacency. It reads the paths of the lowest level, and constrains the level's actor."""

    def __init__(
        self,
        command: Subgoal,
        walked: Replay,
        state_dim: int,
        masked: tuple[int, ...],
        k: int,
        config: AdjacencyConfig,
    ) -> None:
        """The model belongs to a level that sets subgoals with `command` and does not observe the `masked` entries.
        Raises UserError if these include entries of the goal space."""
        hidden = sorted({*command.goals.entries(state_dim)} & {*masked})
        if hidden:
            raise UserError(
                f"high.masked_entries {hidden} belong to the goal space, which the adjacency constraint reads; do not "
                "mask them."
            )
        self.command, self.walked, self.state_dim, self.config = command, walked, state_dim, config
        self.margin = (config.near + config.far) / 2
        self.matrix = AdjacencyMatrix(command.dim, k, config.cell, config.limit, walked.device)
        with walked.device:
            self.net = mlp(command.dim, config.hidden, config.embedding)
        self.optimiser = FlatAdam(self.net.parameters(), config.learning_rate)
        self.weight = torch.zeros((), device=walked.device)  # zero before the first fit
        self.read = torch.zeros_like(walked.cursor)
        self.pause = max(config.every // LOOKS, walked.num_envs)
        self.at = 0

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """||ψ(a) - ψ(b)|| [...] of positions [..., G]; at most about 1 within k steps."""
        a, b = self.net(a / self.config.cell), self.net(b / self.config.cell)
        return torch.linalg.vector_norm(a - b, dim=-1)

    def constraint(self, inputs: Tensor, action: Tensor) -> Tensor:
        """η max(0, ||ψ(φ(s)) - ψ(φ(s) + g)|| - (ε₁ + ε₂) / 2) [B] of subgoals [B, A] at inputs [B, I]."""
        state = inputs[..., : self.state_dim]
        start, subgoal = self.command.project(state), self.command.issue(state, action)
        return self.weight * (self.distance(start, subgoal) - self.margin).clamp_min(0.0)

    # -- learning --------------------------------------------------------------------------------------------

    def keep_up(
        self, level: Level, steps: int, generator: torch.Generator, in_haste: Callable[[], bool] = bool
    ) -> Metrics:
        """Update the matrix every `pause` environment steps, and fit the network if due; both wait for the device."""
        if steps - self.at < self.pause:
            return {}
        fit = steps // self.config.every > self.at // self.config.every
        self.at = steps
        self.look()
        loss = {"adjacency_loss": self.fit(generator, in_haste)} if fit else {}
        return loss | self.measure(level)

    def look(self) -> None:
        """Add the newest rows of the lowest level's ring to the matrix. Rows that are read twice change nothing."""
        ring = self.walked
        # Read the last k rows again, because later rows reached new cells from them, but at most the rows of the ring.
        back = min(int((ring.cursor - self.read).max()) + self.matrix.k, ring.length - 2)
        row = ring.cursor + torch.arange(-back, 1, device=ring.device).unsqueeze(-1)
        rows = Rows(torch.arange(ring.num_envs, device=ring.device).expand_as(row), row)
        ahead = torch.where(row < 0, 0, (ring.end(rows) - row).clamp(0, self.matrix.k))
        self.matrix.add(self.command.project(ring.get(rows, "state")), ahead)
        self.read.copy_(ring.cursor)

    def fit(self, generator: torch.Generator, in_haste: Callable[[], bool] = bool) -> Tensor:
        """Fit ψ on all pairs of sampled cells, and enable the constraint. Returns the mean loss []."""
        config, cells = self.config, self.matrix.cells.float()
        total = torch.zeros_like(self.weight)
        for _ in range(config.updates):
            if in_haste():
                break
            drawn = torch.randperm(len(cells), generator=generator, device=cells.device)[: config.batch_size]
            adjacent = self.matrix.adjacent[drawn.unsqueeze(-1), drawn]
            loss = contrastive(self.net(cells[drawn]), adjacent, config.near, config.far)
            self.optimiser.minimise(loss)
            total += loss.detach()
        self.weight.fill_(config.weight)
        return total / config.updates

    @torch.no_grad()
    def measure(self, level: Level) -> Metrics:
        """Metrics of the level's subgoals at its last decisions: the fraction that is adjacent according to the matrix,
        and the mean violation of the constraint."""
        state, target = level.segment.state, level.segment.target
        action = level.decide(state, target)
        start, subgoal = self.command.project(state), self.command.issue(state, action)
        amiss = (self.distance(start, subgoal) - self.margin).clamp_min(0.0)
        return {
            "cells": self.weight.new_tensor(len(self.matrix)),
            "subgoals_adjacent": self.matrix.holds(start, subgoal).float().mean(),
            "subgoals_amiss": amiss.mean(),
        }

    # -- checkpoint ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """The network, its optimiser and the matrix."""
        tensors = gather({"net": self.net, "adam": self.optimiser})
        tensors |= {"cells": self.matrix.cells, "adjacent": self.matrix.adjacent}
        return tensors | {"weight": self.weight, "at": torch.tensor(self.at)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`; the matrix may have another size."""
        restore({"net": self.net, "adam": self.optimiser}, state)
        self.matrix.cells = state["cells"].to(self.walked.device)
        self.matrix.adjacent = state["adjacent"].to(self.walked.device)
        self.weight.copy_(state["weight"])
        self.at = int(state["at"])
