"""Grids on demand: round trips, the filter's stated bands, gaps, causality, lags."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from scipy.interpolate import CubicSpline

from neurofmx.errors import ConfigError
from neurofmx.tokenize.catalog import CALCIUM_LAG_S, HAEMODYNAMIC_LAG_S, spec
from neurofmx.tokenize.grid import grid_values, tokenize
from neurofmx.tokenize.resample import ATTENUATION_DB, PASS, Bins, antialias, cubic
from neurofmx.types import Channels, Events, Licence, Op, Provenance, Recording, RecordingId, Samples, Subject

ALWAYS = np.array([[-1e6, 1e6]])
FEW = settings(max_examples=15, deadline=None)
STEPS = {
    "nearest": Op("nearest", (("max_gap_s", 0.05),)),
    "linear": Op("linear", (("max_gap_s", 0.05),)),
    "cubic": Op("cubic", (("max_gap_s", 0.05),)),
    "hold": Op("hold", (("max_age_s", 0.05),)),
    "bin_mean": Op("bin_mean"),
}
GRID = pytest.mark.parametrize("name", sorted(STEPS))


def known(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    column = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return column, np.ones(column.shape, dtype=bool)


def band_limited(own: np.random.Generator, limit_hz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return own.uniform(0.02, 1, 6) * limit_hz, own.uniform(0, 2 * np.pi, 6), own.standard_normal(6)


def drawn(parts: tuple[np.ndarray, np.ndarray, np.ndarray], times: np.ndarray) -> np.ndarray:
    hz, phase, size = parts
    return np.sin(2 * np.pi * hz * times[:, None] + phase) @ size


def lfp(values: np.ndarray, rate: float, t0: float = 0.0, valid: np.ndarray | None = None) -> Samples:
    spans = np.array([[t0, t0 + len(values) / rate]]) if valid is None else valid
    channels = Channels(ids=tuple(f"c{i}" for i in range(values.shape[1])))
    return Samples(
        values=values, unit="uV", channels=channels, modality="lfp", valid=spans, rate_hz=rate, t0_s=t0
    )  # fmt: skip


def recording(stream: Samples) -> Recording:
    start = stream.t0_s
    return Recording(
        id=RecordingId("test", "made", "1", "one"), streams={stream.modality: stream}, subject=Subject(id="nobody"),
        domain_s=(start, start + len(stream.values) / float(stream.rate_hz or 1)),
        provenance=Provenance(files=(), reader="test"), licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip


@FEW
@given(st.integers(0, 999), st.floats(0.0, 0.01))
def test_a_slow_signal_comes_back_after_a_round_trip(seed: int, shift: float) -> None:
    parts = band_limited(np.random.default_rng(seed), 5.0)
    times = shift + np.arange(1000) / 100
    there = Bins(0.003, 0.008, 1250)
    up, real = cubic(*known(drawn(parts, times)), times, there, ALWAYS, max_gap_s=0.02)
    centres = there.t0_s + (np.arange(there.n) + 0.5) * there.dt_s
    home = Bins(shift - 0.005, 0.01, 1000)
    back, whole = cubic(up[..., 0], real, centres, home, ALWAYS, max_gap_s=0.02)
    scale = np.abs(drawn(parts, times)).max()
    assert whole.mean() > 0.9
    assert np.abs(back[..., 0][whole] - drawn(parts, times)[whole[:, 0]]).max() < 0.01 * scale


@FEW
@given(st.integers(0, 999), st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_cubic_draws_cubics_exactly_through_uneven_samples(seed: int, terms: list[float]) -> None:
    times = np.cumsum(np.random.default_rng(seed).uniform(0.9, 1.1, 40))
    tokens, real = cubic(*known(np.polyval(terms, times / 40)), times, Bins(0.0, 0.7, 55), ALWAYS, max_gap_s=2.0)
    centres = (np.arange(55) + 0.5) * 0.7
    assert real.sum() > 40
    assert np.allclose(tokens[real[:, 0], 0, 0], np.polyval(terms, centres[real[:, 0]] / 40), atol=1e-9)


def test_cubic_agrees_with_a_spline_on_a_slow_signal() -> None:
    times = np.arange(400) / 100
    values = np.sin(2 * np.pi * 2 * times)
    tokens, real = cubic(*known(values), times, Bins(0.0, 0.0037, 1000), ALWAYS, max_gap_s=0.02)
    centres = (np.arange(1000) + 0.5) * 0.0037
    inner = real[:, 0] & (centres > 0.2) & (centres < 3.5)
    assert np.abs(tokens[inner, 0, 0] - CubicSpline(times, values)(centres[inner])).max() < 1e-4


@pytest.mark.parametrize("factor", [1.25, 2.0, 5.0, 30.0])
def test_the_filter_has_its_stated_bands(factor: float) -> None:
    hz, response = signal.freqz(antialias(factor), worN=20_000, fs=2.0)  # 1 is the Nyquist frequency
    size = np.abs(response)
    assert np.abs(size[hz <= PASS / factor] - 1).max() < 2e-3
    assert 20 * np.log10(size[hz >= 1 / factor].max()) < -ATTENUATION_DB + 1


@FEW
@given(st.sampled_from([4, 10, 25]), st.floats(1.05, 1.9), st.integers(0, 99))
def test_what_the_grid_cannot_show_is_gone_and_the_rest_is_kept(factor: int, high: float, seed: int) -> None:
    rate, own = 1000.0, np.random.default_rng(seed)
    times, nyquist = np.arange(8000) / rate, rate / factor / 2
    slow = np.sin(2 * np.pi * 0.5 * nyquist * times + own.uniform(0, 6))
    fast = np.sin(2 * np.pi * high * nyquist * times + own.uniform(0, 6))
    bins = Bins(0.0, factor / rate, 8000 // factor)
    tokens, real = cubic(*known(np.stack([slow, slow + fast], axis=1)), times, bins, ALWAYS, max_gap_s=0.01)
    assert real.mean() > 0.5
    whole = real.all(axis=1)
    assert np.abs(tokens[whole, 1] - tokens[whole, 0]).max() < 2e-3
    centres = (np.arange(bins.n) + 0.5) * bins.dt_s
    exact = np.interp(centres[whole], times, slow)
    assert np.abs(tokens[whole, 0, 0] - exact).max() < 0.02


def test_the_filter_masks_both_edges_and_both_sides_of_a_gap() -> None:
    rate, factor = 1000.0, 10
    times = np.concatenate([np.arange(3000), np.arange(3500, 8000)]) / rate
    values, mask = known(np.ones(len(times)))
    valid = np.array([[0.0, 3.0], [3.5, 8.0]])
    tokens, real = cubic(values, mask, times, Bins(0.0, factor / rate, 800), valid, max_gap_s=0.002)
    edge = (len(antialias(float(factor))) // 2 + 2) * 1 / rate
    centres = (np.arange(800) + 0.5) * factor / rate
    clear = np.zeros(800, bool)
    for start, stop in valid:
        clear |= (centres > start + edge) & (centres < stop - edge)
    assert np.array_equal(real[:, 0][clear], np.ones(clear.sum(), bool))
    touched = ~np.any([(centres > a + edge - 0.02) & (centres < b - edge + 0.02) for a, b in valid], axis=0)
    assert not real[touched].any()
    assert np.allclose(tokens[real], 1.0)
    assert not tokens[~real].any()


def test_one_unknown_sample_masks_what_the_filter_reads_of_its_channel() -> None:
    values, mask = known(np.random.default_rng(0).standard_normal((4000, 2)))
    mask[2000, 1] = False
    values[2000, 1] = 1e12
    tokens, real = cubic(values, mask, np.arange(4000) / 1000, Bins(0.0, 0.01, 400), ALWAYS, max_gap_s=0.01)
    lost = real[:, 0] & ~real[:, 1]
    assert 15 < lost.sum() < 40
    assert lost[200]
    assert np.abs(tokens).max() < 10


@GRID
@FEW
@given(seed=st.integers(0, 99), cut=st.tuples(st.integers(0, 60), st.integers(30, 39)))
def test_a_slice_of_the_grid_is_the_grid_of_the_slice(name: str, seed: int, cut: tuple[int, int]) -> None:
    stream = lfp(np.random.default_rng(seed).standard_normal((4000, 2)), 1000.0)
    lo, hi = cut[0], cut[0] + cut[1]
    whole, real = grid_values(stream, (STEPS[name],), t0_s=0.0, dt_s=0.04, n_bins=100)
    part, own = grid_values(
        stream.slice(lo * 0.04, hi * 0.04), (STEPS[name],), t0_s=lo * 0.04, dt_s=0.04, n_bins=hi - lo
    )
    assert not (own & ~real[lo:hi]).any()
    assert own.any()
    assert np.allclose(part[own], whole[lo:hi][own], rtol=1e-9, atol=1e-9)


@GRID
@FEW
@given(seed=st.integers(0, 99), shift=st.integers(-4000, 4000))
def test_a_shift_shifts_times_only(name: str, seed: int, shift: int) -> None:
    values = np.random.default_rng(seed).standard_normal((2000, 2))
    here, there = (
        grid_values(lfp(values, 1000.0, t0), (STEPS[name],), t0_s=t0, dt_s=0.04, n_bins=50) for t0 in (0.0, shift / 4)
    )
    assert np.array_equal(here[1], there[1])
    assert np.allclose(here[0], there[0], rtol=1e-6, atol=1e-6)


@FEW
@given(seed=st.integers(0, 99), now=st.integers(1, 49))
def test_hold_at_a_bin_does_not_change_when_the_future_does(seed: int, now: int) -> None:
    own = np.random.default_rng(seed)
    stream = lfp(own.standard_normal((2000, 2)), 1000.0)
    past = (stream.times() < now * 0.04 - 1e-9)[:, None]
    changed = replace(stream, values=np.where(past, stream.values, 99 * own.standard_normal((2000, 2))))
    first, second = (grid_values(s, (STEPS["hold"],), t0_s=0.0, dt_s=0.04, n_bins=50) for s in (stream, changed))
    assert first[0][:now].tobytes() == second[0][:now].tobytes()
    assert np.array_equal(first[1][:now], second[1][:now])


@GRID
def test_pieces_are_read_as_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = lfp(np.random.default_rng(1).standard_normal((6000, 2)), 1000.0)
    whole, real = grid_values(stream, (STEPS[name],), t0_s=0.0, dt_s=0.01, n_bins=600)
    monkeypatch.setattr("neurofmx.tokenize.grid.PIECE", 2000)
    again, same = grid_values(stream, (STEPS[name],), t0_s=0.0, dt_s=0.01, n_bins=600)
    assert np.array_equal(real, same)
    assert np.allclose(again, whole, rtol=1e-9, atol=1e-9)


@FEW
@given(rate=st.sampled_from([0.4, 3.0, 2500.0, 250_000.0]), t0=st.floats(-1e3, 1e6), n=st.integers(1, 300))
def test_rows_of_a_time_are_found_without_a_time_for_every_sample(rate: float, t0: float, n: int) -> None:
    from neurofmx.tokenize.grid import _rows, _times

    stream = lfp(np.zeros((n, 1)), rate, t0)
    times = stream.times()
    for at in (0, n // 3, n - 1):
        for wanted in (times[at], np.nextafter(times[at], np.inf), times[at] + 0.3 / rate):
            lo, hi = _rows(stream, wanted, np.inf if at == n - 1 else times[at + 1])
            assert (lo, hi) == tuple(np.searchsorted(times, [wanted, np.inf if at == n - 1 else times[at + 1]]))
    assert _times(stream, n // 3, n).tobytes() == times[n // 3 :].tobytes()


def test_a_lag_is_a_later_grid_stated_in_the_spec() -> None:
    stream = replace(lfp(np.random.default_rng(2).standard_normal((3000, 2)), 30.0), modality="calcium")
    plain, late = spec("calcium", bin_s=0.1), spec("calcium", bin_s=0.1, lag_s=0.6)
    assert late.digest() != plain.digest()
    assert plain == spec("calcium", bin_s=0.1, lag_s=0.0)
    here, there = tokenize(recording(stream), plain), tokenize(recording(stream), late)
    assert here.t0_s == there.t0_s
    assert np.allclose(there.values[:-6], here.values[6:])
    assert not there.mask[-6:].any()
    assert not late.causal
    assert spec("fmri", lag_s=HAEMODYNAMIC_LAG_S).ops[0].kwargs == {"lag_s": 5.0}
    assert CALCIUM_LAG_S < HAEMODYNAMIC_LAG_S
    with pytest.raises(ConfigError, match="causal"):
        tokenize(recording(stream), replace(late, causal=True))


@pytest.mark.parametrize(
    "op", [STEPS["cubic"], STEPS["linear"], STEPS["nearest"], Op("smooth", (("sigma_s", 0.1),))], ids=lambda op: op.name
)
def test_a_spec_that_looks_ahead_may_not_say_that_it_is_causal(op: Op) -> None:
    stream = replace(lfp(np.zeros((300, 1)), 30.0), modality="calcium")
    ops = (Op("bin_mean"), op) if op.name == "smooth" else (op,)
    row = replace(spec("calcium"), ops=ops)
    with pytest.raises(ConfigError, match=op.name):
        tokenize(recording(stream), row)
    assert tokenize(recording(stream), replace(row, causal=False)).values.shape[1] == 1


def test_events_take_a_lag_too() -> None:
    events = Events(
        times_s=np.array([0.55, 1.05]), codes=np.array([0, 0]), channels=Channels(ids=("a",)), modality="spikes",
        valid=np.array([[0.0, 1.2]]),
    )  # fmt: skip
    ops = (Op("lag", (("lag_s", 0.5),)), Op("bin_counts"))
    counts, mask = grid_values(events, ops, t0_s=0.0, dt_s=0.1, n_bins=8)
    assert counts[:, 0, 0].tolist() == [1, 0, 0, 0, 0, 1, 0, 0]
    assert mask[:, 0].tolist() == [True] * 7 + [False]
