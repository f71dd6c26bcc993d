"""The Kalman filter of neural decoding: kinematics as a state that moves linearly and is seen through firing.

Source: Wu, Gao, Bienenstock, Donoghue and Black 2006, Neural Computation 18:80. Legend: n bins, F features, S state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neurofmx.evaluate.design import Design

STATES, LAGS, SHRINKAGES = ("position", "position and velocity"), (0, 1, 2), (0.01, 0.1, 0.5)
GRID = tuple({"state": s, "lag": lag, "shrinkage": share} for s in STATES for lag in LAGS for share in SHRINKAGES)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A fitted filter: x' = A x + w, z = H x + q, with the gain that it settles to (Malik et al. 2011).

    Args:
        move: (S, S), from one estimate to the next before it is corrected by evidence.
        gain: (S, S), covariance of the estimate.
        read: (F, S), Q^-1 H, from centred features to the state's evidence.
        mean: (D,) mean of the target.
        features: (F,) mean of the features.
        lag: bins by which the state follows the features.
    """

    move: np.ndarray
    gain: np.ndarray
    read: np.ndarray
    mean: np.ndarray
    features: np.ndarray
    lag: int


def fit(design: Design, cells: frozenset[int]) -> Callable[[np.ndarray], np.ndarray]:
    """All settings of `GRID` fitted to some cells: rows (n,) bool -> (settings, n', D)."""
    rows = design.rows(cells) & design.known
    filters = [one for state in STATES for lag in LAGS for one in _fitted(design, rows, state, lag)]
    return lambda test: np.stack([_filtered(design, test, one) for one in filters])


def _seen(design: Design, lag: int) -> np.ndarray:
    """(n, F) features that a state at each bin is seen through."""
    key = ("kalman", lag)
    if key not in design.kept:
        scale = np.maximum(design.x.std(axis=0), 1e-9)
        design.kept[key] = design.lagged(design.x / scale, (-lag,))
    return design.kept[key]


def _fitted(design: Design, rows: np.ndarray, state: str, lag: int) -> list[Filter]:
    """One filter for each shrinkage of the covariance of the features' noise."""
    mean = design.y[rows].mean(axis=0)
    y = design.y - mean
    ahead = np.concatenate([(design.sequence[1:] == design.sequence[:-1]) & rows[1:] & rows[:-1], [False]])
    if state == "position":
        x, seen = y, rows
    else:
        back = np.concatenate([[False], ahead[:-1]])  # the bin before is known too
        x = np.concatenate([y, np.where(back[:, None], y - np.roll(y, 1, axis=0), 0.0)], axis=1)
        seen = back
    now = np.flatnonzero(ahead & seen & np.roll(seen, -1))
    a = _least_squares(x[now], x[now + 1])
    w = _covariance(x[now + 1] - x[now] @ a)
    z = _seen(design, lag)[seen]
    features = z.mean(axis=0)
    h = _least_squares(x[seen], z - features)
    noise, found = _covariance(z - features - x[seen] @ h), []
    for share in SHRINKAGES:
        q = (1 - share) * noise + share * np.diag(np.diag(noise))
        read = np.linalg.solve(q + 1e-6 * np.trace(q) / len(q) * np.eye(len(q)), h.T)
        move, gain = _steady(a.T, w, h @ read)
        found.append(Filter(move=move, gain=gain, read=read, mean=mean, features=features, lag=lag))
    return found


def _steady(a: np.ndarray, w: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The filter's matrices once the covariance of its state has settled, which no data decide.

    The Riccati equation P = A P (I + G P)^-1 A' + W by structure-preserving doubling (Anderson 1978).
    """
    one = np.eye(len(a))
    f, g, p = a.T, information, w
    for _ in range(60):
        inverse = np.linalg.inv(one + g @ p)
        new = p + f.T @ p @ inverse @ f
        g, f = g + f @ inverse @ g @ f.T, f @ inverse @ f
        done = np.abs(new - p).max() <= 1e-12 * np.abs(new).max()
        p = new
        if done:
            break
    after = p @ np.linalg.inv(one + information @ p)
    return (one - after @ information) @ a, after


def _filtered(design: Design, test: np.ndarray, model: Filter) -> np.ndarray:
    """(n', D): x' = move x + gain evidence, in the eigenvectors of ``move``, where it is one filter a dimension."""
    from scipy.signal import lfilter

    evidence = (_seen(design, model.lag)[test] - model.features) @ model.read @ model.gain.T
    poles, vectors = np.linalg.eig(model.move)
    poles = np.where(np.abs(poles) < 1, poles, 0.999 * poles / np.maximum(np.abs(poles), 1e-12))
    rotated = np.linalg.solve(vectors, evidence.T.astype(complex))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(design.sequence[test]) != 0, [True]]))
    out = np.empty_like(rotated)
    for lo, hi in zip(starts[:-1], starts[1:]):
        for i, pole in enumerate(poles):
            out[i, lo:hi] = lfilter([1.0], [1.0, -pole], rotated[i, lo:hi])
    return (vectors @ out).real.T[:, : len(model.mean)] + model.mean


def _least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(_covariance(x), x.T @ y / max(1, len(x)))


def _covariance(x: np.ndarray) -> np.ndarray:
    return x.T @ x / max(1, len(x)) + 1e-9 * np.eye(x.shape[1])
