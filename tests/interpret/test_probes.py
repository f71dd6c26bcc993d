from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, ortho_group
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score

from neurofmx.interpret.catalog import ANALYSES
from neurofmx.interpret.probes import PENALTY, linear_probe, probe_gain, probe_score, probe_scores, splits
from neurofmx.interpret.runner import Data, p_value, run
from neurofmx.interpret.surrogates import surrogate_rows


def table(x: np.ndarray, y: np.ndarray, *, networks: int = 2, ordered: bool = False, **more: np.ndarray) -> Data:
    n = len(x)
    model = np.arange(n) * networks // n
    unit = (np.arange(n) * 5 * networks // n).astype(str)
    return Data(
        subject="a site", arrays={"x": x, "y": y, **more}, unit=unit, session=np.full(n, "s"), fold=unit, model=model,
        ordered=ordered,
    )  # fmt: skip


def numbers(seed: int, n: int = 200, d: int = 6, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + 3
    return x, x @ rng.standard_normal((d, 2)) + noise * rng.standard_normal((n, 2)) - 5


def test_a_network_never_helps_another() -> None:
    x, y = numbers(0)
    data = table(x, y)
    for train, test in splits(data):
        assert not set(train) & set(test)
        assert len(set(data.model[train]) | set(data.model[test])) == 1
        assert not set(data.fold[train]) & set(data.fold[test])
    assert sorted(np.concatenate([test for _, test in splits(data)])) == list(range(200))


def test_the_score_is_that_of_ridge_in_scikit_learn() -> None:
    x, y = numbers(1)
    data = table(x, y)
    guess, mean = np.empty_like(y), np.empty_like(y)
    for train, test in splits(data):
        centred = x[train] - x[train].mean(0)
        ridge = Ridge(alpha=PENALTY * float(np.square(centred).sum() / x.shape[1])).fit(x[train], y[train])
        guess[test], mean[test] = ridge.predict(x[test]), y[train].mean(0)
    expected = np.mean(1 - np.square(y - guess).sum(0) / np.square(y - mean).sum(0))
    assert probe_score(data, x, y) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(r2_score(y, guess), abs=0.02)


def test_the_score_of_classes_is_balanced_accuracy_of_ridge_against_the_prior() -> None:
    rng = np.random.default_rng(2)
    y = rng.choice(3, size=240, p=[0.6, 0.3, 0.1])
    x = rng.standard_normal((240, 4)) + np.eye(3, 4)[y] * 2
    data, chosen = table(x, y), np.empty(240, dtype=int)
    for train, test in splits(data):
        hot = np.eye(3)[y[train]]
        alpha = PENALTY * float(np.square(x[train] - x[train].mean(0)).sum() / 4)
        chosen[test] = (Ridge(alpha=alpha).fit(x[train], hot).predict(x[test]) / hot.mean(0)).argmax(1)
    assert probe_score(data, x, y) == pytest.approx(balanced_accuracy_score(y, chosen), abs=1e-6)


def test_turning_and_scaling_features_changes_nothing() -> None:
    x, y = numbers(3)
    turned = 20 * x @ ortho_group.rvs(6, random_state=0) - 7
    assert probe_score(table(x, y), x, y) == pytest.approx(probe_score(table(x, y), turned, y), abs=1e-9)


def test_the_null_is_the_score_of_moved_targets() -> None:
    x, y = numbers(4)
    data, rng = table(x, y), np.random.default_rng(0)
    index = np.stack([rng.permutation(200) for _ in range(7)])
    expected = [probe_score(data, x, y[i]) for i in index]
    np.testing.assert_allclose(probe_scores(data, x, y, index), expected, atol=1e-9)


def test_a_planted_target_is_found_beside_its_controls() -> None:
    x, y = numbers(5)
    before = np.random.default_rng(6).standard_normal(x.shape)
    found = run(ANALYSES["linear_probe"], table(x, y, x_untrained=before), seed=0, n_null=199)
    assert found.status == "significant" and found.value > 0.7 and found.scalars["untrained"] < 0.1
    assert found.scalars["selectivity"] >= found.value - found.scalars["chance"]  # surrogates below 0 count in full
    assert found.arrays["value_at_penalty"].shape == found.arrays["penalty"].shape
    assert found.ci95[0] > 0.5


@pytest.mark.parametrize("classes", [False, True])
def test_p_is_uniform_where_there_is_nothing(classes: bool) -> None:
    rng, p = np.random.default_rng(7), []
    for _ in range(200):
        x = rng.standard_normal((60, 3))
        y = rng.integers(2, size=60) if classes else rng.standard_normal((60, 1))
        data = table(x, y)
        null = probe_scores(data, x, y, surrogate_rows(data.session, rng, 99, ordered=False))
        ties = 1e-9 * rng.standard_normal(100)  # balanced accuracy is coarse: ties are broken, not counted as extreme
        p.append(p_value(probe_score(data, x, y) + ties[0], null + ties[1:], "greater"))
    assert kstest(p, "uniform").pvalue > 0.01


def test_a_probe_that_loses_to_a_constant_has_read_nothing() -> None:
    rng = np.random.default_rng(20)
    x = rng.standard_normal((120, 20))
    y = x[:, :1] * 0.35 + rng.standard_normal((120, 1))
    data = table(x, y)
    found, seen = run(ANALYSES["linear_probe"], data, seed=0, n_null=199), linear_probe(data, rng, 199)
    assert found.value < 0 and found.status == "not significant" and found.p == 1.0
    assert seen.null.min() >= 0 and found.scalars["selectivity"] > found.value


def test_training_that_helps_is_a_gain_and_swapping_networks_is_its_null() -> None:
    x, y = numbers(8)
    noise = np.random.default_rng(9).standard_normal(x.shape)
    found = run(ANALYSES["probe_gain"], table(x, y, x_untrained=noise), seed=0)
    assert found.status == "significant" and found.value > 0.6 and abs(found.scalars["chance"]) < 0.05
    lost = run(ANALYSES["probe_gain"], table(noise, y, x_untrained=x), seed=0)
    assert lost.status == "not significant" and lost.value == pytest.approx(-found.value)


def test_a_gain_over_three_units_is_inconclusive() -> None:
    x, y = numbers(10)
    noise = np.random.default_rng(11).standard_normal(x.shape)
    thirds = (np.arange(200) * 3 // 200).astype(str)
    data = replace(table(x, y, networks=1, x_untrained=noise), unit=thirds, fold=thirds)
    found = run(ANALYSES["probe_gain"], data, seed=0)
    assert found.status == "inconclusive" and found.p == 1 / 8


def test_an_untrained_network_gains_nothing_and_says_why() -> None:
    x, y = numbers(12)
    found = run(ANALYSES["probe_gain"], table(x, y, x_untrained=x.copy()), seed=0)
    assert found.status == "invalid" and "never improved" in found.reason


def test_gains_of_equal_networks_have_uniform_p() -> None:
    rng, p = np.random.default_rng(13), []
    for _ in range(200):
        y = rng.standard_normal((80, 1))
        data = table(y + rng.standard_normal((80, 2)), y, x_untrained=y + rng.standard_normal((80, 2)))
        found = probe_gain(data, rng, 199)
        p.append(p_value(found.value, found.null, "greater"))
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("constant", "constant"),
        ("nan", "not finite"),
        ("few", "rows"),
        ("one class", "constant"),
        ("one group", "defined"),
    ],
)
def test_degenerate_input_is_invalid_with_a_reason(case: str, says: str) -> None:
    x, y = numbers(14, n=12 if case == "few" else 60)
    data = table(x, y)
    if case == "constant":
        data = table(np.ones_like(x), y)
    if case == "nan":
        data = table(x, np.where(y > y.max() - 1e-9, np.nan, y))
    if case == "one class":
        data = table(x, np.ones(60, dtype=int))
    if case == "one group":
        data = replace(data, fold=data.model.astype(str))
    found = run(ANALYSES["linear_probe"], data, seed=0, n_null=19)
    assert found.status == "invalid" and says in found.reason


def test_a_class_that_a_fold_never_trained_on_is_never_chosen() -> None:
    rng = np.random.default_rng(15)
    y = np.repeat([0, 1, 0, 1, 2], 20)  # class 2 lies in one fold alone
    x = rng.standard_normal((100, 3)) + np.eye(3)[y] * 5
    assert probe_score(table(x, y, networks=1), x, y) == pytest.approx(2 / 3, abs=0.05)


def test_a_fold_that_trained_on_one_class_still_tells_the_others_apart_in_the_count() -> None:
    y = np.repeat([1, 0], 50)  # each fold trains on the class that it does not test
    x = np.random.default_rng(16).standard_normal((100, 3))
    halves = replace(table(x, y, networks=1), fold=y.astype(str))
    assert probe_score(halves, x, y) == 0.0


def test_a_target_slower_than_the_data_is_refused() -> None:
    rng = np.random.default_rng(17)
    y = np.linspace(0, 9, 300)[:, None]
    data = table(y + rng.standard_normal((300, 2)), y, ordered=True)
    found = run(ANALYSES["linear_probe"], data, seed=0, n_null=99)
    assert found.status == "invalid" and "correlated with itself" in found.reason
