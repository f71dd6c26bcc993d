"""The Icechunk face of snapshots: equal values, time travel, references that outlive a collection."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from neurofmx import catalog, collect, snapshots, versions
from neurofmx.errors import LakeCorrupt, NotThere
from neurofmx.lake import Lake
from neurofmx.pack import convert
from neurofmx.shards import write_group

from .lakes import recording, spec, tokens

pytest.importorskip("icechunk")


def lfp(lake: Lake, name: str) -> np.ndarray:
    return np.asarray(versions.open(lake, name)["recordings/a/b@1/r/lfp/values"][...])  # type: ignore[index]


def test_each_snapshot_reads_as_it_was_also_after_a_collection(lake: Lake) -> None:
    lake.publish_recording(recording("r", 0))
    lake.publish_tokens("a:b@1/r", spec(), tokens())
    convert(lake, "lz4")
    first = snapshots.take(lake, "v1")
    versions.publish(lake, "v1")
    lake.publish_recording(recording("r", 1))
    lake.publish_recording(recording("s", 2))
    snapshots.take(lake, "v2")
    versions.publish(lake, "v2")
    lake.publish_recording(recording("r", 3))
    collect.gc(lake, grace_s=0)
    for name, seed in (("v1", 0), (first[:10], 0), ("v2", 1)):
        assert np.array_equal(lfp(lake, name), recording("r", seed).streams["lfp"].values)  # type: ignore[union-attr]
    one, other = versions.open(lake, "v1"), versions.open(lake, "v2")
    assert ("recordings/a/b@1/s" in one, "recordings/a/b@1/s" in other) == (False, True)
    grid = one[f"tokens/{spec().digest()}/a/b@1/r/values"]
    assert np.array_equal(grid[...], tokens().values)  # type: ignore[index]
    assert one["recordings/a/b@1/r"].attrs["digest"] == snapshots.find(lake, "v1").recordings["a:b@1/r"]["digest"]
    stored = sum(p.stat().st_size for p in (lake.root / "versions").rglob("*") if p.is_file())
    assert stored < 60_000


def test_slices_over_chunks_and_shards_are_equal(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    digest = snapshots.take(lake)
    values = np.arange(4000, dtype=np.int16).reshape(1000, 4)
    path = lake.root / catalog.rows(lake, "recordings")[0]["path"]
    for codec in ("none", "lz4"):  # a group of many small chunks in the place of the published one
        shutil.rmtree(path)
        shutil.rmtree(lake.root / "versions", ignore_errors=True)
        write_group(path, {"lfp/values": values}, {}, codec, chunk_bytes=256, shard_bytes=1024)
        array = versions.open(lake, digest)["recordings/a/b@1/r/lfp/values"]
        assert len(list((path / "lfp" / "values" / "c").rglob("0"))) > 7
        for lo, hi in ((0, 1000), (31, 33), (127, 513), (999, 1000)):
            assert np.array_equal(array[lo:hi], values[lo:hi])  # type: ignore[index]


def test_only_what_changed_is_committed(lake: Lake) -> None:
    import icechunk

    for i in range(3):
        lake.publish_recording(recording(f"r{i}", i))
    a = versions.publish(lake, snapshots.take(lake))
    lake.publish_recording(recording("r1", 9))
    b = versions.publish(lake, snapshots.take(lake))
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(lake.root / "versions" / "icechunk")))
    assert a != b
    diff = repo.diff(from_snapshot_id=a, to_snapshot_id=b)
    touched = {*diff.new_arrays, *diff.updated_arrays, *diff.deleted_arrays, *diff.updated_chunks}
    assert touched
    assert all(path.startswith("/recordings/a/b@1/r1/") for path in touched)
    assert versions.publish(lake, snapshots.take(lake)) == b


def test_a_moved_name_moves_for_icechunk_too(lake: Lake) -> None:
    import icechunk

    lake.publish_recording(recording("r", 0))
    for seed in (1, 2, 3):
        snapshots.take(lake, "paper", move=True)
        commit = versions.publish(lake, "paper")
        repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(lake.root / "versions" / "icechunk")))
        found = repo.lookup_tag("paper") if "paper" in repo.list_tags() else repo.lookup_branch("paper")
        assert found == commit
        assert np.array_equal(lfp(lake, "paper"), recording("r", seed - 1).streams["lfp"].values)  # type: ignore[union-attr]
        lake.publish_recording(recording("r", seed))


def test_a_lake_in_another_folder_publishes_its_versions_again(lake: Lake, tmp_path: Path) -> None:
    lake.publish_recording(recording("r", 0))
    snapshots.take(lake, "v1")
    versions.publish(lake, "v1")
    lake.publish_recording(recording("r", 1))
    snapshots.take(lake, "v2")
    versions.publish(lake, "v2")
    for folder in ("moved löke 50%20 @x", "moved again"):
        lake = Lake.open(lake.root.rename(tmp_path / folder))
        assert np.array_equal(lfp(lake, "v2"), recording("r", 1).streams["lfp"].values)  # type: ignore[union-attr]
        assert np.array_equal(lfp(lake, "v1"), recording("r", 0).streams["lfp"].values)  # type: ignore[union-attr]


def test_a_snapshot_whose_group_is_gone_is_said(lake: Lake) -> None:
    lake.publish_recording(recording("r"))
    digest = snapshots.take(lake)
    shutil.rmtree(lake.root / catalog.rows(lake, "recordings")[0]["path"])
    with pytest.raises(LakeCorrupt, match="neurofmx lake verify"):
        versions.open(lake, digest)
    with pytest.raises(NotThere):
        versions.open(lake, "nowhere")


def test_commits_of_two_processes_are_all_kept(lake: Lake) -> None:
    import icechunk

    for i in range(6):
        lake.publish_recording(recording("r", i))
        snapshots.take(lake, f"v{i}")
    code = """
import sys
from neurofmx import versions
from neurofmx.lake import Lake
from neurofmx.pack import convert
for name in sys.argv[2:]:
    versions.publish(Lake.open(sys.argv[1]), name)
"""
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(lake.root), *(f"v{i}" for i in which)])
        for which in ((0, 2, 4), (1, 3, 5))
    ]
    assert [child.wait() for child in children] == [0, 0]
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(lake.root / "versions" / "icechunk")))
    assert len(list(repo.ancestry(branch="main"))) == 7
    for i in range(6):
        assert np.array_equal(lfp(lake, f"v{i}"), recording("r", i).streams["lfp"].values)  # type: ignore[union-attr]


def test_what_a_killed_commit_left_is_collected(lake: Lake) -> None:
    import icechunk

    lake.publish_recording(recording("r"))
    snapshots.take(lake, "v1")
    versions.publish(lake, "v1")
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(lake.root / "versions" / "icechunk")))
    session = repo.writable_session("main")
    zarr.create_array(session.store, name="left", data=np.arange(100_000), chunks=(50_000,))  # written, never committed
    assert [one.kind for one in collect.gc(lake)] == []
    (one,) = collect.gc(lake, grace_s=0)
    assert (one.kind, one.bytes > 1000) == ("version", True)
    assert collect.gc(lake, grace_s=0) == []
    assert np.array_equal(lfp(lake, "v1"), recording("r").streams["lfp"].values)  # type: ignore[union-attr]
