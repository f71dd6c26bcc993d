"""Streams on the session clock, and in the lake: times mapped, values untouched, gaps and resets stated."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx import catalog
from neurofmx.align import mapped_spans, on_session_clock
from neurofmx.clock import ClockMap, identity
from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import spans
from neurofmx.lake import Lake
from neurofmx.types import (
    Channels,
    Events,
    Intervals,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Stream,
    Subject,
)

ONE = Channels(ids=("a",))


def affine(slope: float, offset_s: float, error_s: float = 1e-4) -> ClockMap:
    return ClockMap(
        start_s=np.zeros(1), slope=np.array([slope]), offset_s=np.array([offset_s]), error_s=error_s, n_pulses=10
    )


def bent(jump_s: float = 0.0, resets: tuple[tuple[float, float], ...] = ()) -> ClockMap:
    """Two pieces that meet at device time 5, or jump there."""
    slope = np.array([1.0 + 1e-4, 1.0 - 1e-4])
    offset = np.array([2.0, 2.0 + 5 * 2e-4 + jump_s])
    return ClockMap(
        start_s=np.array([0.0, 5.0]), slope=slope, offset_s=offset, error_s=0.0, resets_s=np.reshape(resets, (-1, 2))
    )


def events(times: np.ndarray, valid: np.ndarray | None = None) -> Events:
    spans_s = np.array([[0.0, 10.0]]) if valid is None else valid
    return Events(times_s=times, codes=np.zeros(len(times), np.int32), channels=ONE, modality="spikes", valid=spans_s)


def sampled(rate: float, n: int = 100, t0: float = 0.0) -> Samples:
    values = np.arange(n, dtype=np.int16)[:, None]
    valid = spans.whole(n, rate, t0)
    return Samples(values=values, unit="uV", channels=ONE, modality="lfp", valid=valid, rate_hz=rate, t0_s=t0)


def recording(streams: dict[str, Stream], clocks: dict[str, ClockMap] | None = None, stop_s: float = 10.0) -> Recording:
    return Recording(
        id=RecordingId("a", "b", "1", "r"), streams=streams, subject=Subject(id="s"), domain_s=(0.0, stop_s),
        provenance=Provenance(files=(), reader="t@1"), licence=Licence(spdx="CC0-1.0"), clocks=clocks or {},
    )  # fmt: skip


@settings(max_examples=5, deadline=None)  # each writes and syncs files, so every example holds many trains
@given(st.lists(st.lists(st.floats(0, 1e7), max_size=20), min_size=6, max_size=6), st.integers(0, 2**31))
def test_spike_times_are_bit_exact_in_the_lake(trains: list[list[float]], seed: int) -> None:
    own = np.random.default_rng(seed)
    exact = {
        f"spikes{i}": np.sort(np.concatenate([train, own.uniform(0, 1e4, 300 * (i % 2)), own.uniform(0, 1e-300, 3)]))
        for i, train in enumerate(trains)
    }
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        lake.publish_recording(recording({k: on_session_clock(events(v), identity()) for k, v in exact.items()}))
        back = lake.recording("a:b@1/r")
        for name, times in exact.items():
            stream = back.stream(name)
            assert isinstance(stream, Events)
            assert np.asarray(stream.times_s).tobytes() == times.tobytes()


RATES = st.one_of(st.sampled_from([0.4, 30.0, 2500.0, 30_000.0, 250_000.0]), st.floats(0.4, 250_000.0))


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(RATES, st.floats(-10, 1e6), st.integers(0, 3000), st.booleans()), min_size=5, max_size=5)
)  # fmt: skip
def test_native_rates_stay_native_in_the_lake(rows: list[tuple[float, float, int, bool]]) -> None:
    streams = {}
    for i, (rate, t0, n, stated) in enumerate(rows):
        stream = sampled(rate, n, t0)
        times = stream.times() if stated else None
        streams[f"lfp{i}"] = replace(stream, rate_hz=None, t0_s=0.0, times_s=times) if stated else stream
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        lake.publish_recording(recording(streams))
        found = lake.recording("a:b@1/r").streams
        for name, stream in streams.items():
            back = found[name]
            assert isinstance(back, Samples)
            assert (back.rate_hz, back.t0_s) == (stream.rate_hz, stream.t0_s)
            assert np.asarray(back.times()).tobytes() == stream.times().tobytes()
            assert np.asarray(back.values).dtype == np.int16
            assert np.asarray(back.values).tobytes() == stream.values.tobytes()
            assert np.asarray(back.valid).tobytes() == stream.valid.tobytes()


def test_the_identity_gives_the_stream_itself() -> None:
    for stream in (events(np.array([1.0])), sampled(100.0)):
        assert on_session_clock(stream, identity(0.1)) is stream


@settings(max_examples=40, deadline=None)
@given(
    ppm=st.floats(-500, 500), offset=st.floats(-1e4, 1e4), lo=st.integers(0, 60), n=st.integers(1, 40),
    two=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_slice_of_the_aligned_is_the_aligned_slice(
    ppm: float, offset: float, lo: int, n: int, two: bool, seed: int
) -> None:
    clock = bent() if two else affine(1 + ppm * 1e-6, offset)
    spikes = events(np.sort(np.random.default_rng(seed).uniform(0, 10, 50)))
    start, stop = (lo - 0.5) / 10, (lo + n - 0.5) / 10  # between samples and, almost surely, spikes
    mapped = clock.apply(np.array([start, stop]))
    for stream in (spikes, sampled(10.0)):
        one = on_session_clock(stream.slice(start, stop), clock)
        other = on_session_clock(stream, clock).slice(*mapped)
        assert isinstance(one, (Events, Samples)) and type(one) is type(other)
        times = [s.times() if isinstance(s, Samples) else s.times_s for s in (one, other)]
        assert np.allclose(*times, rtol=0, atol=1e-8)
        assert np.allclose(one.valid, other.valid, rtol=0, atol=1e-8)
        if isinstance(one, Samples) and isinstance(other, Samples):
            assert np.array_equal(one.values, other.values)


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(-4000, 4000))
def test_a_shift_shifts_times_only(shift: int) -> None:
    offset = shift / 4
    stream = sampled(250.0)
    moved = on_session_clock(stream, affine(1.0, offset))
    assert moved.values is stream.values
    assert (moved.rate_hz, moved.t0_s) == (250.0, offset)
    assert np.allclose(moved.valid, stream.valid + offset)
    later = on_session_clock(events(np.arange(5.0)), affine(1.0, offset))
    assert later.times_s.tolist() == [t + offset for t in range(5)]
    assert later.codes.tolist() == [0] * 5


def test_a_skew_changes_the_rate_and_resamples_nothing() -> None:
    moved = on_session_clock(sampled(30_000.0, n=3000), affine(1 - 50e-6, 3.0))
    assert moved.rate_hz == pytest.approx(30_000 / (1 - 50e-6), rel=1e-15)
    device = np.arange(3000) / 30_000
    assert np.allclose(moved.times(), (1 - 50e-6) * device + 3.0, rtol=0, atol=1e-12)
    assert moved.values.dtype == np.int16


def test_a_bend_gives_every_sample_its_time_and_leaves_no_gap() -> None:
    moved = on_session_clock(sampled(10.0), bent())
    assert moved.rate_hz is None
    assert np.allclose(moved.times(), bent().apply(np.arange(100) / 10))
    assert moved.valid.shape == (1, 2)


def test_a_reset_is_a_gap() -> None:
    clock = bent(jump_s=0.5, resets=((4.75, 5.35),))
    valid = np.array([[0.0, 2.0], [3.0, 10.0]])
    moved = on_session_clock(events(np.arange(0.1, 10.0), valid), clock)
    edges = [*clock.apply(np.array([0.0, 2.0, 3.0, 4.75, 5.35, 10.0]))]
    assert np.allclose(moved.valid, np.reshape(edges, (3, 2)))
    assert moved.times_s.tobytes() == clock.apply(np.arange(0.1, 10.0)).tobytes()  # nothing is thrown away or filled
    known = bent(jump_s=0.5, resets=((5.0, 5.0),))  # a reset at a known moment leaves no doubt on either side
    assert np.allclose(mapped_spans(np.array([[0.0, 10.0]]), known), [[2.0, 7.0005], [7.5005, 12.5]], atol=1e-9)


def test_dropped_samples_are_gaps_and_stay_dropped() -> None:
    counter = np.concatenate([np.arange(50), np.arange(80, 120), np.arange(121, 200)])  # 30 and then 1 sample lost
    times = counter / 100.0
    valid = spans.stamped(times, gap_s=1.5 / 100.0)
    assert np.allclose(valid, [[0.0, 0.5], [0.8, 1.2], [1.21, 2.0]])
    stream = Samples(
        values=counter[:, None], unit="uV", channels=ONE, modality="lfp", valid=valid, times_s=times
    )  # fmt: skip
    moved = on_session_clock(stream, affine(1 + 1e-4, 5.0))
    assert len(moved.valid) == 3
    assert np.array_equal(moved.values, stream.values)


def test_intervals_are_mapped_at_both_ends() -> None:
    trials = Intervals(
        start_s=np.array([1.0, 5.0]), stop_s=np.array([5.0, 6.0]), columns={"n": np.arange(2)}, modality="trials",
        valid=np.array([[0.0, 10.0]]),
    )  # fmt: skip
    moved = on_session_clock(trials, bent(jump_s=0.5, resets=((5.0, 5.0),)))
    assert np.allclose(moved.stop_s, [7.0005, 8.5004])  # a trial that ends with the old clock ends there
    assert np.allclose(moved.start_s, [3.0001, 7.5005])


def test_a_map_of_another_device_is_refused() -> None:
    with pytest.raises(MalformedFile, match="go back"):
        on_session_clock(events(np.arange(10.0)), bent(jump_s=-3.0))


def test_the_error_travels_with_the_recording(lake: Lake) -> None:
    clocks = {"spikes": affine(1 + 40e-6, 0.0, 2e-4), "lfp": affine(1.0, 0.1, 3e-3)}
    streams = {"spikes": events(np.arange(5.0)), "lfp": sampled(100.0), "trial": events(np.arange(3.0))}
    made = recording(streams, clocks)
    assert made.clock_error_s == 3e-3
    lake.publish_recording(made)
    back = lake.recording(made.id)
    assert {k: v.plain() for k, v in back.clocks.items()} == {k: v.plain() for k, v in clocks.items()}
    assert [back.clock_error_of(name) for name in ("spikes", "lfp", "trial")] == [2e-4, 3e-3, 0.0]
    rows = {r["stream"]: (r["clock_error_s"], r["drift_ppm"]) for r in catalog.rows(lake, "streams")}
    assert rows["lfp"] == (3e-3, 0.0) and rows["trial"] == (0.0, None)
    assert rows["spikes"] == (2e-4, pytest.approx(40, abs=1e-6))
    assert catalog.rows(lake, "recordings")[0]["clock_error_s"] == 3e-3


def test_without_clocks_a_stated_error_is_that_of_every_stream(lake: Lake) -> None:
    made = replace(recording({"spikes": events(np.arange(5.0))}), clock_error_s=0.01)
    assert made.clock_error_of("spikes") == 0.01
    lake.publish_recording(made)
    assert catalog.rows(lake, "streams")[0]["clock_error_s"] == 0.01
    assert np.isnan(replace(made, clock_error_s=float("nan"), clocks={"spikes": identity()}).clock_error_s)
