"""One behaviour on a disk and on S3: what is published is found again, whole, elsewhere, or refused in a sentence."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neurofmx import catalog, parts, remote_client, remote_head, shards
from neurofmx.errors import ConfigError, Conflict, Denied, LakeCorrupt, Mismatch, NotThere, Transient
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.tokenize.batches import SampleRows
from neurofmx.tokenize.loader import Loader
from neurofmx.tokenize.mixture import Mixture, Source
from neurofmx.types import (
    Channels,
    Events,
    Licence,
    Provenance,
    RawFile,
    Recording,
    RecordingId,
    Samples,
    Subject,
    TokenGrid,
    TokenSpec,
)


def module(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "servers" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"servers_{name}", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


s3 = module("s3")
SERVERS = ["moto", pytest.param("weed", marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Machine:
    """Opens the lake of one test on another machine at each call: on S3, with an empty cache of its own."""

    folder: Path
    server: Any
    monkeypatch: pytest.MonkeyPatch

    @property
    def prefix(self) -> str:
        return f"tests/{self.folder.parent.name}/{self.folder.name}"

    @property
    def url(self) -> str:
        return f"s3://{self.server.bucket}/{self.prefix}"

    def __call__(self) -> Lake:
        if self.server is None:
            return Lake.open(self.folder / "lake")
        for name, value in self.server.environment(self.folder / uuid.uuid4().hex).items():
            self.monkeypatch.setenv(name, value)
        return Lake.open(self.url)


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], Any]]:
    """The servers by name, each started once and only if asked for."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Any] = {}

        def server(name: str) -> Any:
            if name not in started:
                started[name] = stack.enter_context(getattr(s3, name)())
            return started[name]

        yield server


@pytest.fixture(params=["disk", *SERVERS])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    server = None if request.param == "disk" else request.getfixturevalue("servers")(request.param)
    return Machine(tmp_path, server, monkeypatch)


@pytest.fixture(params=SERVERS)
def far(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, request.getfixturevalue("servers")(request.param), monkeypatch)


def session(name: str = "r1", seed: int = 0, rows: int = 300_000) -> Recording:
    rng = np.random.Generator(np.random.PCG64(seed))
    ends = np.array([[0.0, rows / 1000]])
    return Recording(
        id=RecordingId("a", "b", "1", name),
        streams={
            "spikes": Events(
                times_s=np.sort(rng.uniform(0, rows / 1000, 500)), codes=rng.integers(0, 3, 500).astype(np.int32),
                channels=Channels(ids=("u0", "u1", "u2")), modality="spikes", valid=ends,
            ),
            "lfp": Samples(
                values=rng.integers(-999, 999, (rows, 2)).astype(np.int16), unit="uV",
                channels=Channels(ids=("x", "y")), modality="lfp", valid=ends, rate_hz=1000.0,
            ),
        },
        subject=Subject(id="m1", species="mouse"), domain_s=(0.0, rows / 1000),
        provenance=Provenance(files=(), reader="t@1"), licence=Licence(spdx="CC0-1.0"),
    )  # fmt: skip


def lfp_of(recording: Recording) -> Any:
    stream = recording.streams["lfp"]
    assert isinstance(stream, Samples)
    return stream.values


def times_of(recording: Recording) -> np.ndarray:
    stream = recording.streams["spikes"]
    assert isinstance(stream, Events)
    return np.asarray(stream.times_s)


def object_of(far: Machine, lake: Lake, path: Path) -> str:
    assert lake.remote is not None
    return f"{far.prefix}/{lake.remote.name(path)}"


def shard_of(lake: Lake, name: str = "a:b@1/r1") -> Path:
    """The one file of a recording that is too large to be fetched whole."""
    return lake.root / lake._row(name)["path"] / "lfp" / "values" / "c" / "0" / "0"


# the same on a disk and on S3


def test_what_is_published_is_read_elsewhere(machine: Machine) -> None:
    given = session()
    digest = machine().publish_recording(given)
    lake = machine()
    assert lake.recording_ids() == ["a:b@1/r1"] and lake.recording_digest(given.id) == digest
    found = lake.recording(given.id)
    assert np.array_equal(times_of(found), times_of(given))
    assert np.array_equal(lfp_of(found)[120_000:121_000], lfp_of(given)[120_000:121_000])
    by_index = Index.open(lake).array("a:b@1/r1", "lfp/values")
    assert np.array_equal(by_index.read(299_000, 300_000), lfp_of(given)[299_000:])
    assert all(check.passed for check in lake.verify())


def test_tokens_are_current_until_their_recording_changes(machine: Machine) -> None:
    lake, spec = (
        machine(),
        TokenSpec(name="bands", version=1, modality="lfp", ops=(), bin_s=0.5, fields=("low", "high")),
    )
    lake.publish_recording(session(rows=500))
    grid = TokenGrid(
        values=np.arange(24, dtype=np.float32).reshape(4, 3, 2), mask=np.ones((4, 3), bool), t0_s=0.0, dt_s=0.5,
        channels=Channels(ids=("x", "y", "z")), fields=("low", "high"),
    )  # fmt: skip
    lake.publish_tokens("a:b@1/r1", spec, grid)
    other = machine()
    assert other.has_tokens("a:b@1/r1", spec)
    assert np.array_equal(other.tokens("a:b@1/r1", spec).values, grid.values)
    lake.publish_recording(session(rows=500, seed=2))
    assert not other.has_tokens("a:b@1/r1", spec)


def test_a_snapshot_is_the_same_anywhere_and_keeps_its_catalog(machine: Machine, tmp_path: Path) -> None:
    lake, beside = machine(), Lake.open(tmp_path / "beside")
    for each in (lake, beside):
        each.publish_recording(session(rows=500))
    first = lake.snapshot("first")
    assert first == beside.snapshot()
    lake.publish_recording(session("r2", rows=500))
    other = machine()
    assert other.snapshot("second") != first
    count = "select count(*) as n from recordings"
    assert catalog.query(other, count, snapshot="first").to_pylist() == [{"n": 1}]
    assert catalog.query(machine(), count).to_pylist() == [{"n": 2}]
    assert catalog.query(lake, count, snapshot="second").to_pylist() == [{"n": 2}]


def test_the_catalog_is_whole_while_another_process_writes_it(machine: Machine) -> None:
    lake = machine()
    code = """
        import sys
        from neurofmx import catalog, parts
        from neurofmx.lake import Lake
        parts.LOOSE = 5
        lake = Lake.open(sys.argv[1])
        for i in range(12):
            catalog.put(lake, "channels", f"r{i}", [{"recording_id": f"r{i}", "row": j} for j in range(10)])
    """
    place = str(lake.root) if lake.remote is None else lake.remote.url
    cache = {"NEUROFMX_CACHE": str(lake.root / "tmp" / "writer")}
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), place], env=os.environ | cache)
    seen = [0]
    while writer.poll() is None:
        rows = catalog.query(lake, "select recording_id, count(*) as n from channels group by all").to_pylist()
        assert all(row["n"] == 10 for row in rows)
        seen.append(len(rows))
    assert writer.returncode == 0 and seen == sorted(seen)
    assert parts.count(machine(), "channels") == 120


def test_of_two_writers_of_one_recording_one_wins(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = machine(), machine()
    finish = shards.finish_group

    def overtaken(path: Path, attributes: Any) -> None:
        monkeypatch.setattr(shards, "finish_group", finish)
        other.publish_recording(session(seed=2, rows=500))  # while this one writes its group
        finish(path, attributes)

    monkeypatch.setattr(shards, "finish_group", overtaken)
    with pytest.raises(Conflict, match="other writer's version stays"):
        one.publish_recording(session(seed=1, rows=500))
    assert np.array_equal(times_of(machine().recording("a:b@1/r1")), times_of(session(seed=2, rows=500)))
    one.publish_recording(session(seed=1, rows=500))
    assert parts.count(machine(), "recordings") == 1


def test_raw_files_have_their_names_again_elsewhere(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of an archive")
    sha = machine().add_raw(tmp_path / "file")
    with machine().raw_view([RawFile(path="sub/one.dat", url="", size=13, sha256=sha)]) as folder:
        assert (folder / "sub" / "one.dat").read_bytes() == b"of an archive"
    with pytest.raises(NotThere), machine().raw_view([RawFile(path="x", url="", size=1, sha256="0" * 64)]):
        pass


# what S3 adds


def test_rows_of_a_large_file_come_by_ranges(far: Machine) -> None:
    given = session()
    far().publish_recording(given)
    lake = far()
    values = lfp_of(lake.recording(given.id))
    assert np.array_equal(values[1000:1010], lfp_of(given)[1000:1010])
    assert not shard_of(lake).exists()
    lake.at(lake._row(given.id)["path"])  # there in part, so not fetched again
    assert not shard_of(lake).exists()


def test_compressed_chunks_are_read_over_ranges(far: Machine, tmp_path: Path) -> None:
    lake, values = far(), np.arange(400_000, dtype=np.int32).reshape(-1, 4) // 7
    group = lake.root / "recordings" / "a" / "packed.zarr"
    shards.write_group(group, {"x": values}, {"made": 1}, "lz4", shard_bytes=400_000)
    lake.keep(group)
    other = far()
    group = other.root / "recordings" / "a" / "packed.zarr"
    assert shards.read_attributes(group) == {"made": 1}  # brings the small files
    assert np.array_equal(shards.open_array(group / "x")[24_000:77_000], values[24_000:77_000])


def test_a_loader_delivers_the_same_from_a_disk_and_over_ranges(far: Machine, tmp_path: Path) -> None:
    lake, disk = far(), Lake.open(tmp_path / "disk")
    for number in range(3):
        for each in (lake, disk):
            each.publish_recording(session(f"r{number}", seed=number))
    for values in ("stored", "float32"):
        mixture = Mixture(
            sources=(Source(sql="select recording_id from recordings"),), streams=("lfp", "spikes"), window_s=1.0,
            batch=16, values=values,
        )  # fmt: skip
        with Loader(far(), mixture, threads=2) as one, Loader(disk, mixture) as other:
            for a, b in zip(islice(one, 3), other):
                assert a.recording.tolist() == b.recording.tolist()
                x, y = a.streams["lfp"], b.streams["lfp"]
                assert isinstance(x, SampleRows) and isinstance(y, SampleRows)
                assert np.array_equal(x.values, y.values)
                assert np.array_equal(a.streams["spikes"].times_s, b.streams["spikes"].times_s)


def test_any_zarr_reader_opens_the_objects(far: Machine) -> None:
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    lake, given = far(), session()
    lake.publish_recording(given)
    store = S3Store(
        far.server.bucket, prefix=f"{far.prefix}/{lake._row(given.id)['path']}", endpoint=far.server.endpoint,
        client_options={"allow_http": True},
    )  # fmt: skip
    found = zarr.open_group(ObjectStore(store, read_only=True), mode="r")["lfp/values"]
    assert isinstance(found, zarr.Array) and np.array_equal(found[5:50], lfp_of(given)[5:50])


def test_what_was_deleted_or_cut_short_is_named(far: Machine) -> None:
    lake = far()
    lake.publish_recording(session())
    asked, name = s3.client(far.server), object_of(far, lake, shard_of(lake))
    whole = asked.get_object(Bucket="lakes", Key=name)["Body"].read()
    asked.put_object(Bucket="lakes", Key=name, Body=whole[: len(whole) // 2])
    other = far()
    values = lfp_of(other.recording("a:b@1/r1"))
    with pytest.raises(LakeCorrupt, match="c/0/0; got"):
        values[290_000:291_000]
    assert [c.evidence for c in other.verify() if not c.passed and "cut short" in c.evidence]
    asked.delete_object(Bucket="lakes", Key=name)
    with pytest.raises(LakeCorrupt, match="no such object"):
        values[290_000:291_000]
    assert [c.evidence for c in far().verify() if not c.passed and "missing" in c.evidence]


def test_damaged_raw_bytes_are_not_kept(far: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of an archive")
    lake = far()
    sha = lake.add_raw(tmp_path / "file")
    name = object_of(far, lake, lake.raw_path(sha))
    s3.client(far.server).put_object(Bucket="lakes", Key=name, Body=b"of an archivE")
    other = far()
    with pytest.raises(Mismatch, match=sha), other.raw_view([RawFile(path="x", url="", size=13, sha256=sha)]):
        pass
    assert not other.raw_path(sha).exists()


def test_machines_that_write_at_once_lose_nothing(far: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    lakes = [far(), far()]
    commits, push = [], remote_head._push

    def overtaken(remote: Any, before: Any) -> None:
        if remote == lakes[0].remote and len(commits) < 6:  # the other writes the head that this one has just read
            commits.append(1)
            catalog.put(lakes[1], "channels", f"other{len(commits)}", [{"recording_id": "o", "row": len(commits)}])
        push(remote, before)

    monkeypatch.setattr(parts, "LOOSE", 3)
    monkeypatch.setattr(remote_head, "_push", overtaken)
    for i in range(5):
        catalog.put(lakes[0], "channels", f"one{i}", [{"recording_id": "m", "row": i}])
    rows = catalog.rows(far(), "channels")
    assert sorted(row["row"] for row in rows if row["recording_id"] == "m") == list(range(5))
    assert {row["row"] for row in rows if row["recording_id"] == "o"} == set(range(1, 7))


def test_a_killed_writer_leaves_the_head_as_it_was(far: Machine) -> None:
    lake = far()
    lake.publish_recording(session(rows=500))
    code = """
        import os, sys
        from neurofmx import catalog, remote_head
        from neurofmx.lake import Lake
        remote_head._push = lambda *_: os._exit(9)
        catalog.drop(Lake.open(sys.argv[1]), "recordings", "a:b@1/r1")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(lake.root)], check=False)
    assert done.returncode == 9
    assert lake.recording_ids() == ["a:b@1/r1"] == far().recording_ids()  # the same working copy, and another
    assert all(check.passed for check in lake.verify())


def test_the_working_copy_is_the_lake_for_who_is_given_its_folder(far: Machine) -> None:
    lake = far()
    assert Lake.open(lake.root) == lake
    assert Lake.open(Path(far.url)) == lake
    (lake.root / "runs" / "one").mkdir()
    (lake.root / "runs" / "one" / "model.pt").write_bytes(b"weights")
    lake.keep(lake.root / "runs" / "one")
    assert (far().at("runs/one") / "model.pt").read_bytes() == b"weights"
    with pytest.raises(NotThere, match="runs/two"):
        lake.at("runs/two")


def test_commands_take_an_address(far: Machine) -> None:
    from neurofmx.cli import app

    far().publish_recording(session(rows=500))
    answer = CliRunner().invoke(
        app, ["sql", "select count(*) as n from recordings", "--format", "csv", "--lake", far.url]
    )
    assert answer.exit_code == 0, answer.output
    assert CliRunner().invoke(app, ["lake", "verify", "--lake", far.url]).exit_code == 0


# refusals


def test_who_may_not_read_is_told_so(far: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    far().publish_recording(session(rows=500))
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    remote_client._client.cache_clear()
    with pytest.raises(Denied, match="AWS_SKIP_SIGNATURE"):
        far()
    monkeypatch.delenv("AWS_SKIP_SIGNATURE")
    remote_client._client.cache_clear()


def test_no_bucket_no_server_and_no_address_are_said(far: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    far()
    if far.server.name == "moto":  # SeaweedFS makes buckets as they are asked for
        with pytest.raises(NotThere, match="bucket of s3://nowhere"):
            Lake.open("s3://nowhere/lake")
    with pytest.raises(ConfigError, match="s3://bucket"):
        Lake.open("gopher://bucket/lake")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(remote_client, "RETRIES", 1)
    with pytest.raises(Transient, match="an answer"):
        Lake.open(far.url)


def _names(lake: Lake, told: Any) -> None:
    try:
        told.put(lake.recording_ids())
    except ConfigError as error:
        told.put(str(error))


def test_a_forked_child_refuses_instead_of_waiting_for_ever(far: Machine) -> None:
    context, lake = multiprocessing.get_context("fork"), far()
    told = context.Queue()
    child = context.Process(target=_names, args=(lake, told))
    child.start()
    assert "spawn" in told.get(timeout=20)
    child.join()
