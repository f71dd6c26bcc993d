"""The packed index, and times that are found without being read."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx import catalog, groups, parts, shards
from neurofmx.errors import LakeCorrupt, Newer, NotThere
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.lazy import LazyRows, TimeIndex
from neurofmx.provenance import digest_array, digest_file, digest_of
from neurofmx.types import (
    Channels,
    Events,
    Intervals,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Subject,
    TokenGrid,
    TokenSpec,
)


def recording_of(name: str, seed: int = 0, n_events: int = 5000) -> Recording:
    rng = np.random.Generator(np.random.PCG64(seed))
    valid = np.array([[0.0, 100.0]])
    return Recording(
        id=RecordingId("a", "b", "1", name),
        streams={
            "spikes": Events(
                times_s=np.sort(rng.uniform(0, 100, n_events)),
                codes=rng.integers(0, 3, n_events).astype("i4"),
                channels=Channels(ids=("u0", "u1", "u2")),
                modality="spikes",
                valid=valid,
            ),
            "lfp": Samples(
                values=rng.integers(-99, 99, (10_000, 4)).astype("i2"),
                unit="uV",
                channels=Channels(ids=tuple("abcd")),
                modality="lfp",
                valid=valid,
                rate_hz=100.0,
                t0_s=0.25,
            ),
            "gaze": Samples(
                values=rng.normal(size=(900, 2)),
                unit="px",
                channels=Channels(ids=("x", "y")),
                modality="gaze",
                valid=valid,
                times_s=np.sort(rng.uniform(0, 100, 900)),
            ),
            "trials": Intervals(
                start_s=np.arange(3.0), stop_s=np.arange(3.0) + 0.5, columns={}, modality="trials", valid=valid
            ),
        },
        subject=Subject(id="s1"),
        domain_s=(0.0, 100.0),
        provenance=Provenance(files=(), reader="t@1"),
        licence=Licence(spdx="CC0-1.0"),
    )


SPEC = TokenSpec(name="s", version=1, modality="spikes", ops=(), bin_s=0.1, fields=("count",))


def grid_of(n: int) -> TokenGrid:
    return TokenGrid(values=np.arange(2.0 * n, dtype=np.float32).reshape(n, 2, 1), mask=np.ones((n, 2), bool), t0_s=0.5,
                     dt_s=0.1, channels=Channels(ids=("a", "b")), fields=("count",))  # fmt: skip


@pytest.fixture
def three(lake: Lake) -> Lake:
    for i in range(3):
        lake.publish_recording(recording_of(f"r{i}", i))
        lake.publish_tokens(f"a:b@1/r{i}", SPEC, grid_of(10 + i), stream="spikes")
    return lake


def test_arrays_open_from_the_index_alone(three: Lake) -> None:
    for file in (three.root / "recordings").rglob("zarr.json"):
        file.unlink()
    index = Index.open(three)
    assert index.recordings == ("a:b@1/r0", "a:b@1/r1", "a:b@1/r2")
    assert index.streams("a:b@1/r1") == ("gaze", "lfp", "spikes", "trials")
    for i, rid in enumerate(index.recordings):
        streams = recording_of(f"r{i}", i).streams
        lfp, spikes = streams["lfp"], streams["spikes"]
        assert isinstance(lfp, Samples)
        assert isinstance(spikes, Events)
        array = index.array(rid, "lfp/values")
        out = np.empty((50, 4), "i2")
        array.read_into(100, 150, out)
        assert np.array_equal(out, lfp.values[100:150])
        assert np.array_equal(np.asarray(index.array(rid, "spikes/times_s")), spikes.times_s)
        row = index.row(rid, "lfp/values")
        assert (row["rate_hz"], row["t0_s"], row["dtype"], row["shape"]) == (100.0, 0.25, "int16", [10_000, 4])
        assert index.row(rid, "gaze/values")["rate_hz"] is None
        ((file, digest),) = index.files(rid, "lfp/values")
        assert digest_file(three.root / file) == digest
    assert Index.open(three, ["a:b@1/r2"]).recordings == ("a:b@1/r2",)
    with pytest.raises(NotThere, match="r9"):
        Index.open(three, ["a:b@1/r9"])
    with pytest.raises(NotThere, match="lfp/value"):
        index.array("a:b@1/r1", "lfp/nothing")
    index.close()


def test_tokens_have_an_index_of_their_own(three: Lake) -> None:
    index = Index.open(three, kind=f"tokens:{SPEC.digest()}:spikes", random=True)
    assert len(index) == 3
    assert np.array_equal(np.asarray(index.array("a:b@1/r2", "values")), grid_of(12).values)
    assert (index.row("a:b@1/r2", "values")["rate_hz"], index.row("a:b@1/r2", "values")["t0_s"]) == (10.0, 0.5)
    index.close()


def test_the_index_follows_the_catalog(three: Lake) -> None:
    three.publish_recording(recording_of("r1", seed=7))
    want = recording_of("r1", seed=7).streams["lfp"]
    assert isinstance(want, Samples)
    assert np.array_equal(np.asarray(Index.open(three).array("a:b@1/r1", "lfp/values")), want.values)
    # a writer that was killed between the two rows: the recording's own row decides
    old = catalog.rows(three, "recordings", "a:b@1/r0")
    three.publish_recording(recording_of("r0", seed=8))
    catalog.put(three, "recordings", "a:b@1/r0", old)
    want = recording_of("r0").streams["lfp"]
    assert isinstance(want, Samples)
    assert np.array_equal(np.asarray(Index.open(three).array("a:b@1/r0", "lfp/values")), want.values)


def test_a_lake_of_the_first_schema_opens(lake: Lake) -> None:
    before = recording_of("r0")
    _as_schema_one(lake, before)
    assert all(check.passed for check in lake.verify())
    after, index = lake.recording(before.id), Index.open(lake)
    for name in ("lfp", "spikes", "gaze"):
        a, b = before.streams[name], after.streams[name]
        for key in ("values", "times_s", "codes"):
            if getattr(a, key, None) is not None:
                assert np.array_equal(np.asarray(getattr(b, key)), np.asarray(getattr(a, key)))
                assert np.array_equal(np.asarray(index.array(str(before.id), f"{name}/{key}")), getattr(a, key))
    assert index.times(str(before.id), "spikes") is None
    # published again it is the same data in the present schema
    lake.publish_recording(after)
    assert all(check.passed for check in lake.verify())


def _as_schema_one(lake: Lake, recording: Recording) -> None:
    """What the first version of the code published, written by zarr-python."""
    import zarr
    from zarr.codecs import BytesCodec

    arrays, about = groups.pack_recording(recording)
    arrays = {name: np.asarray(a) for name, a in arrays.items() if not name.endswith(groups.BY_TIME)}
    for stream in about["streams"].values():
        stream.pop(groups.BY_TIME, None)
    about["schema"] = 1
    streams = groups.stream_digests(about, {name: digest_array(a) for name, a in arrays.items()})
    digest = digest_of({"attributes": about, "streams": streams})
    path = f"recordings/a/b@1/{recording.id.name}-{digest[:16]}.zarr"
    root = zarr.open_group(str(lake.root / path), mode="w-", zarr_format=3,
                           attributes={"neurofmx": about, "digest": digest})  # fmt: skip
    for name, array in arrays.items():
        rows = max(1, min(len(array), 1000))
        made = root.create_array(name, shape=array.shape, dtype=array.dtype, chunks=(rows, *array.shape[1:]),
                                 shards=(4 * rows, *array.shape[1:]), serializer=BytesCodec(), compressors=None,
                                 config={"write_empty_chunks": True})  # fmt: skip
        if array.size:
            made[...] = array
    row = groups.recording_row(recording) | {"digest": digest, "path": path}
    catalog.put(lake, "streams", str(recording.id), groups.stream_rows(recording, streams))
    catalog.put(lake, "recordings", str(recording.id), [row])


def test_a_group_of_a_newer_schema_says_so(three: Lake) -> None:
    group = three.root / catalog.rows(three, "recordings", "a:b@1/r0")[0]["path"]
    file = group / "zarr.json"
    file.write_text(file.read_text().replace(f'"schema": {groups.SCHEMA}', '"schema": 99'))
    with pytest.raises(Newer, match="schema 99"):
        three.recording("a:b@1/r0")


def test_ten_thousand_recordings_open_in_little_memory(lake: Lake) -> None:
    big = _many(lake, 10_000)
    code = f"""
import sys
sys.modules["zarr"] = sys.modules["duckdb"] = None
from neurofmx.lake import Lake
from neurofmx.index import Index
import pyarrow.parquet
lake = Lake.open({str(lake.root)!r})
def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) >> 10
before = held()
index = Index.open(lake)
array = index.array(index.recordings[1234], "s3/values")
print(len(index), index.table.num_rows, array.shape[0], held() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recordings, rows, length, mb = (int(word) for word in done.stdout.split())
    assert (recordings, rows, length) == (10_000, 70_000, big)
    assert mb < 200


def _many(lake: Lake, n: int) -> int:
    ids = [f"a:b@1/r{i:05d}" for i in range(n)]
    seven = [(rid, f"s{k}") for rid in ids for k in range(7)]
    every = len(seven)
    parts.put_table(lake, "arrays", [rid for rid, _ in seven], pa.table({
        "recording_id": [rid for rid, _ in seven], "kind": ["recording"] * every, "stream": [s for _, s in seven],
        "array": [f"{s}/values" for _, s in seven], "group": [f"recordings/{rid[-6:]}.zarr" for rid, _ in seven],
        "dtype": ["float32"] * every, "shape": [[600_000, 64]] * every, "chunk_rows": [1024] * every,
        "shard_rows": [262_144] * every, "codec": ["none"] * every, "rate_hz": [1000.0] * every, "t0_s": [0.0] * every,
        "n_bytes": [153_600_000] * every, "files": [[f"{s}/values/c/{i}/0" for i in range(3)] for _, s in seven],
        "file_sha256": [[digest_of([rid, s, i]) for i in range(3)] for rid, s in seven],
    }))  # fmt: skip
    parts.put_table(
        lake, "recordings", ids, pa.table({"recording_id": ids, "path": [f"recordings/{r[-6:]}.zarr" for r in ids]})
    )
    return 600_000


# times


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(129, 3000), base=st.sampled_from([0.0, -50.0, 1e4, 1.6e9]),
    span=st.sampled_from([0.5, 100.0, 1e5]), ties=st.booleans(),
)  # fmt: skip
def test_the_time_index_finds_every_event(seed, n, base, span, ties) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    times = np.sort(base + span * rng.uniform(size=n) ** 3)
    if ties:
        times = np.sort(base + np.round((times - base) * 4) / 4)
    index = TimeIndex.of(times)
    if index is None:
        return
    edges = index.t0_s + index.step_s * np.arange(len(index.first))
    near = np.concatenate([rng.choice(times, 20), np.nextafter(rng.choice(edges, 20), -np.inf), rng.choice(edges, 20)])
    for start in [*near.tolist(), base - 1, base + 2 * span, -np.inf]:
        for stop in (start, start + index.step_s, start + span / 3, np.inf):
            lo, hi = index.rows(start, stop)
            a, b = np.searchsorted(times, [start, stop])
            assert a == b or lo <= a <= b <= hi
            assert 0 <= lo <= hi <= n


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([0, 5, 20_000]), ties=st.booleans(), indexed=st.booleans())
def test_lazy_times_are_numpy_times(seed, n, ties, indexed, tmp_path_factory) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    times = np.sort(rng.uniform(0, 60, n).round(1 if ties else 9))
    path = tmp_path_factory.mktemp("t") / "g"
    shards.write_group(path, {"t": times}, {})

    def lazy() -> LazyRows:
        return LazyRows(shards.open_array(path / "t"), TimeIndex.of(times) if indexed else None)

    for side in ("left", "right"):
        some = [-1.0, 61.0, 30.0, 30.05, np.inf, -np.inf, np.nan, *times[:: max(1, n // 20)].tolist()]
        assert np.array_equal(np.searchsorted(lazy(), some, side=side), np.searchsorted(times, some, side=side))  # type: ignore[call-overload]
        assert np.searchsorted(lazy(), 30.0, side=side) == np.searchsorted(times, 30.0, side=side)  # type: ignore[call-overload]
    one = lazy()
    assert (one.shape, one.dtype, len(one), one.size, one.ndim) == (times.shape, times.dtype, n, n, 1)
    assert np.array_equal(one[3:9], times[3:9])
    assert np.array_equal(one[-2:], times[-2:])
    assert np.array_equal(one[times > 30], times[times > 30])
    assert np.array_equal(one - 1.0, times - 1.0)
    assert np.array_equal(2.0 * one >= one.astype(int), 2.0 * times >= times.astype(int))
    assert np.array_equal(np.diff(one), np.diff(times))
    assert np.array_equal(pickle.loads(pickle.dumps(one)), times)
    assert digest_array(one) == digest_array(times)


def test_a_slice_of_events_reads_only_its_part(lake: Lake) -> None:
    n = 200_000
    before = recording_of("r0", n_events=n)
    lake.publish_recording(before)
    spikes = lake.recording(before.id).streams["spikes"]
    kept = before.streams["spikes"]
    assert isinstance(spikes, Events)
    assert isinstance(kept, Events)
    window = spikes.slice(40.0, 41.0)
    assert np.array_equal(window.times_s, kept.slice(40.0, 41.0).times_s)
    assert np.array_equal(window.codes, kept.slice(40.0, 41.0).codes)
    for rows in (spikes.times_s, spikes.codes):
        assert isinstance(rows, LazyRows)
        assert rows._whole is None
    assert isinstance(window.times_s, np.ndarray)
    index = Index.open(lake)
    times = index.times(str(before.id), "spikes")
    assert times is not None
    lo, hi = times.rows(40.0, 41.0)
    a, b = np.searchsorted(kept.times_s, [40.0, 41.0])
    assert lo <= a <= b <= hi
    assert hi - lo < (b - a) + 4 * 128


def test_times_out_of_order_have_no_index() -> None:
    for times in (np.arange(500.0)[::-1], np.append(np.arange(500.0), np.nan), np.arange(5.0)):
        assert TimeIndex.of(times) is None


def test_a_damaged_group_is_named(three: Lake) -> None:
    group = three.root / catalog.rows(three, "recordings", "a:b@1/r0")[0]["path"]
    shutil.rmtree(group / "lfp" / "values")
    with pytest.raises(LakeCorrupt, match="no such file"):
        Index.open(three).array("a:b@1/r0", "lfp/values").read(0, 1)
    (group / "zarr.json").write_text("{")
    with pytest.raises(LakeCorrupt, match="Zarr v3 group"):
        three.recording("a:b@1/r0")
    assert not Path(group / "lfp" / "values").exists()


def test_recordings_without_rows_are_described_once_published_by_others(three: Lake) -> None:
    catalog.drop(three, "arrays", "a:b@1/r1")
    index = Index.open(three)
    group = catalog.rows(three, "recordings", "a:b@1/r1")[0]["path"]
    assert index.files("a:b@1/r1", "lfp/values") == [(f"{group}/lfp/values/c/0/0", "")]
    spikes = replace(recording_of("r1", 1)).streams["spikes"]
    assert isinstance(spikes, Events)
    assert np.array_equal(np.asarray(index.array("a:b@1/r1", "spikes/codes")), spikes.codes)
