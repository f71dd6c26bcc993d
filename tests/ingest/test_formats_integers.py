"""Formats of integers: the lake gets the very integers, and they read as what the formats' own libraries read."""

# hdmf makes classes at run time and wfdb's and mne's types are wider than what they return
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalSubscript=false
from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx.ingest.formats import edf
from neurofmx.ingest.formats.edf_header import read_header
from neurofmx.ingest.formats.rows import Rows, pieces
from neurofmx.ingest.judged import read_and_judge
from neurofmx.ingest.sessions import RemoteFile, Session
from neurofmx.lake import Lake
from neurofmx.scaled import Scaled
from neurofmx.types import Licence, RawFile, Recording, RecordingId, Samples


def scaled(recording: Recording, name: str) -> Scaled:
    stream = recording.streams[name]
    assert isinstance(stream, Samples) and isinstance(stream.values, Scaled)
    assert stream.values.dtype == np.asarray(stream.values[:1]).dtype
    return stream.values


def ulps(a: Any, b: np.ndarray) -> float:
    """Largest difference in steps of float32."""
    b = b.astype(np.float32)
    return float(np.max(np.abs(np.asarray(a, np.float64) - b) / np.spacing(np.maximum(np.abs(b), 1e-30))))


# rows


@given(st.integers(1, 40), st.integers(1, 3), st.data())
def test_rows_index_as_numpy_does(n: int, wide: int, data: st.DataObject) -> None:
    whole = np.arange(n * wide).reshape(n, wide)
    rows = Rows(whole.shape, whole.dtype, lambda lo, hi: whole[lo:hi])
    ends = st.none() | st.integers(-n - 2, n + 2)
    cut = slice(data.draw(ends), data.draw(ends), data.draw(st.sampled_from([None, 1, 2, 5, -1])))
    at = data.draw(st.integers(-n, n - 1))
    picks = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=4)), dtype=int)
    for key in (cut, (cut, 0), at, (at, 0), picks, whole[:, 0] > n, ...):
        np.testing.assert_array_equal(rows[key], whole[key])
    law = Scaled(rows, np.arange(wide) + 0.5, np.arange(wide) - 3.0)
    physical = (whole * law.scale + law.offset).astype(np.float32)
    np.testing.assert_array_equal(law[cut, 0], physical[cut, 0])
    np.testing.assert_array_equal(law[at], physical[at])
    np.testing.assert_array_equal(np.asarray(law), physical)
    np.testing.assert_array_equal(np.concatenate(list(pieces(rows))), whole)
    with pytest.raises(IndexError):
        rows[n]


# EDF


def test_edf_of_the_mirror_is_kept_bit_for_bit(read_mirror) -> None:
    import mne

    recording, root = read_mirror("physionet:eegmmidb@1.0.0", "S001-S001R03")
    path = root / recording.provenance.files[0].path
    kept = scaled(recording, "eeg")
    raw = mne.io.read_raw_edf(path, verbose="ERROR")
    assert kept.values.dtype == np.int16
    assert ulps(kept, raw.get_data().T * 1e6) <= 1
    header = read_header(path, "x")
    body = np.fromfile(path, "<i2", offset=header.start).reshape(header.records, -1)
    signal = header.signals[5]
    start = signal.offset // 2
    np.testing.assert_array_equal(kept.values[:, 5], body[:, start : start + signal.samples].ravel())


@pytest.mark.parametrize("width", [2, 3])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_edf_integers_come_out_of_any_rows(data: st.DataObject, width: int) -> None:
    records, samples = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    limit, n = 2 ** (8 * width - 1), 2 * records * samples
    numbers = data.draw(st.lists(st.integers(-limit, limit - 1), min_size=n, max_size=n))
    truth = np.array(numbers).reshape(records, 2, samples)
    raw = truth.astype("<i4").view(np.uint8).reshape(*truth.shape, 4)[..., :width].reshape(records, -1)
    signals: Any = [
        edf.Signal(label=str(i), unit="uV", samples=samples, offset=i * width * samples, gain=1, base=0, prefilter="")
        for i in range(2)
    ]
    rows = edf.digital(raw, signals, width)
    expected = truth.transpose(0, 2, 1).reshape(-1, 2)
    lo = data.draw(st.integers(0, len(expected)))
    hi = data.draw(st.integers(lo, len(expected)))
    np.testing.assert_array_equal(rows[lo:hi], expected[lo:hi])
    assert rows.dtype == rows[lo:hi].dtype == (np.int16 if width == 2 else np.int32)


# WFDB


@pytest.mark.parametrize("name", ["100", "a103l", "100_3chan"])
def test_wfdb_is_kept_bit_for_bit(read_mirror, name: str) -> None:
    import wfdb

    recording, root = read_mirror("physionet:wfdb-sample@1.0.0", name)
    stem = str(root / recording.provenance.files[0].path).removesuffix(".hea")
    digital = wfdb.rdrecord(stem, physical=False)
    physical = wfdb.rdrecord(stem, physical=True)
    kept = scaled(recording, "ecg")
    n = kept.shape[1]
    np.testing.assert_array_equal(np.asarray(kept.values), digital.d_signal[:, :n])
    assert kept.values.dtype == np.int16
    assert ulps(kept, physical.p_signal[:, :n]) <= 1


def test_wfdb_with_unknown_samples_stays_float(read_mirror) -> None:
    recording, _ = read_mirror("physionet:wfdb-sample@1.0.0", "100skew")
    values = recording.streams["ecg"].values
    assert isinstance(values, np.ndarray)
    assert np.isnan(values[-3:, 1]).all()


# NWB


def write_nwb(
    path: Path, kind: str, n: int, wide: int, dtype: str, *, written: np.ndarray, compression: str = "", **law: Any
) -> Path:
    """A file with one series of ``n`` rows, of which only ``written`` are on disk: the rest is read as 0."""
    import h5py
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb import NWBHDF5IO, NWBFile, TimeSeries
    from pynwb.ecephys import ElectricalSeries

    nwb = NWBFile("d", "i", datetime(2000, 1, 1, tzinfo=UTC))
    shape = (n, wide) if wide else (n,)
    data = H5DataIO(
        shape=shape, dtype=np.dtype(dtype), chunks=(min(n, 4096), *shape[1:]), compression=compression or None
    )
    if kind == "volts":
        group = nwb.create_electrode_group("g", "d", "CA1", nwb.create_device("d"))
        for _ in range(wide):
            nwb.add_electrode(group=group, location="CA1")
        region = nwb.create_electrode_table_region(list(range(wide)), "all")
        nwb.add_acquisition(ElectricalSeries(name="lfp", data=data, electrodes=region, rate=1000.0, **law))
    else:
        nwb.add_acquisition(TimeSeries(name="force", data=data, unit="N", rate=1000.0, **law))
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    with h5py.File(path, "a") as handle:
        stored: Any = handle[f"acquisition/{'lfp' if kind == 'volts' else 'force'}/data"]
        stored[: len(written)] = written
    return path


@pytest.mark.parametrize("large", [False, True])
def test_nwb_voltage_is_kept_bit_for_bit_in_uv(tmp_path: Path, read_files, large: bool) -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000 if large else 500
    truth = rng.integers(-32768, 32767, (500, 3)).astype(np.int16)
    gains = np.array([1.0, 0.5, 2.0])
    path = write_nwb(tmp_path / "x.nwb", "volts", n, 3, "int16", written=truth, conversion=2e-7, offset=1e-6,
                     channel_conversion=gains)  # fmt: skip
    kept = scaled(read_files("nwb", tmp_path, path.name), "lfp")
    assert isinstance(kept.values, Rows) == large
    assert kept.values.dtype == np.int16
    assert kept.shape == (n, 3)
    np.testing.assert_array_equal(kept.values[:500], truth)
    assert ulps(kept[:500], (truth * 2e-7 * gains + 1e-6) * 1e6) <= 1


@pytest.mark.parametrize(("dtype", "exact"), [("int16", np.float32), ("uint8", np.float32), ("int32", np.float64)])
def test_nwb_series_of_another_unit_keep_their_precision(tmp_path: Path, read_files, dtype: str, exact: type) -> None:
    truth = np.arange(100).astype(dtype)
    path = write_nwb(tmp_path / "x.nwb", "force", 100, 0, dtype, written=truth, conversion=0.1, offset=-2.0)
    kept = scaled(read_files("nwb", tmp_path, path.name), "force")
    assert kept.dtype == exact
    np.testing.assert_array_equal(np.asarray(kept.values), truth)
    np.testing.assert_allclose(np.asarray(kept), truth * 0.1 - 2.0, rtol=1e-6)


def test_nwb_without_a_law_is_as_the_file_has_it(tmp_path: Path, read_files) -> None:
    path = write_nwb(tmp_path / "x.nwb", "force", 100, 2, "int64", written=np.arange(200).reshape(100, 2))
    stream = read_files("nwb", tmp_path, path.name).streams["force"]
    assert isinstance(stream.values, np.ndarray) and stream.values.dtype == np.int64


# 20 GB of integers; and 1 GB of numbers of which any may be unknown, so that all are read once, in pieces
@pytest.mark.parametrize(("dtype", "n"), [("int16", 27_000_000), ("float32", 700_000)])
def test_a_large_file_is_not_held_in_memory(tmp_path: Path, read_files, dtype: str, n: int) -> None:
    first = np.full((10, 384), 7, dtype)
    path = write_nwb(tmp_path / "x.nwb", "volts", n, 384, dtype, written=first, conversion=1e-6)
    tracemalloc.start()
    recording = read_files("nwb", tmp_path, path.name)
    path.unlink()  # the open file is enough, as for one that lay in a temporary folder
    cut = recording.slice(0.0, 0.01).streams["lfp"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.asarray(cut.values), np.full((10, 384), 7.0, np.float32))
    assert n * first[0].nbytes > 1e9
    assert peak < 200e6


def test_damage_inside_a_large_nwb_is_one_sentence(tmp_path: Path) -> None:
    import h5py

    truth = np.random.default_rng(0).integers(-999, 999, (700_000, 3)).astype(np.int16)
    path = write_nwb(tmp_path / "x.nwb", "volts", *truth.shape, "int16", written=truth, compression="gzip")
    with h5py.File(path) as handle:
        data: Any = handle["acquisition/lfp/data"]
        at = data.id.get_chunk_info(60).byte_offset
    raw = bytearray(path.read_bytes())
    raw[at + 100 : at + 200] = bytes(100)
    path.write_bytes(raw)
    session = Session(
        id=RecordingId("test", "set", "1", "one"),
        files=(RemoteFile(path="x.nwb", url="file:x.nwb"),),
        reader="nwb",
        licence=Licence(spdx="CC0-1.0"),
    )
    file = RawFile(path="x.nwb", url="", sha256="0" * 64, size=0)
    recording, found = read_and_judge(tmp_path, session, (file,))
    (said,) = (check.evidence for check in found if not check.passed and check.name == "readable")
    assert recording is None
    assert "/acquisition/lfp/data of x.nwb" in said


# WAV, OTBioLab+, BrainVision


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_wav_is_kept_bit_for_bit(tmp_path: Path, read_files, dtype: str) -> None:
    from scipy.io import wavfile

    raw = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (200, 2)).astype(dtype)
    wavfile.write(tmp_path / "x.wav", 8000, raw)
    kept = scaled(read_files("wav", tmp_path, "x.wav"), "sound")
    np.testing.assert_array_equal(np.asarray(kept.values), raw)
    low, full = (128, 128) if dtype == "uint8" else (0, 2.0 ** (8 * raw.dtype.itemsize - 1))
    np.testing.assert_array_equal(np.asarray(kept), (raw.astype(np.float64) - low) / full)


def test_otb_integers_are_kept(tmp_path: Path, read_files) -> None:
    from scipy.io import savemat

    raw = np.random.default_rng(0).integers(-2000, 2000, (300, 2)).astype(np.int16)

    def cells(values: list) -> np.ndarray:
        out = np.empty((len(values), 1), object)
        out[:, 0] = values
        return out

    savemat(tmp_path / "x.mat", {
        "Data": cells([raw]), "Description": cells([f"VL - GR08MM1305 ({i})[mV]" for i in (1, 2)]),
        "SamplingFrequency": np.array([[2048]]), "Time": cells([np.arange(300)[:, None] / 2048]),
    })  # fmt: skip
    kept = scaled(read_files("otb", tmp_path, "x.mat"), "emg")
    np.testing.assert_array_equal(np.asarray(kept.values), raw)
    np.testing.assert_array_equal(np.asarray(kept), (raw * 1000.0).astype(np.float32))


def test_brainvision_of_the_mirror_is_kept_bit_for_bit(read_mirror) -> None:
    import mne

    recording, root = read_mirror("openneuro:ds900102@1.0.0", "sub-01_ses-01_task-P300_run-01_eeg")
    path = root / next(f.path for f in recording.provenance.files if f.path.endswith(".vhdr"))
    raw = mne.io.read_raw_brainvision(path, verbose="ERROR")
    stored = np.fromfile(path.with_suffix(".eeg"), "<i2").reshape(-1, len(raw.ch_names))
    found = 0
    for name, stream in recording.streams.items():
        if not isinstance(stream, Samples):
            continue
        kept, columns = scaled(recording, name), [raw.ch_names.index(c) for c in stream.channels.ids]
        np.testing.assert_array_equal(np.asarray(kept.values), stored[:, columns])
        assert ulps(kept, raw.get_data(picks=columns).T * 1e6) <= 1
        found += len(columns)
    assert found == 5


# the lake


@pytest.mark.parametrize(
    ("source", "name", "stream"),
    [
        ("physionet:eegmmidb@1.0.0", "S001-S001R03", "eeg"),
        ("physionet:wfdb-sample@1.0.0", "100_3chan", "ecg"),
        ("openneuro:ds900102@1.0.0", "sub-01_ses-01_task-P300_run-01_eeg", "eeg"),
        ("other:audio-pykanto@1", "2021-B32-0415_05-11", "sound"),
    ],
)
def test_integers_reach_the_lake_and_come_back(lake: Lake, read_mirror, source: str, name: str, stream: str) -> None:
    recording, _ = read_mirror(source, name)
    read = scaled(recording, stream)
    digest = lake.publish_recording(recording)
    kept = scaled(lake.recording(recording.id), stream)
    np.testing.assert_array_equal(np.asarray(kept.values), np.asarray(read.values))
    np.testing.assert_array_equal(kept.scale, read.scale)
    np.testing.assert_array_equal(kept.offset, read.offset)
    np.testing.assert_array_equal(np.asarray(kept), np.asarray(read))
    assert kept.values.dtype == read.values.dtype == np.int16
    verified = [check for check in lake.verify() if not check.name.startswith("raw")]
    assert verified and all(check.passed for check in verified)
    assert lake.publish_recording(recording) == digest


@pytest.mark.slow
def test_a_large_nwb_goes_into_the_lake_in_pieces(tmp_path: Path, lake: Lake, read_files) -> None:
    n, wide = 3_000_000, 384
    path = write_nwb(tmp_path / "x.nwb", "volts", n, wide, "int16", written=np.ones((9, wide)), conversion=1e-6)
    tracemalloc.start()
    lake.publish_recording(read_files("nwb", tmp_path, path.name))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = scaled(lake.recording("test:set@1/one"), "lfp")
    assert kept.shape == (n, wide)
    np.testing.assert_array_equal(kept[:12, 5], [1.0] * 9 + [0.0] * 3)
    assert peak < 500e6 < n * wide * 2
