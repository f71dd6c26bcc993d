"""The closed-form start: ridge or logistic regression into the network's linear path, from training folds only.

Penalty and stretch of lags are chosen inside the training folds. The same inner folds give each training window a
prediction by a fit that never saw it; the network trains on what those leave, not on the smaller residuals of a fit
to itself.

Legend: N windows, T time, S samples (bins or windows), U features (channel, field), R rank, K lags, D target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from neurofmx.tokenize.windows import TaskData
from neurofmx.train.feed import Feed
from neurofmx.train.recipes import LinearConfig

Fit = tuple[np.ndarray, np.ndarray]  # (F, D) coefficients, (D,) intercept
Solve = Callable[[np.ndarray, np.ndarray, int, Sequence[float]], list[Fit]]
COLUMNS = 900  # most columns of one fit: its cost grows with their cube


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the inner folds chose for recordings that share channels.

    Args:
        penalty: of `LinearConfig.penalties`.
        lags: rows of the model's lags that are read; the weights of the others are zero.
    """

    penalty: float
    lags: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LinearStart:
    """What the linear path begins with.

    Args:
        weight: task -> (V, K, P, D).
        bias: task -> (recordings, D).
        offset: (task, number of the recording) -> (N, T, D) or (N, D): predictions of training windows by fits that
            did not see them; zero elsewhere.
        chosen: task -> the choice of each group of recordings that share channels, in the order of the groups.
    """

    weight: Mapping[str, np.ndarray]
    bias: Mapping[str, np.ndarray]
    offset: Mapping[tuple[str, int], np.ndarray]
    chosen: Mapping[str, tuple[Choice, ...]]


def linear_start(feed: Feed, config: LinearConfig, lags: Sequence[int]) -> LinearStart:
    """Fits the linear path of every task on training windows.

    Args:
        feed: training windows, vocabulary and statistics.
        config: penalties, stretches of lags and folds.
        lags: K lags of continuous tasks; windows of class tasks are averaged over time.
    """
    offset = {
        (name, number): np.zeros((*windows.target_mask.shape, len(task.names)), dtype=np.float32)
        for name, task in feed.data.items()
        for number, windows in enumerate(task.recordings)
    }
    return _fitted(feed, config, lags, feed.train_rows, offset, {})


def linear_refit(
    feed: Feed, config: LinearConfig, lags: Sequence[int], start: LinearStart, kept: Mapping[str, float]
) -> LinearStart:
    """The linear path of every task fitted again to training and validation windows, with what was chosen before.

    Args:
        feed: windows.
        config: as in `linear_start`.
        lags: as in `linear_start`.
        start: what the network was trained beside.
        kept: task -> share of the network that is kept. That share of the old path stays with it, since the network
            corrects the old path's errors and not those of another.
    """
    joined = {key: np.sort(np.concatenate([rows, feed.valid_rows[key]])) for key, rows in feed.train_rows.items()}
    again = _fitted(feed, config, lags, joined, dict(start.offset), start.chosen)

    def mixed(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {task: np.float32(kept[task]) * old[task] + np.float32(1 - kept[task]) * new[task] for task in new}

    return replace(again, weight=mixed(start.weight, again.weight), bias=mixed(start.bias, again.bias))


def _fitted(
    feed: Feed,
    config: LinearConfig,
    lags: Sequence[int],
    rows: Mapping[tuple[str, int], np.ndarray],
    offset: dict[tuple[str, int], np.ndarray],
    known: Mapping[str, tuple[Choice, ...]],
) -> LinearStart:
    """Chooses where nothing is known yet, and then fills in ``offset`` too."""
    weight, bias, chosen = {}, {}, {}
    width = max(len(names) for task in feed.data.values() for names in task.fields.values())
    for name, task in feed.data.items():
        used = tuple(lags) if task.kind == "continuous" else (0,)
        dim = len(task.names)
        weight[name] = np.zeros((len(feed.vocabulary.channels), len(used), width, dim), dtype=np.float32)
        bias[name] = np.zeros((len(feed.vocabulary.recordings), dim), dtype=np.float32)
        choices: list[Choice] = []
        for group in _sharing_channels(feed, task):
            trained = [n for n in group if len(feed.train_rows[name, n])]
            if not trained:
                continue
            design = _design(feed, task, trained, rows, config.inner_folds)
            choice = known[name][len(choices)] if name in known else _choose(design, config, used, offset)
            _write(design, choice, config, used, weight[name], bias[name])
            choices.append(choice)
            own = [feed.vocabulary.recording_row(task.recordings[n].recording) for n in group]
            bias[name][own] = bias[name][feed.vocabulary.recording_row(task.recordings[trained[0]].recording)]
        chosen[name] = tuple(choices)
    return LinearStart(weight=weight, bias=bias, offset=offset, chosen=chosen)


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


@dataclass(frozen=True, kw_only=True)
class _Design:
    """Features and targets of recordings that share channels, one entry a recording.

    Args:
        feed: where they come from.
        task: whose target.
        numbers: of the recordings.
        column: (vocabulary row, field) -> column U.
        rows: windows.
        parts: (N, T, U) or (N, U) features.
        targets: (N, T, D) or (N,).
        known: (N, T) or (N,) bool.
        folds: (N,) inner fold of each window.
    """

    feed: Feed
    task: TaskData
    numbers: list[int]
    column: dict[tuple[int, int], int]
    rows: list[np.ndarray]
    parts: list[np.ndarray]
    targets: list[np.ndarray]
    known: list[np.ndarray]
    folds: list[np.ndarray]

    def lagged(self, lags: Sequence[int], rank: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """(U, R) leading directions, and features along them at every lag: (N, T, K R) a recording."""
        basis = _principal(self.parts, min(rank, max(1, COLUMNS // len(lags))))
        narrow = [part @ basis for part in self.parts]
        return basis, [np.concatenate([_shift(part, -lag) for lag in lags], axis=-1) for part in narrow]

    def samples(self, blocks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(S, F) features, (S, D) or (S,) targets and (S,) inner folds of all known samples."""
        x = np.concatenate([block[mask] for block, mask in zip(blocks, self.known)]).astype(np.float64)
        y = np.concatenate([target[mask] for target, mask in zip(self.targets, self.known)])
        spread = [
            np.broadcast_to(f.reshape(-1, *(1,) * (mask.ndim - 1)), mask.shape)[mask]
            for f, mask in zip(self.folds, self.known)
        ]
        return x, y, np.concatenate(spread)


def _design(
    feed: Feed, task: TaskData, numbers: list[int], rows: Mapping[tuple[str, int], np.ndarray], inner_folds: int
) -> _Design:
    column = _columns(feed, task, numbers)
    parts, targets, known, folds, used = [], [], [], [], []
    for number in numbers:
        chosen = rows[task.name, number]
        batch = feed.batch(task.name, number, chosen)
        used.append(chosen)
        parts.append(_features(feed, task, number, chosen, column, batch))
        targets.append(batch.targets[task.name].values.numpy())
        known.append(batch.targets[task.name].mask.numpy())
        folds.append(_inner_folds(task.recordings[number].unit[chosen], inner_folds))
    return _Design(
        feed=feed, task=task, numbers=numbers, column=column, rows=used, parts=parts, targets=targets, known=known,
        folds=folds,
    )  # fmt: skip


def _choose(
    design: _Design, config: LinearConfig, lags: tuple[int, ...], offset: dict[tuple[str, int], np.ndarray]
) -> Choice:
    """The stretch of lags and the penalty with the least inner-fold loss; writes what those folds predict."""
    best: tuple[float, Choice, dict, list[np.ndarray]] | None = None
    for stretch in _stretches(config, lags):
        _, blocks = design.lagged([lags[row] for row in stretch], config.rank)
        x, y, fold = design.samples(blocks)
        penalty, loss, fits = _inner(_solver(design.task), x, y, fold, len(design.task.names), config.penalties)
        if best is None or loss < best[0]:
            best = (loss, Choice(penalty=penalty, lags=stretch), fits, blocks)
    assert best is not None
    _, choice, fits, blocks = best
    for number, rows, block, folds in zip(design.numbers, design.rows, blocks, design.folds):
        for which, (w, b) in fits.items():
            offset[design.task.name, number][rows[folds == which]] = block[folds == which] @ w + b
    return choice


def _stretches(config: LinearConfig, lags: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Rows of the lags that lie in each stretch; all of them where no stretch holds any."""
    found = [tuple(i for i, lag in enumerate(lags) if first <= lag <= last) for first, last in config.stretches]
    return list(dict.fromkeys(rows for rows in found if rows)) or [tuple(range(len(lags)))]


def _write(
    design: _Design, choice: Choice, config: LinearConfig, lags: tuple[int, ...], weight: np.ndarray, bias: np.ndarray
) -> None:
    """Fits with what was chosen, and writes into weight and bias."""
    dim = len(design.task.names)
    basis, blocks = design.lagged([lags[row] for row in choice.lags], config.rank)
    x, y, _ = design.samples(blocks)
    coefficients, intercept = _solver(design.task)(x, y, dim, (choice.penalty,))[0]
    spread = basis @ coefficients.reshape(len(choice.lags), basis.shape[1], dim)  # (K, U, D)
    for (row, field), at in design.column.items():
        weight[row, list(choice.lags), field] = spread[:, at]
    for number in design.numbers:
        bias[design.feed.vocabulary.recording_row(design.task.recordings[number].recording)] = intercept


def _solver(task: TaskData) -> Solve:
    return ridge if task.kind == "continuous" else logistic


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


def _inner(
    solve: Solve, x: np.ndarray, y: np.ndarray, fold: np.ndarray, dim: int, penalties: Sequence[float]
) -> tuple[float, float, dict[int, Fit]]:
    """The penalty with the least inner-fold loss, that loss, and inner fold -> its fit without that fold."""
    loss, fits = np.zeros(len(penalties)), {}
    present = np.unique(fold)
    if len(present) < 2:
        return float(penalties[len(penalties) // 2]), 0.0, {}
    for which in present:
        out = fold == which
        fits[int(which)] = solve(x[~out], y[~out], dim, penalties)
        for i, (w, b) in enumerate(fits[int(which)]):
            loss[i] += _loss(x[out] @ w + b, y[out])
    best = int(loss.argmin())
    return float(penalties[best]), float(loss[best]), {which: tried[best] for which, tried in fits.items()}


def _loss(predicted: np.ndarray, y: np.ndarray) -> float:
    if y.ndim == 2:
        return float(np.square(predicted - y).sum())
    return float(-log_softmax(predicted, axis=1)[np.arange(len(y)), y].sum())


def ridge(x: np.ndarray, y: np.ndarray, dim: int, penalties: Sequence[float]) -> list[Fit]:
    """Ridge for every penalty, in units of the features' summed mean variance: (F, D) coefficients, (D,) intercept."""
    centre, middle = x.mean(0), y.mean(0).astype(np.float64)
    gram = x.T @ x - len(x) * np.outer(centre, centre)
    cross = x.T @ y - len(x) * np.outer(centre, middle)
    unit = max(float(np.trace(gram)) / len(gram), 1e-12)
    fits = []
    for penalty in penalties:
        loaded = gram.copy()
        loaded[np.diag_indices_from(loaded)] += penalty * unit
        w = cho_solve(cho_factor(loaded, overwrite_a=True), cross)
        fits.append((w, middle - centre @ w))
    return fits


def logistic(x: np.ndarray, y: np.ndarray, dim: int, penalties: Sequence[float]) -> list[Fit]:
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
