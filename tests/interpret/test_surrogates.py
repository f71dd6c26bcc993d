from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from neurofmx.interpret.runner import p_value
from neurofmx.interpret.surrogates import correlation_rows, long_enough, sign_flips, surrogate_rows


def ar(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    return np.asarray(lfilter([1.0], [1.0, -rho], rng.standard_normal(n + 200)))[200:]


def test_shifts_keep_order_and_permutations_keep_sessions() -> None:
    session = np.array(["a"] * 30 + ["b"] * 40)
    rng = np.random.default_rng(0)
    for ordered in (True, False):
        index = surrogate_rows(session, rng, 50, ordered=ordered)
        assert index.shape == (50, 70)
        assert np.array_equal(np.sort(index, axis=1), np.tile(np.arange(70), (50, 1)))
        assert (index[:, :30] < 30).all()
        if ordered:
            steps = np.diff(index[:, 30:]) % 40
            assert (steps == 1).all()
            assert ((index[:, 30] - 30 >= 2) & (index[:, 30] - 30 <= 38)).all()  # none within 5% of no shift
    assert (np.diff(index[:, :30]) != 1).any()


def test_one_short_series_has_few_distinct_shifts_and_repeats_none() -> None:
    index = surrogate_rows(np.full(20, "s"), np.random.default_rng(0), 999, ordered=True)
    assert len(index) == 19 and len(np.unique(index, axis=0)) == 19
    assert not (index == np.arange(20)).all(1).any()


def test_few_units_give_every_set_of_swaps_once() -> None:
    flips = sign_flips(4, np.random.default_rng(0), 999)
    assert flips.shape == (15, 4) and len(np.unique(flips, axis=0)) == 15
    assert not (flips == 1).all(1).any()
    assert sign_flips(12, np.random.default_rng(0), 999).shape == (999, 12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_correlation_time_is_that_of_the_process(rho: float) -> None:
    rng = np.random.default_rng(1)
    found = np.mean([correlation_rows(ar(rng, 5000, rho)[:, None]) for _ in range(5)])
    assert found == pytest.approx((1 + rho) / (1 - rho), rel=0.15)


def test_a_series_of_few_correlation_times_blocks_and_of_some_warns() -> None:
    rng, session = np.random.default_rng(2), np.full(1000, "s")
    trend = np.cumsum(rng.standard_normal(1000))[:, None]
    assert (blocked := long_enough("y", trend, session)).severity == "block" and not blocked.passed
    slow = long_enough("y", ar(rng, 1000, 0.98)[:, None], session)
    assert not slow.passed and slow.severity == "warn"
    assert long_enough("y", ar(rng, 1000, 0.5)[:, None], session).passed


def test_shifts_hold_their_level_on_slow_series_where_shuffled_bins_do_not() -> None:
    rng, n = np.random.default_rng(3), 1000
    session, shifted, shuffled = np.full(n, "s"), [], []
    for _ in range(200):
        x, y = ar(rng, n, 0.95), ar(rng, n, 0.95)
        x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        value = abs(x @ y) / n
        for kept, ordered in ((shifted, True), (shuffled, False)):
            index = surrogate_rows(session, rng, 99, ordered=ordered)
            kept.append(p_value(value, np.abs(y[index] @ x) / n, "greater"))
    assert np.mean(np.array(shifted) <= 0.05) <= 0.10
    assert np.mean(np.array(shuffled) <= 0.05) >= 0.40
