"""The closed-form start: ridge or logistic regression into the network's linear path, from training folds only.

The penalty is chosen inside the training folds. The same inner folds give each training window a prediction by a
fit that never saw it; the network trains on what those leave, not on the smaller residuals of a fit to itself.

Legend: N windows, T time, S samples (bins or windows), U features (channel, field), R rank, K lags, D target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from neurofmx.tokenize.windows import TaskData
from neurofmx.train.feed import Feed
from neurofmx.train.recipes import LinearConfig

COLUMNS = 1500  # most columns of one fit: its cost grows with their cube


@dataclass(frozen=True, kw_only=True)
class LinearStart:
    """What the linear path begins with.

    Args:
        weight: task -> (V, K, P, D).
        bias: task -> (recordings, D).
        offset: (task, number of the recording) -> (N, T, D) or (N, D): predictions of training windows by fits that
            did not see them; zero elsewhere.
        penalty: task -> chosen penalty of each group of recordings that share channels.
    """

    weight: Mapping[str, np.ndarray]
    bias: Mapping[str, np.ndarray]
    offset: Mapping[tuple[str, int], np.ndarray]
    penalty: Mapping[str, tuple[float, ...]]


def linear_start(feed: Feed, config: LinearConfig, lags: Sequence[int]) -> LinearStart:
    """Fits the linear path of every task.

    Args:
        feed: training windows, vocabulary and statistics.
        config: penalties and folds.
        lags: K lags of continuous tasks; windows of class tasks are averaged over time.
    """
    weight, bias, offset, penalty = {}, {}, {}, {}
    width = max(len(names) for task in feed.data.values() for names in task.fields.values())
    for name, task in feed.data.items():
        used = tuple(lags) if task.kind == "continuous" else (0,)
        dim = len(task.names)
        weight[name] = np.zeros((len(feed.vocabulary.channels), len(used), width, dim), dtype=np.float32)
        bias[name] = np.zeros((len(feed.vocabulary.recordings), dim), dtype=np.float32)
        penalty[name] = ()
        for number, windows in enumerate(task.recordings):
            offset[name, number] = np.zeros((*windows.target_mask.shape, dim), dtype=np.float32)
        for group in _sharing_channels(feed, task):
            trained = [n for n in group if len(feed.train_rows[name, n])]
            if not trained:
                continue
            chosen = _fit_group(feed, task, trained, config, used, weight[name], bias[name], offset)
            penalty[name] += (chosen,)
            rows = [feed.vocabulary.recording_row(task.recordings[n].recording) for n in group]
            bias[name][rows] = bias[name][feed.vocabulary.recording_row(task.recordings[trained[0]].recording)]
    return LinearStart(weight=weight, bias=bias, offset=offset, penalty=penalty)


def _sharing_channels(feed: Feed, task: TaskData) -> list[list[int]]:
    """Numbers of the recordings in groups that share vocabulary rows, directly or through others."""
    groups: list[tuple[set[int], list[int]]] = []
    for number, windows in enumerate(task.recordings):
        rows = {int(r) for m, ids in windows.channels.items() for r in feed.vocabulary.rows(windows.recording, m, ids)}
        numbers, rest = [number], []
        for other_rows, other in groups:
            if rows & other_rows:
                rows, numbers = rows | other_rows, other + numbers
            else:
                rest.append((other_rows, other))
        groups = [*rest, (rows, numbers)]
    return [sorted(numbers) for _, numbers in groups]


def _fit_group(
    feed: Feed,
    task: TaskData,
    numbers: list[int],
    config: LinearConfig,
    lags: tuple[int, ...],
    weight: np.ndarray,
    bias: np.ndarray,
    offset: dict[tuple[str, int], np.ndarray],
) -> float:
    """Fits recordings that share channels; writes into weight, bias and offset; returns the penalty."""
    column = _columns(feed, task, numbers)
    parts, targets, known, folds = [], [], [], []
    for number in numbers:
        chosen = feed.train_rows[task.name, number]
        batch = feed.batch(task.name, number, chosen)
        parts.append(_features(feed, task, number, chosen, column, batch))
        targets.append(batch.targets[task.name].values.numpy())
        known.append(batch.targets[task.name].mask.numpy())
        folds.append(_inner_folds(task.recordings[number].unit[chosen], config.inner_folds))
    basis = _principal(parts, min(config.rank, max(1, COLUMNS // len(lags))))
    lagged = [np.concatenate([_shift(part @ basis, -lag) for lag in lags], axis=-1) for part in parts]
    x_su = np.concatenate([block[mask] for block, mask in zip(lagged, known)]).astype(np.float64)
    y = np.concatenate([target[mask] for target, mask in zip(targets, known)])
    shaped = [np.broadcast_to(f.reshape(-1, *(1,) * (m.ndim - 1)), m.shape)[m] for f, m in zip(folds, known)]
    fold = np.concatenate(shaped)
    solve = _ridge if task.kind == "continuous" else _logistic
    dim = len(task.names)
    chosen_penalty, inner = _choose(solve, x_su, y, fold, dim, config.penalties)
    coefficients, intercept = solve(x_su, y, dim, (chosen_penalty,))[0]
    spread = basis @ coefficients.reshape(len(lags), basis.shape[1], dim)  # (K, U, D)
    for (row, field), at in column.items():
        weight[row, :, field] = spread[:, at]
    for number, block, f in zip(numbers, lagged, folds):
        bias[feed.vocabulary.recording_row(task.recordings[number].recording)] = intercept
        rows = feed.train_rows[task.name, number]
        for which, (w, b) in inner.items():
            offset[task.name, number][rows[f == which]] = block[f == which] @ w + b
    return chosen_penalty


def _columns(feed: Feed, task: TaskData, numbers: list[int]) -> dict[tuple[int, int], int]:
    """(vocabulary row, field) -> column of the joint design."""
    column: dict[tuple[int, int], int] = {}
    for number in numbers:
        windows = task.recordings[number]
        for modality, ids in windows.channels.items():
            for row in feed.vocabulary.rows(windows.recording, modality, ids):
                for field in range(len(task.fields[modality])):
                    column.setdefault((int(row), field), len(column))
    return column


def _features(feed: Feed, task: TaskData, number: int, chosen: np.ndarray, column: dict, batch) -> np.ndarray:
    """(N, T, U) normalised features, zero (the mean) where not real; (N, U) means over real bins for windows."""
    windows = task.recordings[number]
    steps = windows.mask[next(iter(windows.mask))].shape[1]
    shape = (len(chosen), steps) if task.kind == "continuous" else (len(chosen),)
    joint = np.zeros((*shape, len(column)), dtype=np.float32)
    for modality, stream in batch.streams.items():
        values, mask = stream.values.numpy(), stream.mask.numpy()
        rows = feed.vocabulary.rows(windows.recording, modality, windows.channels[modality])
        for field in range(values.shape[-1]):
            part = values[..., field]
            if task.kind == "class":
                part = part.sum(1) / np.maximum(mask.sum(1), 1)
            joint[..., [column[int(row), field] for row in rows]] = part
    return joint


def _inner_folds(unit: np.ndarray, folds: int) -> np.ndarray:
    """(N,) inner fold of each window: units dealt in order; windows in stretches where there is one unit only."""
    names, first = np.unique(unit, return_index=True)
    if len(names) > 1:
        rank = {name: i % folds for i, name in enumerate(names[np.argsort(first)])}
        return np.array([rank[u] for u in unit])
    return np.arange(len(unit)) * folds // max(1, len(unit))


def _principal(parts: Sequence[np.ndarray], rank: int) -> np.ndarray:
    """(U, R) leading directions of the features; the identity where there are few enough."""
    size = parts[0].shape[-1]
    if size <= rank:
        return np.eye(size, dtype=np.float32)
    flat = np.concatenate([part.reshape(-1, size) for part in parts])
    if len(flat) < size:  # the smaller Gram matrix spans the same directions
        values, left = np.linalg.eigh((flat @ flat.T).astype(np.float64))
        keep = np.argsort(values)[::-1][: min(rank, int((values > 1e-9 * values.max()).sum()))]
        return (flat.T @ (left[:, keep] / np.sqrt(values[keep]))).astype(np.float32)
    _, directions = np.linalg.eigh((flat.T @ flat).astype(np.float64))
    return directions[:, ::-1][:, :rank].astype(np.float32)


def _choose(solve, x: np.ndarray, y: np.ndarray, fold: np.ndarray, dim: int, penalties: Sequence[float]):
    """The penalty with the least inner-fold loss, and inner fold -> (coefficients, intercept) fitted without it."""
    loss, fits = np.zeros(len(penalties)), {}
    present = np.unique(fold)
    if len(present) < 2:
        return float(penalties[len(penalties) // 2]), {}
    for which in present:
        out = fold == which
        fits[int(which)] = solve(x[~out], y[~out], dim, penalties)
        for i, (w, b) in enumerate(fits[int(which)]):
            loss[i] += _loss(x[out] @ w + b, y[out])
    best = int(loss.argmin())
    return float(penalties[best]), {which: tried[best] for which, tried in fits.items()}


def _loss(predicted: np.ndarray, y: np.ndarray) -> float:
    if y.ndim == 2:
        return float(np.square(predicted - y).sum())
    return float(-log_softmax(predicted, axis=1)[np.arange(len(y)), y].sum())


def _ridge(x: np.ndarray, y: np.ndarray, dim: int, penalties: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ridge for every penalty from one eigendecomposition; a penalty counts in units of the summed mean variance."""
    centre, middle = x.mean(0), y.mean(0).astype(np.float64)
    gram = x.T @ x - len(x) * np.outer(centre, centre)
    cross = x.T @ y - len(x) * np.outer(centre, middle)
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ cross
    unit = max(float(values.mean()), 1e-12)
    fits = []
    for penalty in penalties:
        w = vectors @ (rotated / (np.maximum(values, 0) + penalty * unit)[:, None])
        fits.append((w, middle - centre @ w))
    return fits


def _logistic(
    x: np.ndarray, y: np.ndarray, dim: int, penalties: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Multinomial logistic regression for every penalty, the strongest first, each start from the last."""
    unit = max(float(x.var(0).mean()), 1e-12)
    hot = np.eye(dim)[y]
    start = np.zeros((x.shape[1] + 1, dim))
    found = {}
    for penalty in sorted(penalties, reverse=True):
        decay = penalty * unit

        def cost(flat: np.ndarray, decay: float = decay) -> tuple[float, np.ndarray]:
            w = flat.reshape(-1, dim)
            scores = x @ w[:-1] + w[-1]
            error = (softmax(scores, axis=1) - hot) / len(x)
            loss = -(log_softmax(scores, axis=1) * hot).sum() / len(x) + 0.5 * decay * np.square(w[:-1]).sum()
            return loss, np.vstack([x.T @ error + decay * w[:-1], error.sum(0)]).ravel()

        start = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.reshape(-1, dim)
        found[penalty] = (start[:-1], start[-1])
    return [found[penalty] for penalty in penalties]


def _shift(part: np.ndarray, by: int) -> np.ndarray:
    """(N, T, R) later by ``by`` bins, zero entering; (N, R) unchanged (its only lag is 0)."""
    if by == 0:
        return part
    out = np.zeros_like(part)
    if by > 0:
        out[:, by:] = part[:, :-by]
    else:
        out[:, :by] = part[:, -by:]
    return out
