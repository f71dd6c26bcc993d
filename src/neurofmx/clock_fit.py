"""Fits a clock map to pulses whose partners on the session clock are known.

Pieces are found by binary segmentation and kept where the Bayesian information criterion (Schwarz 1978, Ann
Stat 6:461) falls by ten or more; a border at which the map does not jump becomes a knot of a continuous line,
placed as Muggeo (2003), Stat Med 22:3055, does. Bad pulses are set aside by medians of their neighbours
before, and by iterated trimming after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurofmx.clock import QUANTILES, ClockMap
from neurofmx.errors import ConfigError

LEAST = 3  # two pulses fix a line, and only a third says how good it is
LEAST_FOUND = 5  # pulses of a piece that nobody stated
MARGIN = 10.0  # fall of the criterion below which a further piece is not believed
MOST_PIECES = 16
RESOLUTION_S = 1e-8  # residuals below this are rounding
NEVER_ASIDE_S = 1e-6
MADS, SPIKE_MADS, NEIGHBOURS = 5.0, 8.0, 5
SIGMA = 1.4826  # standard deviation over median absolute deviation of a normal distribution


@dataclass(frozen=True)
class _Span:
    """Rows [lo, hi) of the pulses; ``joined`` when the line goes on from the span before without a jump."""

    lo: int
    hi: int
    joined: bool = False


def fit_clock(device_s: np.ndarray, session_s: np.ndarray, *, breaks_s: np.ndarray | None = None) -> ClockMap:
    """Fits affine pieces to pulses seen on both clocks, robust to a minority of bad pulses.

    Args:
        device_s: (N,) pulse times on the device.
        session_s: (N,) the same pulses on the session clock.
        breaks_s: device times at which the device's clock was reset; None to find resets in the pulses.
            Changes of drift are found either way.

    Returns:
        The map, continuous but at resets, with the residuals of the pulses that were kept. Quantiles are widened
        by sqrt(n / (n - p)) for the p numbers that were fitted.

    Raises:
        ConfigError: fewer than three pulses in a piece, or unequal counts.
    """
    device, session = np.asarray(device_s, np.float64), np.asarray(session_s, np.float64)
    if device.shape != session.shape:
        raise ConfigError("sync pulses", got=f"{device.size} against {session.size}", expected="as many on both clocks")
    order = np.argsort(device, kind="stable")
    device, session = device[order], session[order]
    stated = np.sort(np.asarray([] if breaks_s is None else breaks_s, np.float64))
    cuts = np.searchsorted(device, stated)
    edges = [0, *cuts.tolist(), device.size]
    for lo, hi in zip(edges, edges[1:]):
        if hi - lo < LEAST:
            raise ConfigError("sync pulses of a clock piece", got=int(hi - lo), expected=f"at least {LEAST}")
    ahead = session - device
    good = np.concatenate([_no_spikes(device[lo:hi], ahead[lo:hi]) for lo, hi in zip(edges, edges[1:])])
    starts, slopes, offsets, resets, residuals = [], [], [], [], []
    fitted = 0
    for i, (lo, hi) in enumerate(zip(edges, edges[1:])):
        rows = lo + np.flatnonzero(good[lo:hi])
        d, a = device[rows], ahead[rows]
        groups = _groups(_spans(d, a, may_jump=breaks_s is None))
        for j, spans in enumerate(groups):
            x, y = d[spans[0].lo : spans[-1].hi], a[spans[0].lo : spans[-1].hi]
            knots, lines, kept = _continuous(x, y, [d[span.lo] for span in spans[1:]])
            if i + j:
                # a stated reset is known exactly; a found one lies somewhere between two pulses
                reset = (float(stated[i - 1]),) * 2 if j == 0 else (float(d[spans[0].lo - 1]), float(x[0]))
                resets.append(reset)
                knots[0] = sum(reset) / 2
            starts += knots
            slopes += [1.0 + line[0] for line in lines]
            offsets += [line[1] for line in lines]
            residuals.append(kept)
            fitted += 2 + 2 * (len(lines) - 1)
    absolute = np.abs(np.concatenate(residuals))
    widened = absolute * np.sqrt(absolute.size / max(absolute.size - fitted, 1))
    quantiles = tuple(float(q) for q in np.quantile(widened, QUANTILES))
    return ClockMap(
        start_s=np.array(starts),
        slope=np.array(slopes),
        offset_s=np.array(offsets),
        error_s=quantiles[1],
        quantiles_s=quantiles,
        n_pulses=int(absolute.size),
        n_set_aside=int(device.size - absolute.size),
        resets_s=np.array(resets, np.float64).reshape(-1, 2),
    )


def _no_spikes(d: np.ndarray, a: np.ndarray) -> np.ndarray:
    """(N,) bool: the pulse is near what its neighbours say, on either side or between; jumps and bends stay."""
    lag = max(1, d.size // 4)
    run = d[lag:] - d[:-lag]
    slopes = (a[lag:] - a[:-lag])[run > 0] / run[run > 0]
    flat = a - (np.median(slopes) if slopes.size else 0.0) * (d - d[0])
    rows = np.arange(d.size)[:, None]
    before, after = (np.clip(rows + side * np.arange(1, NEIGHBOURS + 1), 0, d.size - 1) for side in (-1, 1))
    left, right = np.median(flat[before], axis=1), np.median(flat[after], axis=1)
    begin, end = np.median(d[before], axis=1), np.median(d[after], axis=1)
    share = (d - begin) / np.maximum(end - begin, RESOLUTION_S)
    away = np.abs(flat - np.stack([left, right, left + share * (right - left)]))
    few = np.stack([rows[:, 0] < LEAST, rows[::-1, 0] < LEAST])  # too near an end to be judged from that side
    away[:2][few], away[2, few.any(axis=0)] = np.inf, np.inf
    away = np.where(few.all(axis=0), 0.0, away.min(axis=0))
    good = away <= max(SPIKE_MADS * SIGMA * float(np.median(away)), NEVER_ASIDE_S)
    return good if good.sum() >= LEAST else np.ones(d.size, bool)


def _spans(d: np.ndarray, a: np.ndarray, *, may_jump: bool) -> list[_Span]:
    """Rows that one line each fits, in order; the split that lowers the criterion most comes first."""
    found = {(0, d.size): _best_split(d, a, 0, d.size)}
    while len(found) < MOST_PIECES:
        (lo, hi), (gain, at) = max(found.items(), key=lambda item: item[1][0])
        if gain < MARGIN:
            break
        del found[lo, hi]
        found[lo, at], found[at, hi] = _best_split(d, a, lo, at), _best_split(d, a, at, hi)
    edges = sorted(found)
    spans = [_Span(*edges[0])]
    for (before, _), (lo, hi) in zip(edges, edges[1:]):
        spans.append(_Span(lo, hi, joined=not may_jump or _goes_on(d, a, before, lo, hi)))
    return spans


def _best_split(d: np.ndarray, a: np.ndarray, lo: int, hi: int) -> tuple[float, int]:
    """How much two lines lower the criterion below one, and the row at which the second begins."""
    n = hi - lo
    if n < 2 * LEAST_FOUND:
        return 0.0, lo
    x = (d[lo:hi] - d[lo]) / max(d[hi - 1] - d[lo], RESOLUTION_S)
    slope, height = np.polyfit(x, a[lo:hi] - a[lo], 1)
    y = a[lo:hi] - a[lo] - slope * x - height  # small numbers, so that sums of squares keep their digits
    left, right = _running_squares(x, y), _running_squares(1.0 - x[::-1], y[::-1])[::-1]
    at = np.arange(LEAST_FOUND, n - LEAST_FOUND + 1)
    both = left[at - 1] + right[at]
    best = int(np.argmin(both))
    gain = _criterion(left[-1], n, 2) - _criterion(both[best], n, 5)
    return gain, lo + int(at[best])


def _running_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) residual sum of squares of the line through the first i + 1 points, for every i."""
    n = np.arange(1, x.size + 1)
    sx, sy, sxx, sxy, syy = (np.cumsum(v) for v in (x, y, x * x, x * y, y * y))
    spread, shared = sxx - sx * sx / n, sxy - sx * sy / n
    explained = np.where(spread > 1e-12, shared**2 / np.maximum(spread, 1e-12), 0.0)
    return np.maximum(syy - sy * sy / n - explained, 0.0)


def _criterion(squares: float, n: int, numbers: int) -> float:
    """The Bayesian information criterion of a least-squares fit."""
    return n * float(np.log(max(squares / n, RESOLUTION_S**2))) + numbers * float(np.log(n))


def _goes_on(d: np.ndarray, a: np.ndarray, before: int, at: int, after: int) -> bool:
    """Whether one line that bends explains two neighbouring spans as well as two lines that may jump."""
    x, y = d[before:after] - d[at], a[before:after] - a[at]
    cut = at - before
    apart = sum(
        float(np.sum(_solved(_hinges(x[part], []), y[part])[1] ** 2)) for part in (slice(cut), slice(cut, None))
    )
    return _cost(x, y, _moved(x, y, np.zeros(1))) - MARGIN <= _criterion(apart, x.size, 5)


def _groups(spans: list[_Span]) -> list[list[_Span]]:
    """Spans between resets."""
    groups: list[list[_Span]] = []
    for span in spans:
        if span.joined:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _continuous(
    d: np.ndarray, a: np.ndarray, knots_s: list[float]
) -> tuple[list[float], list[tuple[float, float]], np.ndarray]:
    """A line that bends at knots, least squares after pulses far from it were set aside three times.

    Returns:
        where each piece begins, its slope less 1 and its offset, and the residuals kept.
    """
    x, y = d - d[0], a - a[0]
    knots, keep = _needed(x, y, np.sort(np.array(knots_s) - d[0])), np.ones(d.size, bool)
    solution, residual = _solved(_hinges(x, knots), y)
    for _ in range(3):
        knots = _moved(x[keep], y[keep], knots)
        base = _hinges(x, knots)
        solution, _ = _solved(base[keep], y[keep])
        residual = y - base @ solution
        aside = np.abs(residual - np.median(residual[keep]))
        keep = aside <= max(MADS * SIGMA * float(np.median(aside[keep])), NEVER_ASIDE_S)
    starts, slopes = np.concatenate([[0.0], knots]), np.cumsum(solution[1:])
    heights = _hinges(starts, knots) @ solution + a[0]
    lines = [(float(s), float(h - s * (d[0] + x0))) for x0, s, h in zip(starts, slopes, heights)]
    return (starts + d[0]).tolist(), lines, residual[keep]


def _needed(x: np.ndarray, y: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Knots, each where the fit is best, less those without which the fit is as good."""
    knots = _moved(x, y, knots)
    while len(knots):
        fewer = [_moved(x, y, np.delete(knots, i)) for i in range(len(knots))]
        costs = [_cost(x, y, tried) for tried in fewer]
        best = int(np.argmin(costs))
        if costs[best] > _cost(x, y, knots) + MARGIN:
            return knots
        knots = fewer[best]
    return knots


def _cost(x: np.ndarray, y: np.ndarray, knots: np.ndarray) -> float:
    squares = float(np.sum(_solved(_hinges(x, knots), y)[1] ** 2))
    return _criterion(squares, x.size, 2 + 2 * len(knots))


def _moved(x: np.ndarray, y: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Knots moved to where the fit is best: the line is linearised about them, a few times (Muggeo 2003)."""
    for _ in range(8 if len(knots) else 0):
        steps = -(x[:, None] > knots[None, :]).astype(np.float64)
        solution, _ = _solved(np.concatenate([_hinges(x, knots), steps], axis=1), y)
        bend, jump = solution[2 : 2 + len(knots)], solution[2 + len(knots) :]
        move = np.where(np.abs(bend) > 1e-12, jump / np.where(np.abs(bend) > 1e-12, bend, 1.0), 0.0)
        fence = np.concatenate([[x[0]], knots, [x[-1]]])
        reach = np.minimum(np.diff(fence)[:-1], np.diff(fence)[1:]) / 2  # so that knots never pass one another
        knots = knots + np.clip(move, -reach, reach)
    return knots


def _hinges(x: np.ndarray, knots: list[float] | np.ndarray) -> np.ndarray:
    """(N, 2 + K) columns: one, time, and time since each knot."""
    return np.stack([np.ones_like(x), x, *(np.maximum(x - k, 0.0) for k in knots)], axis=1)


def _solved(columns: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares solution and residual; columns are scaled, so that seconds of days cost no precision."""
    scale = np.maximum(np.abs(columns).max(axis=0), RESOLUTION_S)
    solution = np.linalg.lstsq(columns / scale, y, rcond=None)[0] / scale
    return solution, y - columns @ solution
