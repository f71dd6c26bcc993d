"""Arrays that stay in their file until rows are asked for: a reader says how, the rest is numpy's face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PIECE = 1 << 20  # numbers read at a time


@dataclass(frozen=True)
class Rows:
    """A read-only array whose rows are read from a file when they are sliced.

    Args:
        shape: rows first.
        dtype: of what is read.
        read: first row and the one after the last -> these rows.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray] = field(repr=False, compare=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.read(0, len(self))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            lo, hi, step = first.indices(len(self))
            if step > 0:
                return self.read(lo, max(lo, hi))[(slice(None, None, step), *rest)]
        elif isinstance(first, int | np.integer):
            at = int(first) + (len(self) if first < 0 else 0)
            if not 0 <= at < len(self):
                raise IndexError(f"row {first} of {len(self)}")
            return self.read(at, at + 1)[(0, *rest)]
        return np.asarray(self)[key]


def pieces(values: Any) -> Iterator[np.ndarray]:
    """The rows of an array in order, about a million numbers at a time."""
    wide = int(np.prod(np.shape(values)[1:], dtype=np.int64))
    step = max(1, PIECE // max(1, wide))
    for start in range(0, len(values), step):
        yield np.asarray(values[start : start + step])
