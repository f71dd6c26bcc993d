"""What a sampled stream's values look like: extremes, unknown numbers and spread, without holding them all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurofmx.types import Samples

PIECE = 1 << 20  # numbers read at a time
_WINDOWS, _ROWS, _WINDOW_S = 16, 128, 1.0  # the spread is that of so many rows in each of so many windows


@dataclass(frozen=True)
class Survey:
    """What one pass over a stream's values found.

    Args:
        n: samples.
        n_inside: numbers inside valid time.
        bad: of those, not finite.
        infinite: of those, infinite.
        known: (C,) finite numbers of each channel.
        low, high: (C,) extremes.
        at_low, at_high: (C,) numbers that equal them.
        spread: (C,) robust standard deviation within a second, NaN where unknown.
    """

    n: int
    n_inside: int
    bad: int
    infinite: int
    known: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: np.ndarray
    at_high: np.ndarray
    spread: np.ndarray


def survey(stream: Samples, *, spread: bool = True) -> Survey:
    """One pass over the values in pieces, and a few short windows for the spread.

    Args:
        stream: its values are read about a million numbers at a time.
        spread: whether the spread means something for this signal.
    """
    values, n = stream.values, len(stream.values)
    wide = int(np.prod(np.shape(values)[1:], dtype=np.int64))
    known, at_low, at_high = (np.zeros(wide, np.int64) for _ in range(3))
    low, high = np.full(wide, np.inf), np.full(wide, -np.inf)
    n_inside = bad = infinite = 0
    rows = max(1, PIECE // max(1, wide))
    for start in range(0, n, rows):
        # channel after channel in memory: reductions along time are several times faster
        piece = np.ascontiguousarray(_flat_rows(values[start : start + rows]).T)
        inside = _inside(stream, start, piece.shape[1])
        n_inside += int(inside.sum()) * wide
        least, most = piece.min(axis=1), piece.max(axis=1)  # not finite where one of them is not
        if np.isfinite(least).all() and np.isfinite(most).all():
            known += piece.shape[1]
            _extreme(piece, least, low, at_low, np.less)
            _extreme(piece, most, high, at_high, np.greater)
            continue
        finite = np.isfinite(piece)
        bad += int(np.count_nonzero(~finite[:, inside]))
        infinite += int(np.count_nonzero(np.isinf(piece[:, inside])))
        known += np.count_nonzero(finite, axis=1)
        below, above = np.where(finite, piece, np.inf), np.where(finite, piece, -np.inf)
        _extreme(below, below.min(axis=1), low, at_low, np.less)
        _extreme(above, above.max(axis=1), high, at_high, np.greater)
    return Survey(
        n,
        n_inside,
        bad,
        infinite,
        known,
        low,
        high,
        at_low,
        at_high,
        _spread(stream, wide) if spread else np.full(wide, np.nan),
    )


def _flat_rows(values: Any) -> np.ndarray:
    """(n, C) numbers of a piece, whatever the shape of one sample is."""
    piece = np.asarray(values)
    return piece.reshape(len(piece), int(np.prod(piece.shape[1:], dtype=np.int64)))


def _extreme(piece: np.ndarray, here: np.ndarray, best: np.ndarray, count: np.ndarray, beats: np.ufunc) -> None:
    """Takes the extreme of one (C, n) piece into the running one, and counts the numbers that equal it."""
    new = beats(here, best)
    count[new] = 0
    best[new] = here[new]
    same = np.flatnonzero((here == best) & np.isfinite(best))
    count[same] += np.count_nonzero(piece[same] == here[same, None], axis=1)


def _inside(stream: Samples, start: int, n: int) -> np.ndarray:
    """(n,) bool, which of the rows from ``start`` lie in valid time."""
    if stream.times_s is not None:
        times = np.asarray(stream.times_s[start : start + n], np.float64)
    else:
        times = stream.t0_s + np.arange(start, start + n) / float(stream.rate_hz or 1.0)
    valid = np.asarray(stream.valid, np.float64).reshape(-1, 2)
    if not len(valid):
        return np.zeros(n, bool)
    at = np.searchsorted(valid[:, 0], times, side="right") - 1
    return (at >= 0) & (times < valid[at, 1])


def _spread(stream: Samples, wide: int) -> np.ndarray:
    """(C,) median over windows of the spread within each, so that slow drift and short bursts count little."""
    n = len(stream.values)
    if n < 8:
        return np.full(wide, np.nan)
    width = min(n, max(8, int(_WINDOW_S * _rate(stream))))
    stride = max(1, width // _ROWS)
    starts = np.unique(np.linspace(0, n - width, _WINDOWS).astype(np.int64)).tolist()
    windows = np.stack([_flat_rows(stream.values[at : at + width : stride]).T for at in starts])
    windows = windows.astype(np.float64)
    finite = np.isfinite(windows)
    alive = finite.any(axis=2)
    if finite.all():
        median, deviation = np.median, np.std
    else:
        median, deviation = np.nanmedian, np.nanstd
        windows[~finite] = np.nan
        windows[~alive] = 0.0
    middle = median(windows, axis=2, keepdims=True)
    found = 1.4826 * median(np.abs(windows - middle), axis=2)
    found = np.where(found > 0, found, deviation(windows, axis=2))  # coarse steps have a MAD of 0
    found[~alive] = np.nan
    lost = ~alive.any(axis=0)
    found[:, lost] = 0.0
    return np.where(lost, np.nan, np.nanmedian(found, axis=0))


def _rate(stream: Samples) -> float:
    if stream.times_s is None:
        return float(stream.rate_hz or 1.0)
    steps = np.diff(np.asarray(stream.times_s[:4096], np.float64))
    step = float(np.median(steps)) if len(steps) else 0.0
    return 1.0 / step if step > 0 else 1.0
