"""Classical decoders, tuned inside the training folds: rows of a table, one driver, every grid printed in the score.

Every row is given its whole grid; the network beside it is given one setting. Legend: n rows, F features, D target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurofmx.errors import ConfigError
from neurofmx.evaluate import kalman, spatial
from neurofmx.evaluate.design import Design

Predict = Callable[[np.ndarray], np.ndarray]  # rows (n,) bool -> (settings, n', D), or K probabilities for D
Fit = Callable[[Design, frozenset[int]], Predict]  # fits every setting to the rows of some cells

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RIDGE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
SCALES = ("channel", "field")  # z-score each channel, or each kind of feature over all its channels
SHRINKAGES = (0.01, 0.05, 0.2, 0.5, 0.9)
LAGS = {
    "0": (0,),
    "-1..1": (-1, 0, 1),
    "-2..2": (-2, -1, 0, 1, 2),
    "-4..4": tuple(range(-4, 5)),
    "-9..0": tuple(range(-9, 1)),
}
COLUMNS = 600  # most columns of a regression: its cost grows with their cube
RANK = 300  # most components of a classifier
FAR = 5.0  # deviations beyond which a feature of a classifier is an artefact and is drawn back


@dataclass(frozen=True)
class Baseline:
    """One classical decoder.

    Args:
        name: row name, and the predictor's in the table of scores.
        kind: targets that it fits.
        grid: its settings, in the order in which ``fit`` predicts by them.
        fit: fits all settings at once.
        says: what it is, with its source.
    """

    name: str
    kind: str
    grid: tuple[Mapping[str, Any], ...]
    fit: Fit
    says: str


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A baseline after nested cross-validation.

    Args:
        predicted: (n, D) or (n, K) for each design, each row by a fit that never saw its fold; NaN outside folds.
        inner: fold -> for each design (n, D) or (n, K), predictions of the training rows by inner fits.
        chosen: fold -> setting of each design.
    """

    predicted: list[np.ndarray]
    inner: dict[int, list[np.ndarray]]
    chosen: dict[int, list[Mapping[str, Any]]]


def tune(baseline: Baseline, designs: Sequence[Design]) -> Tuned:
    """Nested cross-validation: settings are chosen by folds inside the training data, then fitted to all of it."""
    folds = sorted({f for d in designs for f in d.folds})
    predicted, chosen = [], {f: [] for f in folds}
    inner: dict[int, list[np.ndarray]] = {f: [] for f in folds}
    for design in designs:
        width = design.classes or design.y.shape[1]
        out = np.full((len(design.x), width), np.nan)
        fits: dict[frozenset[int], Predict] = {}

        def fitted(cells: frozenset[int], design: Design = design, fits: dict = fits) -> Predict:
            if cells not in fits:
                fits[cells] = baseline.fit(design, cells)
            return fits[cells]

        every = frozenset(c for held in design.folds.values() for c in held)
        for fold in folds:
            held = np.full((len(design.x), width), np.nan)
            if fold in design.folds:
                rest = every - set(design.folds[fold])
                best, held = _choose(fitted, design, rest, len(baseline.grid), held)
                test = design.rows(design.folds[fold])
                out[test] = fitted(rest)(test)[best]
                chosen[fold].append(baseline.grid[best])
            inner[fold].append(held)
        predicted.append(out)
    return Tuned(predicted=predicted, inner=inner, chosen=chosen)


def _choose(
    fitted: Callable[[frozenset[int]], Predict],
    design: Design,
    rest: frozenset[int],
    settings: int,
    held: np.ndarray,
) -> tuple[int, np.ndarray]:
    """The setting with the least loss over the cells of the training data, each predicted by the others."""
    if len(rest) < 2:
        rows = design.rows(rest)
        held[rows] = fitted(rest)(rows)[settings // 2]  # one unit to learn from: nothing to choose by
        return settings // 2, held
    tried = np.full((settings, *held.shape), np.nan)
    for cell in sorted(rest):
        rows = design.rows((cell,))
        tried[:, rows] = fitted(rest - {cell})(rows)
    known = design.rows(rest) & design.known
    best = int(np.argmin([_loss(t[known], design.y[known]) for t in tried]))
    return best, tried[best]


def _loss(predicted: np.ndarray, y: np.ndarray) -> float:
    if y.ndim == 2:
        return float(np.sum(np.square(predicted - y) / np.maximum(y.var(axis=0), 1e-12)))
    return float(-np.log(np.clip(predicted[np.arange(len(y)), y], 1e-6, 1)).sum())


# regressions


def _chance(design: Design, cells: frozenset[int]) -> Predict:
    use = design.rows(cells) & design.known
    if design.kind == "class":
        prior = np.bincount(design.y[use], minlength=design.classes) / max(1, use.sum())
    else:
        prior = design.y[use].mean(axis=0)
    return lambda test: np.tile(prior, (1, int(test.sum()), 1))


def _ridges(lag_sets: Sequence[str]) -> Fit:
    """Ridge regression for every set of lags and penalty (Hoerl and Kennard 1970; Carmena et al. 2003 for lags)."""

    def fit(design: Design, cells: frozenset[int]) -> Predict:
        each = [_ridge(design, cells, LAGS[name]) for name in lag_sets]
        return lambda test: np.concatenate([predict(test) for predict in each])

    return fit


def _ridge(design: Design, cells: frozenset[int], lags: Sequence[int]) -> Predict:
    """One eigendecomposition a scale serves all penalties, which count in units of the mean eigenvalue."""
    x, sums = _summed(design, cells, lags)
    n, sx, sy, xx, xy = (sum(s[i] for s in sums) for i in range(5))
    middle, centre = sx / n, sy / n
    gram, cross = xx - n * np.outer(middle, middle), xy - n * np.outer(middle, centre)
    spread = np.sqrt(np.maximum(np.diag(gram), 0))
    # a channel that hardly ever changes would otherwise enter a test fold hundreds of deviations high
    each = np.maximum(spread, 0.1 * float(np.median(spread)) + 1e-12)
    weights = []
    for scale in (each, np.ones_like(each)):
        values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
        rotated, unit = vectors.T @ (cross / scale[:, None]), max(float(values.mean()), 1e-12)
        for penalty in RIDGE_PENALTIES:
            weights.append(vectors @ (rotated / (np.maximum(values, 0) + penalty * unit)[:, None]) / scale[:, None])
    joined = np.concatenate(weights, axis=1)

    def predict(test: np.ndarray) -> np.ndarray:
        flat = (x[test] - middle) @ joined
        return flat.reshape(len(flat), len(weights), -1).transpose(1, 0, 2) + centre

    return predict


def _summed(design: Design, cells: frozenset[int], lags: Sequence[int]) -> tuple[np.ndarray, list[tuple]]:
    """Lagged features, and for each cell the sums that a regression needs, counted once for all folds.

    Where there are too many columns, channels are first reduced to principal components of the training cells.
    """
    cap = COLUMNS // len(lags)
    wide = design.x.shape[1] > cap
    key = ("ridge", tuple(lags), cells if wide else None)
    if key not in design.kept:
        narrow = design.x / design.field_scale
        if wide:
            narrow = narrow @ _principal(narrow[design.rows(cells)], cap)
        x, sums = design.lagged(narrow, lags), {}
        for cell in cells if wide else np.unique(design.cell[design.cell >= 0]):
            use = design.rows((cell,)) & design.known
            seen, y = x[use], design.y[use]
            sums[int(cell)] = (len(y), seen.sum(axis=0), y.sum(axis=0), seen.T @ seen, seen.T @ y)
        if wide:
            return x, list(sums.values())
        design.kept[key] = x, sums
    x, held = design.kept[key]
    return x, [held[c] for c in cells]


def _principal(x: np.ndarray, rank: int) -> np.ndarray:
    """(F, R) leading directions of centred rows, from the smaller of the two Gram matrices."""
    x = x - x.mean(axis=0)
    if x.shape[1] <= x.shape[0]:
        values, vectors = np.linalg.eigh(x.T @ x)
        keep = values > 1e-9 * max(values[-1], 1e-30)
        return vectors[:, keep][:, ::-1][:, :rank]
    values, left = np.linalg.eigh(x @ x.T)
    keep = values > 1e-9 * max(values[-1], 1e-30)
    return (x.T @ (left[:, keep] / np.sqrt(values[keep])))[:, ::-1][:, :rank]


# classifiers


def _reduced(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n, R) principal components of features that are z-scored on training rows, of mean variance 1 there."""
    middle, spread = features[rows].mean(axis=0), features[rows].std(axis=0)
    z = np.clip((features - middle) / np.where(spread > 1e-9, spread, 1.0), -FAR, FAR)
    if z.shape[1] > min(RANK, int(rows.sum()) - 1):
        z = z @ _principal(z[rows], RANK)
    return z / np.sqrt(max(float(z[rows].var(axis=0).mean()), 1e-12))


def _classifier(solve: Callable[[np.ndarray, np.ndarray, int], list], source: str) -> Fit:
    """A linear classifier on means over a window, on its time course, or on a control."""

    def fit(design: Design, cells: frozenset[int]) -> Predict:
        rows = design.rows(cells) & design.known
        features = {"mean": design.x, "time": design.timed}.get(source)
        z = _reduced(design.controls[source] if features is None else features, rows)
        return _linear_rules(z, solve(z[rows], design.y[rows], design.classes))

    return fit


def _linear_rules(z: np.ndarray, rules: Sequence[tuple[np.ndarray, np.ndarray]]) -> Predict:
    """Probabilities by linear scores, one set of weights (R, K) and biases (K,) a setting."""

    def predict(test: np.ndarray) -> np.ndarray:
        scores = np.stack([z[test] @ w + b for w, b in rules])
        e = np.exp(scores - scores.max(axis=2, keepdims=True))
        return e / e.sum(axis=2, keepdims=True)

    return predict


def _lda(x: np.ndarray, y: np.ndarray, classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Linear discriminants for every shrinkage of the pooled covariance (Friedman 1989), from one decomposition."""
    n = np.bincount(y, minlength=classes)
    means = np.stack([x[y == k].mean(axis=0) if n[k] else x.mean(axis=0) for k in range(classes)])
    inside = x - means[y]
    values, vectors = np.linalg.eigh(inside.T @ inside / max(1, len(x) - classes))
    size = max(float(values.mean()), 1e-12)
    prior = np.log(np.maximum(n, 1e-3) / len(y))
    rotated, found = means @ vectors, []
    for share in SHRINKAGES:
        w = (rotated / ((1 - share) * np.maximum(values, 0) + share * size)) @ vectors.T
        found.append((w.T, prior - 0.5 * np.einsum("kf,kf->k", w, means)))
    return found


def _logistic(x: np.ndarray, y: np.ndarray, classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Multinomial logistic regression for every penalty, the strongest first, each start from the last."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    hot, start, found = np.eye(classes)[y], np.zeros((x.shape[1] + 1, classes)), {}
    for penalty in sorted(PENALTIES, reverse=True):

        def cost(flat: np.ndarray, decay: float = penalty) -> tuple[float, np.ndarray]:
            w = flat.reshape(-1, classes)
            scores = x @ w[:-1] + w[-1]
            scores -= logsumexp(scores, axis=1, keepdims=True)
            error = (np.exp(scores) - hot) / len(x)
            loss = -float(np.sum(scores * hot)) / len(x) + 0.5 * decay * float(np.sum(w[:-1] ** 2))
            return loss, np.vstack([x.T @ error + decay * w[:-1], error.sum(axis=0)]).ravel()

        solved = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": 1e-8})
        start = solved.x.reshape(-1, classes)
        found[penalty] = (start[:-1], start[-1])
    return [found[penalty] for penalty in PENALTIES]


def _raw_covariances(design: Design) -> np.ndarray:
    if design.raw is None or design.classes != 2:
        raise ConfigError(
            "spatial baseline", got=f"{design.classes} classes", expected="two, and an input of raw patches"
        )
    if "covariance" not in design.kept:
        design.kept["covariance"] = spatial.covariances(design.raw, design.raw_hz)
    return design.kept["covariance"]


def _csp_lda(design: Design, cells: frozenset[int]) -> Predict:
    covariance, rows, found = _raw_covariances(design), design.rows(cells), []
    for setting in spatial.CSP_GRID:
        z = spatial.csp(covariance[rows], design.y[rows], **setting).features(covariance)
        found.append(_linear_rules(z, _lda(z[rows], design.y[rows], 2)[:1]))
    return lambda test: np.concatenate([predict(test) for predict in found])


def _tangent(design: Design, cells: frozenset[int]) -> Predict:
    covariance, rows, found = _raw_covariances(design), design.rows(cells), []
    for setting in spatial.TANGENT_GRID:
        z = _reduced(spatial.tangent(covariance, rows, **setting), rows)
        found.append(_linear_rules(z, _lda(z[rows], design.y[rows], 2)))
    return lambda test: np.concatenate([predict(test) for predict in found])


def _grid(**values: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    settings: list[dict[str, Any]] = [{}]
    for name, options in values.items():
        settings = [{**s, name: option} for s in settings for option in options]
    return tuple(settings)


_RIDGE, _WIENER = ("0",), ("-1..1", "-2..2", "-4..4", "-9..0")
_RIDGE_GRID = _grid(lags=_RIDGE, scale=SCALES, penalty=RIDGE_PENALTIES)
_WIENER_GRID = _grid(lags=_WIENER, scale=SCALES, penalty=RIDGE_PENALTIES)
BASELINES: dict[str, Baseline] = {
    row.name: row
    for row in (
        Baseline("chance", "any", ({},), _chance, "the mean, or the shares of the classes, of the training data"),
        Baseline("ridge", "continuous", _RIDGE_GRID, _ridges(_RIDGE), "ridge, this bin alone"),
        Baseline("wiener", "continuous", _WIENER_GRID, _ridges(_WIENER), "ridge over lags"),
        Baseline("kalman", "continuous", kalman.GRID, kalman.fit, "Kalman filter, Wu et al. 2006"),
        Baseline("lda", "class", _grid(shrinkage=SHRINKAGES), _classifier(_lda, "mean"), "shrinkage LDA of means"),
        Baseline("lda_time", "class", _grid(shrinkage=SHRINKAGES), _classifier(_lda, "time"), "LDA of time courses"),
        Baseline("logistic", "class", _grid(penalty=PENALTIES), _classifier(_logistic, "mean"), "logistic, of means"),
        Baseline("csp_lda", "class", spatial.CSP_GRID, _csp_lda, "CSP of 7-30 Hz and LDA, Ramoser et al. 2000"),
        Baseline(
            "tangent", "class", _grid(cov_shrinkage=(0.02, 0.1, 0.3), shrinkage=SHRINKAGES), _tangent,
            "tangent space of 7-30 Hz covariances and LDA, Barachant et al. 2012",
        ),
    )
}  # fmt: skip


def control(name: str) -> Baseline:
    """A control as a baseline: logistic regression on what is not neural, under the control's own name."""
    return Baseline(name, "class", _grid(penalty=PENALTIES), _classifier(_logistic, name), "logistic, without neurons")


def baseline_named(name: str) -> Baseline:
    """A baseline by name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in BASELINES:
        raise ConfigError("baseline", got=name, expected=f"one of {', '.join(BASELINES)}")
    return BASELINES[name]
