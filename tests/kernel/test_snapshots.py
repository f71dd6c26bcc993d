"""Snapshots: identity by content, names, what changed, time travel, manifests of other schemas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from neurofmx import catalog, collect, differ, snapshots
from neurofmx.errors import ConfigError, LakeCorrupt, Newer, NotThere
from neurofmx.lake import Lake
from neurofmx.pack import convert
from neurofmx.provenance import digest_of
from neurofmx.types import Provenance, RawFile

from .lakes import put_score, recording, spec, tokens


def test_the_same_data_is_the_same_snapshot_in_any_lake(tmp_path: Path) -> None:
    one, other = Lake.open(tmp_path / "one"), Lake.open(tmp_path / "other")
    for lake, order in ((one, (0, 1)), (other, (1, 0))):
        for i in order:
            lake.publish_recording(recording(f"r{i}", i))
        lake.publish_tokens("a:b@1/r0", spec(), tokens())
    put_score(one, 0.5)
    catalog.put(other, "datasets", "a:b@1", [{"dataset_id": "a:b@1", "archive": "a", "dataset": "b", "version": "1"}])
    assert snapshots.take(one) == snapshots.take(other, "named")


def test_a_manifest_says_how_to_fetch_its_recordings_again(lake: Lake) -> None:
    files = (RawFile(path="a.nwb", url="https://a/1", sha256="1" * 64, size=3),)
    lake.publish_recording(replace(recording("r"), provenance=Provenance(files=files, reader="nwb@1")))
    catalog.put(lake, "datasets", "a:b@1", [
        {"dataset_id": "a:b@1", "archive": "a", "dataset": "b", "version": "1", "address": "https://a", "licence": "x"}
    ])  # fmt: skip
    found = snapshots.find(lake, snapshots.take(lake))
    row = found.recordings["a:b@1/r"]
    assert row["files"] == [{"path": "a.nwb", "url": "https://a/1", "sha256": "1" * 64, "size": 3}]
    assert (row["licence"], row["reader"], found.raw()) == ("CC0-1.0", "nwb@1", {"1" * 64})
    assert [(s["archive"], s["address"]) for s in found.sources] == [("a", "https://a")]


def test_two_versions_of_a_spec_are_both_named(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    for version in (1, 2):
        lake.publish_tokens("a:b@1/r", spec(version), tokens())
    assert len(snapshots.find(lake, snapshots.take(lake)).tokens) == 2


def test_names_and_prefixes_find_a_snapshot(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    digest = snapshots.take(lake, "v1")
    assert snapshots.find(lake, "v1").digest == snapshots.find(lake, digest[:8]).digest == digest
    lake.publish_recording(recording("s"))
    with pytest.raises(ConfigError, match=r"v1.*it stands for.*--move"):
        snapshots.take(lake, "v1")
    assert snapshots.take(lake, "v1", move=True) == snapshots.find(lake, "v1").digest != digest
    assert snapshots.names(lake) == {"v1": snapshots.find(lake, "v1").digest}
    with pytest.raises(NotThere, match="expected one of v1"):
        snapshots.find(lake, "v2")
    for bad in ("a/b", "abcdef", "", "main"):
        if bad:
            with pytest.raises(ConfigError, match="name of a snapshot"):
                snapshots.take(lake, bad)
    rows = catalog.rows(lake, "snapshots")
    assert [(r["name"], r["n_recordings"]) for r in rows] == [("v1", 2)]


def test_diff_says_what_was_added_changed_and_withdrawn(lake: Lake) -> None:
    for i in range(3):
        lake.publish_recording(recording(f"r{i}", i))
    put_score(lake, 0.25)
    snapshots.take(lake, "before")
    lake.publish_recording(recording("r1", 7))
    catalog.drop(lake, "recordings", "a:b@1/r2")
    lake.publish_recording(recording("r3"))
    lake.publish_tokens("a:b@1/r0", spec(), tokens())
    put_score(lake, 0.5)
    snapshots.take(lake, "after")
    found = differ.diff(lake, "before", "after")
    assert [(c.kind, c.name, c.change) for c in found] == [
        ("recording", "a:b@1/r1", "changed"),
        ("recording", "a:b@1/r2", "withdrawn"),
        ("recording", "a:b@1/r3", "added"),
        ("tokens", f"a:b@1/r0|s|{spec().digest()}|", "added"),
        ("score", "reach by ridge, r2, seed 0", "changed"),
    ]
    assert (found[-1].before, found[-1].after) == (0.25, 0.5)
    assert [c.change for c in differ.diff(lake, "after", "before")][2] == "withdrawn"
    assert differ.diff(lake, "after", "after") == []


def test_scores_alone_make_two_names_of_one_snapshot_differ(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    put_score(lake, 0.25)
    digest = snapshots.take(lake, "v1")
    put_score(lake, 0.5)
    assert snapshots.take(lake, "v2") == digest
    assert [c.kind for c in differ.diff(lake, "v1", "v2")] == ["score"]


def test_the_catalog_is_read_as_it_was(lake: Lake) -> None:
    lake.publish_recording(recording("r0"))
    snapshots.take(lake, "v1")
    lake.publish_recording(recording("r1"))
    unnamed = snapshots.take(lake)
    lake.publish_recording(recording("r2"))
    sql = "select count(*) as n from recordings"
    counts = [catalog.query(lake, sql, name)["n"][0].as_py() for name in ("v1", unnamed, "")]
    assert counts == [1, 2, 3]


def test_a_manifest_of_the_first_schema_still_reads(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    row = catalog.rows(lake, "recordings")[0]
    old = {"recordings": {"a:b@1/r": {k: row[k] for k in ("digest", "path", "raw_sha256")}}, "tokens": {}}
    path = lake.root / "manifests" / "snapshots" / f"{digest_of(old)}.json"
    path.write_text(json.dumps(old))
    found = snapshots.find(lake, path.stem[:10])
    assert (found.recordings, found.catalog) == (old["recordings"], {})
    assert all(check.passed for check in lake.verify())
    assert differ.diff(lake, path.stem, snapshots.take(lake)) == []


def test_another_encoding_is_the_same_snapshot(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    before, path = snapshots.take(lake), catalog.rows(lake, "recordings")[0]["path"]
    assert convert(lake, "lz4") != []
    assert (snapshots.take(lake), snapshots.take(lake, "v1")) == (before, before)
    assert collect.gc(lake, grace_s=0) == []
    assert (lake.root / path).exists()
    assert all(check.passed for check in lake.verify())


def test_a_newer_schema_and_a_damaged_manifest_are_said(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    digest = snapshots.take(lake)
    path = lake.root / "manifests" / "snapshots" / f"{digest}.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"schema": 99}))
    with pytest.raises(Newer, match=r"got schema 99; expected schema \d or older\. A newer neurofmx took it"):
        snapshots.find(lake, digest)
    path.write_text("{")
    with pytest.raises(LakeCorrupt, match="manifest"):
        snapshots.find(lake, digest)
