from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, ortho_group

from neurofmx.interpret.catalog import ANALYSES
from neurofmx.interpret.runner import Data, p_value, run
from neurofmx.interpret.similarity import biased_cka, cka, hsic
from neurofmx.interpret.surrogates import surrogate_rows


def table(x: np.ndarray, z: np.ndarray, *, networks: int = 1, ordered: bool = False) -> Data:
    n = len(x)
    model = np.arange(n) * networks // n
    unit = (np.arange(n) * 10 // n).astype(str)
    return Data(
        subject="two sites", arrays={"x": x, "z": z}, unit=unit, session=np.full(n, "s"), fold=unit, model=model,
        ordered=ordered,
    )  # fmt: skip


def value(data: Data) -> float:
    return cka(data, np.random.default_rng(0), 0).value


def naive_hsic(x: np.ndarray, z: np.ndarray) -> float:
    n = len(x)
    k, m = x @ x.T, z @ z.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    total = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + total - 2 * (one @ k @ m @ one) / (n - 2)) / (n * (n - 3))


def test_hsic_is_the_formula_on_whole_kernels() -> None:
    rng = np.random.default_rng(0)
    for n, d, e in ((10, 3, 4), (60, 20, 7), (30, 90, 50)):
        x, z = rng.standard_normal((n, d)) + 2, rng.standard_normal((n, e))
        assert hsic(x, z) == pytest.approx(naive_hsic(x, z), rel=1e-9, abs=1e-9)


def test_rotation_scale_and_shift_change_nothing() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((80, 12)) * np.arange(1, 13)
    turned = 7.5 * x @ ortho_group.rvs(12, random_state=1) + 3.0
    assert value(table(x, turned)) == pytest.approx(1.0, abs=1e-9)
    z = x[:, :5] + rng.standard_normal((80, 5))
    assert value(table(x, z)) == pytest.approx(value(table(turned, z)), abs=1e-9)
    assert value(table(x, z)) == pytest.approx(value(table(z, x)), abs=1e-9)
    order = rng.permutation(80)
    assert value(table(x, z)) == pytest.approx(value(table(x[order], z[order])), abs=1e-9)


def test_networks_are_pooled_but_never_mixed() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((120, 6))
    turned = np.concatenate([part @ ortho_group.rvs(6, random_state=i) for i, part in enumerate(np.split(x, 3))])
    assert value(table(x, turned, networks=3)) == pytest.approx(1.0, abs=1e-9)
    assert value(table(x, turned)) < 0.9


def test_independent_features_read_zero_where_the_biased_value_is_large() -> None:
    rng = np.random.default_rng(3)
    pairs = [(rng.standard_normal((50, 200)), rng.standard_normal((50, 200))) for _ in range(40)]
    assert abs(np.mean([value(table(x, z)) for x, z in pairs])) < 0.03
    assert np.mean([biased_cka(x, z) for x, z in pairs]) > 0.75


def test_the_null_is_the_statistic_on_moved_rows() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((60, 5))
    z = x + rng.standard_normal((60, 5))
    data = table(x, z)
    found = cka(data, np.random.default_rng(9), 5)
    index = surrogate_rows(data.session, np.random.default_rng(9), 5, ordered=False)
    np.testing.assert_allclose(found.null, [value(table(x, z[i])) for i in index], atol=1e-5)


def test_p_is_uniform_for_unrelated_sites() -> None:
    rng = np.random.default_rng(5)
    p = []
    for _ in range(200):
        found = cka(table(rng.standard_normal((40, 4)), rng.standard_normal((40, 3))), rng, 99)
        p.append(p_value(found.value, found.null, "greater"))
    assert kstest(p, "uniform").pvalue > 0.01


def test_a_shared_signal_is_found_with_its_caveats() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((100, 8))
    z = x @ rng.standard_normal((8, 6)) + rng.standard_normal((100, 6))
    data = table(x, z)
    more = {"x_untrained": x, "z_untrained": x}
    found = run(ANALYSES["cka"], replace(data, arrays=dict(data.arrays) | more), seed=0, n_null=99)
    assert found.status == "significant" and found.scalars["untrained"] == pytest.approx(1.0)
    assert "biased CKA" in found.caveats[0] and found.ci95[0] > 0.3


@pytest.mark.parametrize("case", ["constant", "nan", "few", "noise"])
def test_degenerate_input_is_invalid_with_a_reason(case: str) -> None:
    rng = np.random.default_rng(7)
    n = 10 if case == "few" else 40
    x, z = rng.standard_normal((n, 3)), rng.standard_normal((n, 3))
    if case == "constant":
        z = np.ones((n, 3))
    if case == "nan":
        z[3, 1] = np.nan
    if case == "noise":
        z = np.eye(n)  # every window as far from every other: no geometry at all
    found = run(ANALYSES["cka"], table(x, z), seed=0, n_null=19)
    assert found.status == "invalid" and found.reason and np.isnan(found.p)
