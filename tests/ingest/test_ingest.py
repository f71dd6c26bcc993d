"""From a session to the catalog: published once, refused with reasons, whole after a kill."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from neurofmx import catalog
from neurofmx.errors import ConfigError, NoSpace, NotThere, Refused
from neurofmx.ingest import ingest as step
from neurofmx.ingest import sources
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.simulate import SimSpec
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json
from neurofmx.types import Licence, RecordingId

OPEN = Licence(spdx="CC0-1.0", text="test", source="test")


def url(content: bytes) -> str:
    return "data:application/json;base64," + base64.b64encode(content).decode()


def simulated(name: str = "one", seed: int = 1, content: bytes | None = None, **changes) -> Session:
    """A short simulated session whose raw file is its spec."""
    if content is None:
        content = canonical_json(SimSpec(seed=seed, duration_s=20.0, n_units=8)).encode()
    session = Session(
        id=RecordingId("simulated", "tiny", "1", name),
        files=(RemoteFile(path=f"{name}.json", url=url(content), size=len(content)),),
        reader="simulated",
        licence=OPEN,
    )
    return replace(session, **changes)


def failed(report: step.IngestReport) -> dict[str, str]:
    return {c.name: c.evidence for c in report.checks if not c.passed}


def state(lake: Lake) -> dict[str, str]:
    """Recording -> digest, as the catalog has it."""
    return {row["recording_id"]: row["digest"] for row in catalog.rows(lake, "recordings")}


def test_a_session_is_published_once(lake):
    session = simulated()
    first = step.ingest_session(session, lake)
    assert first.status == "ingested" and state(lake) == {str(session.id): first.digest}
    assert first.seconds > 0 and [f.sha256 for f in first.raw] == catalog.rows(lake, "recordings")[0]["raw_sha256"]
    again = step.ingest_session(session, lake)
    assert (again.status, again.digest, again.raw) == ("unchanged", first.digest, first.raw)
    assert {c.name for c in again.checks} == {c.name for c in first.checks}
    forced = step.ingest_session(session, lake, force=True)
    assert (forced.status, forced.digest) == ("unchanged", first.digest)
    assert step.raw_files(lake, session.id) == first.raw
    assert all(check.passed for check in lake.verify())


def test_steps_apart_equal_the_whole(lake, tmp_path):
    session, other = simulated(), Lake.open(tmp_path / "other")
    raw = step.fetch_step(session, lake)
    report = step.record_step(session, lake, step.raw_files(lake, session.id))
    assert report.raw == raw and report.digest == step.ingest_session(session, other).digest
    with pytest.raises(NotThere, match="neurofmx fetch"):
        step.raw_files(other, "simulated:tiny@1/never")


def test_one_new_session_costs_one_session(lake):
    sessions = [simulated(f"s{i}", seed=i) for i in range(3)]
    assert [step.ingest_session(s, lake).status for s in sessions[:2]] == ["ingested"] * 2
    assert [step.ingest_session(s, lake).status for s in sessions] == ["unchanged", "unchanged", "ingested"]


def test_a_broken_file_goes_to_quarantine_and_leaves_when_mended(lake):
    broken = step.ingest_session(simulated(content=b'{"seed": '), lake)
    assert broken.status == "quarantined" and "one.json" in failed(broken)["readable"]
    (row,) = step.quarantined(lake)
    assert row["recording_id"] == "simulated:tiny@1/one" and row["raw_sha256"] == [broken.raw[0].sha256]
    assert "readable" in row["reasons"][0] and row["source_url"] and row["quarantined_at"] and not row["released"]
    assert lake.raw_path(broken.raw[0].sha256).exists(), "nothing is lost"
    assert state(lake) == {}
    refused = [r for r in catalog.rows(lake, "checks") if r["stage"] == "quarantine"]
    assert any(r["check_name"] == "readable" for r in refused)
    assert step.ingest_session(simulated(), lake).status == "ingested"
    assert step.quarantined(lake) == []


def test_a_typo_in_a_spec_is_named(lake):
    report = step.ingest_session(simulated(content=b'{"seed": 1, "n_unit": 8}'), lake)
    assert report.status == "quarantined" and "n_unit" in failed(report)["readable"]


def test_a_missing_licence_blocks_until_a_person_lets_it_in(lake):
    session = simulated(licence=None)
    report = step.ingest_session(session, lake)
    assert report.status == "quarantined" and any("licence" in name for name in failed(report))
    let_in = step.release(lake, session.id)
    assert let_in.status == "ingested" and state(lake) == {str(session.id): let_in.digest}
    assert any("let in by a person" in evidence for evidence in failed(let_in).values())
    (row,) = step.quarantined(lake)
    assert row["released"]
    assert step.ingest_session(session, lake).status == "unchanged"
    with pytest.raises(NotThere, match="in quarantine"):
        step.release(lake, "simulated:tiny@1/other")


def test_what_cannot_be_read_cannot_be_released(lake):
    session = simulated(content=b"[]x")
    step.ingest_session(session, lake)
    with pytest.raises(Refused, match="readable"):
        step.release(lake, session.id)
    assert state(lake) == {}


def test_a_wrong_digest_is_refused_with_both_digests(lake):
    session = simulated()
    wrong = replace(session.files[0], digests={"sha256": "0" * 64})
    report = step.ingest_session(replace(session, files=(wrong,)), lake)
    assert report.status == "quarantined" and report.raw == ()
    for word in ("one.json", "0" * 64, hashlib.sha256(base64.b64decode(wrong.url.partition(",")[2])).hexdigest()):
        assert word in failed(report)["digests"]


def test_one_id_is_one_recording(lake):
    first = step.ingest_session(simulated(seed=1), lake)
    second = step.ingest_session(simulated(seed=2), lake)
    assert second.status == "quarantined"
    assert first.raw[0].sha256 in failed(second)["identity"] and second.raw[0].sha256 in failed(second)["identity"]
    assert state(lake) == {"simulated:tiny@1/one": first.digest}, "the first stays"
    assert step.ingest_session(simulated(seed=1), lake).status == "unchanged"
    assert step.quarantined(lake) == [], "the archive serves the first again: the refusal is over"


def test_the_same_content_under_two_ids_is_said(lake):
    assert "content_twin" not in failed(step.ingest_session(simulated("a"), lake))
    twin = step.ingest_session(simulated("b"), lake)
    assert twin.status == "ingested" and "simulated:tiny@1/a" in failed(twin)["content_twin"]


def test_what_cannot_be_had_fails_and_others_go_on(lake, files_server, faults):
    gone = simulated("gone", files=(RemoteFile(path="x.json", url=f"{files_server.url}/x.json"),))
    report = step.ingest_session(gone, lake)
    assert report.status == "failed" and "HTTP 404" in failed(report)["fetched"]
    assert step.quarantined(lake) == []
    assert step.ingest_session(simulated(), lake).status == "ingested"


def test_a_full_disk_changes_nothing(lake, monkeypatch):
    before = step.ingest_session(simulated("a"), lake)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "put", full)
        with pytest.raises(NoSpace, match="bytes free"):
            step.ingest_session(simulated("b", seed=2), lake)
    assert state(lake) == {"simulated:tiny@1/a": before.digest} and all(c.passed for c in lake.verify())
    assert step.ingest_session(simulated("b", seed=2), lake).status == "ingested"


def many() -> list[Session]:
    return [simulated(f"s{i}", seed=i) for i in range(8)]


def _child(folder: Path, lake: Path) -> subprocess.Popen[str]:
    """Ingests the sessions that ``sessions.json`` describes, in a process that can be killed."""
    code = (
        "import json, sys\n"
        "from neurofmx.config import from_plain\n"
        "from neurofmx.ingest.ingest import ingest_session\n"
        "from neurofmx.ingest.sessions import Session\n"
        "from neurofmx.lake import Lake\n"
        "lake = Lake.open(sys.argv[2])\n"
        "rows = json.load(open(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "for row in rows:\n"
        "    print(ingest_session(from_plain(Session, row), lake).status, flush=True)\n"
    )
    (folder / "sessions.json").write_text(canonical_json(many()))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "sessions.json"), str(lake)], stdout=subprocess.PIPE, text=True
    )


def test_killed_while_writing_then_run_again_gives_the_same_lake(tmp_path):
    whole = Lake.open(tmp_path / "whole")
    for session in many():
        step.ingest_session(session, whole)
    killed = Lake.open(tmp_path / "killed")
    for pause_s in (0.02, 0.09):
        child = _child(tmp_path, killed.root)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdout.readline()  # one is in; the next is on its way
        time.sleep(pause_s)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert all(check.passed for check in killed.verify()), "what was published is whole"
        assert set(state(killed).items()) <= set(state(whole).items())
    for session in many():
        assert step.ingest_session(session, killed).status in ("ingested", "unchanged")
    assert state(killed) == state(whole) and killed.snapshot() == whole.snapshot()


# real recordings


def folder_source(path: Path) -> Source:
    return Source(archive="folder", dataset="bad", version="local", address=str(path))


BAD = {
    "S001R01_crlf": "",
    "S001R03_crlf": "",
    "hdf5_not_nwb": "",
    "html_error_page": "",
    "truncated": "",
    "nan_spike_times": "",
    "unsorted_spike_times": "",
    "unit_millivolts": "",
    "physical_range_wrong_unit": "",
    "phi_header": "",
    "phi_description_age95": "",
    "bids_no_license-sub-01_task-objectviewing_run-01_bold": "licence",
}


@pytest.fixture(scope="module")
def bad_reports(mirror: Path, tmp_path_factory) -> tuple[Lake, dict[str, step.IngestReport]]:
    """Every damaged input taken through ingest."""
    lake = Lake.open(tmp_path_factory.mktemp("bad"))
    found = sources.list_source(lake, folder_source(mirror / "bad"))
    return lake, {session.id.name: step.ingest_session(session, lake) for session in found}


@pytest.mark.parametrize("name", BAD)
def test_damaged_inputs_are_refused_with_reasons(bad_reports, name):
    lake, reports = bad_reports
    report = reports[name]
    assert report.status == "quarantined", [c for c in report.checks if not c.passed]
    assert BAD[name] in " ".join(failed(report))
    row = next(r for r in step.quarantined(lake) if r["recording_id"] == str(report.id))
    assert row["reasons"] and all(len(reason) > 20 for reason in row["reasons"])


def test_one_session_label_in_two_files_makes_two_recordings(bad_reports):
    lake, reports = bad_reports
    pair = [report for name, report in reports.items() if name.startswith("duplicate_session_id")]
    assert [report.status for report in pair] == ["ingested"] * 2
    assert pair[0].digest != pair[1].digest


def test_validate_judges_without_a_lake(mirror):
    ((name, checks),) = step.judge_local(mirror / "bad" / "nan_spike_times.nwb")
    assert name.endswith("nan_spike_times") and any(not c.passed and c.severity == "block" for c in checks)


def test_opening_ones_own_file(mirror):
    recording = step.open_local(mirror / "dandi/900007/sub-locust/sub-locust_ses-stim1_ecephys+stimulus.nwb")
    assert recording.streams and recording.licence.spdx == "LicenseRef-own" and not recording.licence.redistribute
    with pytest.raises(Refused, match=r"truncated\.nwb"):
        step.open_local(mirror / "bad" / "truncated.nwb")
    with pytest.raises(ConfigError, match="16 recordings"):
        step.open_local(mirror / "openneuro/ds900102/sub-01")


@pytest.mark.parametrize(
    ("archive", "dataset", "version", "below"),
    [
        ("dandi", "900007", "draft", "dandi"),
        ("dandi", "900004", "draft", "dandi"),
        ("physionet", "wfdb-sample", "1.0.0", "physionet/files"),
        ("openneuro", "ds900106", "1.0.0", "openneuro"),
        ("ibl", "cortexlab", "public", "ibl"),
        ("other", "audio-pykanto", "1", "other"),
    ],
)
def test_real_recordings_of_every_archive_come_in(mirror, lake, archive, dataset, version, below):
    source = Source(archive=archive, dataset=dataset, version=version, address=str(mirror / below))
    session = sources.list_source(lake, source)[0]
    report = step.ingest_session(session, lake)
    assert report.status == "ingested", failed(report)
    assert lake.recording(session.id).streams and all(c.passed for c in lake.verify())
    assert step.ingest_session(session, lake).status == "unchanged"
