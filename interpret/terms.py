"""Scores as sums over rows: what each row adds to R2, accuracy or AUROC.

A score that is a sum can be swapped, flipped and subsampled by resampling unit without being computed anew.

Legend: N rows, K target columns or classes, V variants.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from neurofmx.errors import ConfigError

Metric = Literal["r2", "r2_mean", "accuracy", "balanced_accuracy", "auroc"]
_OF_CLASSES = ("accuracy", "balanced_accuracy", "auroc")


def additive_metric(metric: str, kind: str) -> Metric:
    """A task's metric where that is a sum over rows, else ``r2_mean`` of numbers or ``balanced_accuracy`` of classes.

    Raises:
        ConfigError: the kind is neither ``continuous`` nor ``class``.
    """
    if kind not in ("continuous", "class"):
        raise ConfigError("kind of task", got=kind, expected="continuous or class")
    for name in get_args(Metric):
        if name == metric and (name in _OF_CLASSES) == (kind == "class"):
            return name
    return "r2_mean" if kind == "continuous" else "balanced_accuracy"


def chance_level(metric: Metric, truth: np.ndarray) -> float:
    """What a constant prediction scores: 0 for R2, .5 for AUROC, one class for accuracies."""
    if metric in ("r2", "r2_mean"):
        return 0.0
    count = np.unique(truth, return_counts=True)[1]
    return {"auroc": 0.5, "balanced_accuracy": 1 / len(count), "accuracy": float(count.max() / count.sum())}[metric]


def score_terms(metric: Metric, truth: np.ndarray, predicted: np.ndarray, recording: np.ndarray) -> np.ndarray:
    """What each row adds to the score; the sum is the metric of the same name in ``evaluate.metrics``.

    Args:
        metric: which score.
        truth: (N, K) floats, or (N,) int class rows.
        predicted: (N, K) in the target's units, or class probabilities.
        recording: (N,) labels; variance is counted, and AUROC compares trials, inside recordings.

    Returns:
        (N,) float64, NaN where the score is not defined.
    """
    if metric == "auroc":
        return auroc_terms(truth, predicted[:, 1], recording)
    if metric in _OF_CLASSES:
        right = predicted.argmax(1) == truth
        return right / len(right) if metric == "accuracy" else balanced_terms(truth[:, None], right[:, None])[:, 0]
    truth = np.asarray(truth, dtype=np.float64)
    mean = np.empty_like(truth)
    for one in np.unique(recording):
        mean[recording == one] = truth[recording == one].mean(0)
    total = np.square(truth - mean).sum(0)
    lost = np.square(truth - predicted)
    if metric == "r2":
        total, lost = total.sum(keepdims=True), lost.sum(1, keepdims=True)
    return r2_terms(lost[:, None], total[None])[:, 0]


def r2_terms(lost_nvk: np.ndarray, total_vk: np.ndarray) -> np.ndarray:
    """(N, V) parts of R2 averaged over columns that vary, from squared errors and the sums of squares they stand in."""
    varies = total_vk > 1e-12
    some = varies.sum(1)
    per = np.where(varies, 1.0 / np.where(varies, total_vk, 1.0), 0.0) / np.maximum(some, 1)[:, None]  # (V, K)
    lost = (lost_nvk * per).sum(2)
    return np.where(some > 0, 1.0 / len(lost_nvk) - lost, np.nan)


def balanced_terms(label_nv: np.ndarray, right_nv: np.ndarray) -> np.ndarray:
    """(N, V) parts of balanced accuracy: every class that is present weighs the same."""
    classes = int(label_nv.max()) + 1
    count = np.stack([np.bincount(column, minlength=classes) for column in label_nv.T], axis=1)  # (K, V)
    return right_nv / (np.take_along_axis(count, label_nv, axis=0) * (count > 0).sum(0))


def auroc_terms(label: np.ndarray, score: np.ndarray, recording: np.ndarray) -> np.ndarray:
    """(N,) parts of AUROC of class 1, half of it from either side (structural components of DeLong et al. 1988)."""
    from scipy.stats import rankdata

    won, pairs = np.zeros(len(label)), 0
    for one in np.unique(recording):
        yes, no = (np.flatnonzero((recording == one) & ((label == 1) == side)) for side in (True, False))
        both = rankdata(np.concatenate([score[yes], score[no]]))
        won[yes] = both[: len(yes)] - rankdata(score[yes])  # of the other side below it, ties as halves
        won[no] = len(yes) - (both[len(yes) :] - rankdata(score[no]))
        pairs += len(yes) * len(no)
    return won / (2 * pairs) if pairs else np.full(len(label), np.nan)
