"""Surrogates that keep the nuisance: shifted time series and permuted trials, as row indices.

Shuffling single bins of a time series breaks its autocorrelation and calls independent series related (false
positive rate .70 for two AR(.98) series, against .09 of circular shifts): bins are never shuffled here.

Legend: N rows, S surrogates, U resampling units.
"""

from __future__ import annotations

import numpy as np

from neurofmx.types import Check

LEAST_SHARE = 0.05  # of a session, at either end, that no shift may be shorter than
FEW, SOME = 6.0, 20.0  # correlation times in the longest session: below the first no shift can tell


def surrogate_rows(session: np.ndarray, rng: np.random.Generator, n: int, *, ordered: bool) -> np.ndarray:
    """Draws row orders under which one side of a relation keeps all but its relation to the other.

    Args:
        session: (N,) labels; rows move only inside one. Rows of a session are in time order.
        rng: source of the draws.
        n: how many are wanted.
        ordered: circular shifts of a time series, or permutations of trials.

    Returns:
        (S, N) int64. S is less than ``n`` where one short series has fewer distinct shifts.
    """
    members = [np.flatnonzero(session == s) for s in np.unique(session)]
    if ordered and len(members) == 1:
        shifts = _shifts(len(members[0]))
        n = min(n, len(shifts))
    index = np.tile(np.arange(len(session)), (n, 1))
    for rows in members:
        size = len(rows)
        if not ordered:
            index[:, rows] = rows[rng.permuted(np.tile(np.arange(size), (n, 1)), axis=1)]
            continue
        shifts = _shifts(size)
        drawn = rng.permutation(shifts)[:n] if len(members) == 1 else rng.choice(shifts, size=n)
        index[:, rows] = rows[(np.arange(size) + drawn[:, None]) % size]
    return index


def _shifts(size: int) -> np.ndarray:
    least = max(1, int(LEAST_SHARE * size))
    return np.arange(least, size - least + 1) if size > 2 * least else np.arange(1, max(2, size))


def sign_flips(units: int, rng: np.random.Generator, n: int) -> np.ndarray:
    """Swaps the two sides of a paired difference in some of its resampling units.

    Args:
        units: U.
        rng: source of the draws.
        n: how many are wanted.

    Returns:
        (S, U) of 1 and -1: every set of swaps but the empty one where those are at most ``n``, else ``n`` drawn.
        Few units thus give a coarse null, and a finding that says so, instead of repeats that hide it.
    """
    if 2**units - 1 > n:
        return rng.choice([-1.0, 1.0], size=(n, units))
    return 1.0 - 2.0 * ((np.arange(1, 2**units)[:, None] >> np.arange(units)) & 1)


def correlation_rows(series: np.ndarray) -> float:
    """Integrated autocorrelation time of the slowest column, in rows: 1 + 2 sum of rho until it falls below .05.

    Args:
        series: (N, D).
    """
    centred = series - series.mean(0)
    size = len(series)
    spectrum = np.fft.rfft(centred, 2 * size, axis=0)
    auto = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:size]
    keep = auto[0] > 0
    if not keep.any():
        return 1.0
    rho = auto[:, keep] / auto[0, keep]
    until = np.where((rho < 0.05).any(0), (rho < 0.05).argmax(0), size)
    inside = (np.arange(size)[:, None] >= 1) & (np.arange(size)[:, None] < until)
    return float(np.max(1 + 2 * (rho * inside).sum(0)))


def long_enough(name: str, series: np.ndarray, session: np.ndarray) -> Check:
    """Judges whether shifted copies of a series are different enough from it to be a null.

    Args:
        name: of the series.
        series: (N, D).
        session: (N,) labels.
    """
    times = 0.0
    for s in np.unique(session):
        own = series[session == s]
        times += len(own) / correlation_rows(own)
    severity = "block" if times < FEW else "warn"
    return Check(
        name="effective_length",
        passed=times >= SOME,
        severity=severity,
        evidence=f"{name} is correlated with itself for so long that it fits {times:.1f} times into the data; "
        f"circular shifts need {SOME:g} to be trusted and {FEW:g} to say anything.",
    )
