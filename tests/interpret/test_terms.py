from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from neurofmx.errors import ConfigError
from neurofmx.evaluate.metrics import Rows, metric_named, value_of
from neurofmx.interpret.terms import additive_metric, chance_level, score_terms

N = 90
RECORDING = np.repeat(np.arange(3), N // 3)


@pytest.mark.parametrize("metric", ["r2", "r2_mean", "accuracy", "balanced_accuracy", "auroc"])
def test_the_parts_sum_to_the_metric_of_the_scores(metric: str) -> None:
    rng = np.random.default_rng(0)
    if metric.startswith("r2"):
        truth = rng.standard_normal((N, 3)) * [1, 2, 5] + RECORDING[:, None]
        predicted = truth + rng.standard_normal((N, 3))
    else:
        truth = rng.integers(2 if metric == "auroc" else 4, size=N)
        predicted = rng.dirichlet(np.ones(truth.max() + 1), size=N).round(1)  # ties
    rows = Rows(truth=truth, predicted=predicted, unit=np.arange(N) // 3, recording=RECORDING, n_units=N // 3)
    terms = score_terms(metric, truth, predicted, RECORDING)  # type: ignore[arg-type]
    assert terms.shape == (N,)
    assert terms.sum() == pytest.approx(value_of(metric_named(metric), rows), abs=1e-9)


def test_auroc_of_one_recording_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth, score = rng.integers(2, size=N), rng.integers(8, size=N) / 8
    terms = score_terms("auroc", truth, np.stack([1 - score, score], 1), np.zeros(N, int))
    assert terms.sum() == pytest.approx(roc_auc_score(truth, score))


def test_what_is_not_defined_is_nan() -> None:
    assert np.isnan(score_terms("r2_mean", np.ones((N, 2)), np.zeros((N, 2)), RECORDING)).all()
    assert np.isnan(score_terms("auroc", np.ones(N, int), np.full((N, 2), 0.5), RECORDING)).all()


def test_a_metric_that_is_no_sum_has_a_stated_stand_in() -> None:
    assert additive_metric("pearson", "continuous") == additive_metric("auroc", "continuous") == "r2_mean"
    assert additive_metric("r2", "continuous") == "r2" and additive_metric("r2", "class") == "balanced_accuracy"
    assert additive_metric("auroc", "class") == "auroc"
    with pytest.raises(ConfigError):
        additive_metric("r2", "sequence")


def test_chance_is_what_a_constant_answer_scores() -> None:
    truth = np.repeat([0, 1, 1], N // 3)
    said = np.tile([0.3, 0.7], (N, 1))
    for metric in ("accuracy", "balanced_accuracy", "auroc"):
        total = score_terms(metric, truth, said, np.zeros(N, int)).sum()
        assert total == pytest.approx(chance_level(metric, truth))
