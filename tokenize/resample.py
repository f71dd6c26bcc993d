"""Grids on demand: bins, what was counted in them, and what a signal was at them; each with a mask of what is known.

`bin_counts` counts events. `hold` is causal: the last sample before the end of a bin. `nearest`, `linear` and
`cubic` look at the centre of a bin from both sides; `cubic` first takes out what the grid is too slow to show.
Nothing is drawn across a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

EDGE = 1e-6  # share of a bin by which rounding may move a time across an edge
GAP = 1.5  # a step this many times the usual one is a gap to a filter
# the filter before decimation: flat to PASS of the grid's Nyquist frequency, ATTENUATION_DB down from it on
PASS, ATTENUATION_DB = 0.7, 60.0

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Bins:
    """A regular grid of time: bin i covers [t0_s + i dt_s, t0_s + (i + 1) dt_s).

    Args:
        t0_s: edge of the first bin, session clock.
        dt_s: width in seconds.
        n: number of bins T.
    """

    t0_s: float
    dt_s: float
    n: int

    def index(self, times_s: np.ndarray) -> np.ndarray:
        """(N,) int64 bin of each time; below 0 or from n on it lies outside."""
        return np.floor((np.asarray(times_s) - self.t0_s) / self.dt_s + EDGE).astype(np.int64)

    def bounds(self, times_s: np.ndarray) -> np.ndarray:
        """(T + 1,) row of the first of the ascending times in each bin, and of the first after the last bin."""
        return np.searchsorted(self.index(times_s), np.arange(self.n + 1), side="left")

    def covered(self, valid: np.ndarray) -> np.ndarray:
        """(T,) bool: the whole bin lies in one of the (K, 2) valid intervals."""
        seen = np.zeros(self.n, dtype=bool)
        for start, stop in np.asarray(valid).reshape(-1, 2):
            lo = int(np.ceil((start - self.t0_s) / self.dt_s - EDGE))
            hi = int(np.floor((stop - self.t0_s) / self.dt_s + EDGE))
            seen[max(lo, 0) : max(hi, 0)] = True
        return seen


def bin_counts(times_s: np.ndarray, codes: np.ndarray, n_channels: int, bins: Bins) -> np.ndarray:
    """Counts the events of each channel in each bin.

    Args:
        times_s: (N,) ascending event times.
        codes: (N,) channel of each event.
        n_channels: number of channels C.
        bins: the grid.

    Returns:
        (T, C) float64 counts.
    """
    at = bins.index(times_s)
    keep = (at >= 0) & (at < bins.n)
    flat = at[keep] * n_channels + np.asarray(codes)[keep]
    return np.bincount(flat, minlength=bins.n * n_channels).reshape(bins.n, n_channels).astype(np.float64)


def hold(
    values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray, *, max_age_s: float
) -> Pair:
    """The last sample before the end of each bin, if it is no older than ``max_age_s``: the causal resampling."""
    ends = bins.t0_s + (np.arange(bins.n) + 1) * bins.dt_s
    at = bins.bounds(times_s)[1:] - 1
    near = (at >= 0) & (ends - times_s[np.maximum(at, 0)] <= max_age_s + EDGE * bins.dt_s) if len(times_s) else None
    return _taken(values, mask, at, near, bins, valid)


def nearest(
    values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray, *, max_gap_s: float
) -> Pair:
    """The sample nearest to the centre of each bin, if it is within ``max_gap_s``; not causal."""
    centres = bins.t0_s + (np.arange(bins.n) + 0.5) * bins.dt_s
    if not len(times_s):
        return _taken(values, mask, np.full(bins.n, -1), None, bins, valid)
    after = np.clip(np.searchsorted(times_s, centres), 1, max(len(times_s) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times_s) - 1)
    at = np.where(centres - times_s[before] <= times_s[after] - centres, before, after)
    return _taken(values, mask, at, np.abs(times_s[at] - centres) <= max_gap_s, bins, valid)


def linear(
    values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray, *, max_gap_s: float
) -> Pair:
    """Linear interpolation at the centre of each bin between samples at most ``max_gap_s`` apart; not causal."""
    centres = bins.t0_s + (np.arange(bins.n) + 0.5) * bins.dt_s
    if len(times_s) < 2:
        return _taken(values, mask, np.full(bins.n, -1), None, bins, valid)
    after = np.clip(np.searchsorted(times_s, centres, side="left"), 1, len(times_s) - 1)
    left, right = times_s[after - 1], times_s[after]
    between = (centres >= left) & (centres <= right) & (right - left <= max_gap_s) & bins.covered(valid)
    share = ((centres - left) / np.where(right > left, right - left, 1.0))[:, None]
    mixed = values[after - 1] * (1 - share) + values[after] * share
    return masked(mixed, between[:, None] & mask[after - 1] & mask[after])


def cubic(
    values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, bins: Bins, valid: np.ndarray, *, max_gap_s: float
) -> Pair:
    """The cubic through the four samples round the centre of each bin, low-passed first where bins are the slower.

    The four samples are Lagrange's: a cubic comes back exactly, and nothing outside them counts. Where a bin is
    longer than a sample the signal first goes through a symmetric FIR with a Kaiser window (`antialias`), so that
    half its length is unknown at both ends of the recording and of every gap; not causal.

    Args:
        values: (N, C).
        mask: (N, C) bool.
        times_s: (N,) seconds, even but for gaps.
        bins: the grid.
        valid: (K, 2) seconds.
        max_gap_s: samples farther apart than this have a gap between them.

    Returns:
        Tokens (T, C, 1) and mask (T, C): the four samples, and all that the filter reads for them, are known.
    """
    n = len(times_s)
    if n < 4:
        return _taken(values, mask, np.full(bins.n, -1), None, bins, valid)
    step = float(np.median(np.diff(times_s)))
    if bins.dt_s > step * (1 + EDGE):
        values, mask = _filtered(values, mask, times_s, antialias(round(bins.dt_s / step, 6)), step)
    centres = bins.t0_s + (np.arange(bins.n) + 0.5) * bins.dt_s
    first = np.clip(np.searchsorted(times_s, centres, side="right") - 2, 0, n - 4)
    rows = first[:, None] + np.arange(4)
    at = times_s[rows]
    inside = (centres >= at[:, 1] - EDGE * step) & (centres <= at[:, 2] + EDGE * step)
    whole = np.logical_and(inside, np.diff(at, axis=1).max(axis=1) <= max_gap_s) & bins.covered(valid)
    weights = np.ones((bins.n, 4))
    for i in range(4):
        for j in range(4):
            if i != j:
                apart = at[:, i] - at[:, j]
                weights[:, i] *= (centres - at[:, j]) / np.where(apart == 0, 1.0, apart)
    drawn = np.zeros((bins.n, values.shape[1]))
    for i in range(4):  # one term after the other, so that four copies of the signal are never held
        drawn += weights[:, i, None] * values[rows[:, i]]
    return masked(drawn, whole[:, None] & mask[rows].all(axis=1))


@lru_cache(maxsize=32)
def antialias(factor: float) -> np.ndarray:
    """The low-pass before decimation by a factor: a linear-phase FIR with a Kaiser window (Kaiser 1974).

    Args:
        factor: samples a bin, above 1.

    Returns:
        (2 K + 1,) weights that sum to 1: the pass band ends at `PASS` of the grid's Nyquist frequency, and from
        that frequency on the signal is down by `ATTENUATION_DB`.
    """
    from scipy.signal import firwin, kaiserord

    count, beta = kaiserord(ATTENUATION_DB, (1 - PASS) / factor)
    return np.asarray(firwin(count | 1, (1 + PASS) / 2 / factor, window=("kaiser", beta)))  # type: ignore[arg-type]


def reach_s(op: str, params: dict[str, float], dt_s: float) -> float:
    """How far from its bin a bin step may look, in seconds, less a few samples."""
    own = max([float(params[k]) for k in ("window_s", "max_age_s", "max_gap_s") if k in params], default=0.0)
    if op != "cubic":
        return own
    return 2 * own + (len(antialias(100.0)) // 2 + 1) / 100.0 * dt_s  # the filter's length is a number of bins


def _filtered(values: np.ndarray, mask: np.ndarray, times_s: np.ndarray, weights: np.ndarray, step: float) -> Pair:
    """The signal through a symmetric filter; unknown wherever the filter meets an unknown sample, a gap or an end."""
    from scipy.signal import oaconvolve

    n, half = len(values), len(weights) // 2
    if n < len(weights):
        return np.zeros_like(values), np.zeros_like(mask)
    smooth = oaconvolve(np.where(mask, values, 0.0), weights[:, None], mode="same", axes=0)
    lost = np.concatenate([np.zeros((1, mask.shape[1]), np.int64), np.cumsum(~mask, axis=0)])
    breaks = np.concatenate([[0], np.cumsum(np.diff(times_s) > GAP * step)])
    known = np.zeros_like(mask)
    inner = np.arange(half, n - half)
    unbroken = breaks[inner + half] == breaks[inner - half]
    known[inner] = unbroken[:, None] & (lost[inner + half + 1] == lost[inner - half])
    return np.where(known, smooth, 0.0), known


def _taken(
    values: np.ndarray, mask: np.ndarray, at: np.ndarray, near: np.ndarray | None, bins: Bins, valid: np.ndarray
) -> Pair:
    """The samples at the rows ``at`` where they are near enough, known and in valid time."""
    if near is None:
        return np.zeros((bins.n, values.shape[1], 1)), np.zeros((bins.n, values.shape[1]), dtype=bool)
    rows = np.maximum(at, 0)
    return masked(values[rows], (near & bins.covered(valid))[:, None] & mask[rows])


def masked(tokens: np.ndarray, mask: np.ndarray) -> Pair:
    """Tokens as (T, C, P), 0 where the mask is False."""
    tokens = tokens[..., None] if tokens.ndim == 2 else tokens
    return np.where(mask[..., None], tokens, 0.0), mask
