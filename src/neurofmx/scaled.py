"""Integers with the law that makes them physical: kept bit for bit, read as numbers in a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile


@dataclass(frozen=True, eq=False)
class Scaled:
    """An array of integers that reads as ``values * scale + offset``, channel by channel.

    Args:
        values: (N,) or (N, C) integers, or anything that gives them when its rows are sliced.
        scale: (C,) float64 units a step; one for a 1-D signal.
        offset: (C,) float64 units at 0; one for a 1-D signal.
        dtype: of what is read: float32 or float64.

    Raises:
        MalformedFile: values that are no integers, or a law of another number of channels.
    """

    values: Any
    scale: np.ndarray
    offset: np.ndarray
    dtype: np.dtype = np.dtype(np.float32)

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64).reshape(-1))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        wide = self.values.shape[1] if self.values.ndim == 2 else 1
        if self.values.ndim > 2 or self.values.dtype.kind not in "iu":
            raise MalformedFile("scaled samples", got=f"{self.values.ndim} axes of {self.values.dtype}",
                                expected="(N,) or (N, C) integers")  # fmt: skip
        if len(self.scale) != wide or len(self.offset) != wide:
            raise MalformedFile("law of scaled samples", got=f"{len(self.scale)} scales, {len(self.offset)} offsets",
                                expected=f"{wide}, one a channel")  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """As the integers'."""
        return tuple(self.values.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def physical(self, integers: np.ndarray) -> np.ndarray:
        """Rows of integers as numbers in the unit; worked out in float64, then rounded once."""
        return (integers * self.scale + self.offset).astype(self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.physical(np.asarray(self.values))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, int | np.integer):
            return self.physical(np.asarray(self.values[first])[None])[(0, *rest)]
        return self.physical(np.asarray(self.values[first]))[(slice(None), *rest)]
