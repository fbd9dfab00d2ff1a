"""The replay: a ring buffer of one level's transitions on the training device, in N independent streams.

Each environment writes a stream of *rows*. Row k contains the observation and the action of the k-th decision; its next
observation is the state of row k + 1. If an episode ends after row k, row k + 1 contains only the true final
observation, and the next episode starts at row k + 2. Therefore no transition crosses an episode, no observation is
stored twice, and the next row of a transition is always valid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hrl.execution.modes import none_true

REDRAWS = 4
"""Number of draws per sample, to avoid final rows. With a fraction f of final rows, the bias is of order f^4."""


@dataclass
class Rows:
    """Positions in a ring: environment [B] and absolute row number [B], both int64."""

    env: Tensor
    row: Tensor

    def later(self, steps: Tensor | int) -> "Rows":
        """The rows `steps` later in the same streams."""
        return Rows(self.env, self.row + steps)


class Replay:
    """A ring of rows. `fields` maps names to widths of float32 vectors; `counters` are names of int32 numbers.

    A row with only a final observation has the fields `next_fields`. Samples come from the last `capacity` rows. The
    ring stores at least `held` rows, because the decisions of a level above span many rows.
    """

    def __init__(
        self,
        fields: Mapping[str, int],
        next_fields: tuple[str, ...],
        counters: tuple[str, ...],
        capacity: int,
        num_envs: int,
        device: torch.device,
        held: int = 0,
        pixels: int = 0,
        frames: int = 1,
    ) -> None:
        """The last `pixels` entries of the field "state" are stored as bytes. They consist of `frames` images. Only the
        newest image is stored; the others are read from the previous rows, or from the episode's first row."""
        self.num_envs, self.device = num_envs, device
        self.pixels, self.frames, self.frame_size = pixels, frames, pixels // frames
        self.window = max(capacity // num_envs, 16)
        # The open row and its successor are not transitions yet.
        self.length = max(self.window, -(-held // num_envs)) + 2
        self.fields: dict[str, slice] = {}
        self.widths = dict(fields)
        fields = {name: x - pixels * (name == "state") for name, x in fields.items()}
        width = 0
        for name in (*next_fields, *(f for f in fields if f not in next_fields)):
            self.fields[name] = slice(width, width + fields[name])
            width += fields[name]
        self._next_fields = next_fields
        self.next_width = sum(fields[f] for f in next_fields)
        self.counters = {name: i + 1 for i, name in enumerate(counters)}  # column 0 is the episode
        # Fill explicitly: the system allocates memory on the first write, and a failure should happen now.
        self.values = torch.empty(self.length * num_envs, width, device=device).fill_(0.0)
        self.bytes = torch.empty(self.length * num_envs, self.frame_size, dtype=torch.uint8, device=device).fill_(0)
        self.numbers = torch.empty(self.length * num_envs, 1 + len(counters), dtype=torch.int32, device=device).fill_(0)
        episodes = self.length // 2 + 2  # an episode takes at least two rows
        self.episode_end = torch.empty(episodes, num_envs, dtype=torch.int32, device=device).fill_(0)
        self.episode_terminated = torch.empty(episodes, num_envs, dtype=torch.bool, device=device).fill_(False)
        self.cursor = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.cleared = torch.zeros_like(self.cursor)  # rows before this one are cleared
        self.episode = torch.zeros(num_envs, dtype=torch.int32, device=device)
        self._env = torch.arange(num_envs, device=device)

    def width(self, name: str) -> int:
        """Width of a field; 0 if there is no field with this name."""
        return self.widths.get(name, 0)

    # -- writing ---------------------------------------------------------------------------------------------

    def write(
        self,
        row: Mapping[str, Tensor],
        following: Mapping[str, Tensor],
        counters: Mapping[str, Tensor],
        keep: Tensor,
        ended: Tensor,
        terminated: Tensor,
    ) -> None:
        """Write the open row of every environment. It becomes a transition where `keep` [N] is true.

        The values of `row` and `following` are [N, width], or [N] for width 1; `following` may also contain counters.
        `ended` [N] is true where the episode ended with this row, and `terminated` [N] where the task ended with it.
        """
        here = self._index(self._env, self.cursor)
        after = (here + self.num_envs) % len(self.values)
        row, following = self._without_pixels(row, here), self._without_pixels(following, after)
        self.values.index_copy_(0, here, torch.cat([_column(row[name]) for name in self.fields], -1))
        self.values[:, : self.next_width].index_copy_(
            0, after, torch.cat([_column(following[name]) for name in self._next_fields], -1)
        )
        self._count(here, counters)
        self._count(after, following)

        closed = keep & ended
        if not none_true(closed):
            self._end_episode(closed, self.cursor + 1, terminated)
            self.episode += closed
            self.cursor += closed
        self.cursor += keep

    def _without_pixels(self, row: Mapping[str, Tensor], place: Tensor) -> Mapping[str, Tensor]:
        """Store the newest frame of the row's state as bytes, and return the row without its pixels."""
        if not self.pixels:
            return row
        state = row["state"]
        self.bytes.index_copy_(0, place, state[:, state.shape[-1] - self.frame_size :].to(torch.uint8))
        return {**row, "state": state[:, : -self.pixels]}

    def _count(self, place: Tensor, counters: Mapping[str, Tensor]) -> None:
        numbers = self.episode.unsqueeze(-1)
        if self.counters:
            none = torch.zeros_like(self.episode)
            numbers = torch.stack([self.episode, *(counters.get(c, none).to(torch.int32) for c in self.counters)], -1)
        self.numbers.index_copy_(0, place, numbers)

    def _end_episode(self, where: Tensor, final: Tensor, terminated: Tensor) -> None:
        slot = self.episode % len(self.episode_end) * self.num_envs + self._env
        for table, value in ((self.episode_end, final.to(torch.int32)), (self.episode_terminated, terminated)):
            flat = table.view(-1)
            flat.index_copy_(0, slot, torch.where(where, value, flat.index_select(0, slot)))

    def truncate_episodes(self, where: Tensor | None = None) -> None:
        """Truncate every open episode, of the environments `where` [N] is true: the successor of its last row becomes
        final."""
        nonempty = self.cursor > self.cleared if where is None else where & (self.cursor > self.cleared)
        last = self._index(self._env, (self.cursor - 1).clamp_min(0))
        # The episode has transitions only if the row before the open one belongs to it and is not its final one.
        open_ = nonempty & (self.numbers[last, 0] == self.episode)
        self._end_episode(open_, self.cursor, torch.zeros_like(open_))
        self.cursor += open_
        self.episode += open_

    def clear(self) -> None:
        """Remove all transitions. Open episodes continue as if they had started here."""
        self.cleared.copy_(self.cursor)

    # -- reading ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of rows that `draw` samples from. Waits for the device."""
        return int(self._sizes().sum())

    def _sizes(self) -> Tensor:
        """[N] number of rows that `draw` samples from."""
        return (self.cursor - self.cleared).clamp_max(self.window)

    def _index(self, env: Tensor, row: Tensor) -> Tensor:
        return row % self.length * self.num_envs + env

    def draw(self, batch: int, generator: torch.Generator) -> Rows:
        """Sample `batch` transitions uniformly."""
        sizes = self._sizes()
        ends = sizes.cumsum(0)
        uniform = torch.rand(REDRAWS, batch, generator=generator, device=self.device, dtype=torch.float64)
        place = (uniform * ends[-1]).long()
        env = torch.searchsorted(ends, place, right=True).clamp_max(self.num_envs - 1)
        row = self.cursor[env] - ends[env] + place
        usable = ~self.is_final(Rows(env, row))
        first = usable.to(torch.uint8).argmax(0, keepdim=True)
        env, row, usable = (x.gather(0, first).squeeze(0) for x in (env, row, usable))
        # If all draws are final rows, take the previous row, or the next row if the previous one is overwritten.
        oldest = self.cursor[env] - sizes[env]
        return Rows(env, torch.where(usable, row, torch.where(row > oldest, row - 1, row + 1)))

    def get(self, rows: Rows, name: str) -> Tensor:
        """The field [B, width] of these rows."""
        values = self._rows(rows)[..., self.fields[name]]
        return torch.cat([values, self._images(rows)], -1) if self.pixels and name == "state" else values

    def read(self, rows: Rows) -> dict[str, Tensor]:
        """All fields [B, width] of these rows."""
        values = self._rows(rows)
        row = {name: values[..., columns] for name, columns in self.fields.items()}
        return row | {"state": torch.cat([row["state"], self._images(rows)], -1)} if self.pixels else row

    def _images(self, rows: Rows) -> Tensor:
        """[..., pixels] the stacked frames of these rows, newest last."""
        places = [self._index(rows.env, rows.row)]
        episode, row = self.numbers[:, 0][places[0]], rows.row
        oldest = (self.cursor - (self.length - 2)).clamp_min(0)[rows.env]
        for _ in range(self.frames - 1):
            before = (row - 1).clamp_min(0)
            place = self._index(rows.env, before)
            same = (self.numbers[:, 0][place] == episode) & (row - 1 >= oldest)
            row = torch.where(same, before, row)
            places.insert(0, self._index(rows.env, row))
        return torch.cat([self.bytes.index_select(0, p.flatten()).unflatten(0, p.shape) for p in places], -1).float()

    def _rows(self, rows: Rows) -> Tensor:
        self._require_written(rows)
        place = self._index(rows.env, rows.row)
        return self.values.index_select(0, place.flatten()).unflatten(0, place.shape)

    def last_row(self) -> Tensor:
        """[N] row of each stream's newest observation: the open row, or the final row of an episode that just
        ended."""
        before = Rows(self._env, (self.cursor - 1).clamp_min(0))
        return self.cursor - (self.is_final(before) & (self.cursor > 0)).long()

    def _require_written(self, rows: Rows) -> None:
        """Raise IndexError for rows that are not written yet. Only checked on a CPU; on a GPU, the check would wait."""
        if rows.row.device.type == "cpu" and bool((rows.row > self.cursor[rows.env]).any()):
            raise IndexError("cannot read a row of a replay that has not been written yet")

    def within(self, rows: Rows) -> Rows:
        """The rows, with rows that are not written yet replaced by the newest row."""
        return Rows(rows.env, torch.minimum(rows.row, self.cursor[rows.env]))

    def count(self, rows: Rows, name: str) -> Tensor:
        """The counter [B] of these rows, int64."""
        return self.numbers[:, self.counters[name]][self._index(rows.env, rows.row)].long()

    def end(self, rows: Rows) -> Tensor:
        """The row [B] of the last observation so far of each row's episode."""
        episode = self._episode(rows)
        return torch.where(episode == self.episode[rows.env], self.cursor[rows.env], self._ended(episode, rows.env))

    def is_final(self, rows: Rows) -> Tensor:
        """Whether [B] a row is the final observation of an ended episode."""
        return rows.row == self.end(rows)

    def over(self, rows: Rows) -> Tensor:
        """Whether [B] the episode ended with this transition."""
        return self._over(rows, self._episode(rows))

    def terminated(self, rows: Rows) -> Tensor:
        """Whether [B] the task ended with this transition; False for truncation."""
        episode = self._episode(rows)
        return self._over(rows, episode) & self.episode_terminated[episode % len(self.episode_end), rows.env]

    def _episode(self, rows: Rows) -> Tensor:
        """The number [B] of each row's episode."""
        return self.numbers[:, 0][self._index(rows.env, rows.row)].long()

    def _ended(self, episode: Tensor, env: Tensor) -> Tensor:
        """The final row [B] of these ended episodes."""
        return self.episode_end[episode % len(self.episode_end), env].long()

    def _over(self, rows: Rows, episode: Tensor) -> Tensor:
        return (episode != self.episode[rows.env]) & (rows.row + 1 == self._ended(episode, rows.env))

    def holds(self, rows: Rows) -> Tensor:
        """Whether [B] the ring still contains this row, neither cleared nor overwritten."""
        oldest = torch.maximum(self.cursor - (self.length - 2), self.cleared)[rows.env]
        return (rows.row >= 0) & (rows.row >= oldest) & (rows.row < self.cursor[rows.env])

    @property
    def row_bytes(self) -> float:
        """Bytes per stored row, including its share of the episode tables."""
        tables = self.episode_end.nbytes + self.episode_terminated.nbytes
        return (self.values.nbytes + self.bytes.nbytes + self.numbers.nbytes + tables) / (self.length * self.num_envs)

    # -- checkpoint ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the ring, with only the rows written so far."""
        used = min(int(self.cursor.max()) + 2, self.length) * self.num_envs
        return {
            "values": self.values[:used],
            "bytes": self.bytes[:used],
            "numbers": self.numbers[:used],
            "episode_end": self.episode_end,
            "episode_terminated": self.episode_terminated,
            "cursor": self.cursor,
            "forgotten": self.cleared,  # the name in checkpoint format 4
            "episode": self.episode,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`. The lengths of the two rings may differ."""
        given = {name: tensor.to(self.device) for name, tensor in state.items()}
        for name, mine in (("cursor", self.cursor), ("forgotten", self.cleared), ("episode", self.episode)):
            mine.copy_(given[name])
        for name in ("values", "bytes", "numbers"):
            self._take(getattr(self, name), given[name], self.cursor + 1)
        for name in ("episode_end", "episode_terminated"):
            flat = given[name].flatten().unsqueeze(-1)
            self._take(getattr(self, name).view(-1, 1), flat, self.episode.long())

    def _take(self, mine: Tensor, given: Tensor, newest: Tensor) -> None:
        """Copy the newest rows that fit both rings from `given` to `mine` [L N, ·]; `newest` [N] is the last row."""
        whole = int(newest.max()) < len(given) // self.num_envs  # nothing was overwritten
        if len(given) == len(mine) or (whole and len(given) < len(mine)):
            mine[: len(given)] = given
            return
        lengths = len(mine) // self.num_envs, len(given) // self.num_envs
        row = newest - torch.arange(min(lengths), device=self.device).unsqueeze(-1)  # [L, N]
        row = row.clamp_min(0)
        here, there = (row % length * self.num_envs + self._env for length in lengths)
        mine[here.flatten()] = given[there.flatten()]


def _column(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.unsqueeze(-1)
