"""Times of a stored stream, found without reading them all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from neurofmx.shards import ShardedArray

EVENTS_A_STEP = 128  # on average, so that a window reads few events that it does not want
_SMALL = 64 << 10  # bytes that are read whole at first use


@dataclass(frozen=True)
class TimeIndex:
    """Where in a stored array of ascending times every step of a clock begins.

    Args:
        first: (K + 1,) int64: row of the first time not before ``t0_s + k * step_s``; numbers, or a stored array.
        t0_s: begin of step 0, a multiple of the step.
        step_s: length of a step, a power of two, so that its multiples are exact.
    """

    first: Any
    t0_s: float
    step_s: float

    @classmethod
    def of(cls, times_s: np.ndarray) -> TimeIndex | None:
        """The index of these times, or None where they have no order to search by, or are few."""
        if len(times_s) <= EVENTS_A_STEP or not np.isfinite(times_s).all() or (np.diff(times_s) < 0).any():
            return None
        span = float(times_s[-1] - times_s[0])
        step = 2.0 ** np.floor(np.log2(max(span, 2.0**-20) * EVENTS_A_STEP / len(times_s)))
        t0 = float(np.floor(times_s[0] / step) * step)
        n = int(np.floor((times_s[-1] - t0) / step)) + 1
        edges = t0 + np.arange(n + 1) * step
        if not (np.diff(edges) == step).all():  # a clock so far from 0 that its floats are coarser than the step
            return None
        return cls(np.searchsorted(times_s, edges).astype(np.int64), t0, float(step))

    @cached_property
    def _kept(self) -> memoryview | None:
        """All of ``first`` where it is small: kept for thousands of long recordings it would fill the memory."""
        return np.ascontiguousarray(self.first, np.int64).data if self.first.nbytes <= _SMALL else None

    def rows(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """Rows [lo, hi) that hold every time in [start_s, stop_s), and few others."""
        t0_s, step_s, kept = self.t0_s, self.step_s, self._kept
        last = len(self.first) - 1
        first = int(min(max((start_s - t0_s) / step_s, 0), last))
        if first and t0_s + first * step_s > start_s:  # the difference was rounded up to the next step
            first -= 1
        end = int(min(max((stop_s - t0_s) / step_s + 1, 0), last))
        if end < last and t0_s + end * step_s < stop_s:
            end += 1
        end = max(first, end)
        if kept is not None:
            return kept[first], kept[end]
        rows = self.first[first : end + 1]
        return int(rows[0]), int(rows[-1])


class LazyRows(np.lib.mixins.NDArrayOperatorsMixin):
    """A stored array that stands for a numpy one: slices and searches read what they need, all else the whole, once.

    Args:
        array: the stored rows.
        index: where to search, for ascending times.
    """

    def __init__(self, array: ShardedArray, index: TimeIndex | None = None) -> None:
        self.array, self.index = array, index
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self._whole: np.ndarray | None = None

    def whole(self) -> np.ndarray:
        """All rows; read once and kept."""
        if self._whole is None:
            rows = self.array.read(0, len(self.array))
            rows.flags.writeable = False
            self._whole = rows
        return self._whole

    def _here(self) -> np.ndarray | None:
        return self.whole() if self._whole is None and self.array.nbytes <= _SMALL else self._whole

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, key: Any) -> Any:
        here = self._here()
        if here is None and isinstance(key, slice | int | np.integer):
            return self.array[key]
        return self.whole()[key]

    def searchsorted(self, v: Any, side: Any = "left", sorter: Any = None) -> Any:
        """As numpy's; a few times are looked up in the index and in the rows of one step each."""
        here, wanted = self._here(), np.asarray(v)
        if here is not None or self.index is None or sorter is not None or wanted.size > 64:
            return self.whole().searchsorted(v, side, sorter)
        found = [self._search(float(time_s), side) for time_s in wanted.ravel().tolist()]
        return np.array(found, np.int64).reshape(wanted.shape)[()]

    def _search(self, time_s: float, side: Any) -> int:
        assert self.index is not None
        if np.isnan(time_s):  # sorts last
            return len(self)
        lo, hi = self.index.rows(time_s, time_s)
        return lo + int(self.array.read(lo, hi).searchsorted(time_s, side))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.whole()
        return whole.astype(dtype or self.dtype, copy=bool(copy))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*(x.whole() if isinstance(x, LazyRows) else x for x in inputs), **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyRows, (self.array, self.index)
