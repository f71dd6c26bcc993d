"""Collection and verification: what nothing names goes, what a snapshot names stays, damage is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurofmx import catalog, collect, snapshots
from neurofmx.errors import LakeCorrupt, Newer
from neurofmx.lake import Lake
from neurofmx.types import Check, Provenance, RawFile, Recording

from .lakes import recording, spec, tokens


def group(lake: Lake, rid: str) -> Path:
    return lake.root / catalog.rows(lake, "recordings", rid)[0]["path"]


def bad(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.evidence for check in checks if not check.passed}


def with_raw(lake: Lake, name: str, content: bytes) -> Recording:
    path = lake.root / "tmp" / "given"
    path.write_bytes(content)
    sha = lake.add_raw(path)
    file = RawFile(path="f", url="u", sha256=sha, size=len(content))
    return replace(recording(name), provenance=Provenance(files=(file,), reader="t@1"))


def test_what_nothing_names_goes_and_what_a_snapshot_names_stays(lake: Lake) -> None:
    lake.publish_recording(with_raw(lake, "r", b"old"))
    lake.publish_tokens("a:b@1/r", spec(), tokens())
    kept = [group(lake, "a:b@1/r"), lake.root / catalog.rows(lake, "tokens")[0]["path"]]
    digest = snapshots.take(lake)
    lake.publish_recording(recording("r", 1))
    gone = group(lake, "a:b@1/r")
    lake.publish_recording(recording("r", 2))
    (lake.root / "tmp" / "given").write_bytes(b"nobody's")
    stray = lake.raw_path(lake.add_raw(lake.root / "tmp" / "given"))
    partial = lake.root / "tmp" / "group-left"
    partial.mkdir()
    (partial / "half").write_bytes(b"x" * 100)
    before = {one.path for one in collect.gc(lake, dry_run=True, grace_s=0)}
    assert gone.exists()
    found = collect.gc(lake, grace_s=0)
    assert {one.path for one in found} == before
    assert sorted(one.kind for one in found if one.kind != "base") == ["group", "leftover", "raw"]
    assert all(one.removed and one.bytes > 0 for one in found)
    assert not gone.exists()
    assert not stray.exists()
    assert not partial.exists()
    assert all(path.exists() for path in (*kept, group(lake, "a:b@1/r")))
    assert lake.raw_path(snapshots.find(lake, digest).raw().pop()).read_bytes() == b"old"
    assert bad(lake.verify()) == {}
    assert collect.gc(lake, grace_s=0) == []
    assert catalog.query(lake, "select digest from recordings", digest)["digest"].to_pylist() == [
        snapshots.find(lake, digest).recordings["a:b@1/r"]["digest"]
    ]


def test_grace_counts_from_when_a_name_was_lost(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    old = group(lake, "a:b@1/r")
    os.utime(old, (1, 1))  # published long ago
    lake.publish_recording(recording("r", 1))
    (one,) = collect.gc(lake, grace_s=60)
    assert (one.removed, 0 < one.waits_s <= 60, old.exists()) == (False, True, True)
    os.utime(old, (1, 1))
    assert collect.gc(lake, grace_s=60)[0].removed


def test_a_pinned_reader_keeps_what_it_may_be_reading(lake: Lake) -> None:
    for name in ("early", "late"):
        lake.publish_recording(recording(name))
    early, late = group(lake, "a:b@1/early"), group(lake, "a:b@1/late")
    opened = lake.recording("a:b@1/late").streams["lfp"]
    lake.publish_recording(recording("early", 1))
    time.sleep(0.02)
    with lake.reading():
        time.sleep(0.02)
        lake.publish_recording(recording("late", 1))
        assert [one.path for one in collect.gc(lake, grace_s=0) if one.removed] == [str(early.relative_to(lake.root))]
        assert np.asarray(opened.values).shape == (200, 4)  # type: ignore[union-attr]
    assert [one.path for one in collect.gc(lake, grace_s=0)] == [str(late.relative_to(lake.root))]


def test_the_pin_of_a_killed_reader_holds_nothing(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    code = f"""
import time
from neurofmx.lake import Lake
with Lake.open({str(lake.root)!r}).reading():
    print("go", flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    lake.publish_recording(recording("r", 1))
    assert not collect.gc(lake, grace_s=0)[0].removed
    child.kill()
    child.wait()
    child.stdout.close()
    assert collect.gc(lake, grace_s=0)[0].removed
    assert list((lake.root / "tmp" / "pins").iterdir()) == []


def test_fetched_raw_files_and_those_in_quarantine_stay(lake: Lake) -> None:
    shas = []
    for content in (b"fetched", b"refused"):
        (lake.root / "tmp" / "given").write_bytes(content)
        shas.append(lake.add_raw(lake.root / "tmp" / "given"))
    note = lake.root / "manifests" / "raw" / "a-b@1" / "r.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps([{"path": "f", "url": "u", "sha256": shas[0], "size": 7}]))
    catalog.put(lake, "quarantine", "q", [{"recording_id": "q", "raw_sha256": [shas[1]], "released": False}])
    assert collect.gc(lake, grace_s=0) == []
    catalog.drop(lake, "quarantine", "q")
    assert [one.path.rpartition("/")[2] for one in collect.gc(lake, grace_s=0) if one.kind == "raw"] == [shas[1]]


def test_nothing_is_collected_where_a_snapshot_cannot_be_read(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    path = lake.root / "manifests" / "snapshots" / f"{snapshots.take(lake)}.json"
    lake.publish_recording(recording("r", 1))
    whole = path.read_text()
    for text, error in ((whole[:50], LakeCorrupt), (json.dumps(json.loads(whole) | {"schema": 99}), Newer)):
        path.write_text(text)
        with pytest.raises(error):
            collect.gc(lake, grace_s=0)
    assert len(list((lake.root / "recordings").rglob("*.zarr"))) == 2


def test_verify_tells_missing_cut_short_and_altered_shards_apart(lake: Lake) -> None:
    for name in ("missing", "short", "altered", "whole"):
        lake.publish_recording(recording(name))
    shards = {
        n: next((group(lake, f"a:b@1/{n}") / "lfp" / "values" / "c").rglob("0/0"))
        for n in ("missing", "short", "altered")
    }
    shards["missing"].unlink()
    os.truncate(shards["short"], shards["short"].stat().st_size - 1)
    data = bytearray(shards["altered"].read_bytes())
    data[100] ^= 1
    shards["altered"].write_bytes(bytes(data))
    found = bad(lake.verify())
    assert set(found) == {f"recording a:b@1/{name}" for name in shards}
    assert f"{shards['missing']}: missing" in found["recording a:b@1/missing"]
    assert f"{shards['short']}: cut short at" in found["recording a:b@1/short"]
    assert f"{shards['altered']}: altered bytes" in found["recording a:b@1/altered"]


def test_verify_reads_what_only_a_snapshot_names(lake: Lake) -> None:
    lake.publish_recording(with_raw(lake, "r", b"raw"))
    old = group(lake, "a:b@1/r")
    digest = snapshots.take(lake, "v1")
    lake.publish_recording(recording("r", 1))
    next((old / "lfp" / "values" / "c").rglob("0/0")).unlink()
    raw = lake.raw_path(snapshots.find(lake, digest).raw().pop())
    raw.write_bytes(b"other")
    found = bad(lake.verify())
    assert set(found) == {"recording a:b@1/r", f"raw {raw.name[:12]}"}
    assert str(old) in found["recording a:b@1/r"]


def test_verify_names_damage_of_the_catalog_and_of_snapshots(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    digest = snapshots.take(lake, "v1")
    assert bad(lake.verify()) == {}
    base = next((lake.root / "catalog" / "streams").glob("base-*.parquet"))
    whole = base.read_bytes()
    base.write_bytes(whole[:-10])
    assert str(base) in bad(lake.verify())["catalog streams"]
    base.unlink()
    found = bad(lake.verify())
    assert str(base) in found[f"snapshot {digest}"]
    assert "catalog streams" in found
    base.write_bytes(whole)
    assert bad(lake.verify()) == {}
    path = lake.root / "manifests" / "snapshots" / f"{digest}.json"
    manifest = json.loads(path.read_text())
    manifest["recordings"]["a:b@1/r"]["digest"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert "its name says" in bad(lake.verify())[f"snapshot {digest}"]
