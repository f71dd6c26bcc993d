"""Packed lakes: whole, small, the same choice every time, and read with numpy and pyarrow alone; tiers in place."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurofmx import catalog, collect, shards
from neurofmx.errors import ConfigError, LakeCorrupt, NotThere
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.pack import LICENCE, convert, pack
from neurofmx.scaled import Scaled
from neurofmx.types import (
    Channels,
    Check,
    Events,
    Intervals,
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

SPEC = TokenSpec(name="counts", version=1, modality="spikes", ops=(), bin_s=0.1, fields=("count",))


def recording_of(name: str, seconds: int = 60, dataset: str = "b", redistribute: bool = True) -> Recording:
    rng = np.random.Generator(np.random.PCG64(len(name) + seconds))
    valid = np.array([[0.0, seconds]])
    integers = np.cumsum(rng.integers(-9, 10, (100 * seconds, 8)), axis=0).astype("i2")
    return Recording(
        id=RecordingId("a", dataset, "1", name),
        streams={
            "spikes": Events(
                times_s=np.sort(rng.uniform(0, seconds, 50 * seconds)),
                codes=rng.integers(0, 3, 50 * seconds).astype("i4"),
                channels=Channels(ids=("u0", "u1", "u2")),
                modality="spikes",
                valid=valid,
            ),
            "lfp": Samples(
                values=Scaled(integers, np.full(8, 0.195), np.zeros(8)),
                unit="uV",
                channels=Channels(ids=tuple("abcdefgh")),
                modality="lfp",
                valid=valid,
                rate_hz=100.0,
            ),
            "trials": Intervals(
                start_s=np.arange(3.0), stop_s=np.arange(3.0) + 0.5, columns={}, modality="trials", valid=valid
            ),
        },
        subject=Subject(id=f"s-{name}"),
        domain_s=(0.0, float(seconds)),
        provenance=Provenance(files=(RawFile(path="f", url="u", sha256="0" * 64, size=1),), reader="t@1"),
        licence=Licence(spdx="CC0-1.0", redistribute=redistribute),
    )


def grid_of(seconds: int) -> TokenGrid:
    values = np.arange(20.0 * seconds, dtype=np.float32).reshape(10 * seconds, 2, 1)
    return TokenGrid(values=values, mask=np.ones((10 * seconds, 2), bool), t0_s=0.0, dt_s=0.1,
                     channels=Channels(ids=("a", "b")), fields=("count",))  # fmt: skip


@pytest.fixture
def full(lake: Lake) -> Lake:
    for name, seconds, dataset in (("r1", 60, "b"), ("r2", 120, "b"), ("r3", 300, "b"), ("q1", 90, "c")):
        given = recording_of(name, seconds, dataset)
        lake.publish_recording(given, [Check(name="c", passed=True, severity="warn", evidence="e")])
        lake.publish_tokens(given.id, SPEC, grid_of(seconds), stream="spikes")
    lake.publish_recording(recording_of("closed", redistribute=False))
    return lake


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def same(a: Lake, b: Lake, rid: str) -> None:
    x, y = a.recording(rid), b.recording(rid)
    assert (x.id, x.provenance, x.subject, x.licence) == (y.id, y.provenance, y.subject, y.licence)
    for name in ("spikes", "lfp"):
        one, other = x.stream(name), y.stream(name)
        for key in ("times_s", "codes", "values", "valid"):
            if getattr(one, key, None) is not None:
                assert np.array_equal(np.asarray(getattr(one, key)), np.asarray(getattr(other, key)))
    assert a.recording_digest(rid) == b.recording_digest(rid)
    if catalog.rows(a, "tokens", f"{rid}|{SPEC.name}|{SPEC.digest()}|spikes"):
        assert np.array_equal(a.tokens(rid, SPEC, stream="spikes").values, b.tokens(rid, SPEC, stream="spikes").values)
        assert b.has_tokens(rid, SPEC, stream="spikes")


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_packed_lake_is_a_whole_lake(codec, full: Lake, tmp_path: Path) -> None:
    done = pack(full, tmp_path / "small", codec=codec)
    assert done.recordings == ("a:b@1/r1", "a:b@1/r2", "a:b@1/r3", "a:c@1/q1")
    assert done.left_out == {"a:b@1/closed": LICENCE}
    assert done.n_bytes == size_of(tmp_path / "small")
    new = Lake.open(tmp_path / "small")
    assert all(check.passed for check in new.verify())
    for rid in done.recordings:
        same(full, new, rid)
        for table in ("streams", "channels", "intervals", "checks"):
            rows = [row for row in catalog.rows(new, table) if row["recording_id"] == rid]
            assert rows == [row for row in catalog.rows(full, table) if row["recording_id"] == rid]
    assert {row["codec"] for row in catalog.rows(new, "arrays")} == {codec}
    assert len(catalog.rows(new, "subjects")) == 4
    # and it can be written on: a recording's new version replaces the packed one
    new.publish_recording(recording_of("r1", 61))
    assert len([row for row in catalog.rows(new, "streams") if row["recording_id"] == "a:b@1/r1"]) == 3


def test_the_choice_is_named_and_the_same_every_time(full: Lake, tmp_path: Path) -> None:
    whole = pack(full, tmp_path / "whole")
    limit = whole.n_bytes / 1e6 * 0.65
    first, second = (pack(full, tmp_path / name, max_mb=limit) for name in ("one", "two"))
    assert size_of(first.path) <= limit * 1e6
    assert first.recordings == second.recordings
    assert first.snapshot == second.snapshot
    # the smallest of each dataset in turn: r1, q1, r2, and r3 stays
    assert first.recordings == ("a:b@1/r1", "a:b@1/r2", "a:c@1/q1")
    assert set(first.left_out) == {"a:b@1/r3", "a:b@1/closed"}
    assert "MB" in first.left_out["a:b@1/r3"]
    with pytest.raises(NotThere, match="MB"):
        pack(full, tmp_path / "none", max_mb=0.01)
    assert not list(tmp_path.glob(".*"))


def test_recordings_are_chosen_by_name_and_by_query(full: Lake, tmp_path: Path) -> None:
    assert pack(full, tmp_path / "a", recordings=["a:b@1/r2"]).recordings == ("a:b@1/r2",)
    by_sql = pack(full, tmp_path / "b", where_sql="select recording_id from recordings where dataset = 'c'")
    assert by_sql.recordings == ("a:c@1/q1",)
    with pytest.raises(NotThere, match="r9"):
        pack(full, tmp_path / "c", recordings=["a:b@1/r9"])
    with pytest.raises(ConfigError, match="recording_id"):
        pack(full, tmp_path / "c", where_sql="select dataset from recordings")
    with pytest.raises(ConfigError, match="it is there"):
        pack(full, tmp_path / "a")


def test_damage_is_not_carried_on(full: Lake, tmp_path: Path) -> None:
    group = full.root / catalog.rows(full, "recordings", "a:b@1/r2")[0]["path"]
    file = group / "lfp" / "values" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(bytes(data))
    for codec in ("none", "lz4"):
        with pytest.raises(LakeCorrupt, match="verify"):
            pack(full, tmp_path / "out", codec=codec)
        with pytest.raises(LakeCorrupt, match="digest"):
            convert(full, "lz4", ["a:b@1/r2"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake"]
    assert shards.open_array(group / "lfp" / "values").codec == "none"


def test_numpy_and_pyarrow_read_it_alone(full: Lake, tmp_path: Path) -> None:
    pack(full, tmp_path / "small", recordings=["a:b@1/r1"])
    code = f"""
import sys

class Only:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        ours = first in ("numpy", "pyarrow", "neurofmx") or first.startswith("_sysconfigdata")
        if first not in sys.stdlib_module_names and not ours:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Only())
import numpy as np
from neurofmx.index import Index
from neurofmx.lake import Lake
from neurofmx.types import TokenSpec

lake = Lake.open({str(tmp_path / "small")!r})
spec = TokenSpec(name="counts", version=1, modality="spikes", ops=(), bin_s=0.1, fields=("count",))
(rid,) = lake.recording_ids()
recording = lake.recording(rid).slice(10.0, 20.0)
tokens = lake.tokens(rid, spec, stream="spikes")
index = Index.open(lake)
array = index.array(rid, "lfp/values")
out = np.empty((100, 8), np.int16)
array.read_into(500, 600, out)
spikes, lfp = recording.streams["spikes"], recording.streams["lfp"]
print(rid, len(spikes.times_s), lfp.values.shape, tokens.values.sum(), out.sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given = recording_of("r1", 60)
    spikes, lfp = given.stream("spikes"), given.stream("lfp")
    assert isinstance(spikes, Events)
    assert isinstance(lfp, Samples)
    n = int(((spikes.times_s >= 10) & (spikes.times_s < 20)).sum())
    total = lfp.values.values[500:600].sum()
    assert done.stdout.split() == ["a:b@1/r1", str(n), "(1000,", "8)", str(grid_of(60).values.sum()), str(total)]


def test_tiers_are_converted_in_place_and_a_snapshot_keeps_its_own(full: Lake) -> None:
    before = {row["recording_id"]: row for row in catalog.rows(full, "recordings")}
    snapshot = full.snapshot("hot")
    made = convert(full, "lz4", ["a:b@1/r1", "a:b@1/r2"])
    assert len(made) == 4
    after = {row["recording_id"]: row for row in catalog.rows(full, "recordings")}
    for rid in ("a:b@1/r1", "a:b@1/r2"):
        assert after[rid] == before[rid] | {"path": before[rid]["path"].replace(".zarr", ".lz4.zarr")}
        assert (full.root / before[rid]["path"]).exists()
        assert size_of(full.root / after[rid]["path"]) < size_of(full.root / before[rid]["path"])
        assert full.has_tokens(rid, SPEC, stream="spikes")
    assert all(check.passed for check in full.verify() if not check.name.startswith("raw"))
    index = Index.open(full)
    window, whole = np.empty((50, 8), "i2"), recording_of("r1", 60).stream("lfp")
    index.array("a:b@1/r1", "lfp/values").read_into(777, 827, window)
    assert isinstance(whole, Samples)
    assert np.array_equal(window, whole.values.values[777:827])
    assert convert(full, "lz4", ["a:b@1/r1"]) == []
    # a collection leaves what the snapshot names
    collect.gc(full, grace_s=0)
    for rid in ("a:b@1/r1", "a:b@1/r2"):
        assert (full.root / before[rid]["path"]).exists()
        assert (full.root / after[rid]["path"]).exists()
    # and back
    assert len(convert(full, "none")) == 4
    assert {r["recording_id"]: r for r in catalog.rows(full, "recordings")} == before
    assert full.snapshot() == snapshot
    published = replace(recording_of("r1", 60))
    assert full.publish_recording(published) == before["a:b@1/r1"]["digest"]
