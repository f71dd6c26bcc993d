"""Known answers of the small steps, and agreement with independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from neurofmx.errors import ConfigError
from neurofmx.tokenize import ops, resample
from neurofmx.tokenize.ops import Bins

ALWAYS = np.array([[0.0, 1e6]])


def known(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    column = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return column, np.ones(column.shape, dtype=bool)


def test_counts_by_hand() -> None:
    counts = resample.bin_counts(
        np.array([0.0, 0.1, 0.25, 0.5, 0.99]), np.array([0, 1, 0, 0, 1]), 2, Bins(0.0, 0.25, 4)
    )
    assert counts.tolist() == [[1, 1], [1, 0], [1, 0], [0, 1]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 11), max_size=60), st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.25]))
def test_no_event_is_lost_or_counted_twice(times: list[float], dt: float) -> None:
    inside = np.sort(np.array(times))
    bins = Bins(0.0, dt, round(10 / dt))
    counts = resample.bin_counts(inside, np.zeros(len(inside), int), 1, bins)
    assert counts.sum() == np.sum((inside >= -dt * ops.EDGE) & (inside < 10 - dt * ops.EDGE))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 50))
def test_bin_mean_agrees_with_scipy(seed: int, n: int) -> None:
    own = np.random.default_rng(seed)
    times, values = np.sort(own.uniform(0, 1, n)), own.standard_normal(n)
    tokens, mask = ops.bin_mean(*known(values), times, Bins(0.0, 0.1, 10), ALWAYS)
    expected = stats.binned_statistic(times, values, "mean", bins=10, range=(0, 1)).statistic
    assert np.array_equal(mask[:, 0], np.isfinite(expected))
    assert np.allclose(tokens[mask[:, 0], 0, 0], expected[mask[:, 0]])


def test_rounding_moves_no_sample_across_an_edge() -> None:
    rate = 2048.0
    times = 17.3 + np.arange(round(60 * rate)) / rate
    counts = np.diff(Bins(17.3, 32 / rate, 3840).bounds(times))
    assert set(counts.tolist()) == {32}


def test_envelope_by_hand() -> None:
    values, mask = known(np.array([1.0, -1, 1, -1, 2, 2, 2, 2]))
    tokens, _ = ops.envelope(values, mask, np.arange(8) / 8, Bins(0.0, 0.5, 2), ALWAYS)
    assert np.allclose(np.exp(tokens[:, 0, 0]), [1, 2])
    assert np.allclose(np.exp(tokens[:, 0, 1]), [2, ops.FLOOR])
    assert np.allclose(tokens[:, 0, 2], [1, 0])


def test_patch_is_a_decimated_waveform_and_refuses_slow_signals() -> None:
    times = np.arange(160) / 160
    values, mask = known(np.arange(160.0))
    tokens, real = ops.patch(values, mask, times, Bins(0.0, 0.05, 20), ALWAYS, samples=8)
    assert np.allclose(tokens[:, 0].ravel(), np.arange(160))
    assert real.all()
    with pytest.raises(ConfigError, match="320"):
        ops.patch(values, mask, times, Bins(0.0, 0.025, 40), ALWAYS, samples=8)


def test_band_power_finds_the_band_and_its_level() -> None:
    rate, level = 200.0, 3.0
    times = np.arange(2000) / rate
    values, mask = known(level * np.sin(2 * np.pi * 10 * times))
    bands = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0))
    tokens, real = ops.band_power(values, mask, times, Bins(0.0, 0.1, 100), ALWAYS, bands_hz=bands, window_s=1.0)
    assert np.argmax(tokens[real[:, 0], 0], axis=1).tolist() == [1] * int(real.sum())
    assert real[9:].all()
    assert not real[:9].any()  # the window of a second does not fit before
    # the integral of the density over the spectrum is the variance of the signal
    whole, _ = ops.band_power(values, mask, times, Bins(0.0, 0.1, 100), ALWAYS, bands_hz=((1.0, 100.0),), window_s=1.0)
    assert np.exp(whole[50, 0, 0]) * 99 == pytest.approx(level**2 / 2, rel=0.02)


def test_band_power_agrees_with_scipy_welch() -> None:
    own = np.random.default_rng(0)
    rate, width = 250.0, 125
    values, mask = known(own.standard_normal(1000))
    times = np.arange(1000) / rate
    tokens, _ = ops.band_power(values, mask, times, Bins(0.0, 0.1, 40), ALWAYS, bands_hz=((8.0, 30.0),), window_s=0.5)
    freqs, density = signal.welch(values[500 - width : 500, 0], rate, window="hann", nperseg=width)
    expected = np.log(density[(freqs >= 8) & (freqs < 30)].mean())
    assert tokens[19, 0, 0] == pytest.approx(expected, rel=1e-9)


def test_centred_band_power_is_the_causal_one_half_a_window_later() -> None:
    values, mask = known(np.random.default_rng(1).standard_normal(2000))
    times, bins = np.arange(2000) / 200, Bins(0.0, 0.1, 100)
    past, _ = ops.band_power(values, mask, times, bins, ALWAYS, bands_hz=((8.0, 30.0),), window_s=1.0)
    centred, _ = ops.band_power(values, mask, times, bins, ALWAYS, bands_hz=((8.0, 30.0),), window_s=1.0, causal=False)
    assert np.allclose(centred[20:80], past[25:85])


def test_bands_that_cannot_be_seen_are_refused() -> None:
    values, mask = known(np.zeros(100))
    for bands in (((60.0, 80.0),), ((1.2, 1.8),)):
        with pytest.raises(ConfigError, match="band"):
            ops.band_power(values, mask, np.arange(100) / 100, Bins(0, 0.1, 10), ALWAYS, bands_hz=bands, window_s=1.0)


def test_resampling_by_hand() -> None:
    times = np.array([0.05, 0.25, 0.95])
    values, mask = known(np.array([1.0, 3.0, 10.0]))
    bins = Bins(0.0, 0.1, 10)
    held, real = ops.hold(values, mask, times, bins, ALWAYS, max_age_s=0.2)
    assert real[:, 0].tolist() == [True, True, True, True, False, False, False, False, False, True]
    assert held[[0, 1, 2, 3, 9], 0, 0].tolist() == [1, 1, 3, 3, 10]
    near, real = ops.nearest(values, mask, times, bins, ALWAYS, max_gap_s=0.11)
    assert real[:, 0].tolist() == [True, True, True, True, False, False, False, False, True, True]
    assert near[[0, 3, 8], 0, 0].tolist() == [1, 3, 10]
    line, real = ops.linear(values, mask, times, bins, ALWAYS, max_gap_s=0.3)
    assert real[:, 0].tolist() == [True, True, True] + [False] * 7
    assert np.allclose(line[:3, 0, 0], [1, 2, 3])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9))
def test_hold_never_looks_ahead(seed: int, now: int) -> None:
    own = np.random.default_rng(seed)
    times = np.sort(own.uniform(0, 1, 30))
    values, mask = known(own.standard_normal(30))
    bins, end = Bins(0.0, 0.1, 10), now * 0.1
    changed = np.where((times < end - 1e-6)[:, None], values, 99.0)
    first, second = (ops.hold(v, mask, times, bins, ALWAYS, max_age_s=0.5)[0] for v in (values, changed))
    assert np.array_equal(first[:now], second[:now])


@pytest.mark.parametrize("name", sorted(ops.BIN_STEPS))
def test_an_empty_stream_is_all_unknown(name: str) -> None:
    params: dict[str, dict] = {
        "patch": {"samples": 4},
        "band_power": {"bands_hz": ((8.0, 13.0),), "window_s": 0.5},
        "hold": {"max_age_s": 1.0},
        "nearest": {"max_gap_s": 1.0},
        "linear": {"max_gap_s": 1.0},
        "cubic": {"max_gap_s": 1.0},
    }
    nothing = np.empty((0, 2))
    tokens, mask = ops.BIN_STEPS[name](
        nothing, nothing.astype(bool), np.empty(0), Bins(0.0, 0.1, 5), ALWAYS, **params.get(name, {})
    )
    assert tokens.shape[:2] == mask.shape == (5, 2)
    assert not mask.any()
    assert not tokens.any()


def test_speed_of_a_steady_point() -> None:
    times = np.arange(50) / 50
    values, mask = known(np.stack([3 * times, 4 * times], axis=1))
    out, real = ops.speed(values, mask, times)
    assert np.allclose(out[1:], 5.0)
    assert not real[0, 0]


def test_grid_steps_by_hand() -> None:
    tokens, mask = np.array([4.0, 9.0, 0.0]).reshape(3, 1, 1), np.array([[True], [True], [False]])
    assert ops.sqrt(tokens, mask, 0.1)[0].ravel().tolist() == [2, 3, 0]
    assert ops.rate(tokens, mask, 0.5)[0].ravel().tolist() == [8, 18, 0]
    assert ops.zscore(tokens, mask, 0.1, mean=(4.0,), std=(5.0,))[0].ravel().tolist() == [0, 1, 0]


def test_smoothing_keeps_the_mean_and_leaks_nothing_from_unknown_bins() -> None:
    flat, mask = np.full((50, 1, 1), 3.0), np.ones((50, 1), dtype=bool)
    mask[20:25] = False
    poisoned = np.where(mask[..., None], flat, 1e9)
    tokens, real = ops.smooth(poisoned, mask, 0.1, sigma_s=0.3)
    assert np.allclose(tokens[mask], 3.0)
    assert np.array_equal(real, mask)
    step = np.r_[np.zeros(25), np.ones(25)].reshape(-1, 1, 1)
    causal, _ = ops.smooth(step, np.ones((50, 1), bool), 0.1, sigma_s=0.3, causal=True)
    assert not causal[:25].any()
    centred, _ = ops.smooth(step, np.ones((50, 1), bool), 0.1, sigma_s=0.3)
    assert centred[24] > 0.3
