"""The picture of a recording: its bytes, what it shows of every kind of stream, and what it reads."""

from __future__ import annotations

import subprocess
import sys
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx.ingest import preview_signals as signals
from neurofmx.ingest.preview import excerpt, preview_png
from neurofmx.ingest.preview_panels import main_column
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

LONG = np.array([[0.0, 100.0]])


def recording_of(domain_s: Any = (0.0, 100.0), **streams: Stream) -> Recording:
    return Recording(
        id=RecordingId("test", "made", "1", "one"),
        streams=streams,
        subject=Subject(id="nobody", species="Mus musculus"),
        domain_s=domain_s,
        provenance=Provenance(files=(), reader="test"),
        licence=Licence(spdx="CC0-1.0"),
        task="rest",
    )


def noise(n: int, c: int, modality: str, rate: float = 100.0, **changes: Any) -> Samples:
    values = np.random.default_rng(c).normal(size=(n, c)).astype(np.float32)
    made = Samples(
        values=values, unit="uV", channels=Channels(ids=tuple(f"c{i}" for i in range(c))), modality=modality,
        valid=np.array([[0.0, n / rate]]), rate_hz=rate,
    )  # fmt: skip
    return replace(made, **changes)


def spikes(n: int = 2000, units: int = 30, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    regions = tuple(["CA1", "VISp", ""][i % 3] for i in range(units))
    return Events(
        times_s=np.sort(rng.uniform(0, 100, n)), codes=rng.integers(0, units, n).astype(np.int32),
        channels=Channels(ids=tuple(map(str, range(units))), regions=regions), modality="spikes", valid=LONG,
    )  # fmt: skip


def trials(every: float = 5.0, **columns: Any) -> Intervals:
    start = np.arange(0.0, 100.0, every)
    named = columns or {"trial_type": np.array(["go", "no-go"] * len(start))[: len(start)]}
    return Intervals(start_s=start, stop_s=start + every / 2, columns=named, modality="trials", valid=LONG)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png[12:16] == b"IHDR"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def pixels(png: bytes) -> np.ndarray:
    """(H, W, 4) uint8, and proof that the file is a whole PNG."""
    import io

    from matplotlib.image import imread

    return np.round(imread(io.BytesIO(png)) * 255).astype(np.uint8)


EVERY_KIND: dict[str, Stream] = {
    "spikes": spikes(),
    "licks": replace(spikes(50, 1), modality="licks"),
    "trials": trials(),
    "marks": replace(trials(), stop_s=trials().start_s, modality="epochs"),
    "eeg": noise(10_000, 20, "eeg"),
    "wheel": noise(10_000, 1, "wheel", values=np.cumsum(np.ones(10_000))),
    "position": noise(6_000, 2, "position", 60.0),
    "calcium": noise(3_000, 75, "calcium", 30.0),
    "spectrogram": noise(3_000, 40, "spectrogram", 30.0),
    "video": noise(300, 1, "video", 3.0, values=np.random.default_rng(0).normal(size=(300, 8, 8, 3))),
    "irregular": noise(50, 1, "wheel", rate_hz=None, times_s=np.sort(np.random.default_rng(0).uniform(0, 100, 50))),
}


def test_every_kind_of_stream_in_one_picture():
    png = preview_png(recording_of(**EVERY_KIND))
    image = pixels(png)
    assert size(png)[0] == 900 and image.shape[1] == 900
    assert np.all(image[..., 3] == 255) and image[0, 0].tolist() == [255, 255, 255, 255]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_each_kind_leaves_ink_of_its_own(name):
    stream = EVERY_KIND[name]
    drawn = pixels(preview_png(recording_of(**{name: stream})))
    bare = pixels(preview_png(recording_of(**{name: emptied(stream)})))
    assert drawn.shape == bare.shape and np.any(drawn[60:] != bare[60:])


def emptied(stream: Stream) -> Stream:
    none = np.empty((0, 2))
    if isinstance(stream, Events):
        return replace(stream, times_s=np.empty(0), codes=np.empty(0, np.int32), valid=none)
    if isinstance(stream, Intervals):
        columns = {name: np.asarray(v)[:0] for name, v in stream.columns.items()}
        return replace(stream, start_s=np.empty(0), stop_s=np.empty(0), columns=columns)
    times = None if stream.times_s is None else np.empty(0)
    return replace(stream, values=np.asarray(stream.values)[:0], times_s=times, valid=none)


def test_streams_that_hold_nothing_and_a_recording_without_time():
    nothing = {name: emptied(stream) for name, stream in EVERY_KIND.items()}
    assert size(preview_png(recording_of(**nothing)))[0] == 900
    assert size(preview_png(recording_of((0.0, 0.0), s=emptied(spikes()))))[0] == 900
    assert size(preview_png(recording_of(), width_px=640))[0] == 640
    unknown = noise(1000, 3, "eeg", values=np.full((1000, 3), np.nan), valid=np.empty((0, 2)))
    assert size(preview_png(recording_of(eeg=unknown, calcium=replace(unknown, modality="calcium"))))[0] == 900
    flat = noise(1000, 3, "eeg", values=np.ones((1000, 3)))
    assert size(preview_png(recording_of(eeg=flat, force=noise(1000, 1, "force", values=np.ones(1000)))))[0] == 900
    many = {f"s{i}": spikes(10, 1, i) for i in range(30)}
    assert size(preview_png(recording_of(**many)))[1] < 1200


def test_the_same_recording_gives_the_same_bytes_in_another_process():
    one, other = recording_of(spikes=spikes(seed=1)), recording_of(spikes=spikes(seed=2))
    assert preview_png(one) == preview_png(one) != preview_png(other)
    assert preview_png(replace(one, subject=Subject(id="somebody"))) != preview_png(one)
    code = (
        "import sys, zlib, test_preview as t\nassert 'matplotlib' not in sys.modules\n"
        "import matplotlib; matplotlib.rcParams['font.size'] = 20; matplotlib.rcParams['axes.facecolor'] = 'red'\n"
        "print(zlib.crc32(t.preview_png(t.recording_of(spikes=t.spikes(seed=1)))))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=__file__.rsplit("/", 1)[0])
    assert ran.returncode == 0 and ran.stdout.strip() == str(zlib.crc32(preview_png(one))), ran.stderr


class Counted:
    """An array that counts the values it gives."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.given = shape, 0
        self.ndim, self.dtype = len(shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice) -> np.ndarray:
        rows = len(range(*at.indices(self.shape[0])))
        self.given += rows * int(np.prod(self.shape[1:]))
        return np.zeros((rows, *self.shape[1:]), np.float32)


@pytest.mark.parametrize(("rate", "c"), [(30_000.0, 384), (1_000.0, 64), (60.0, 2)])
def test_an_hour_is_read_in_slices(rate, c):
    values = Counted((int(3600 * rate), c))
    hour = np.array([[0.0, 3600.0]])
    lazy = noise(10, c, "ecephys" if c > 2 else "position", rate, values=values, valid=hour)
    preview_png(recording_of((0.0, 3600.0), raw=lazy, spikes=replace(spikes(), valid=hour)))
    assert 0 < values.given <= 7_000_000 and values.given < 0.12 * values.shape[0] * c


# the excerpt


def test_an_excerpt_lies_in_valid_time_and_shows_trials():
    holes = np.array([[0.0, 4.0], [40.0, 75.0]])
    eeg = noise(10_000, 2, "eeg", valid=holes)
    start, stop = excerpt(recording_of(eeg=eeg, trials=trials(10.0)))
    assert start >= 40.0 and stop <= 75.0 and stop - start == 30.0
    assert sum(start <= t < stop for t in trials(10.0).start_s) >= 3


def test_slow_signals_get_more_time_and_wide_ones_less():
    slow = noise(500, 4, "fmri", 0.5, valid=np.array([[0.0, 1000.0]]))
    assert np.isclose(np.diff(excerpt(recording_of((0.0, 1000.0), fmri=slow))), 120.0)
    wide = noise(10, 384, "ecephys", 30_000.0, values=Counted((30_000 * 1000, 384)), valid=np.array([[0.0, 1000.0]]))
    assert np.diff(excerpt(recording_of((0.0, 1000.0), raw=wide))) < 1.0


def test_movement_is_looked_for():
    still = np.zeros((60_000, 2))
    still[50_000:53_000] = np.random.default_rng(0).normal(size=(3_000, 2)).cumsum(0)
    moved = noise(60_000, 2, "position", 60.0, values=still, valid=np.array([[0.0, 1000.0]]))
    start, stop = excerpt(recording_of((0.0, 1000.0), position=moved))
    assert stop > 50_000 / 60 and start < 53_000 / 60


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-1e4, 1e4),
    st.sampled_from([0.0, 0.01, 9.0, 500.0, 5e4]),
    st.lists(st.floats(0, 1), max_size=6, unique=True),
    st.lists(st.floats(0, 1), max_size=8),
)
def test_an_excerpt_is_inside_the_recording(first, total, cuts, starts):
    edges = np.sort(first + total * np.array(cuts[: len(cuts) // 2 * 2])).reshape(-1, 2)
    begin = np.sort(first + total * np.array(starts, np.float64))
    recording = recording_of(
        (first, first + total),
        spikes=replace(spikes(5, 2), times_s=np.sort(first + total * np.linspace(0, 1, 5)), valid=edges),
        trials=Intervals(start_s=begin, stop_s=begin, columns={}, modality="trials", valid=edges),
    )
    start, stop = excerpt(recording)
    assert stop > start
    if total > 0:
        assert start >= first - 1e-6 and stop <= first + total + 1e-6


# what the panels say


def test_gaps_are_hatched_and_lines_broken():
    whole = noise(1_000, 1, "force", valid=np.array([[0.0, 10.0]]))
    holed = replace(whole, valid=np.array([[0.0, 3.0], [6.0, 10.0]]))
    one, other = (pixels(preview_png(recording_of((0.0, 10.0), f=stream))) for stream in (whole, holed))
    assert np.any(one != other)
    times = np.array([0.0, 1.0, 2.0, 9.0, 10.0])
    stepped, values = signals.broken(times, times[:, None], np.array([[0.0, 3.0], [9.0, 11.0]]))
    assert np.isnan(values[:, 0]).tolist() == [False] * 3 + [True] + [False] * 2 and len(stepped) == 6
    assert len(signals.broken(times, times[:, None], np.array([[0.0, 11.0]]))[0]) == 5


def test_an_envelope_loses_no_spike():
    values = np.zeros((100_000, 1))
    values[77_777], values[3] = 5.0, -9.0
    times, drawn = signals.envelope(np.arange(100_000.0), values, 600)
    assert drawn.max() == 5.0 and drawn.min() == -9.0 and len(drawn) == len(times) == 1200
    assert np.all(np.diff(times) >= 0)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"contrast": np.arange(20.0), "choice": np.arange(20)}, "choice"),
        ({"id": np.arange(20), "side": np.array(["left", "right"] * 10)}, "side"),
        ({"id": np.arange(20), "block": np.repeat([0, 1], 10)}, "block"),
        ({"id": np.arange(20)}, ""),
    ],
)
def test_the_column_that_says_what_an_interval_is(columns, expected):
    assert main_column(trials(5.0, **columns)) == expected


# real recordings


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("ibl:cortexlab@public", "CQ002_2024-11-05_001"),
        ("openneuro:ds900101@1.0.0", "sub-01_task-objectviewing_run-01_bold"),
    ],
)
def test_a_real_recording_read_from_the_lake_looks_as_it_did(lake, read_mirror, source, name):
    recording, _ = read_mirror(source, name)
    lake.publish_recording(recording)
    png = preview_png(recording)
    assert preview_png(lake.recording(recording.id)) == png and 10_000 < len(png) < 600_000
