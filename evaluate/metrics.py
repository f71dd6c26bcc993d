"""Metrics as sums over resampling units, so that a bootstrap over units is a matrix product.

A metric is three things: statistics of each unit, a value from weighted statistics, and which way is better.
Legend: N bins or trials, U units, R recordings, S statistics, D target dimensions, K classes, B bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurofmx.errors import ConfigError

FLOOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is scored, known rows only.

    Args:
        truth: (N, D) float64, or (N,) int64 classes.
        predicted: (N, D) float64, or (N, K) class probabilities.
        unit: (N,) int row of the resampling unit.
        recording: (N,) int row of the recording.
        n_units: U.
        fit: (N,) int, which fit predicted the row (the fold): what differs between fits by a constant is not compared.
            None where one fit predicted them all.
    """

    truth: np.ndarray
    predicted: np.ndarray
    unit: np.ndarray
    recording: np.ndarray
    n_units: int
    fit: np.ndarray | None = None

    def fitted(self) -> np.ndarray:
        """(N,) int, one number for each pair of a recording and a fit."""
        if self.fit is None:
            return self.recording
        return np.unique(np.stack([self.recording, self.fit]), axis=1, return_inverse=True)[1].reshape(-1)


Value = Callable[[np.ndarray], np.ndarray]  # weights (B, U) -> values (B,)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: row of `METRICS`.
        kind: which targets it fits.
        prepare: rows -> the value as a function of the units' weights.
        higher: whether more is better.
        says: its definition in one line.
    """

    name: str
    kind: Literal["continuous", "class"]
    prepare: Callable[[Rows], Value]
    higher: bool
    says: str


def metric_named(name: str) -> Metric:
    """A metric by name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in METRICS:
        raise ConfigError("metric", got=name, expected=f"one of {', '.join(METRICS)}")
    return METRICS[name]


def value_of(metric: Metric, rows: Rows) -> float:
    """The metric over all rows."""
    return float(metric.prepare(rows)(np.ones((1, rows.n_units)))[0])


def _sums(columns: np.ndarray, unit: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, S) sums over each pair of a unit and a group that occur together, and (P, 2) which pair it is."""
    pairs, at = np.unique(np.stack([unit, group], axis=1), axis=0, return_inverse=True)
    at = at.reshape(-1)
    sums = np.stack([np.bincount(at, weights=c, minlength=len(pairs)) for c in columns.T], axis=1)
    return sums, pairs


def _by_group(sums: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B, R, S): the weighted sums inside each group."""
    groups = np.unique(pairs[:, 1])
    out = np.zeros((len(weights), len(groups), sums.shape[1]))
    for r, group in enumerate(groups):
        mine = pairs[:, 1] == group
        out[:, r] = weights[:, pairs[mine, 0]] @ sums[mine]
    return out


def _moments(rows: Rows, group: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weights -> (B, 6, D): n, centred sums yy, pp, yp about the groups' means, squared error, absolute error."""
    y, p = rows.truth, rows.predicted
    d = y.shape[1]
    origin = y.mean(axis=0)  # sums of squares about a near origin lose no digits
    y0, p0 = y - origin, p - origin
    columns = [np.ones((len(y), 1)), y0, p0, y0 * y0, p0 * p0, y0 * p0, (p - y) ** 2, np.abs(p - y)]
    sums, pairs = _sums(np.concatenate(columns, axis=1), rows.unit, group)

    def of(weights: np.ndarray) -> np.ndarray:
        by = _by_group(sums, pairs, weights)
        n, sy, sp, syy, spp, syp, se, ae = np.split(by, [1, *(1 + d * np.arange(1, 7))], axis=2)
        many = np.maximum(n, FLOOR)
        parts = [np.broadcast_to(n, sy.shape), syy - sy * sy / many, spp - sp * sp / many, syp - sy * sp / many, se, ae]
        return np.stack([part.sum(axis=1) for part in parts], axis=1)

    return of


def _continuous(formula: Callable[[np.ndarray], np.ndarray], *, by_fit: bool = False) -> Callable[[Rows], Value]:
    def prepare(rows: Rows) -> Value:
        of = _moments(rows, rows.fitted() if by_fit else rows.recording)
        return lambda weights: formula(of(weights))

    return prepare


def _r2(m: np.ndarray) -> np.ndarray:
    return 1 - m[:, 4].sum(axis=1) / np.maximum(m[:, 1].sum(axis=1), FLOOR)


def _r2_mean(m: np.ndarray) -> np.ndarray:
    return np.mean(1 - m[:, 4] / np.maximum(m[:, 1], FLOOR), axis=1)


def _pearson(m: np.ndarray) -> np.ndarray:
    spread = np.sqrt(np.maximum(m[:, 1], 0) * np.maximum(m[:, 2], 0))
    flat = spread <= 1e-9 * np.maximum(m[:, 1], FLOOR)  # a constant prediction correlates with nothing
    return np.mean(np.where(flat, 0.0, m[:, 3] / np.maximum(spread, FLOOR)), axis=1)


def _mse(m: np.ndarray) -> np.ndarray:
    return np.mean(m[:, 4] / np.maximum(m[:, 0], FLOOR), axis=1)


def _mae(m: np.ndarray) -> np.ndarray:
    return np.mean(m[:, 5] / np.maximum(m[:, 0], FLOOR), axis=1)


def _bits_per_spike(rows: Rows) -> Value:
    """Poisson log-likelihood over that of the mean rate, per spike (Pei et al. 2021, Neural Latents Benchmark)."""
    counts, rates = rows.truth, np.maximum(rows.predicted, 1e-9)
    d = counts.shape[1]
    columns = [np.ones((len(counts), 1)), counts, counts * np.log(rates) - rates]
    sums, pairs = _sums(np.concatenate(columns, axis=1), rows.unit, rows.recording)

    def value(weights: np.ndarray) -> np.ndarray:
        by = _by_group(sums, pairs, weights)
        n, spikes, model = by[..., :1], by[..., 1 : 1 + d], by[..., 1 + d :]
        mean = np.maximum(spikes / np.maximum(n, FLOOR), FLOOR)
        null = spikes * np.log(mean) - n * mean
        return (model - null).sum(axis=(1, 2)) / np.maximum(spikes.sum(axis=(1, 2)), FLOOR) / np.log(2)

    return value


def _accuracy(rows: Rows) -> Value:
    hit = (rows.predicted.argmax(axis=1) == rows.truth).astype(np.float64)
    sums, pairs = _sums(np.stack([np.ones(len(hit)), hit], axis=1), rows.unit, rows.recording)

    def value(weights: np.ndarray) -> np.ndarray:
        total = _by_group(sums, pairs, weights).sum(axis=1)
        return total[:, 1] / np.maximum(total[:, 0], FLOOR)

    return value


def _balanced_accuracy(rows: Rows) -> Value:
    """Mean recall over the classes that occur."""
    k = rows.predicted.shape[1]
    hot = np.eye(k)[rows.truth]
    hit = hot * (rows.predicted.argmax(axis=1) == rows.truth)[:, None]
    sums, pairs = _sums(np.concatenate([hot, hit], axis=1), rows.unit, rows.recording)

    def value(weights: np.ndarray) -> np.ndarray:
        total = _by_group(sums, pairs, weights).sum(axis=1)
        seen, right = total[:, :k], total[:, k:]
        occurs = seen > 0
        recall = np.where(occurs, right / np.maximum(seen, FLOOR), 0.0)
        return recall.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1)

    return value


def _auroc(rows: Rows) -> Value:
    """Share of pairs of a positive and a negative trial that are in the right order, ties half.

    Only trials of one recording and one fit make a pair: another fit has another offset, and pooled across fits
    even the training prior would score below one half.
    """
    if rows.predicted.shape[1] != 2:
        raise ConfigError("metric auroc", got=f"{rows.predicted.shape[1]} classes", expected="two")
    score, positive, group = rows.predicted[:, 1], rows.truth == 1, rows.fitted()
    found = []  # unit of the positive, unit of the negative, pairs won, pairs, whether the group is one unit
    for held in (np.flatnonzero(group == g) for g in np.unique(group)):
        units = np.unique(rows.unit[held])
        negatives = [np.sort(score[held[~positive[held] & (rows.unit[held] == v)]]) for v in units]
        for u in units:
            mine = score[held[positive[held] & (rows.unit[held] == u)]]
            for v, others in zip(units, negatives):
                below = np.searchsorted(others, mine, side="left") + np.searchsorted(others, mine, side="right")
                found.append((u, v, float(below.sum()) / 2, float(len(mine) * len(others)), len(units) == 1))
    u, v, wins, pairs, alone = (np.array(column) for column in zip(*found))

    def value(weights: np.ndarray) -> np.ndarray:
        # a unit that is drawn twice and fills its group is two groups, not one of twice the size
        both = weights[:, u] * np.where(alone, 1.0, weights[:, v])
        total = both @ pairs
        return np.where(total > 0, (both @ wins) / np.maximum(total, FLOOR), 0.5)

    return value


METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("r2", "continuous", _continuous(_r2), True, "1 - squared error / variance in a recording, all dims"),
        Metric("r2_mean", "continuous", _continuous(_r2_mean), True, "mean over dimensions of R2"),
        Metric(
            "pearson", "continuous", _continuous(_pearson, by_fit=True), True, "Pearson's r about the means of each fit"
        ),
        Metric("mse", "continuous", _continuous(_mse), False, "mean squared error"),
        Metric("mae", "continuous", _continuous(_mae), False, "mean absolute error"),
        Metric("bits_per_spike", "continuous", _bits_per_spike, True, "Poisson log-likelihood over the mean rate's"),
        Metric("accuracy", "class", _accuracy, True, "share of trials told right"),
        Metric("balanced_accuracy", "class", _balanced_accuracy, True, "mean over classes of the share told right"),
        Metric("auroc", "class", _auroc, True, "area under the ROC curve, pairs of one recording and fit"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


def draws(n_units: int, *, n: int = 2000, seed: int = 0) -> np.ndarray:
    """(n, U) float64: how often each unit is drawn in each bootstrap sample of U units."""
    random = np.random.default_rng([seed, n_units])
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n).astype(np.float64)


def interval(value: Value, weights: np.ndarray) -> Interval:
    """Value and percentile interval at 95 % (Efron and Tibshirani 1993) over bootstrap weights (B, U).

    The interval always holds the value: with few units the percentiles may miss it.
    """
    best = float(value(np.ones((1, weights.shape[1])))[0])
    low, high = np.percentile(value(weights), [2.5, 97.5])
    return Interval(value=best, low=min(float(low), best), high=max(float(high), best))


def paired(ours: Value, theirs: Value, weights: np.ndarray) -> Interval:
    """Difference of two predictors on the same units, with its interval over the same draws."""
    return interval(lambda w: ours(w) - theirs(w), weights)


def verdict(difference: Interval, *, n_units: int, margin: float, higher: bool) -> str:
    """better, worse, equivalent, undecided, or within one recording.

    Args:
        difference: ours less the baseline's, with its interval.
        n_units: resampling units; fewer than five allow no claim beyond the recording.
        margin: an interval inside plus and minus this is equivalent.
        higher: whether more is better.
    """
    if n_units < 5:
        return "within one recording"
    low, high = (difference.low, difference.high) if higher else (-difference.high, -difference.low)
    if -margin < low and high < margin:
        return "equivalent"
    return "better" if low > 0 else "worse" if high < 0 else "undecided"
