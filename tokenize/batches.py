"""Batches of windows at native rates: rows of any width end to end in flat buffers, nothing padded.

A batch lies in buffers that are used again: it is valid until as many further batches were taken as the loader holds.
Every field may be a numpy array or a tensor (`mapped`). Legend: B rows of the batch, N samples or events of all rows,
E elements of all rows, K spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.tokenize.cursor import Cursor

Allocate = Callable[[int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SampleRows:
    """The samples of one stream in every window of a batch.

    Args:
        values: (E,) elements, row after row, each row (n, ...) in C order.
        offsets: (B + 1,) int64, row i is ``values[offsets[i]:offsets[i + 1]]``.
        n: (B,) int64 samples of each row, 0 where the recording lacks the stream.
        mask: (N,) bool, True where the sample lies in valid time.
        first_s: (B,) float64 session time of the first sample, NaN where there is none.
        rate_hz: (B,) float64, NaN where times are stated one by one.
        times_s: (N,) float32 from the window's start, or None where every row has a rate.
        scale: what stored integers are multiplied by, one entry a row ((C,) float64, or None for values as they are).
        offset: what is added then, likewise.
        shapes: trailing shape of each row's samples, channels first.
    """

    values: Any
    offsets: Any
    n: Any
    mask: Any
    first_s: Any
    rate_hz: Any
    times_s: Any
    scale: tuple[Any, ...]
    offset: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]

    def row(self, i: int) -> Any:
        """(n, ...) values of one row."""
        return self.values[int(self.offsets[i]) : int(self.offsets[i + 1])].reshape(int(self.n[i]), *self.shapes[i])

    def part(self, i: int) -> slice:
        """Where a row lies in `mask` and `times_s`."""
        begin = int(self.n[:i].sum())
        return slice(begin, begin + int(self.n[i]))

    def dense(self) -> Any:
        """(B, n, ...) values without a copy.

        Raises:
            ConfigError: the rows differ in samples or in width.
        """
        shapes = {(int(n), *shape) for n, shape in zip(self.n, self.shapes)}
        if len(shapes) != 1:
            raise ConfigError(
                "rows of a batch", got=str(sorted(shapes)[:4]), expected="one shape", fix="Read them by row."
            )
        return self.values.reshape(len(self.n), *shapes.pop())


@dataclass(frozen=True, kw_only=True)
class EventRows:
    """The events of one stream in every window of a batch.

    Args:
        times_s: (N,) float32 from the window's start, ascending within a row.
        codes: (N,) int32 row of the recording's channel table.
        offsets: (B + 1,) int64, row i is ``[offsets[i]:offsets[i + 1]]``.
        present: (B,) bool, False where the recording lacks the stream.
        valid_s: (K, 2) float64 session time in which events would have been seen.
        valid_offsets: (B + 1,) int64 into `valid_s`.
    """

    times_s: Any
    codes: Any
    offsets: Any
    present: Any
    valid_s: Any
    valid_offsets: Any

    def row(self, i: int) -> tuple[Any, Any]:
        """(n,) seconds from the window's start and (n,) codes of one row."""
        own = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return self.times_s[own], self.codes[own]


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Windows of several recordings, sorted by recording and time, which is how they lie in files.

    Args:
        number: (B,) int64 each window's number in the order of the whole run, over all ranks.
        recording: (B,) int64 row in the loader's ``recordings``.
        start_s: (B,) float64 begin on the session clock; samples and events are those of [start, start + window).
        window_s: length of every window.
        streams: name -> rows.
        cursor: where the run stands behind this batch; a loader that starts there gives the next one.
    """

    number: Any
    recording: Any
    start_s: Any
    window_s: float
    streams: Mapping[str, SampleRows | EventRows]
    cursor: Cursor

    def __len__(self) -> int:
        return len(self.start_s)

    def samples(self, name: str) -> SampleRows:
        """The rows of a stream of samples.

        Raises:
            ConfigError: the batch has no such stream, or it is one of events.
        """
        rows = self.streams.get(name)
        if not isinstance(rows, SampleRows):
            raise ConfigError(
                f"samples {name!r}", got=type(rows).__name__, expected="a stream of samples of the mixture"
            )
        return rows

    def events(self, name: str) -> EventRows:
        """The rows of a stream of events.

        Raises:
            ConfigError: the batch has no such stream, or it is one of samples.
        """
        rows = self.streams.get(name)
        if not isinstance(rows, EventRows):
            raise ConfigError(f"events {name!r}", got=type(rows).__name__, expected="a stream of events of the mixture")
        return rows

    def mapped(self, change: Callable[[Any], Any]) -> WindowBatch:
        """The same batch with every array changed, such as copied or turned into a tensor."""
        streams = {name: _mapped(rows, change) for name, rows in self.streams.items()}
        return replace(_mapped(self, change), streams=streams)

    def copied(self) -> WindowBatch:
        """The same batch in memory of its own, valid for ever."""
        return self.mapped(np.copy)


def _mapped(rows: Any, change: Callable[[Any], Any]) -> Any:
    """Every array of a dataclass changed, and of tuples in it; other fields stay."""

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(changed(v) for v in value)
        return change(value) if hasattr(value, "shape") else value

    return replace(rows, **{f.name: changed(getattr(rows, f.name)) for f in fields(rows)})


@dataclass
class Buffers:
    """The memory of one batch: named arrays that grow and are used again.

    Args:
        allocate: bytes -> flat uint8 array, pinned if the caller wants that.
    """

    allocate: Allocate
    _held: dict[str, np.ndarray] = field(default_factory=dict)

    def get(self, name: str, n: int, dtype: np.dtype) -> np.ndarray:
        """(n,) elements of the buffer of this name, with whatever was in it."""
        need, held = n * dtype.itemsize, self._held.get(name)
        if held is None or held.nbytes < need:
            self._held[name] = held = self.allocate(max(need + need // 8, 4096))
        return held[:need].view(dtype)
