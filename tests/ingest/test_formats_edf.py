"""EDF, EDF+ and BDF files against MNE, the files beside them, and files whose content is known."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import biosignals
from neurofmx.types import Intervals, Recording, Samples

EEGMMIDB = "physionet:eegmmidb@1.0.0"


def samples(recording: Recording, name: str) -> Samples:
    stream = recording.streams[name]
    assert isinstance(stream, Samples)
    return stream


def intervals(recording: Recording, name: str) -> Intervals:
    stream = recording.streams[name]
    assert isinstance(stream, Intervals)
    return stream


@dataclass
class Channel:
    label: str
    digital: np.ndarray  # (records, samples a record)
    unit: str = "uV"
    physical: tuple[float, float] = (-3276.8, 3276.7)
    digital_range: tuple[int, int] = (-32768, 32767)

    @property
    def values(self) -> np.ndarray:
        (low, high), (first, last) = self.physical, self.digital_range
        return ((self.digital - first) * ((high - low) / (last - first)) + low).ravel()


def write_edf(
    path: Path, channels: list[Channel], *, kind: str = "", tals: list[str] | None = None, stated: int | None = None,
    record_s: float = 1.0, width: int = 2,
) -> None:  # fmt: skip
    blobs = [
        [row.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width].tobytes() for row in c.digital] for c in channels
    ]
    rows = [(c.label, c.unit, *c.physical, *c.digital_range, c.digital.shape[1]) for c in channels]
    if tals is not None:
        length = -(-max(len(t) for t in tals) // width) * width
        blobs.append([t.encode("latin-1").ljust(length, b"\0") for t in tals])
        rows.append(("EDF Annotations", "", -1.0, 1.0, -32768, 32767, length // width))
    records = len(blobs[0])
    widths = [("label", 16), ("", 80), ("unit", 8), *[("", 8)] * 4, ("", 80), ("n", 8), ("", 32)]
    none = [""] * len(rows)
    label, unit, *ranges, n = zip(*rows)
    columns = [label, none, unit, *ranges, none, n, none]
    head = b"0       " if width == 2 else b"\xffBIOSEMI"
    head += b"X F X X".ljust(80) + b"Startdate X X X X".ljust(80) + b"01.01.8500.00.00"
    for value, size in ((256 * (1 + len(rows)), 8), (kind, 44), (records if stated is None else stated, 8),
                        (f"{record_s:g}", 8), (len(rows), 4)):  # fmt: skip
        head += str(value).encode().ljust(size)
    for (_, size), column in zip(widths, columns):
        head += b"".join(str(value).encode("latin-1").ljust(size)[:size] for value in column)
    path.write_bytes(head + b"".join(blob[r] for r in range(records) for blob in blobs))


def digital(seed: int, records: int, n: int, limit: int = 32767) -> np.ndarray:
    return np.random.default_rng(seed).integers(-limit, limit, (records, n))


def test_eegmmidb_is_what_mne_reads(read_mirror):
    import mne

    recording, root = read_mirror(EEGMMIDB, "S001-S001R03")
    raw = mne.io.read_raw_edf(root / recording.provenance.files[0].path, preload=True, verbose="ERROR")
    mne.datasets.eegbci.standardize(raw)
    eeg, trials = samples(recording, "eeg"), intervals(recording, "trials")
    assert eeg.channels.ids == tuple(raw.ch_names)
    assert eeg.unit == "uV" and eeg.values.dtype == np.float32 and eeg.rate_hz == 160.0
    np.testing.assert_allclose(eeg.values, np.asarray(raw.get_data()).T * 1e6, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(trials.start_s, raw.annotations.onset)
    np.testing.assert_array_equal(
        trials.stop_s - trials.start_s, raw.annotations.duration + trials.start_s - trials.start_s
    )
    assert trials.columns["label"].tolist() == list(raw.annotations.description)
    labels, counts = np.unique(trials.columns["label"], return_counts=True)
    assert dict(zip(labels.tolist(), counts.tolist())) == {"T0": 15, "T1": 8, "T2": 7}
    assert eeg.valid.tolist() == [[0.0, 125.0]] and recording.domain_s == (0.0, 125.0)
    assert recording.subject.species == "Homo sapiens"


def test_eegmmidb_annotations_are_those_of_the_event_files(read_mirror):
    import wfdb

    compared = 0
    for run in range(1, 15):
        recording, root = read_mirror(EEGMMIDB, f"S001-S001R{run:02d}")
        trials = intervals(recording, "trials")
        assert trials.start_s[0] == 0.0 and trials.columns["label"][0] == "T0"  # which the package skips
        beside = wfdb.rdann(str(root / recording.provenance.files[0].path), "event")
        assert beside.sample is not None and beside.aux_note is not None
        np.testing.assert_allclose(trials.start_s[1:], beside.sample / 160.0, atol=1e-9)
        said = [note.strip("\0").split(" duration: ") for note in beside.aux_note]
        assert trials.columns["label"].tolist()[1:] == [label for label, _ in said]
        lasts = (trials.stop_s - trials.start_s)[1:]
        np.testing.assert_allclose(lasts, [float(seconds) for _, seconds in said], atol=1e-9)
        compared += len(said)
    assert compared == 12 * 29


def test_electrodes_lie_where_the_montage_has_them(read_mirror):
    channels = samples(read_mirror(EEGMMIDB, "S001-S001R01")[0], "eeg").channels
    assert channels.positions_um is not None and np.isfinite(channels.positions_um).all()
    where = dict(zip(channels.ids, channels.positions_um / 1000.0))  # mm
    assert where["C3"][0] < -40 < 40 < where["C4"][0]  # x to the right
    assert where["Oz"][1] < -80 < 50 < where["Fpz"][1]  # y to the front
    assert where["Cz"][2] == max(place[2] for place in where.values())  # z up


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("Fc5.", "eeg"), ("EEG Fpz-Cz", "eeg"), ("Fp1-LE", "eeg"), ("EOG horizontal", "eog"), ("EMG submental", "emg"),
        ("ECG", "ecg"), ("EKG1", "ecg"), ("MLII", "ecg"), ("aVF", "ecg"), ("v6", "ecg"), ("vx", "ecg"), ("V", "ecg"),
        ("PLETH", "pleth"), ("ABP", "abp"), ("Resp oro-nasal", "resp"), ("Temp rectal", "temperature"),
        ("Status", "status"), ("Event marker", "status"), ("POL DC10", "aux"), ("", "aux"),
    ],
)  # fmt: skip
def test_labels(label, kind):
    assert biosignals.kind_of(label) == kind


def test_names_of_electrodes():
    ids, positions = biosignals.scalp(["Fp1.", "EEG CZ-LE", "EEG Fpz-Cz", "FP1"])
    assert ids == ("Fp1", "Cz", "Fpz-Cz", "Fp1#2")
    assert positions is not None and np.isfinite(positions).all(axis=1).tolist() == [True, True, False, True]
    assert biosignals.scalp(["X9"])[1] is None


@pytest.mark.parametrize(("name", "seen", "said"), [
    ("S001R01_crlf.edf", 1275936, "5525 CR bytes out would leave 1270411 bytes"),
    ("S001R03_crlf.edf", 2607197, "10301 CR bytes out would give the implied size"),
])  # fmt: skip
def test_transfer_in_text_mode(mirror, name, seen, said, read_files):
    with pytest.raises(MalformedFile) as caught:
        read_files("edf", mirror / "bad", name)
    text = str(caught.value)
    assert "a transfer in text mode made CRLF of LF" in text and f"{seen} bytes" in text and said in text


def test_no_bytes_are_repaired(mirror):
    """What the message says of the sound file is true: its bytes come back, and only a person does that."""
    raw = (mirror / "bad/S001R03_crlf.edf").read_bytes().replace(b"\r\n", b"\n")
    good = mirror / "physionet/files/eegmmidb/1.0.0/S001/S001R03.edf"
    assert hashlib.sha256(raw).hexdigest() == hashlib.sha256(good.read_bytes()).hexdigest()


def test_size_against_header(mirror, tmp_path, read_files):
    good = (mirror / "physionet/files/eegmmidb/1.0.0/S001/S001R01.edf").read_bytes()
    for change in (good[:-1000], good + b"\0\0"):
        (tmp_path / "x.edf").write_bytes(change)
        with pytest.raises(MalformedFile, match=f"got {len(change)} bytes; expected {len(good)} bytes") as caught:
            read_files("edf", tmp_path, "x.edf")
        assert "text mode" not in str(caught.value)


def test_a_page_is_no_edf(mirror, tmp_path, read_files):
    shutil.copy(mirror / "bad/html_error_page.nwb", tmp_path / "page.edf")
    with pytest.raises(MalformedFile, match="DOCTYP"):
        read_files("edf", tmp_path, "page.edf")


def test_own_rates_and_units(tmp_path, read_files):
    channels = [
        Channel("EEG Cz", digital(0, 5, 100)),
        Channel("EEG Pz", digital(1, 5, 100), unit="mV", physical=(-4.0, 4.0)),
        Channel("EEG Oz", digital(2, 5, 100), unit="V", physical=(0.002, -0.002)),
        Channel("EEG T7", digital(3, 5, 50), unit="\u00b5V"),
        Channel("ECG", digital(4, 5, 200), unit="mV", physical=(-5.0, 5.0)),
        Channel("Resp nasal", digital(5, 5, 10), unit=""),
        Channel("SpO2", digital(6, 5, 1, 1000), unit="%", physical=(0.0, 100.0), digital_range=(-2048, 2047)),
        Channel("dead", digital(7, 5, 10), physical=(0.0, 0.0)),
        Channel("Zaphod", digital(8, 5, 10)),
    ]
    write_edf(tmp_path / "x.edf", channels, record_s=2.0)
    recording = read_files("edf", tmp_path, "x.edf")
    facts = {
        name: (s.values.shape, s.rate_hz, s.unit) for name, s in recording.streams.items() if isinstance(s, Samples)
    }
    assert facts == {
        "eeg_50hz": ((500, 3), 50.0, "uV"),
        "eeg_25hz": ((250, 1), 25.0, "uV"),
        "ecg": ((1000, 1), 100.0, "mV"),
        "resp": ((50, 1), 5.0, "a.u."),
        "spo2": ((5, 1), 0.5, "%"),
        "aux": ((50, 1), 5.0, "uV"),
    }
    in_uv = np.stack([channels[0].values, channels[1].values * 1e3, channels[2].values * 1e6], axis=1)
    np.testing.assert_allclose(samples(recording, "eeg_50hz").values, in_uv, rtol=1e-6)
    np.testing.assert_allclose(samples(recording, "ecg").values[:, 0], channels[4].values, rtol=1e-6)
    notes = " | ".join(recording.provenance.notes)
    assert "dead: left out" in notes and "resp: the file states no unit" in notes and "Zaphod" in notes
    assert recording.domain_s == (0.0, 10.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_samples_come_back(tmp_path, data, read_files):
    width = data.draw(st.sampled_from([2, 3]))
    limit = 2 ** (8 * width - 1)
    records, per_record = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    numbers = st.lists(st.integers(-limit, limit - 1), min_size=records * per_record, max_size=records * per_record)
    values = np.array(data.draw(numbers)).reshape(records, per_record)
    low, high = data.draw(st.tuples(st.integers(-5000, -1), st.integers(1, 5000)))
    channel = Channel("EEG Cz", values, physical=(low, high), digital_range=(-limit, limit - 1))
    name = "x.edf" if width == 2 else "x.bdf"
    write_edf(tmp_path / name, [channel], width=width)
    eeg = samples(read_files("edf", tmp_path, name), "eeg")
    np.testing.assert_allclose(eeg.values[:, 0], channel.values, rtol=2e-7, atol=1e-4)
    assert eeg.rate_hz == per_record


def test_bdf_is_what_mne_reads(tmp_path, read_files):
    import mne

    wide = {"physical": (-262144.0, 262143.0), "digital_range": (-(2**23), 2**23 - 1)}
    channels = [Channel(name, digital(i, 4, 64, 2**23 - 1), **wide) for i, name in enumerate(("Cz", "Pz"))]
    write_edf(tmp_path / "x.bdf", channels, width=3)
    eeg = samples(read_files("edf", tmp_path, "x.bdf"), "eeg")
    raw = mne.io.read_raw_bdf(tmp_path / "x.bdf", preload=True, verbose="ERROR")
    np.testing.assert_allclose(eeg.values, np.asarray(raw.get_data()).T * 1e6, rtol=1e-6)


def tal(onset: str, *marks: tuple[str, str, str]) -> str:
    return f"{onset}\x14\x14\0" + "".join(f"{at}\x15{lasts}\x14{text}\x14\0" for at, lasts, text in marks)


def test_gaps_between_records_are_stated(tmp_path, read_files):
    channel = Channel("EEG Cz", digital(0, 4, 10))
    tals = [tal("+0.25", ("+0.5", "0.5", "T1")), tal("+1.25"), tal("+10.25", ("+10.5", "1", "T2")), tal("+11.25")]
    write_edf(tmp_path / "x.edf", [channel], kind="EDF+D", tals=tals)
    recording = read_files("edf", tmp_path, "x.edf")
    eeg, trials = samples(recording, "eeg"), intervals(recording, "trials")
    assert eeg.valid.tolist() == trials.valid.tolist() == [[0.25, 2.25], [10.25, 12.25]]
    assert eeg.times_s is not None and eeg.rate_hz is None
    expected = np.concatenate([0.25 + np.arange(20) / 10, 10.25 + np.arange(20) / 10])
    np.testing.assert_allclose(eeg.times_s, expected, atol=1e-12)
    np.testing.assert_allclose(eeg.values[:, 0], channel.values, rtol=1e-6)
    assert trials.start_s.tolist() == [0.5, 10.5] and trials.stop_s.tolist() == [1.0, 11.5]
    assert trials.columns["label"].tolist() == ["T1", "T2"]
    assert any("1 gaps between records, 8 s in all" in note for note in recording.provenance.notes)
    assert recording.subject.sex == "F"


def test_records_in_a_row_have_a_rate(tmp_path, read_files):
    tals = [tal(f"+{1.5 + r:g}") for r in range(4)]
    write_edf(tmp_path / "x.edf", [Channel("EEG Cz", digital(0, 4, 10))], kind="EDF+D", tals=tals)
    eeg = samples(read_files("edf", tmp_path, "x.edf"), "eeg")
    assert eeg.rate_hz == 10.0 and eeg.t0_s == 1.5 and eeg.valid.tolist() == [[1.5, 5.5]]


def test_a_continuous_file_with_gaps_says_so(tmp_path, read_files):
    tals = [tal("+0"), tal("+1"), tal("+7")]
    write_edf(tmp_path / "x.edf", [Channel("EEG Cz", digital(0, 3, 10))], kind="EDF+C", tals=tals)
    recording = read_files("edf", tmp_path, "x.edf")
    assert recording.streams["eeg"].valid.tolist() == [[0.0, 2.0], [7.0, 8.0]]
    assert any(note.startswith("EDF+C means that there are none") for note in recording.provenance.notes)


@pytest.mark.parametrize(("tals", "said"), [
    (["+0\x14\x14\0", "+0.5\x14\x14\0"], "inside the record before it"),
    (["+0\x14\x14\0", "no list here"], "annotations of x.edf"),
    (["+0\x14\x14\0", ""], "annotations of x.edf"),
])  # fmt: skip
def test_wrong_annotations(tmp_path, tals, said, read_files):
    write_edf(tmp_path / "x.edf", [Channel("EEG Cz", digital(0, 2, 10))], kind="EDF+D", tals=tals)
    with pytest.raises(MalformedFile, match=said):
        read_files("edf", tmp_path, "x.edf")


def test_annotations_alone(tmp_path, read_files):
    tals = [tal("+0", ("+3", "2", "N2")), tal("+0", ("+9", "0", "W"))]
    write_edf(tmp_path / "x.edf", [], kind="EDF+C", tals=tals, record_s=0.0)
    recording = read_files("edf", tmp_path, "x.edf")
    assert set(recording.streams) == {"trials"}
    assert intervals(recording, "trials").columns["label"].tolist() == ["N2", "W"]


def test_number_of_records_left_open(tmp_path, read_files):
    channel = Channel("EEG Cz", digital(0, 3, 10))
    write_edf(tmp_path / "x.edf", [channel], stated=-1)
    recording = read_files("edf", tmp_path, "x.edf")
    assert samples(recording, "eeg").values.shape == (30, 1)
    assert any("the size of the file gives 3" in note for note in recording.provenance.notes)


@pytest.mark.parametrize(("at", "text", "said"), [
    (236, b"three   ", "number of records"), (184, b"999     ", "999 bytes for 1 signals"), (252, b"0   ", "0 signals"),
    (244, b"0       ", "records of 0 s"), (244, b"nan     ", "a finite number"), (236, b"0       ", "bytes"),
])  # fmt: skip
def test_wrong_header(tmp_path, at, text, said, read_files):
    path = tmp_path / "x.edf"
    write_edf(path, [Channel("EEG Cz", digital(0, 3, 10))])
    raw = bytearray(path.read_bytes())
    raw[at : at + len(text)] = text
    path.write_bytes(raw)
    with pytest.raises(MalformedFile, match=said):
        read_files("edf", tmp_path, "x.edf")
