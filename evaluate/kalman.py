"""The Kalman filter of neural decoding: kinematics as a state that moves linearly and is seen through firing.

Source: Wu, Gao, Bienenstock, Donoghue and Black 2006, Neural Computation 18:80. Legend: n bins, F features, S state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neurofmx.evaluate.design import Design

GRID = tuple(
    {"state": state, "lag": lag, "shrinkage": shrinkage}
    for state in ("position", "position and velocity")
    for lag in (0, 1, 2)
    for shrinkage in (0.01, 0.1, 0.5)
)


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
    filters = [_fitted(design, rows, **setting) for setting in GRID]
    return lambda test: np.stack([_filtered(design, test, one) for one in filters])


def _seen(design: Design, lag: int) -> np.ndarray:
    """(n, F) features that a state at each bin is seen through."""
    key = ("kalman", lag)
    if key not in design.kept:
        scale = np.maximum(design.x.std(axis=0), 1e-9)
        design.kept[key] = design.lagged(design.x / scale, (-lag,))
    return design.kept[key]


def _fitted(design: Design, rows: np.ndarray, *, state: str, lag: int, shrinkage: float) -> Filter:
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
    q = _covariance(z - features - x[seen] @ h)
    q = (1 - shrinkage) * q + shrinkage * np.diag(np.diag(q)) + 1e-6 * np.trace(q) / len(q) * np.eye(len(q))
    read = np.linalg.solve(q, h.T)
    move, gain = _steady(a.T, w, h @ read)
    return Filter(move=move, gain=gain, read=read, mean=mean, features=features, lag=lag)


def _steady(a: np.ndarray, w: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The filter's matrices once the covariance of its state has settled, which no data decide."""
    covariance = w
    for _ in range(1000):
        before = np.linalg.pinv(covariance, hermitian=True)
        after = np.linalg.inv(before + information)
        new = a @ after @ a.T + w
        done = np.abs(new - covariance).max() <= 1e-10 * np.abs(new).max()
        covariance = new
        if done:
            break
    return after @ before @ a, after


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
    return np.linalg.lstsq(x, y, rcond=None)[0]


def _covariance(x: np.ndarray) -> np.ndarray:
    return x.T @ x / max(1, len(x)) + 1e-9 * np.eye(x.shape[1])
