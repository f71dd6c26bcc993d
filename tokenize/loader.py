"""The loader: windows of many recordings read from the lake into reused buffers by threads of this process.

Each thread fills one batch at a time, so what a batch holds does not depend on how many there are; decoding and
reading release Python's lock. Window number n is a function of (seed, n) alone. Batch k of all ranks together holds
the next ``ranks * batch`` numbers, dealt to the ranks in equal stretches; epochs follow each other without a break.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from neurofmx.errors import ConfigError, Denied
from neurofmx.lake import Lake
from neurofmx.tokenize.batches import Allocate, Buffers, WindowBatch
from neurofmx.tokenize.cursor import Cursor
from neurofmx.tokenize.fill import Damaged, fill
from neurofmx.tokenize.mixture import Draws, Mixture
from neurofmx.tokenize.plan import make_plan

_PLANNED = 1024  # windows drawn at once, which spreads the cost of numpy's calls


def in_memory(n_bytes: int) -> np.ndarray:
    """Ordinary memory for buffers."""
    return np.empty(n_bytes, np.uint8)


@dataclass(frozen=True)
class _Memory:
    """The buffers that a batch lies in, and scratch for the thread that fills it."""

    batch: Buffers
    scratch: Buffers


@dataclass(frozen=True)
class _Flight:
    """A batch that is being filled: its windows as first drawn, the rows refused by then, the cursor behind it."""

    draws: Draws
    refused: frozenset[int]
    memory: _Memory
    stop: int
    future: Future[WindowBatch]


class Loader:
    """Iterates over batches of a mixture, for ever or for some epochs.

    A batch is valid until ``held`` further ones were taken; `WindowBatch.copied` keeps one longer. A recording
    found damaged is refused from that batch on (or raises, as the mixture says): its windows are drawn anew from
    the rest of their source, so no batch has fewer, and `refused` tells why. `cursor` is where the next batch begins,
    the same on every rank that has taken as many.

    Args:
        lake: where the recordings are.
        mixture: what to read.
        cursor: where to start: `Loader.cursor` of an earlier loader, or ``Cursor(seed=...)`` for the beginning.
        rank: of this process.
        ranks: processes that share the windows.
        threads: that read. One is fastest where files are in memory: threads hand Python's lock over at every read.
            Several hide the waits of a cold disk or a network, and decode compressed shards side by side.
        prefetch: batches filled ahead.
        held: batches that stay valid, the one just taken included.
        turn: (i, n) gives only batches i, i + n, i + 2 n, ... of this rank, for n workers that take turns.
        epochs: whole epochs after which it ends, counted from the first of all; None for no end.
        allocate: bytes -> flat uint8 array for the buffers of batches.

    Raises:
        ConfigError: numbers that do not fit, or a cursor that counts in another order of windows.
        NotThere: a recording that the lake does not have.
        LakeCorrupt: a damaged recording, where the mixture says ``stop``; or all of a source are.
    """

    def __init__(
        self,
        lake: Lake,
        mixture: Mixture,
        *,
        cursor: Cursor | None = None,
        rank: int = 0,
        ranks: int = 1,
        threads: int = 1,
        prefetch: int = 2,
        held: int = 1,
        turn: tuple[int, int] = (0, 1),
        epochs: int | None = None,
        allocate: Allocate = in_memory,
    ) -> None:
        if not 0 <= rank < ranks or min(threads, prefetch, held) < 1:
            raise ConfigError(
                "loader", got=f"rank {rank} of {ranks}, {threads} threads, {prefetch} ahead, {held} held",
                expected="a rank below the number of ranks, and at least one of each",
            )  # fmt: skip
        cursor = cursor or Cursor(seed=0)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(Denied):  # nobody collects a lake that may not be written
                stack.enter_context(lake.reading())
            self._plan = make_plan(lake, mixture, cursor.seed)
            stack.callback(self._plan.close)
            self._order = self._plan.order.digest()
            if cursor.order not in ("", self._order):
                raise ConfigError(
                    "cursor of a loader", got=f"one that counts in order {cursor.order}",
                    expected=f"order {self._order}",
                    fix="The recordings, spans or weights have changed: pin a snapshot, or begin anew with a seed.",
                )  # fmt: skip
            self._open = stack.pop_all()
        self.recordings, self.unused, self.refused = self._plan.recordings, self._plan.unused, dict(self._plan.refused)
        rows = {rid: row for row, rid in enumerate(self.recordings)}
        self._gone = frozenset(rows[rid] for rid in cursor.refused)
        self.refused |= dict.fromkeys(cursor.refused, "refused before the cursor")
        self._rank, self._ranks, self._turn = rank, ranks, turn
        begin = cursor.epoch * self.epoch + cursor.position
        self.cursor = replace(cursor, order=self._order)
        self._todo = self._planned(begin, None if epochs is None else epochs * self.epoch)
        self._free = [_Memory(Buffers(allocate), Buffers(in_memory)) for _ in range(prefetch + held)]
        self._held: deque[_Memory] = deque()
        self._ahead: deque[_Flight] = deque()
        self._n_held = held
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, "neurofmx-loader")

    @property
    def epoch(self) -> int:
        """Windows of an epoch, over all ranks."""
        return self._plan.epoch

    def channels(self, row: int, stream: str) -> tuple[str, ...]:
        """Ids of the channels of one recording's stream, by code or by column of its samples.

        Args:
            row: row of the recording, as a batch gives it.
            stream: as the mixture names it.
        """
        return self._plan.channels(row, stream)

    def __iter__(self) -> Iterator[WindowBatch]:
        return self

    def __next__(self) -> WindowBatch:
        if self._pool is None:
            raise ConfigError("loader", got="closed", expected="open", fix="Make another from its cursor.")
        if len(self._held) == self._n_held:
            self._free.append(self._held.popleft())
        while self._free and (planned := next(self._todo, None)) is not None:
            self._submit(self._pool, *planned, self._free.pop())
        if not self._ahead:
            raise StopIteration
        flight = self._ahead.popleft()
        try:
            batch = self._settled(flight)
        except BaseException:
            self._ahead.appendleft(flight)  # a batch that raised is asked for again, never left out
            raise
        self._held.append(flight.memory)
        self.cursor = batch.cursor
        return batch

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads and closes the files; batches taken before stay readable."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            self._ahead.clear()
            self._open.close()

    def _planned(self, at: int, end: int | None) -> Iterator[tuple[Draws, int]]:
        """This rank's windows of each batch, and the number of the first window behind that batch."""
        whole, number, (turn, of) = self._ranks * self._plan.mixture.batch, 0, self._turn
        while end is None or at < end:
            stop = at + whole * max(1, _PLANNED // whole)
            edges = [*range(at, stop if end is None else min(stop, end), whole)]
            edges.append(stop if end is None else min(stop, end))
            shares = [
                (lo + (hi - lo) * self._rank // self._ranks, lo + (hi - lo) * (self._rank + 1) // self._ranks, hi)
                for lo, hi in zip(edges, edges[1:])
            ]
            mine = np.zeros(edges[-1] - at, bool)
            for lo, hi, _ in shares:
                mine[lo - at : hi - at] = True
            draws, begin = self._plan.order.draws(at, edges[-1], mine), 0
            for lo, hi, behind in shares:
                if hi > lo and number % of == turn:  # the last batch of all may leave nothing for a rank
                    yield draws.taken(slice(begin, begin + hi - lo)), behind
                begin, number = begin + hi - lo, number + 1
            at = edges[-1]

    def _submit(self, pool: ThreadPoolExecutor, draws: Draws, stop: int, memory: _Memory) -> None:
        refused = self._gone
        future = pool.submit(self._filled, draws, refused, memory, stop)
        self._ahead.append(_Flight(draws, refused, memory, stop, future))

    def _filled(self, draws: Draws, refused: frozenset[int], memory: _Memory, stop: int) -> WindowBatch:
        epoch, position = divmod(stop, self.epoch)
        names = tuple(sorted(self.recordings[row] for row in refused))
        cursor = replace(self.cursor, epoch=epoch, position=position, refused=names)
        return fill(self._plan, self._plan.order.elsewhere(draws, refused), memory.batch, memory.scratch, cursor)

    def _settled(self, flight: _Flight) -> WindowBatch:
        """The batch under the refusals of all batches up to this one, whatever was known when it was begun."""
        same = flight.refused == self._gone
        try:
            batch = flight.future.result()
            if same:
                return batch
        except Damaged as damage:
            if same:
                self._refuse(damage)
        while True:
            try:
                return self._filled(flight.draws, self._gone, flight.memory, flight.stop)
            except Damaged as damage:
                self._refuse(damage)

    def _refuse(self, damage: Damaged) -> None:
        """Takes a recording out from here on.

        Raises:
            LakeCorrupt: the mixture says ``stop``.
        """
        if self._plan.mixture.on_damage == "stop":
            raise damage.error
        self._gone |= {damage.row}
        self.refused.setdefault(self.recordings[damage.row], str(damage.error))
