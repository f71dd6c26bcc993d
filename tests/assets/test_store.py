"""A lake on a loopback S3: pushed, pulled, only what has changed moves, and damage is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource
from moto.server import ThreadedMotoServer

from neurofmx import catalog, parts
from neurofmx.assets.resources import LakeResource
from neurofmx.assets.store import S3LakeStore, push_lake
from neurofmx.errors import ConfigError, Mismatch, NotThere
from neurofmx.ingest.simulate import SimSpec, simulate
from neurofmx.lake import Lake


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(
    endpoint: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> S3LakeStore:
    monkeypatch.setenv("NEUROFMX_CACHE", str(tmp_path / "cache"))
    s3 = S3Resource(
        endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    bucket = "b" + str(abs(hash(request.node.name)))
    s3.get_client().create_bucket(Bucket=bucket)
    return S3LakeStore(bucket=bucket, s3=s3)


@pytest.fixture
def filled(lake: Lake, tmp_path: Path) -> Lake:
    """A lake with one raw file and one recording."""
    (tmp_path / "raw").write_bytes(b"bytes of an archive")
    lake.add_raw(tmp_path / "raw")
    lake.publish_recording(simulate(SimSpec(seed=1, duration_s=12.0, n_units=4))[0])
    return lake


def test_a_pulled_lake_is_the_pushed_one(filled: Lake, store: S3LakeStore, tmp_path: Path) -> None:
    sent = store.push(filled)
    assert sent.unchanged == 0
    copy = Lake.open(tmp_path / "copy")
    got = store.pull(copy)
    assert (got.files, got.bytes) == (sent.files, sent.bytes)
    (rid,) = filled.recording_ids()
    assert copy.recording_ids() == [rid]
    assert all(check.passed for check in copy.verify())
    assert copy.snapshot() == filled.snapshot()
    again = store.pull(copy)
    assert (again.files, again.unchanged) == (0, sent.files)


def test_only_what_is_new_is_sent(filled: Lake, store: S3LakeStore) -> None:
    first = store.push(filled)
    second = store.push(filled)
    assert (second.files, second.unchanged) == (0, first.files)
    rows = catalog.rows(filled, "recordings")
    catalog.put(filled, "recordings", rows[0]["recording_id"], [rows[0] | {"task": "renamed"}])
    assert store.push(filled).files == 0  # rows of the catalog are no files
    assert [row["task"] for row in catalog.rows(store.open(), "recordings")] == ["renamed"]


def test_a_copy_follows_merges_and_keeps_rows_of_its_own(filled: Lake, store: S3LakeStore, tmp_path: Path) -> None:
    store.push(filled)
    copy = Lake.open(tmp_path / "copy")
    store.pull(copy)
    catalog.put(copy, "subjects", "own", [{"subject_key": "own"}])
    parts.freeze(copy)
    (row,) = catalog.rows(filled, "recordings")
    catalog.put(filled, "recordings", row["recording_id"], [row | {"task": "renamed"}])
    parts.freeze(filled)
    store.push(filled)
    fresh = Lake.open(tmp_path / "fresh")
    for pulled in (copy, fresh):
        store.pull(pulled)
        assert [r["task"] for r in catalog.rows(pulled, "recordings")] == ["renamed"]
        assert store.pull(pulled).files == 0
    assert "own" in {r["subject_key"] for r in catalog.rows(copy, "subjects")}


def test_a_damaged_object_is_refused_and_named(filled: Lake, store: S3LakeStore, tmp_path: Path) -> None:
    store.push(filled)
    client = store.s3.get_client()
    listed = client.list_objects_v2(Bucket=store.bucket, Prefix="lake/recordings/")["Contents"]
    damaged = max(listed, key=lambda one: one["Size"])["Key"]
    client.put_object(Bucket=store.bucket, Key=damaged, Body=b"not these bytes")
    copy = Lake.open(tmp_path / "copy")
    with pytest.raises(Mismatch, match="remove the object"):
        store.pull(copy)
    assert copy.recording_ids() == []  # the catalog comes last, so nothing points at half a group
    assert not list((copy.root / "tmp").iterdir())


def test_missing_bucket_and_missing_lake_are_said(lake: Lake, store: S3LakeStore) -> None:
    with pytest.raises(ConfigError, match="bucket"):
        S3LakeStore(s3=store.s3).push(lake)
    with pytest.raises(NotThere, match="that was pushed"):
        store.pull(lake)
    with pytest.raises(NotThere, match="nowhere"):
        S3LakeStore(bucket="nowhere-at-all", s3=store.s3).push(lake)


def test_push_is_a_job(filled: Lake, store: S3LakeStore, instance: dg.DagsterInstance) -> None:
    result = push_lake.execute_in_process(
        instance=instance, resources={"lake": LakeResource(root=str(filled.root)), "store": store}
    )
    assert result.success
    assert store.open().recording_ids() == filled.recording_ids()  # the copy is a lake itself
