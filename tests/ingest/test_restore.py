"""A lake rebuilt from a manifest: equal digests, or said why not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from neurofmx import catalog, snapshots
from neurofmx.errors import LakeCorrupt, Newer, NotThere
from neurofmx.ingest.archives import simulated
from neurofmx.ingest.ingest import ingest_session, quarantined, release
from neurofmx.ingest.restore import Restored, restore
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.simulate_spec import SimSpec
from neurofmx.ingest.sources import list_source, read_sources, write_sources
from neurofmx.lake import Lake
from neurofmx.pipeline import restore_snapshot, tokens_all, tokens_of
from neurofmx.provenance import digest_file
from neurofmx.types import Licence, RecordingId

EEG = "physionet:eegmmidb@1.0.0"


def manifest_of(lake: Lake) -> Path:
    return lake.root / "manifests" / "snapshots" / f"{lake.snapshot()}.json"


def digests(lake: Lake) -> dict[str, dict[str, str]]:
    return {
        "recordings": {r["recording_id"]: r["digest"] for r in catalog.rows(lake, "recordings")},
        "tokens": {f"{r['recording_id']}|{r['spec']}": r["digest"] for r in catalog.rows(lake, "tokens")},
    }


def count(rows: list[Restored]) -> Counter:
    return Counter((row.kind, row.status) for row in rows)


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A lake of two short simulated recordings with tokens."""
    for seed in (1, 2):
        spec = SimSpec(seed=seed, duration_s=20.0, n_units=6, lfp_channels=2)
        session = simulated.session_of(RecordingId("simulated", "tiny", "1", f"s{seed}"), spec)
        assert ingest_session(session, lake).status == "ingested"
    assert tokens_all(lake) > 0
    return lake


def test_a_snapshot_is_rebuilt_from_another_lakes_raw_files(filled, tmp_path):
    target = Lake.open(tmp_path / "again")
    rows = list(restore_snapshot(target, manifest_of(filled), origin=filled))
    n_tokens = len(catalog.rows(filled, "tokens"))
    assert count(rows) == {("raw", "equal"): 2, ("recording", "equal"): 2, ("tokens", "equal"): n_tokens}
    assert digests(target) == digests(filled) and all(check.passed for check in target.verify())
    assert target.snapshot() == filled.snapshot()
    again = list(restore_snapshot(target, manifest_of(filled), origin=filled))
    assert again == rows


def test_the_simulated_archive_is_enough(tmp_path, lake):
    source = Source(archive="simulated", dataset="hard", version=simulated.VERSION)
    found = min(list_source(lake, source), key=lambda session: session.files[0].size or 0)
    assert ingest_session(found, lake).status == "ingested"
    target = Lake.open(tmp_path / "again")
    rows = list(restore(target, snapshots.find(lake, lake.snapshot("first"))))
    assert count(rows) == {("raw", "equal"): 1, ("recording", "equal"): 1}
    assert digests(target) == digests(lake) and [s.text for s in read_sources(target)] == [source.text]


@pytest.fixture
def served(mirror_server, lake: Lake) -> tuple[Source, Session]:
    """One real recording, fetched over loopback HTTP."""
    source = Source(archive="physionet", dataset="eegmmidb", version="1.0.0",
                    address=f"{mirror_server.url}/physionet/files")  # fmt: skip
    session = next(s for s in list_source(lake, source) if s.id.name.endswith("R04"))
    report = ingest_session(session, lake)
    assert report.status == "ingested", report.checks
    write_sources(lake, [source])
    return source, session


def test_a_real_recording_is_fetched_again(served, lake, tmp_path):
    source, session = served
    target = Lake.open(tmp_path / "again")
    rows = list(restore(target, manifest_of(lake), addresses={source.text: source.address}))
    assert count(rows) == {("raw", "equal"): len(session.files), ("recording", "equal"): 1}, rows
    assert digests(target) == digests(lake)
    for row in rows[:-1]:
        assert digest_file(target.raw_path(row.expected)) == row.found == row.expected


def test_another_address_gives_the_same_recording(served, lake, mirror, tmp_path):
    # the server of the snapshot is one of many copies: the recording keeps the address that it was taken from
    source, _ = served
    target = Lake.open(tmp_path / "again")
    rows = list(restore(target, manifest_of(lake), addresses={source.text: str(mirror / "physionet" / "files")}))
    assert {row.status for row in rows} == {"equal"}, rows
    assert digests(target) == digests(lake)


def test_what_is_not_to_be_had_is_named(served, lake, tmp_path, mirror):
    source, session = served
    nowhere = {source.text: str(tmp_path / "nowhere")}
    target = Lake.open(tmp_path / "again")
    rows = list(restore(target, manifest_of(lake), addresses=nowhere))
    assert count(rows) == {("raw", "missing"): len(session.files), ("recording", "missing"): 1}
    assert all("nowhere" in row.reason for row in rows) and target.recording_ids() == []
    # the bytes of the other lake help where the archive is gone
    assert {row.status for row in restore(target, manifest_of(lake), origin=lake, addresses=nowhere)} == {"equal"}


def test_an_archive_that_changed_its_file_is_different(lake, tmp_path, files_server):
    spec = json.dumps({"seed": 5, "duration_s": 20.0, "n_units": 6}).encode()
    (files_server.folder / "s.json").write_bytes(spec)
    session = Session(
        id=RecordingId("simulated", "kept", "1", "s"),
        files=(RemoteFile(path="s.json", url=f"{files_server.url}/s.json"),),
        reader="simulated",
        licence=Licence(spdx="CC0-1.0", text="t", source="t"),
    )
    assert ingest_session(session, lake).status == "ingested"
    manifest = manifest_of(lake)
    (files_server.folder / "s.json").write_bytes(spec.replace(b"20.0", b"21.0"))
    lake.raw_path(catalog.rows(lake, "recordings")[0]["raw_sha256"][0]).unlink()
    target = Lake.open(tmp_path / "again")
    raw, recording = restore(target, manifest, origin=lake)
    assert (raw.kind, raw.status) == ("raw", "different") and raw.found not in ("", raw.expected)
    assert (recording.status, target.recording_ids()) == ("missing", []) and "s.json" in recording.reason


def test_a_damaged_copy_is_not_taken(filled, tmp_path):
    manifest, target = manifest_of(filled), Lake.open(tmp_path / "again")
    sha = catalog.rows(filled, "recordings")[0]["raw_sha256"][0]
    filled.raw_path(sha).write_bytes(b"{}")
    rows = list(restore(target, manifest, origin=filled))  # the simulated archive holds its files in its addresses
    assert {row.status for row in rows} == {"equal"} and digest_file(target.raw_path(sha)) == sha
    target.raw_path(sha).write_bytes(b"{}")
    bad = [row for row in restore(target, manifest, origin=filled) if row.status != "equal"]
    assert [(row.kind, row.status) for row in bad] == [("raw", "different"), ("recording", "missing")]
    assert "damaged" in bad[0].reason


def test_another_digest_is_said_to_be_different(filled, tmp_path):
    wanted = snapshots.load(manifest_of(filled))
    first = next(iter(wanted.recordings))
    wanted.recordings[first]["digest"] = "0" * 64
    wanted.tokens.update({f"{first}|no-such-spec|": {"digest": "1" * 64, "path": ""}})
    wanted.tokens.update({"simulated:tiny@1/never|spikes|": {"digest": "2" * 64, "path": ""}})
    target = Lake.open(tmp_path / "again")
    rows = {(row.kind, row.name): row for row in restore(target, wanted, origin=filled, tokens=tokens_of)}
    assert rows["recording", first].status == "different" and rows["recording", first].found
    assert rows["tokens", f"{first}|no-such-spec|"].reason == "no such token spec now"
    assert rows["tokens", "simulated:tiny@1/never|spikes|"].status == "missing"


def test_a_recording_that_a_person_let_in_is_let_in_again(lake, tmp_path):
    spec = SimSpec(seed=1, duration_s=20.0, n_units=6)
    session = simulated.session_of(RecordingId("simulated", "tiny", "1", "one"), spec)
    assert ingest_session(replace(session, licence=None), lake).status == "quarantined"
    assert release(lake, session.id).status == "ingested"
    target = Lake.open(tmp_path / "again")
    rows = list(restore(target, manifest_of(lake), origin=lake))
    assert {row.status for row in rows} == {"equal"} and "licence" in rows[-1].reason
    assert [row["released"] for row in quarantined(target)] == [True]


def test_what_is_no_manifest(lake, tmp_path):
    with pytest.raises(NotThere, match="manifests/snapshots"):
        list(restore(lake, tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(LakeCorrupt, match="bad.json"):
        list(restore(lake, tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text('{"schema": 99, "recordings": {}, "tokens": {}}')
    with pytest.raises(Newer, match="update this one"):
        list(restore(lake, tmp_path / "bad.json"))
