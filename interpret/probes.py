"""Linear probes: what can be read off a network's features by a cross-validated linear map.

Ridge in closed form (one-hot targets for classes, decided against the class priors), so that a thousand
surrogates of the target cost one solve. Alain and Bengio 2016; selectivity after Hewitt and Liang 2019.

Legend: N rows, D features, K target columns, S surrogates, V variants of the target (the real one first).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neurofmx.interpret.runner import Data, Measured
from neurofmx.interpret.surrogates import long_enough, sign_flips, surrogate_rows
from neurofmx.interpret.terms import balanced_terms, r2_terms
from neurofmx.types import Check

PENALTY = 1e-2  # times the mean variance of a feature: nothing is tuned, so the null needs no tuning either
SWEEP = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CHUNK = 128  # surrogates at a time


def linear_probe(data: Data, rng: np.random.Generator, n_null: int) -> Measured:
    """How well the target is read from the features, out of sample.

    Args:
        data: ``x`` (N, D) features; ``y`` (N, K) floats or (N,) int class rows; ``x_untrained`` (N, E) optional.
        rng: draws surrogates.
        n_null: how many.

    Returns:
        R2 averaged over target columns, or balanced accuracy; with selectivity (value less mean of the surrogates),
        the untrained network's value and a sweep over the penalty beside it. Surrogates that lose to a constant
        answer count as one: a probe that beats them but not the constant has read nothing.
    """
    x, y = data.arrays["x"], data.arrays["y"]
    value = probe_score(data, x, y)
    if n_null == 0:
        return Measured(value=value, null=np.empty(0))
    index = surrogate_rows(data.session, rng, n_null, ordered=data.ordered)
    surrogates = probe_scores(data, x, y, index)
    constant = 0.0 if y.ndim > 1 else 1.0 / len(np.unique(y))
    scalars = {"selectivity": value - float(surrogates.mean())}
    if "x_untrained" in data.arrays:
        scalars["untrained"] = probe_score(data, data.arrays["x_untrained"], y)
    sweep = np.array([probe_score(data, x, y, penalty=p) for p in SWEEP])
    checks = [long_enough("the target", as_columns(y), data.session)] if data.ordered else []
    return Measured(
        value=value,
        null=np.maximum(surrogates, constant),
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
        Difference of the two probes' scores; the null swaps the two networks in randomly chosen resampling units,
        or in every set of them where there are few.
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
    same = Check(
        name="differs_from_untrained",
        passed=bool(np.any(data.arrays["x"] != data.arrays["x_untrained"])),
        severity="block",
        evidence="The kept network is the untrained one: training never improved on the linear path.",
    )
    return Measured(
        value=value,
        null=sign_flips(len(units), rng, n_null) @ per_unit,
        arrays={"gain_by_unit": per_unit * len(units)},
        checks=(same, _few_rows(data)),
    )


def probe_score(data: Data, x: np.ndarray, y: np.ndarray, *, penalty: float = PENALTY) -> float:
    """Cross-validated R2 or balanced accuracy of one probe; NaN where no fold can be scored."""
    terms = probe_terms(data, x, y, penalty=penalty)
    return float(np.nansum(terms)) if np.isfinite(terms).any() else float("nan")


def probe_terms(data: Data, x: np.ndarray, y: np.ndarray, *, penalty: float = PENALTY) -> np.ndarray:
    """(N,) what each row adds to the score; NaN where no fold scored it."""
    return _terms(data, x, as_columns(y)[:, None], penalty, classes=y.ndim == 1)[:, 0]


def probe_scores(data: Data, x: np.ndarray, y: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(S,) scores with the target's rows taken in each of the orders ``index`` (S, N)."""
    columns, found = as_columns(y), []
    for part in np.array_split(index, max(1, -(-len(index) // CHUNK))):
        terms = _terms(data, x, columns[part.T], PENALTY, classes=y.ndim == 1)
        found.append(np.nansum(terms, axis=0) if np.isfinite(terms).any() else np.full(len(part), np.nan))
    return np.concatenate(found)


def as_columns(y: np.ndarray) -> np.ndarray:
    """(N, K) float64: the target itself, or one column a class."""
    if y.ndim == 1:
        return (y[:, None] == np.unique(y)).astype(np.float64)
    return np.asarray(y, dtype=np.float64)


def splits(data: Data) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test) rows: every fold of every network whose rows have at least two folds."""
    named, fold = np.unique(data.fold, return_inverse=True)
    for model in np.unique(data.model):
        own = np.flatnonzero(data.model == model)
        folds = np.flatnonzero(np.bincount(fold[own], minlength=len(named)))
        for one in folds if len(folds) > 1 else ():
            held = fold[own] == one
            yield own[~held], own[held]


def ridge_weights(centred: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """(D, n) ridge weights for centred features (N, D) and targets (N, n).

    The penalty is in units of the features' mean variance times N, so turning or scaling the features changes
    no prediction.
    """
    gram = centred.T @ centred
    gram.flat[:: len(gram) + 1] += penalty * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.linalg.solve(gram, centred.T @ targets)


def _terms(data: Data, x: np.ndarray, y_nvk: np.ndarray, penalty: float, *, classes: bool) -> np.ndarray:
    """(N, V) additive parts of the score, NaN where no fold scored the row."""
    x = np.asarray(x, dtype=np.float64)
    flat = y_nvk.reshape(len(x), -1)
    scored = np.zeros(len(x), dtype=bool)
    guess, mean = np.zeros(flat.shape), np.zeros(flat.shape)  # predictions less the training mean, and that mean
    for train, test in splits(data):
        centre = x[train].mean(0)
        centred, own = x[train] - centre, flat[train]
        guess[test] = (x[test] - centre) @ ridge_weights(centred, own, penalty)  # (.., V K)
        mean[test] = own.mean(0)
        scored[test] = True
    terms = np.full(y_nvk.shape[:2], np.nan)
    if not scored.any():
        return terms
    truth, guess, mean = (a.reshape(y_nvk.shape)[scored] for a in (flat, guess, mean))
    if classes:
        # likeliest against the prior, which balanced accuracy asks for; a class never trained on is never chosen
        against = np.where(mean > 0, guess / np.where(mean > 0, mean, 1.0), -np.inf)
        label = truth.argmax(2)
        terms[scored] = balanced_terms(label, against.argmax(2) == label)
    else:
        truth = truth - mean
        terms[scored] = r2_terms(np.square(truth - guess), np.square(truth).sum(0))
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
