"""Metrics against scikit-learn and numpy, and intervals against simulated units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)

from neurofmx.errors import ConfigError
from neurofmx.evaluate.metrics import METRICS, Interval, Rows, draws, interval, metric_named, paired, value_of, verdict


def rows(truth: np.ndarray, predicted: np.ndarray, units: int = 4, recordings: int = 1) -> Rows:
    unit = np.arange(len(truth)) * units // len(truth)
    return Rows(truth=truth, predicted=predicted, unit=unit, recording=unit * recordings // units, n_units=units)


def signals(seed: int, n: int = 200, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    own = np.random.default_rng(seed)
    y = own.standard_normal((n, d)) * [1.0, 5.0, 0.2][:d] + 100.0
    return y, y + own.standard_normal((n, d))


def classes(seed: int, n: int = 120, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    own = np.random.default_rng(seed)
    y = own.integers(0, k, n)
    y[:k] = np.arange(k)
    p = own.dirichlet(np.ones(k), n).round(2)  # rounded, so that there are ties
    p[np.arange(n), y] += 0.3
    return y, p / p.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_continuous_metrics_are_those_of_scikit_learn(seed: int) -> None:
    y, p = signals(seed)
    held = rows(y, p)
    weighted = r2_score(y, p, multioutput="variance_weighted")
    assert value_of(METRICS["r2"], held) == pytest.approx(weighted, abs=1e-9)
    assert value_of(METRICS["r2_mean"], held) == pytest.approx(r2_score(y, p), abs=1e-9)
    assert value_of(METRICS["mse"], held) == pytest.approx(mean_squared_error(y, p), rel=1e-9)
    assert value_of(METRICS["mae"], held) == pytest.approx(mean_absolute_error(y, p), rel=1e-9)
    correlation = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, p.T)])
    assert value_of(METRICS["pearson"], held) == pytest.approx(correlation, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_class_metrics_are_those_of_scikit_learn(seed: int) -> None:
    y, p = classes(seed)
    held = rows(y, p)
    assert value_of(METRICS["accuracy"], held) == pytest.approx(accuracy_score(y, p.argmax(1)))
    balanced = balanced_accuracy_score(y, p.argmax(1))
    assert value_of(METRICS["balanced_accuracy"], held) == pytest.approx(balanced)
    two, q = classes(seed, k=2)
    assert value_of(METRICS["auroc"], rows(two, q)) == pytest.approx(roc_auc_score(two, q[:, 1]), abs=1e-12)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 99), st.sampled_from(sorted(METRICS)))
def test_weights_are_repetitions(seed: int, name: str) -> None:
    metric, own = METRICS[name], np.random.default_rng(seed)
    k = 2 if name == "auroc" else 3
    y, p = classes(seed, k=k) if metric.kind == "class" else signals(seed)
    if name == "bits_per_spike":
        y, p = own.poisson(2.0, y.shape).astype(float), own.uniform(0.5, 4.0, y.shape)
    held = rows(y, p, units=5)
    count = own.integers(1, 4, 5)
    index = np.concatenate([np.tile(np.flatnonzero(held.unit == u), c) for u, c in enumerate(count)])
    again = Rows(truth=y[index], predicted=p[index], unit=held.unit[index], recording=held.recording[index], n_units=5)
    assert metric.prepare(held)(count[None].astype(float))[0] == pytest.approx(value_of(metric, again), abs=1e-9)


def test_bits_per_spike_is_the_information_of_lognormal_rates() -> None:
    own = np.random.default_rng(0)
    sigma = 0.8
    rates = np.exp(own.normal(-(sigma**2) / 2, sigma, (200_000, 1)))
    held = rows(own.poisson(rates).astype(float), rates)
    assert value_of(METRICS["bits_per_spike"], held) == pytest.approx(sigma**2 / (2 * np.log(2)), rel=0.03)


def test_an_offset_between_recordings_explains_nothing() -> None:
    own = np.random.default_rng(0)
    y = np.concatenate([own.standard_normal((100, 1)), 50 + own.standard_normal((100, 1))])
    means = np.repeat([[0.0], [50.0]], 100, axis=0)
    assert value_of(METRICS["r2"], rows(y, means, recordings=2)) == pytest.approx(0.0, abs=0.05)
    assert r2_score(y, means) > 0.99


def test_the_prior_of_each_fold_scores_one_half() -> None:
    own = np.random.default_rng(0)
    y, fold = own.integers(0, 2, 400), np.arange(400) // 80
    prior = np.array([y[fold != f].mean() for f in range(5)])[fold]
    p = np.stack([1 - prior, prior], axis=1)
    unit = np.arange(400) // 40
    one = Rows(truth=y, predicted=p, unit=unit, recording=np.zeros(400, int), n_units=10, fit=fold)
    pooled = Rows(truth=y, predicted=p, unit=unit, recording=np.zeros(400, int), n_units=10)
    assert value_of(METRICS["auroc"], one) == 0.5
    assert value_of(METRICS["auroc"], pooled) < 0.5


def test_auroc_refuses_three_classes() -> None:
    with pytest.raises(ConfigError, match="two"):
        METRICS["auroc"].prepare(rows(*classes(0)))
    with pytest.raises(ConfigError, match="balanced_accuracy"):
        metric_named("accurracy")


def test_verdicts() -> None:
    def judge(low: float, high: float, n: int = 10, higher: bool = True) -> str:
        value = Interval(value=(low + high) / 2, low=low, high=high)
        return verdict(value, n_units=n, margin=0.02, higher=higher)

    assert judge(0.03, 0.2) == "better"
    assert judge(-0.2, -0.03) == "worse"
    assert judge(-0.2, -0.03, higher=False) == "better"
    assert judge(0.03, 0.2, higher=False) == "worse"
    assert judge(-0.01, 0.015) == "equivalent"
    assert judge(0.005, 0.015) == "equivalent"
    assert judge(-0.1, 0.1) == "undecided"
    assert judge(0.03, 0.2, n=4) == "within one recording"


def test_a_paired_difference_is_tighter_than_the_values() -> None:
    own = np.random.default_rng(1)
    hard = np.repeat(own.uniform(0.2, 3.0, 20), 50)[:, None]  # some units are harder than others, for both
    y = own.standard_normal((1000, 1))
    held = [rows(y, y + s * hard * own.standard_normal((1000, 1)), units=20) for s in (0.5, 0.55)]
    ours, theirs = (METRICS["mse"].prepare(h) for h in held)
    weights = draws(20)
    one, gain = interval(ours, weights), paired(ours, theirs, weights)
    assert gain.high - gain.low < one.high - one.low
    assert gain.low <= gain.value <= gain.high


@pytest.mark.slow
@pytest.mark.parametrize("units", [10, 30])
def test_intervals_cover_what_they_say(units: int) -> None:
    own, inside, times = np.random.default_rng(0), 0, 400
    for _ in range(times):
        skill = np.clip(own.normal(0.7, 0.1, units), 0, 1)
        hit = own.random((units, 40)) < skill[:, None]
        predicted = np.stack([~hit, hit], axis=2).reshape(-1, 2).astype(float)
        held = Rows(
            truth=np.ones(units * 40, int),
            predicted=predicted,
            unit=np.repeat(np.arange(units), 40),
            recording=np.zeros(units * 40, int),
            n_units=units,
        )
        found = interval(METRICS["accuracy"].prepare(held), draws(units, n=1000))
        inside += found.low <= 0.7 <= found.high
    # percentile intervals over few units are known to be narrow; nominal is .95
    assert 0.87 <= inside / times <= 0.98
