"""What every row of the tokenizer table must hold, on recordings drawn by Hypothesis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx.tokenize.catalog import SPECS, specs_for
from neurofmx.tokenize.grid import tokenize
from neurofmx.types import (
    Channels,
    Events,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Stream,
    Subject,
    TokenSpec,
)

ROWS = pytest.mark.parametrize("name", sorted(SPECS))
FEW = settings(max_examples=12, deadline=None)
BINS = 40
CHANNELS = 3


def recording_of(stream: Stream, duration_s: float, start_s: float = 0.0) -> Recording:
    return Recording(
        id=RecordingId("test", "made", "1", "one"),
        streams={stream.modality: stream},
        subject=Subject(id="nobody"),
        domain_s=(start_s, start_s + duration_s),
        provenance=Provenance(files=(), reader="test"),
        licence=Licence(spdx="CC0-1.0"),
    )


def rate_of(spec: TokenSpec) -> float:
    """A rate that fits the spec, a whole number of samples a bin."""
    need = {"eeg": 160.0, "lfp": 400.0, "ecog": 400.0}.get(spec.modality, 4.0 / (spec.bin_s or 1.0))
    return max(need, 8.0 / spec.bin_s if spec.ops[0].name == "patch" else 0.0) if spec.bin_s else 1.0


def made(spec: TokenSpec, seed: int, start_s: float = 0.0) -> Recording:
    """A recording of `BINS` bins with three channels of noise."""
    own = np.random.default_rng(seed)
    rate = rate_of(spec)
    dt = spec.bin_s or 1.0 / rate
    duration = BINS * dt
    valid = np.array([[start_s, start_s + duration]])
    channels = Channels(ids=("a", "b", "c"))
    if spec.modality == "spikes":
        # a microsecond clock whose ticks are off the bin edges, so that rounding decides nothing
        ticks = np.sort(own.integers(0, int(duration * 1e6) - 1, 200)) + 0.5
        return recording_of(
            Events(
                times_s=start_s + ticks * 1e-6,
                codes=own.integers(0, CHANNELS, 200).astype(np.int32),
                channels=channels,
                modality="spikes",
                valid=valid,
            ),
            duration,
            start_s,
        )
    values = own.standard_normal((round(duration * rate), CHANNELS))
    samples = Samples(
        values=values, unit="a.u.", channels=channels, modality=spec.modality, valid=valid, rate_hz=rate, t0_s=start_s
    )
    return recording_of(samples, duration, start_s)


def only(recording: Recording) -> Stream:
    return next(iter(recording.streams.values()))


def with_stream(recording: Recording, stream: Stream) -> Recording:
    return replace(recording, streams={stream.modality: stream})


@ROWS
def test_the_row_fits_its_own_recording(name: str) -> None:
    spec = SPECS[name]
    grid = tokenize(made(spec, 0), spec)
    assert spec in specs_for(made(spec, 0))
    assert grid.values.shape[0] == BINS
    assert grid.values.dtype == np.float32
    assert grid.fields == spec.fields
    assert grid.mask.mean() > 0.6
    assert np.isfinite(grid.values).all()
    assert not grid.values[~grid.mask].any()


@ROWS
@FEW
@given(seed=st.integers(0, 99), cut=st.tuples(st.integers(0, BINS - 2), st.integers(1, BINS)))
def test_tokens_of_a_slice_are_the_slice_of_the_tokens(name: str, seed: int, cut: tuple[int, int]) -> None:
    spec = SPECS[name]
    lo, hi = cut[0], max(cut[1], cut[0] + 1)
    recording = made(spec, seed)
    whole = tokenize(recording, spec)
    part = tokenize(recording.slice(lo * whole.dt_s, hi * whole.dt_s), spec, bin_s=whole.dt_s)
    assert len(part.mask) == hi - lo
    assert not (part.mask & ~whole.mask[lo:hi]).any()
    # rounding of sample times may change the last digit of a spectrum's scale
    exact = spec.ops[0].name not in ("band_power", "speed")
    assert np.allclose(part.values[part.mask], whole.values[lo:hi][part.mask], rtol=0 if exact else 1e-5, atol=0)
    if not any(key == "window_s" for op in spec.ops for key, _ in op.params) and spec.ops[0].name != "speed":
        assert np.array_equal(part.mask, whole.mask[lo:hi])


@ROWS
@FEW
@given(seed=st.integers(0, 99), shift=st.integers(-4000, 4000))
def test_a_shift_in_time_shifts_the_grid_and_nothing_else(name: str, seed: int, shift: int) -> None:
    spec = SPECS[name]
    here, there = (tokenize(made(spec, seed, start), spec) for start in (0.0, shift / 4))
    assert there.t0_s == here.t0_s + shift / 4
    assert np.array_equal(here.mask, there.mask)
    # speed divides by differences of times, which round
    assert np.allclose(here.values, there.values, rtol=1e-4 if spec.ops[0].name == "speed" else 1e-6, atol=1e-6)


@ROWS
@FEW
@given(seed=st.integers(0, 99), order=st.permutations(range(CHANNELS)))
def test_reordered_channels_reorder_the_tokens(name: str, seed: int, order: list[int]) -> None:
    spec = SPECS[name]
    recording = made(spec, seed)
    stream = only(recording)
    channels = Channels(ids=tuple("abc"[i] for i in order))
    if isinstance(stream, Events):
        back = np.argsort(order)
        moved: Stream = replace(stream, codes=back[stream.codes].astype(np.int32), channels=channels)
    else:
        assert isinstance(stream, Samples)
        moved = replace(stream, values=stream.values[:, order], channels=channels)
    first, second = tokenize(recording, spec), tokenize(with_stream(recording, moved), spec)
    if first.mask.shape[1] == 1:  # one value from all channels together
        assert np.allclose(first.values, second.values, rtol=1e-5)
    else:
        assert second.channels.ids == channels.ids
        assert np.array_equal(first.values[:, order], second.values)


@pytest.mark.parametrize("name", sorted(n for n, s in SPECS.items() if s.causal))
@FEW
@given(seed=st.integers(0, 99), now=st.integers(1, BINS - 1))
def test_the_future_changes_no_causal_token(name: str, seed: int, now: int) -> None:
    spec = SPECS[name]
    recording = made(spec, seed)
    grid = tokenize(recording, spec)
    stream, end = only(recording), now * grid.dt_s
    other = only(made(spec, seed + 1000))
    if isinstance(stream, Events):
        assert isinstance(other, Events)
        early, late = stream.times_s < end, other.times_s >= end
        changed: Stream = replace(
            stream,
            times_s=np.concatenate([stream.times_s[early], other.times_s[late]]),
            codes=np.concatenate([stream.codes[early], other.codes[late]]),
        )
    else:
        assert isinstance(stream, Samples)
        assert isinstance(other, Samples)
        past = (stream.times() < end - 1e-9)[:, None]
        changed = replace(stream, values=np.where(past, stream.values, 100 * np.asarray(other.values)))
    after = tokenize(with_stream(recording, changed), spec)
    assert np.array_equal(after.values[:now], grid.values[:now])
    assert np.array_equal(after.mask[:now], grid.mask[:now])


@ROWS
@FEW
@given(seed=st.integers(0, 99), gap=st.tuples(st.floats(1, BINS - 6), st.floats(0.1, 4)))
def test_a_gap_is_masked_and_never_filled(name: str, seed: int, gap: tuple[float, float]) -> None:
    spec = SPECS[name]
    recording = made(spec, seed)
    whole = tokenize(recording, spec)
    start, stop = gap[0] * whole.dt_s, (gap[0] + gap[1]) * whole.dt_s
    stream = only(recording)
    valid = np.array([[recording.domain_s[0], start], [stop, recording.domain_s[1]]])
    holed = tokenize(with_stream(recording, replace(stream, valid=valid)), spec)
    edges = np.arange(BINS) * whole.dt_s
    touched = (edges < stop - 1e-6 * whole.dt_s) & (edges + whole.dt_s > start + 1e-6 * whole.dt_s)
    assert not holed.mask[touched].any()
    assert not holed.values[~holed.mask].any()
    same = holed.mask
    assert np.array_equal(holed.values[same], whole.values[same])
    before = edges + whole.dt_s <= start
    assert np.array_equal(holed.mask[before], whole.mask[before])


@pytest.mark.parametrize("name", sorted(n for n, s in SPECS.items() if s.modality not in ("spikes", "gaze")))
def test_an_unknown_sample_masks_its_own_channel_only(name: str) -> None:
    spec = SPECS[name]
    recording = made(spec, 3)
    stream = only(recording)
    assert isinstance(stream, Samples)
    values = np.array(stream.values)
    values[len(values) // 2, 1] = np.nan
    whole, holed = tokenize(recording, spec), tokenize(with_stream(recording, replace(stream, values=values)), spec)
    assert np.array_equal(holed.mask[:, [0, 2]], whole.mask[:, [0, 2]])
    assert np.array_equal(holed.values[:, [0, 2]], whole.values[:, [0, 2]])
    lost = whole.mask[:, 1] & ~holed.mask[:, 1]
    assert lost.any()
    assert np.isfinite(holed.values).all()
