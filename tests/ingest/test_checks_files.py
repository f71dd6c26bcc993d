"""Files that are not what their names say are named before anything reads them; real recordings, bad and good."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from neurofmx.ingest import checks
from neurofmx.ingest.archives import folder
from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.judged import blocking, read_and_judge
from neurofmx.ingest.local import judge_local
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.web import local_path
from neurofmx.types import Check, Licence, RawFile, RecordingId

# of S001R03.edf, as its archive publishes it
UPSTREAM = "3427c8d01bff1380bc9ab9f27a35ece2af5dfadf3e291bbc05eb66e4dadbfe2e"


def failed(found: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in found if not check.passed}


def session(path: Path, reader: str = "nwb", **digests: str) -> Session:
    file = RemoteFile(path=path.name, url=path.as_uri(), digests=digests)
    name = RecordingId("test", "files", "1", "one")
    return Session(id=name, files=(file,), reader=reader, licence=Licence(spdx="MIT"))


FIELDS = (
    ("Cz", 16), ("", 80), ("uV", 8), (-100, 8), (100, 8), (-32768, 8), (32767, 8), ("", 80), (64, 8), ("", 32),
)  # fmt: skip


def edf(n_records: int = 1000) -> bytes:
    """One signal of 64 samples a record of a second."""
    head = b"0       " + b"X X X X".ljust(80) + b"Startdate X X X X".ljust(80) + b"01.01.8500.00.00" + b"512".ljust(8)
    head += b"".ljust(44) + str(n_records).encode().ljust(8) + b"1".ljust(8) + b"1".ljust(4)
    head += b"".join(str(text).encode().ljust(width) for text, width in FIELDS)
    return head + np.random.default_rng(0).integers(-9000, 9000, n_records * 64).astype("<i2").tobytes()


def page(title: str) -> bytes:
    return f"<!DOCTYPE html><html><head><title>{title}</title></head></html>".encode()


BYTES = [
    ("a.nwb", b"", "files_present", "0 bytes"),
    ("a.nwb", page("404 Not Found"), "file_kind", "404 Not Found"),
    ("a.edf", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "file_kind", "AccessDenied"),
    ("a.nwb", b"PK\x03\x04" + bytes(600), "file_kind", "not an HDF5 file"),
    ("a.edf", b"RIFF" + bytes(600), "file_kind", "not an EDF file"),
    ("a.bdf", b"0       " + bytes(600), "file_kind", "not a BDF file"),
    ("a.wav", b"RIFX" + bytes(60), "file_kind", "not a WAV file"),
    ("a.nii", bytes(400), "file_kind", "not a NIfTI file"),
    ("a.nii.gz", b"\x1f\x8b" + bytes(60), "file_kind", "not a gzipped NIfTI file"),
    ("a.tsv.gz", b"plain", "file_kind", "not a gzip file"),
    ("a.vhdr", b"[Common Infos]", "file_kind", "not a BrainVision header"),
    ("a.npy", b"\x93NUMBER", "file_kind", "not a NumPy array"),
    ("a.json", b"sub-01\tn/a", "file_kind", "not a JSON file"),
    ("a.pqt", b"PAR1" + bytes(99), "file_size", "expected PAR1"),
    ("a.wav", b"RIFF" + struct.pack("<I", 900) + b"WAVE" + bytes(99), "file_size", "states 908"),
    ("a.edf", edf()[:-50], "file_size", "128512"),
    ("a.edf", edf() + b"\0", "file_size", "128512"),
    ("a.edf", edf().replace(b"\n", b"\r\n"), "text_transfer", "replacing CRLF by LF gives just that"),
    ("a.edf", edf().replace(b"\n", b"\r\n")[: len(edf())], "text_transfer", "cannot be repaired"),
    ("a.npy", b"\x93NUMPY" + b"\r\n" * 9, "text_transfer", "9 line feeds"),
]


@pytest.mark.parametrize(("name", "content", "check", "words"), BYTES)
def test_wrong_bytes_are_named(tmp_path, name, content, check, words):
    path = tmp_path / name
    path.write_bytes(content)
    found = failed(checks.judge_files(tmp_path, session(path)))
    assert set(found) == {check} and words in found[check].evidence and name in found[check].evidence


def test_a_missing_file_is_named(tmp_path):
    found = failed(checks.judge_files(tmp_path, session(tmp_path / "gone.nwb")))
    assert set(found) == {"files_present"} and "gone.nwb is missing" in found["files_present"].evidence


def test_sound_bytes_pass(tmp_path):
    (tmp_path / "a.edf").write_bytes(edf())
    found = checks.judge_files(tmp_path, session(tmp_path / "a.edf", "edf"))
    assert failed(found) == {} and "a.edf" in found[-1].evidence


def test_text_transfer_says_whether_the_published_bytes_come_back(mirror):
    path = mirror / "bad" / "S001R03_crlf.edf"
    known = checks.judge_files(path.parent, session(path, "edf", sha256=UPSTREAM))
    assert f"restores the published sha256 {UPSTREAM}" in failed(known)["text_transfer"].evidence
    other = checks.judge_files(path.parent, session(path, "edf", sha256="0" * 64))
    assert "not repairable" in failed(other)["text_transfer"].evidence


def hdf5(path: Path, **fields: str) -> Session:
    with h5py.File(path, "w") as handle:
        handle.attrs.update({"nwb_version": "2.11.0", "neurodata_type": "NWBFile", "namespace": "core"})
        for name, value in fields.items():
            handle[name] = [value] if name == "file_create_date" else value
    return session(path)


def test_an_hdf5_file_with_a_user_block_is_one(tmp_path):
    with h5py.File(tmp_path / "a.snirf", "w", userblock_size=1024) as handle:
        handle["formatVersion"] = "1.0"
    assert failed(checks.judge_files(tmp_path, session(tmp_path / "a.snirf", "bids"))) == {}


def test_what_the_schema_forbids_is_listed_in_part(tmp_path):
    evidence = failed(checks.judge_files(tmp_path, hdf5(tmp_path / "a.nwb")))["nwb_schema"].evidence
    assert "errors against the NWB schema" in evidence and evidence.endswith("more")


def test_a_session_cannot_start_after_its_file_was_made(tmp_path):
    for made, passed in (("2030-01-01T00:00Z", False), ("2032-01-01T00:00Z", True), ("2030-01-01", True)):
        one = hdf5(tmp_path / "a.nwb", session_start_time="2031-05-01T00:00Z", file_create_date=made)
        found = {check.name: check for check in checks.judge_files(tmp_path, one)}["nwb_dates"]
        assert found.passed == passed and made in found.evidence


BAD = [
    ("S001R01_crlf.edf", "text_transfer", ("5,525", "cannot be repaired")),
    ("S001R03_crlf.edf", "text_transfer", ("2,607,197", "2,596,896", "10,301", UPSTREAM)),
    ("truncated.nwb", "file_size", ("truncated HDF5", "261,227", "262,227", "1,000")),
    ("hdf5_not_nwb.nwb", "nwb_version", ("no NWB file", "nwb_version")),
    ("html_error_page.nwb", "file_kind", ("HTML", "403 Forbidden", "fetch failed")),
    ("nan_spike_times.nwb", "spikes.times_finite", ("26 of 3,226", "0: 11", "5: 3")),
    ("unsorted_spike_times.nwb", "spikes.times_ascending", ("2 of 6 units: 0, 3",)),
    ("unit_millivolts.nwb", "emg.unit", ("millivolts, not volts",)),
    ("unit_millivolts.nwb", "emg.amplitude", ("mV", "1,000 times too large", "unit and its numbers disagree")),
    ("physical_range_wrong_unit.edf", "eeg.amplitude", ("39.3 V", "1,000,000 times too large")),
    ("phi_header.edf", "identifiers", ("name", "record number", "birth date")),
    ("phi_description_age95.nwb", "identifiers", ("name", "record number", "session_description")),
    ("phi_description_age95.nwb", "subject_age", ("human age over 89",)),
    ("bids_no_license", "licence", ("missing is not open",)),
]


@pytest.mark.parametrize(("name", "check", "words"), BAD)
def test_a_damaged_input_is_refused_with_its_reason_and_for_nothing_else(mirror, name, check, words):
    ((_, found),) = judge_local(mirror / "bad" / name)
    evidence = failed(found)[check].evidence
    assert [word for word in words if word not in evidence] == [], evidence
    refused = {one.name for one in blocking(found)}
    assert refused and refused <= {other for file, other, _ in BAD if file == name}


GOOD = (
    "dandi:900001@draft", "dandi:900002@draft", "dandi:900003@draft", "dandi:900004@draft", "dandi:900005@draft",
    "dandi:900006@draft", "dandi:900007@draft", "dandi:900008@draft", "physionet:eegmmidb@1.0.0",
    "physionet:wfdb-sample@1.0.0", "openneuro:ds900101@1.0.0", "openneuro:ds900102@1.0.0", "openneuro:ds900103@1.0.0",
    "openneuro:ds900104@1.0.0", "openneuro:ds900106@1.0.0", "ibl:cortexlab@public", "ibl:unknownlab@public",
    "ibl:wittenlab@public", "other:audio-pykanto@1",
)  # fmt: skip
FOLDERS = {"dandi": "dandi", "physionet": "physionet/files", "openneuro": "openneuro", "ibl": "ibl", "other": "other"}


def listed(mirror: Path, text: str) -> list[Session]:
    source = Source.parse(text)
    return list(list_sessions(replace(source, address=str(mirror / FOLDERS[source.archive]))))


def at(one: Session) -> tuple[Path, Session, tuple[RawFile, ...]]:
    first = local_path(one.files[0].url)
    root = first.parents[len(Path(one.files[0].path).parts) - 1]
    files = tuple(RawFile(path=f.path, url=f.url, sha256="", size=local_path(f.url).stat().st_size) for f in one.files)
    return root, one, files


@pytest.mark.parametrize("text", GOOD)
def test_a_good_recording_is_not_refused(mirror, text):
    recording, found = read_and_judge(*at(listed(mirror, text)[0]))
    assert recording is not None and blocking(found) == ()


def test_volts_at_an_amplifiers_output_are_warned_of_and_let_in(mirror):
    found = failed(read_and_judge(*at(listed(mirror, "dandi:900003@draft")[1]))[1])
    assert set(found) == {"emg.amplitude"} and "amplifier's output" in found["emg.amplitude"].evidence


def test_a_clipped_electrode_is_warned_of(mirror):
    runs = {one.id.name: one for one in listed(mirror, "openneuro:ds900102@1.0.0")}
    found = failed(read_and_judge(*at(runs["sub-02_ses-01_task-P300_run-01_eeg"]))[1])
    assert "at 999.51 uV" in found["eeg.saturated"].evidence


@pytest.mark.slow
@pytest.mark.parametrize("text", GOOD)
def test_no_good_recording_of_the_mirror_is_refused(mirror, text):
    refused = {str(one.id): blocking(read_and_judge(*at(one))[1]) for one in listed(mirror, text)}
    assert refused and {name: found for name, found in refused.items() if found} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "below", ["dandi/900001", "physionet/files/eegmmidb", "physionet/files/wfdb-sample", "openneuro/ds900106", "other"]
)
def test_good_files_of_ones_own_are_not_refused(mirror, below):
    """Without what an archive knows of them: no subject, no species, no terms."""
    source = Source(archive="folder", dataset="own", version=folder.VERSION, address=str(mirror / below))
    for one in list_sessions(source):
        if one.reader != "bids" or one.licence:
            assert blocking(read_and_judge(*at(one))[1]) == (), one.id
