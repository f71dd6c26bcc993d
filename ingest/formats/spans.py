"""In which seconds data exist: validity intervals from rates, time stamps and unknown values."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofmx.ingest.formats.rows import pieces
from neurofmx.scaled import Scaled

GAP_STEPS = 3.0  # a step this many times the median one is a gap


def whole(n: int, rate_hz: float, t0_s: float = 0.0) -> np.ndarray:
    """(1, 2) seconds that ``n`` samples at a rate cover; (0, 2) for none."""
    return np.array([[t0_s, t0_s + n / rate_hz]]) if n and rate_hz > 0 else np.empty((0, 2))


def stamped(times_s: np.ndarray, known: np.ndarray | None = None, *, gap_s: float = 0.0) -> np.ndarray:
    """Seconds that time stamps cover.

    Args:
        times_s: (N,) ascending seconds. Where they are not, one interval round them all comes back: the checks
            of the recording refuse such a stream by name.
        known: (N,) bool, rows that hold data; None for all.
        gap_s: a longer step between neighbours is a gap; 0 means ``GAP_STEPS`` median steps, inf none at all.

    Returns:
        (K, 2) ordered, disjoint; each run of rows ends one median step after its last, or where the next begins.
    """
    times = np.asarray(times_s, np.float64)
    finite = times[np.isfinite(times)]
    if not finite.size:
        return np.empty((0, 2))
    steps = np.diff(times)
    if finite.size < times.size or np.any(steps < 0):
        return np.array([[finite.min(), finite.max()]])
    step = float(np.median(steps)) if steps.size else 0.0
    limit = gap_s or GAP_STEPS * step
    good = np.ones(times.size, bool) if known is None else np.asarray(known, bool)
    joined = good[1:] & good[:-1] & (steps <= limit)
    first = np.flatnonzero(good & np.concatenate([[True], ~joined]))
    last = np.flatnonzero(good & np.concatenate([~joined, [True]]))
    following = np.append(times[1:], np.inf)[last]
    return np.stack([times[first], np.minimum(times[last] + step, following)], axis=1)


def finite_rows(values: Any) -> np.ndarray:
    """(N,) bool, True where a row of (N, ...) values holds at least one finite number; they are read in pieces."""
    if isinstance(values, Scaled) or values.dtype.kind != "f":
        return np.ones(len(values), bool)
    found = [np.isfinite(piece.reshape(len(piece), -1)).any(axis=1) for piece in pieces(values)]
    return np.concatenate([np.empty(0, bool), *found])


def common(spans: np.ndarray, owner: np.ndarray, n_owners: int) -> np.ndarray:
    """Seconds that all of several sets of intervals share.

    Args:
        spans: (M, 2) seconds; those of one owner are disjoint.
        owner: (M,) which set each belongs to.
        n_owners: number of sets.

    Returns:
        (K, 2) seconds in which every set has an interval.
    """
    if not len(spans) or len(np.unique(owner)) < n_owners:
        return np.empty((0, 2))
    edges = np.concatenate([spans[:, 0], spans[:, 1]])
    change = np.repeat([1, -1], len(spans))
    order = np.lexsort((change, edges))  # a stop before a start at the same instant
    depth = np.cumsum(change[order])
    at = np.flatnonzero(depth[:-1] == n_owners)
    found = np.stack([edges[order][at], edges[order][at + 1]], axis=1)
    return merged(found[found[:, 1] > found[:, 0]])


def merged(spans: np.ndarray) -> np.ndarray:
    """Sorted (K, 2) intervals with those that overlap or touch made one."""
    array = np.asarray(spans, np.float64).reshape(-1, 2)
    array = array[np.argsort(array[:, 0], kind="stable")]
    if not len(array):
        return array
    reach = np.maximum.accumulate(array[:, 1])
    first = np.flatnonzero(np.concatenate([[True], array[1:, 0] > reach[:-1]]))
    last = np.append(first[1:] - 1, len(array) - 1)
    return np.stack([array[first, 0], reach[last]], axis=1)


def without(spans: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """(K, 2) intervals less other intervals."""
    out = np.asarray(spans, np.float64).reshape(-1, 2)
    for start, stop in merged(holes):
        left = np.stack([out[:, 0], np.minimum(out[:, 1], start)], axis=1)
        right = np.stack([np.maximum(out[:, 0], stop), out[:, 1]], axis=1)
        out = np.concatenate([left, right])
        out = out[out[:, 1] > out[:, 0]]
    return out[np.argsort(out[:, 0], kind="stable")]
