"""BIDS runs and ALF sessions against their bytes, against MNE, and on files whose content is known."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofmx import groups
from neurofmx.errors import MalformedFile
from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.checks import judge
from neurofmx.ingest.formats import table
from neurofmx.ingest.formats.alf_behaviour import wheel_unit
from neurofmx.ingest.formats.alf_files import parse
from neurofmx.ingest.formats.bids_files import typed
from neurofmx.ingest.sources import mirror_sources
from neurofmx.types import Events, Intervals, RawFile, Recording, Samples, as_valid

HAXBY, MUSE, GAZE, NIRS, ECOG = (f"openneuro:ds90010{i}@1.0.0" for i in (1, 2, 3, 4, 6))
SEIZURE = "sub-pat01_ses-test_task-ictal_acq-ecog_ieeg"


def samples(recording: Recording, name: str) -> Samples:
    stream = recording.streams[name]
    assert isinstance(stream, Samples)
    return stream


def intervals(recording: Recording, name: str = "trials") -> Intervals:
    stream = recording.streams[name]
    assert isinstance(stream, Intervals)
    return stream


def said(recording: Recording, text: str) -> bool:
    return any(text in note for note in recording.provenance.notes)


def lay(root: Path, files: dict[str, Any]) -> tuple[str, ...]:
    """Writes texts, bytes, JSON objects and arrays under their names; returns the names."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            text = json.dumps(content) if isinstance(content, dict) else content
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return tuple(files)


# every real recording


def test_every_run_and_session_of_the_mirror(mirror):
    counts: dict[str, int] = {}
    for source in mirror_sources(mirror):
        if source.archive not in ("openneuro", "ibl"):
            continue
        root = Path(source.address) / (source.dataset if source.archive == "openneuro" else "")
        for session in list_sessions(source):
            files = tuple(RawFile(path=f.path, url=f.url, sha256="0" * 64, size=0) for f in session.files)
            recording = table.read(session.reader, root, session, files)
            counts[source.dataset] = counts.get(source.dataset, 0) + 1
            start, stop = recording.domain_s
            assert stop > start and recording.provenance.reader == table.reader_version(session.reader)
            for name, stream in recording.streams.items():
                valid = as_valid(stream.valid)
                assert valid.min() >= start - 1e-9 and valid.max() <= stop + 1e-9, name
                if isinstance(stream, Samples):
                    assert np.shape(stream.values)[1:] in ((), (len(stream.channels),)), name
                    inside = np.any(
                        (stream.times()[:, None] >= valid[:, 0]) & (stream.times()[:, None] < valid[:, 1]), 1
                    )
                    assert np.isfinite(np.asarray(stream.values)[inside]).all(), name
            groups.pack_recording(recording)
    assert counts == {
        "ds900101": 12, "ds900102": 36, "ds900103": 68, "ds900104": 2, "ds900106": 1,
        "cortexlab": 1, "unknownlab": 2, "wittenlab": 1,
    }  # fmt: skip


# BIDS: real runs


def test_muse_is_its_integers_times_the_step_of_the_device(read_mirror):
    recording, root = read_mirror(MUSE, "sub-01_ses-01_task-P300_run-01_eeg")
    stem = root / recording.provenance.files[0].path
    raw = np.fromfile(stem.with_suffix(".eeg"), "<i2").reshape(-1, 5)
    eeg, aux, trials = samples(recording, "eeg"), samples(recording, "aux"), intervals(recording)
    np.testing.assert_array_equal(eeg.values, raw[:, :4] * 0.48828125)
    np.testing.assert_array_equal(aux.values, raw[:, 4:] * 0.48828125)
    assert (eeg.unit, eeg.rate_hz, eeg.values.dtype) == ("uV", 256.0, np.float32)
    assert eeg.channels.ids == ("TP9", "AF7", "AF8", "TP10") and aux.channels.ids == ("RightAUX",)
    assert eeg.valid.tolist() == [[0.0, len(raw) / 256.0]]
    rows = [line.split("\t") for line in Path(str(stem).replace("_eeg.vhdr", "_events.tsv")).read_text().splitlines()]
    assert trials.columns["trial_type"].tolist() == [row[2] for row in rows[1:]]
    np.testing.assert_array_equal(trials.start_s, [float(row[0]) for row in rows[1:]])
    np.testing.assert_array_equal(trials.columns["sample"], np.round(trials.start_s * 256))
    assert set(trials.columns) == {"trial_type", "value", "sample"} and recording.subject.species == "homo sapiens"


def test_haxby_has_530_voxels_and_eight_categories(read_mirror):
    import nibabel

    kinds: set[str] = set()
    for run in range(1, 13):
        recording, root = read_mirror(HAXBY, f"sub-01_task-objectviewing_run-{run:02d}_bold")
        fmri, trials = samples(recording, "fmri"), intervals(recording)
        assert np.shape(fmri.values) == (121, 530) and fmri.rate_hz == 0.4 and fmri.t0_s == 0.0
        assert len(trials.start_s) == 8 and np.all(trials.stop_s - trials.start_s == 22.5)
        kinds |= set(trials.columns["trial_type"].tolist())
        if run == 1:
            assert trials.start_s[0] == 15.0  # as events.tsv has it: the haemodynamic delay is not put in again
            image: Any = nibabel.load(root / recording.provenance.files[0].path)
            data = np.asanyarray(image.dataobj)
            for at in (0, 17, 529):
                x, y, z = map(int, fmri.channels.ids[at].split("_"))
                np.testing.assert_array_equal(np.asarray(fmri.values)[:, at], data[x, y, z])
    assert kinds == {"face", "house", "shoe", "cat", "scissors", "scrambledpix", "bottle", "chair"}


def test_gaze_states_what_the_tracker_lost(mirror, read_mirror):
    total, disagree = 0, []
    for path in sorted(mirror.glob("openneuro/ds900103/sub-*/beh/*_physio.tsv.gz")):
        name = path.name.removesuffix(".tsv.gz")
        if not name.startswith(("sub-01", "sub-14", "sub-15", "sub-18", "sub-20")):
            total += gzip.decompress(path.read_bytes()).count(b"\n")
            continue
        recording, _ = read_mirror(GAZE, name)
        table_of = np.genfromtxt(gzip.decompress(path.read_bytes()).decode().splitlines(), delimiter="\t")
        gaze, pupil = samples(recording, "gaze"), samples(recording, "pupil")
        total += len(gaze.values)
        lost = (table_of[:, 1:3] == 0).all(1) | (table_of[:, 3:5] == 0).any(1)
        np.testing.assert_array_equal(np.isnan(gaze.values).all(1), lost)
        np.testing.assert_array_equal(np.asarray(gaze.values)[~lost], table_of[~lost, 1:3])
        np.testing.assert_array_equal(np.asarray(pupil.values)[~lost], table_of[~lost, 3:5])
        assert (gaze.unit, gaze.rate_hz, gaze.channels.ids) == ("px", 500.0, ("x", "y"))
        assert np.isclose(np.sum(gaze.valid[:, 1] - gaze.valid[:, 0]), np.sum(~lost) / 500.0)
        assert np.isclose(intervals(recording).stop_s[-1], len(gaze.values) / 500.0, atol=2e-3)
        (rate,) = (check for check in judge(recording) if check.name == "clock_rate")
        assert rate.passed or ("500 Hz is stated, 200 Hz measured" in rate.evidence and rate.severity == "warn")
        assert rate.passed != said(recording, "200 Hz by the device's time stamps")
        disagree += [] if rate.passed else [name.split("_")[0]]
    assert total == 207_766
    assert disagree == ["sub-14"] * 4 + ["sub-20"] * 2  # the device's clock says what no sidecar does


def test_fnirs_is_what_mne_reads(read_mirror):
    import mne

    recording, root = read_mirror(NIRS, "sub-01_ses-01_task-tapping_nirs")
    fnirs, trials = samples(recording, "fnirs"), intervals(recording)
    assert np.shape(fnirs.values) == (1960, 102) and fnirs.unit == "a.u." and said(recording, "unit V stated")
    assert {i.split(" ")[1] for i in fnirs.channels.ids} == {"690", "830"}
    assert fnirs.rate_hz is not None and abs(fnirs.rate_hz - 5.0) < 1e-3
    raw = mne.io.read_raw_snirf(root / recording.provenance.files[0].path, preload=True, verbose="ERROR")
    data = dict(zip(raw.ch_names, np.asarray(raw.get_data())))
    for at, name in enumerate(fnirs.channels.ids):
        np.testing.assert_array_equal(np.asarray(fnirs.values)[:, at], data[name])
    # events.tsv and the file's own marks, which MNE reads, are on one clock
    np.testing.assert_allclose(trials.start_s, raw.annotations.onset, atol=1e-3)
    assert len(trials.start_s) == 12 and set(trials.columns["trial_type"].tolist()) == {"tapping"}
    assert np.all(trials.stop_s == trials.start_s) and said(recording, "12 of 12 have no duration")


def test_ecog_strips_have_no_positions(read_mirror):
    recording, root = read_mirror(ECOG, SEIZURE)
    ecog, ecg = samples(recording, "ecog"), samples(recording, "ecg")
    raw = np.fromfile((root / recording.provenance.files[0].path).with_suffix(".eeg"), "<f4").reshape(-1, 78)
    np.testing.assert_allclose(ecog.values, raw[:, :76] * 1e-3, rtol=1e-6)
    assert ecg.channels.ids == ("EKGL", "EKGR") and np.shape(ecg.values) == (21658, 2)
    where = ecog.channels.positions_um
    assert where is not None and np.isfinite(where).all(1).sum() == 64
    np.testing.assert_allclose(where[0], (-13_200.0, -65_400.0, 70_200.0))
    assert ecog.rate_hz == pytest.approx(999.4121, abs=1e-4)
    np.testing.assert_allclose(intervals(recording).start_s, [10.229013529])


# BIDS: files made here

BOLD = "sub-1/func/sub-1_task-t_bold.nii.gz"


def bold(root: Path, data: np.ndarray, name: str = BOLD) -> str:
    import nibabel

    (root / name).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])), root / name)
    return name


def test_voxels_that_vary_where_no_mask_fits(tmp_path, read_files):
    data = np.random.default_rng(0).normal(size=(3, 2, 2, 5)).astype(np.float32)
    data[1, 1, 0] = 7.0
    mask = "derivatives/x/sub-1/func/sub-1_task-t_desc-brain_mask.nii.gz"
    names = [bold(tmp_path, data), bold(tmp_path, np.ones((2, 2, 2), np.float32), mask)]
    # the nearest sidecar has the last word
    names += lay(tmp_path, {
        "task-t_bold.json": {"RepetitionTime": 9.0, "SliceTiming": [0.0]},
        "sub-1/func/sub-1_task-t_bold.json": {"RepetitionTime": 2.0},
    })  # fmt: skip
    recording = read_files("bids", tmp_path, *names)
    fmri = samples(recording, "fmri")
    assert len(fmri.channels) == 11 and "1_1_0" not in fmri.channels.ids and fmri.rate_hz == 0.5
    assert (
        said(recording, "another grid") and said(recording, "no mask, the 11 of 12") and said(recording, "SliceTiming")
    )
    assert fmri.channels.positions_um is not None
    np.testing.assert_array_equal(fmri.channels.positions_um[-1], (4_000.0, 2_000.0, 2_000.0))


def test_volume_timing_and_a_missing_repetition_time(tmp_path, read_files):
    data = np.random.default_rng(0).normal(size=(2, 2, 1, 4)).astype(np.float32)
    name = bold(tmp_path, data)
    lay(tmp_path, {"task-t_bold.json": {"VolumeTiming": [0.0, 3.0, 9.0, 12.0]}})
    fmri = samples(read_files("bids", tmp_path, name, "task-t_bold.json"), "fmri")
    assert fmri.times().tolist() == [0.0, 3.0, 9.0, 12.0] and fmri.rate_hz is None
    lay(tmp_path, {"task-t_bold.json": {"VolumeTiming": [0.0, 3.0]}})
    with pytest.raises(MalformedFile, match="2 times"):
        read_files("bids", tmp_path, name, "task-t_bold.json")
    image = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(image[: len(image) // 2])
    with pytest.raises(MalformedFile, match="expected a NIfTI image"):
        read_files("bids", tmp_path, name)


EEG = "sub-1/eeg/sub-1_task-t_eeg"
HEADER = """Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
DataFile=sub-1_task-t_eeg.eeg
MarkerFile=sub-1_task-t_eeg.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels=3
SamplingInterval=10000
[Binary Infos]
BinaryFormat=INT_16
[Channel Infos]
Ch1=E1,,0.5,µV
Ch2=E2,,2,nV
Ch3=T,,0.1,C
"""
MARKERS = """Brain Vision Data Exchange Marker File, Version 1.0
[Common Infos]
DataFile=sub-1_task-t_eeg.eeg
[Marker Infos]
Mk1=New Segment,,1,1,0,20200101000000000000
Mk2=New Segment,,251,1,0,20200101000100000000
"""
EVENTS = "onset\tduration\ttrial_type\trt\tn/ame\n2.5\t1\t7\tn/a\ta\n1.0\tn/a\tn/a\t0.25\tb\nn/a\t1\t8\t0.5\tc\n"


def brainvision(root: Path, extra: dict[str, Any]) -> tuple[tuple[str, ...], np.ndarray]:
    raw = np.random.default_rng(1).integers(-1000, 1000, (500, 3)).astype("<i2")
    names = lay(root, {f"{EEG}.vhdr": HEADER, f"{EEG}.vmrk": MARKERS, f"{EEG}.eeg": raw.tobytes(), **extra})
    return names, raw


def test_units_types_and_a_pause(tmp_path, read_files):
    channels = "name\ttype\tunits\tstatus\tstatus_description\nE1\tEEG\tµV\tbad\tloose\nE2\tSEEG\tnV\tgood\tn/a\n"
    names, raw = brainvision(tmp_path, {
        "sub-1/eeg/sub-1_task-t_channels.tsv": channels + "T\tTEMP\toC\tgood\tn/a\n",
        "sub-1/eeg/sub-1_space-B_electrodes.tsv": "name\tx\ty\tz\nE2\t1\t2\t3\n",
        "sub-1/eeg/sub-1_space-A_coordsystem.json": {"EEGCoordinateUnits": "m"},
        "sub-1/eeg/sub-1_space-B_coordsystem.json": {"EEGCoordinateUnits": "mm"},
        "sub-1/eeg/sub-1_task-t_eeg.json": {"SamplingFrequency": 99, "RecordingDuration": 60},
        "sub-1/eeg/sub-1_task-t_events.tsv": EVENTS,
    })  # fmt: skip
    recording = read_files("bids", tmp_path, *names)
    eeg, seeg, warm = (samples(recording, name) for name in ("eeg", "seeg", "temperature"))
    np.testing.assert_allclose(eeg.values[:, 0], raw[:, 0] * 0.5, rtol=1e-6)
    np.testing.assert_allclose(seeg.values[:, 0], raw[:, 1] * 2e-3, rtol=1e-6)
    np.testing.assert_allclose(warm.values[:, 0], raw[:, 2] * 0.1, rtol=1e-6)
    assert (eeg.unit, seeg.unit, seeg.modality, warm.unit) == ("uV", "uV", "ecog", "oC")
    assert seeg.channels.positions_um is not None and seeg.channels.positions_um.tolist() == [[1e3, 2e3, 3e3]]
    assert eeg.channels.positions_um is None and eeg.valid.tolist() == [[0.0, 2.5], [2.5, 5.0]]
    assert said(recording, "E1 (loose)") and said(recording, "paused 1 times") and said(recording, "says 60 s")
    assert said(recording, "99 Hz")
    trials = intervals(recording)
    assert trials.start_s.tolist() == [1.0, 2.5] and trials.stop_s.tolist() == [1.0, 3.5]
    assert trials.columns["trial_type"].tolist() == ["", "7"] and trials.columns["n_ame"].tolist() == ["b", "a"]
    np.testing.assert_array_equal(trials.columns["rt"], [0.25, np.nan])
    assert said(recording, "onset n/a") and said(recording, "1 of 2 have no duration")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("sub-1/eeg/sub-1_task-t_events.tsv", "onset\tduration\n1\n", "1 fields"),
        ("sub-1/eeg/sub-1_task-t_events.tsv", "onset\n1\n", "a column duration"),
        ("sub-1/eeg/sub-1_task-t_events.tsv", "onset\tduration\nsoon\t1\n", "seconds or n/a"),
        ("sub-1/eeg/sub-1_task-t_eeg.json", "[1]", "JSON object"),
        ("sub-1/eeg/sub-1_task-t_eeg.json", "{", "expected JSON"),
        ("sub-1/eeg/sub-1_task-t_eeg.json", '{"SamplingFrequency": "fast"}', "a number"),
        (f"{EEG}.eeg", b"", "no samples|can read"),
    ],
)
def test_sidecars_that_are_none(tmp_path, read_files, name, content, match):
    names, _ = brainvision(tmp_path, {name: content})
    with pytest.raises(MalformedFile, match=match):
        read_files("bids", tmp_path, *names)


def edf(rates: tuple[int, ...], kind: str, records: int = 3) -> tuple[bytes, list[np.ndarray]]:
    """An EDF of one-second records whose digital values are microvolts."""
    n = len(rates)
    fields = [[f"E{i}" for i in range(n)], [""] * n, ["uV"] * n, *([v] * n for v in ("-32768", "32767") * 2), [""] * n]
    widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
    fixed = ((0, 8), ("X X X X", 80), ("", 80), ("01.01.85", 8), ("00.00.00", 8), (256 * (n + 1), 8), (kind, 44),
             (records, 8), (1, 8), (n, 4))  # fmt: skip
    head = "".join(str(value).ljust(size) for value, size in fixed)
    for values, size in zip([*fields, list(map(str, rates)), [""] * n], widths):
        head += "".join(value.ljust(size) for value in values)
    signals = [
        np.random.default_rng(i).integers(-999, 999, (records, rate)).astype("<i2") for i, rate in enumerate(rates)
    ]
    body = b"".join(signal[r].tobytes() for r in range(records) for signal in signals)
    return head.encode() + body, [signal.ravel() for signal in signals]


def test_edf_channels_keep_their_own_rates(tmp_path, read_files):
    content, signals = edf((100, 100, 25), "")
    lay(tmp_path, {f"{EEG}.edf": content})
    recording = read_files("bids", tmp_path, f"{EEG}.edf")
    fast, slow = samples(recording, "eeg"), samples(recording, "eeg_25Hz")
    assert (fast.rate_hz, slow.rate_hz) == (100.0, 25.0)
    np.testing.assert_allclose(fast.values, np.stack(signals[:2], 1), atol=1e-3)
    np.testing.assert_allclose(slow.values[:, 0], signals[2], atol=1e-3)
    assert said(recording, "no events.tsv") and said(recording, "channels.tsv lacks")
    lay(tmp_path, {f"{EEG}.edf": edf((100,), "EDF+D")[0]})
    with pytest.raises(MalformedFile, match="discontinuous"):
        read_files("bids", tmp_path, f"{EEG}.edf")


PHYSIO = "sub-1/func/sub-1_task-t_recording-belt_physio"


def test_physiology_beside_a_scan_starts_when_it_says(tmp_path, read_files):
    data = np.random.default_rng(0).normal(size=(2, 2, 1, 4)).astype(np.float32)
    about = {"SamplingFrequency": 10, "StartTime": -1.5, "Columns": ["cardiac", "respiratory"],
             "cardiac": {"Units": "mV"}}  # fmt: skip
    names = lay(tmp_path, {
        f"{PHYSIO}.tsv.gz": gzip.compress(b"1\t2\nn/a\t3\n4\t5\n"), f"{PHYSIO}.json": about,
        "task-t_bold.json": {"RepetitionTime": 2.0},
    })  # fmt: skip
    recording = read_files("bids", tmp_path, bold(tmp_path, data), *names)
    cardiac, breath = samples(recording, "cardiac"), samples(recording, "respiratory")
    np.testing.assert_array_equal(cardiac.values, [1.0, np.nan, 4.0])
    np.testing.assert_allclose(cardiac.valid, [[-1.5, -1.4], [-1.3, -1.2]])
    assert cardiac.unit == "mV" and breath.values.tolist() == [2.0, 3.0, 5.0] and breath.t0_s == -1.5
    lay(tmp_path, {f"{PHYSIO}.json": about | {"Columns": ["cardiac"]}})
    with pytest.raises(MalformedFile, match="2 columns"):
        read_files("bids", tmp_path, BOLD, *names)


def test_straight_ahead_in_degrees_is_no_loss(tmp_path, read_files):
    stem = "sub-1/beh/sub-1_task-t_recording-eye1_physio"
    about = {"SamplingFrequency": 10, "StartTime": 0, "Columns": ["x_coordinate", "y_coordinate", "pupil_size"],
             "x_coordinate": {"Units": "degree"}, "PhysioType": "eyetrack"}  # fmt: skip
    names = lay(tmp_path, {f"{stem}.tsv.gz": gzip.compress(b"0\t0\t9\n0\t0\t0\n1\t2\t9\n"), f"{stem}.json": about})
    gaze = samples(read_files("bids", tmp_path, *names), "gaze")
    np.testing.assert_array_equal(gaze.values, [[0.0, 0.0], [np.nan, np.nan], [1.0, 2.0]])


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9), min_size=1)
)
def test_typed_columns_are_the_numbers_they_were(values):
    column = typed(["n/a" if value is None else repr(value) for value in values])
    if all(value is None for value in values):
        assert column.tolist() == [""] * len(values)
    else:
        np.testing.assert_array_equal(column, [np.nan if v is None else float(v) for v in values])
        assert (column.dtype == np.int64) == all(isinstance(value, int) for value in values)


# ALF: real sessions


def test_two_fibres_and_their_control(read_mirror):
    import pandas

    recording, root = read_mirror("ibl:cortexlab@public", "CQ002_2024-11-05_001")
    light, control, trials = (
        samples(recording, "photometry"),
        samples(recording, "photometry_isosbestic"),
        intervals(recording),
    )
    path = next(f.path for f in recording.provenance.files if f.path.endswith("photometry.signal.pqt"))
    frame = pandas.read_parquet(root / path)
    for stream, name in ((light, "GCaMP"), (control, "Isosbestic")):
        rows = frame[frame.name == name]
        np.testing.assert_array_equal(stream.values, np.asarray(rows[["G0", "G4"]]))
        np.testing.assert_array_equal(stream.times(), np.asarray(rows["times"]))
        inside = (stream.times() >= stream.valid[0, 0]) & (stream.times() < stream.valid[0, 1])
        np.testing.assert_array_equal(inside, np.asarray(rows["valid"]))
        assert stream.channels.ids == ("G0", "G4") and stream.channels.regions == ("SI", "PPT")
    assert light.modality == "photometry" and control.modality == "photometry_isosbestic"
    assert len(trials.start_s) == 328 and trials.start_s[0] == 26.6084 and "feedbackType" in trials.columns
    assert int(np.isnan(trials.columns["contrastLeft"]).sum()) == 168


def test_older_photometry_and_a_session_without_any(read_mirror):
    recording, _ = read_mirror("ibl:unknownlab@public", "unknown_77a6741c_2000-01-01_001")
    assert len(intervals(recording).start_s) == 881
    light, control = samples(recording, "photometry"), samples(recording, "photometry_isosbestic")
    assert np.shape(light.values) == np.shape(control.values) == (152_036, 1) and light.channels.ids == ("Region3G",)
    assert np.corrcoef(np.asarray(light.values)[5000:, 0], np.asarray(control.values)[5000:, 0])[0, 1] > 0.9
    bare, _ = read_mirror("ibl:wittenlab@public", "fip_40_2023-05-18_001")
    assert set(bare.streams) == {"trials"} and len(intervals(bare).start_s) == 568
    assert said(bare, "3 fibres (Region0G in DLS, Region1G in DMS, Region2G in NAcc) and holds no photometry signal")


def test_the_wheel_counts_centimetres(read_mirror):
    recording, root = read_mirror("ibl:unknownlab@public", "unknown_wheel_2000-01-01_001")
    wheel = samples(recording, "wheel")
    path = next(f.path for f in recording.provenance.files if f.path.endswith("wheel.position.npy"))
    np.testing.assert_array_equal(wheel.values, np.load(root / path))
    assert len(wheel.values) == 18_021 and wheel.unit == "cm" and said(recording, "cm of rim")
    assert len(wheel.valid) == 1 and len(intervals(recording, "wheel_moves").start_s) == 64


# ALF: files made here


@pytest.mark.parametrize("counts", [1024, 2048, 4096])
@pytest.mark.parametrize(("unit", "radius"), [("rad", 1.0), ("cm", 3.1)])
def test_the_wheel_s_unit_is_told_by_its_step(counts, unit, radius):
    moves = np.random.default_rng(0).choice([-2, -1, 1, 2], 500)
    notes: list[str] = []
    assert wheel_unit(np.cumsum(moves) * 2 * np.pi * radius / counts, notes) == unit and str(counts) in notes[0]


def test_a_wheel_that_fits_no_encoder_is_said_so():
    notes: list[str] = []
    assert wheel_unit(np.arange(50) * 0.5, notes) == "rad" and "no encoder" in notes[0]


UUID = "0a1b2c3d-1111-2222-3333-0123456789ab"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s/alf/_ibl_trials.table.pqt", ("", "trials", "table", "", "pqt", "")),
        (f"s/alf/probe00/spikes.times.{UUID}.npy", ("probe00", "spikes", "times", "", "npy", "")),
        (
            "s/alf/probe00/ks2/#2022-03-01#/spikes.times.npy",
            ("probe00/ks2", "spikes", "times", "", "npy", "2022-03-01"),
        ),
        ("s/alf/trials.intervals_bpod.npy", ("", "trials", "intervals", "bpod", "npy", "")),
        (f"s/alf/_ibl_wheel.times.camera.{UUID}.npy", ("", "wheel", "times", "camera", "npy", "")),
        ("s/alf/clusters.brainLocationIds_ccf_2017.npy", ("", "clusters", "brainLocationIds_ccf_2017", "", "npy", "")),
        ("s/raw_video_data/_iblrig_leftCamera.raw.mp4", None),
        ("s/alf/README.txt", None),
        ("other/alf/_ibl_trials.table.pqt", None),
    ],
)
def test_names_of_alf(path, expected):
    one = parse(path, "s")
    got = None if one is None else (one.collection, one.object, one.name, one.timescale, one.extension, one.revision)
    assert got == expected


def test_a_session_of_arrays(tmp_path, read_files):
    import pandas

    names = list(lay(tmp_path, {
        f"alf/_ibl_trials.intervals.{UUID}.npy": np.array([[5.0, 6.0], [1.0, 2.0], [np.nan, 9.0], [7.0, np.nan]]),
        "alf/_ibl_trials.choice.npy": np.array([1, -1, 0, 1]),
        "alf/_ibl_trials.intervals_bpod.npy": np.zeros((4, 2)),
        "alf/_ibl_wheel.position.npy": np.arange(5) * 2 * np.pi / 1024,
        "alf/_ibl_wheel.timestamps.npy": np.array([[0.0, 10.0], [4.0, 12.0]]),
        "alf/licks.times.npy": np.array([3.0, 1.0]),
        "alf/probe00/spikes.times.npy": np.array([0.1, 0.2, 0.3]),
        "alf/probe00/#2023-01-01#/spikes.times.npy": np.array([1.1, 1.3, 1.2]),
        "alf/probe00/spikes.clusters.npy": np.array([2, 0, 2]),
        "alf/probe00/clusters.channels.npy": np.array([1, 0, 1, 0]),
        "alf/probe00/channels.brainLocationIds_ccf_2017.npy": np.array([385, 997]),
        "alf/probe00/channels.mlapdv.npy": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "alf/_ibl_leftCamera.times.npy": np.arange(4) / 60,
        "alf/leftCamera.ROIMotionEnergy.npy": np.arange(5.0),
        "alf/_ibl_rightCamera.times.npy": np.arange(3) / 60,
    }))  # fmt: skip
    pose = pandas.DataFrame({"paw_x": [1.0, 2, 3, 4], "paw_y": [5.0, 6, 7, 8], "paw_likelihood": [0.9, 0.1, 1, 1]})
    pose.to_parquet(tmp_path / "alf/_ibl_leftCamera.dlc.pqt")
    recording = read_files("alf", tmp_path, *names, "alf/_ibl_leftCamera.dlc.pqt", session_dir=".")
    trials, wheel, spikes = intervals(recording), samples(recording, "wheel"), recording.streams["spikes"]
    assert trials.start_s.tolist() == [1.0, 5.0, 7.0] and trials.stop_s.tolist() == [2.0, 6.0, 7.0]
    assert trials.columns["choice"].tolist() == [-1, 1, 1]
    assert said(recording, "on the clock 'bpod'") and said(recording, "1 have no end")
    assert wheel.times().tolist() == [10.0, 10.5, 11.0, 11.5, 12.0] and wheel.unit == "rad"
    assert isinstance(spikes, Events) and spikes.times_s.tolist() == [1.1, 1.2, 1.3]
    assert spikes.codes.tolist() == [2, 2, 0] and said(recording, "revision 2023-01-01 taken")
    assert spikes.channels.regions == ("ccf2017:997", "ccf2017:385") * 2 and len(spikes.channels) == 4
    assert spikes.channels.positions_um is not None and spikes.channels.positions_um[0].tolist() == [4.0, 5.0, 6.0]
    licks, frames = recording.streams["licks"], recording.streams["frames_right"]
    assert isinstance(licks, Events) and licks.times_s.tolist() == [1.0, 3.0]
    assert isinstance(frames, Events) and len(frames.times_s) == 3
    assert samples(recording, "pose_left").channels.ids == ("paw_x", "paw_y")
    np.testing.assert_allclose(samples(recording, "pose_left_likelihood").values[:, 0], [0.9, 0.1, 1, 1], rtol=1e-6)
    assert len(samples(recording, "motion_energy_left").values) == 4 and said(recording, "5 rows, 4 frame times")
    groups.pack_recording(recording)


def test_two_probes_are_two_streams(tmp_path, read_files):
    names = lay(tmp_path, {
        f"alf/probe0{probe}/spikes.{name}.npy": np.array([0, 1]) for probe in (0, 1) for name in ("times", "clusters")
    })  # fmt: skip
    assert set(read_files("alf", tmp_path, *names, session_dir=".").streams) == {"spikes_probe00", "spikes_probe01"}


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"alf/spikes.times.npy": np.zeros(3), "alf/spikes.clusters.npy": np.zeros(2)}, "3 times"),
        ({"alf/spikes.times.npy": b"\x93NUMPY no", "alf/spikes.clusters.npy": np.zeros(2)}, "a npy file"),
        ({"alf/trials.choice.npy": np.zeros(3), "alf/trials.intervals.npy": np.zeros((2, 2))}, "one row a trial"),
        ({"alf/trials.choice.npy": np.zeros(3)}, "one of intervals_0"),
        ({"alf/wheel.position.npy": np.zeros(3)}, "times or timestamps"),
        ({"alf/wheel.position.npy": np.zeros(3), "alf/wheel.timestamps.npy": np.zeros(4)}, "one time a sample"),
        ({"alf/trials.table.pqt": b"PAR1"}, "a pqt file"),
        ({"alf/spikes.times.npy": np.zeros(3)}, "at least one stream"),
    ],
)
def test_sessions_that_contradict_themselves(tmp_path, read_files, files, match):
    with pytest.raises(MalformedFile, match=match):
        read_files("alf", tmp_path, *lay(tmp_path, files), session_dir=".")
