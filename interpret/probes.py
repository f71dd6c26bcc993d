"""Linear probes: what can be read off a network's features by a cross-validated linear map.

Ridge in closed form (one-hot targets for classes, decided against the class priors), so that a thousand
surrogates of the target cost one solve. Alain and Bengio 2016; selectivity after Hewitt and Liang 2019.

Legend: N rows, D features, K target columns, S surrogates, V variants of the target (the real one first).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neurofmx.interpret.runner import Data, Measured
from neurofmx.interpret.surrogates import long_enough, surrogate_rows
from neurofmx.types import Check

PENALTY = 1e-2  # times the mean variance of a feature: nothing is tuned, so the null needs no tuning either
SWEEP = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CHUNK = 64  # surrogates at a time


def linear_probe(data: Data, rng: np.random.Generator, n_null: int) -> Measured:
    """How well the target is read from the features, out of sample.

    Args:
        data: ``x`` (N, D) features; ``y`` (N, K) floats or (N,) int class rows; ``x_untrained`` (N, E) optional.
        rng: draws surrogates.
        n_null: how many.

    Returns:
        R2 averaged over target columns, or balanced accuracy; with selectivity (value less mean of the null), the
        untrained network's value and a sweep over the penalty beside it.
    """
    x, y = data.arrays["x"], data.arrays["y"]
    value = probe_score(data, x, y)
    if n_null == 0:
        return Measured(value=value, null=np.empty(0))
    index = surrogate_rows(data.session, rng, n_null, ordered=data.ordered)
    null = probe_scores(data, x, y, index)
    scalars = {"selectivity": value - float(null.mean())}
    if "x_untrained" in data.arrays:
        scalars["untrained"] = probe_score(data, data.arrays["x_untrained"], y)
    sweep = np.array([probe_score(data, x, y, penalty=p) for p in SWEEP])
    checks = [long_enough("the target", as_columns(y), data.session)] if data.ordered else []
    return Measured(
        value=value,
        null=null,
        scalars=scalars,
        arrays={"penalty": np.array(SWEEP), "value_at_penalty": sweep},
        checks=(*checks, _few_rows(data)),
    )


def probe_gain(data: Data, rng: np.random.Generator, n_null: int) -> Measured:
    """How much better the trained network's features carry the target than the untrained network's.

    Args:
        data: ``x``, ``y`` and ``x_untrained`` as in `linear_probe`.
        rng: draws surrogates.
        n_null: how many.

    Returns:
        Difference of the two probes' scores; the null swaps the two networks inside resampling units.
    """
    y = data.arrays["y"]
    units, row = np.unique(data.unit, return_inverse=True)
    gain = probe_terms(data, data.arrays["x"], y) - probe_terms(data, data.arrays["x_untrained"], y)
    if not np.isfinite(gain).any():
        return Measured(value=float("nan"), null=np.empty(0))
    gain = np.nan_to_num(gain)  # rows that no fold scored add nothing to either
    per_unit = np.bincount(row, weights=gain, minlength=len(units))
    value = float(per_unit.sum())
    if n_null == 0:
        return Measured(value=value, null=np.empty(0))
    flips = rng.choice([-1.0, 1.0], size=(n_null, len(units)))
    same = Check(
        name="differs_from_untrained",
        passed=bool(np.any(data.arrays["x"] != data.arrays["x_untrained"])),
        severity="block",
        evidence="The kept network is the untrained one: training never improved on the linear path.",
    )
    return Measured(
        value=value, null=flips @ per_unit, arrays={"gain_by_unit": per_unit * len(units)}, checks=(same, _few_rows(data))
    )


def probe_score(data: Data, x: np.ndarray, y: np.ndarray, *, penalty: float = PENALTY) -> float:
    """Cross-validated R2 or balanced accuracy of one probe; NaN where no fold can be scored."""
    terms = probe_terms(data, x, y, penalty=penalty)
    return float(np.nansum(terms)) if np.isfinite(terms).any() else float("nan")


def probe_terms(data: Data, x: np.ndarray, y: np.ndarray, *, penalty: float = PENALTY) -> np.ndarray:
    """(N,) what each row adds to the score; NaN where no fold scored it."""
    scored, guess, truth = _predict(data, x, as_columns(y)[None], penalty)
    return _terms(scored, guess, truth, classes=y.ndim == 1)[0]


def probe_scores(data: Data, x: np.ndarray, y: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(S,) scores with the target's rows taken in each of the orders ``index`` (S, N)."""
    columns, found = as_columns(y), []
    for part in np.array_split(index, max(1, -(-len(index) // CHUNK))):
        scored, guess, truth = _predict(data, x, columns[part], PENALTY)
        found.append(np.nansum(_terms(scored, guess, truth, classes=y.ndim == 1), axis=1))
    return np.concatenate(found)


def as_columns(y: np.ndarray) -> np.ndarray:
    """(N, K) float64: the target itself, or one column a class."""
    if y.ndim == 1:
        return (y[:, None] == np.unique(y)).astype(np.float64)
    return np.asarray(y, dtype=np.float64)


def splits(data: Data) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test) rows: every fold of every network whose rows have at least two folds."""
    for model in np.unique(data.model):
        own = np.flatnonzero(data.model == model)
        folds = np.unique(data.fold[own])
        for fold in folds if len(folds) > 1 else ():
            held = data.fold[own] == fold
            yield own[~held], own[held]


def ridge_map(x: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre (D,) and the matrix (D, n) that turns centred targets into ridge weights.

    The penalty is in units of the features' mean variance times n, so turning or scaling the features changes
    no prediction.
    """
    centre = x.mean(0)
    centred = x - centre
    gram = centred.T @ centred
    load = penalty * max(float(np.trace(gram)) / len(gram), 1e-12)
    return centre, np.linalg.solve(gram + load * np.eye(len(gram)), centred.T)


def _predict(
    data: Data, x: np.ndarray, y_vnk: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows were scored (N,), predictions and truth (V, N, K), both less the training mean."""
    x = np.asarray(x, dtype=np.float64)
    variants, _, columns = y_vnk.shape
    scored = np.zeros(len(x), dtype=bool)
    guess, truth = np.zeros(y_vnk.shape), np.zeros(y_vnk.shape)
    for train, test in splits(data):
        centre, solve = ridge_map(x[train], penalty)
        own = y_vnk[:, train]
        mean = own.mean(1, keepdims=True)
        weights = solve @ (own - mean).transpose(1, 0, 2).reshape(len(train), -1)  # (D, V K)
        guess[:, test] = ((x[test] - centre) @ weights).reshape(len(test), variants, columns).transpose(1, 0, 2)
        truth[:, test] = y_vnk[:, test] - mean
        scored[test] = True
    return scored, guess, truth


def _terms(scored: np.ndarray, guess: np.ndarray, truth: np.ndarray, *, classes: bool) -> np.ndarray:
    """(V, N) additive parts of the score: R2 averaged over columns, or balanced accuracy."""
    terms = np.full(guess.shape[:2], np.nan)
    if not scored.any():
        return terms
    guess, truth = guess[:, scored], truth[:, scored]
    if classes:
        # truth is one-hot less the training prior, so the prior is what the wrong classes are short of zero
        label = truth.argmax(2)
        prior = -np.minimum(truth, 0.0)
        prior = np.where(truth > 0, 1 - truth, prior)
        chosen = np.where(prior > 0, guess / np.maximum(prior, 1e-9), -np.inf).argmax(2)
        count = np.stack([np.bincount(row, minlength=truth.shape[2]) for row in label])  # (V, K)
        present = (count > 0).sum(1, keepdims=True)
        weight = 1.0 / (np.take_along_axis(count, label, axis=1) * present)
        terms[:, scored] = weight * (chosen == label)
        return terms
    total = np.square(truth).sum(1, keepdims=True)
    varies = total > 1e-12
    lost = np.where(varies, np.square(truth - guess) / np.maximum(total, 1e-12), 0.0)
    share = 1.0 / truth.shape[1]
    terms[:, scored] = ((share - lost) * varies).sum(2) / np.maximum(varies.sum(2), 1)
    return terms


def _few_rows(data: Data) -> Check:
    least = min((len(train) for train, _ in splits(data)), default=0)
    width = data.arrays["x"].shape[1]
    return Check(
        name="rows_per_feature",
        passed=least >= 2 * width,
        severity="warn",
        evidence=f"The smallest training split has {least} rows for {width} features: the penalty decides much.",
    )
