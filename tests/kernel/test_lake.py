"""The lake: exact round trips, identity by content, whole after a kill, nothing lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofmx import catalog, shards
from neurofmx.errors import LakeCorrupt, Mismatch, NoSpace, NotThere
from neurofmx.lake import Lake
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


def small_recording(name: str = "r1", seed: int = 0) -> Recording:
    rng = np.random.Generator(np.random.PCG64(seed))
    valid = np.array([[0.0, 4.0], [5.0, 10.0]])
    return Recording(
        id=RecordingId("a", "b", "1", name),
        streams={
            "spikes": Events(
                times_s=np.sort(rng.uniform(0, 10, 500)),
                codes=rng.integers(0, 3, 500).astype(np.int32),
                channels=Channels(ids=("u0", "u1", "u2"), regions=("CA1", "CA1", "")),
                modality="spikes",
                valid=valid,
            ),
            "lfp": Samples(
                values=rng.normal(size=(1000, 4)).astype(np.float32),
                unit="uV",
                channels=Channels(ids=tuple("abcd"), positions_um=rng.normal(size=(4, 3))),
                modality="lfp",
                valid=valid,
                rate_hz=100.0,
            ),
            "position": Samples(
                values=rng.normal(size=(50, 2)),
                unit="px",
                channels=Channels(ids=("x", "y")),
                modality="position",
                valid=valid,
                times_s=np.sort(rng.uniform(0, 10, 50)),
            ),
            "trials": Intervals(
                start_s=np.arange(3.0),
                stop_s=np.arange(3.0) + 0.5,
                columns={"side": np.array(["left", "right", "left"]), "contrast": np.array([0.1, 1.0, np.nan])},
                modality="trials",
                valid=valid,
            ),
        },
        subject=Subject(id="s1", species="Mus musculus"),
        domain_s=(0.0, 10.0),
        provenance=Provenance(files=(RawFile(path="f", url="u", sha256="0" * 64, size=1),), reader="t@1"),
        licence=Licence(spdx="CC0-1.0"),
    )


def test_a_recording_comes_back_bit_for_bit(lake: Lake) -> None:
    before = small_recording()
    digest = lake.publish_recording(before, [Check(name="c", passed=True, severity="warn", evidence="e")])
    after = lake.recording(before.id)
    for name in ("spikes", "lfp", "position"):
        a, b = before.streams[name], after.streams[name]
        assert not isinstance(a, Intervals)
        assert not isinstance(b, Intervals)
        for key in ("times_s", "codes", "values", "valid"):
            if getattr(a, key, None) is not None:
                x, y = np.asarray(getattr(a, key)), np.asarray(getattr(b, key))
                assert x.dtype == y.dtype
                assert np.array_equal(x, y, equal_nan=True)
        assert a.channels.ids == b.channels.ids
    trials = after.streams["trials"]
    assert isinstance(trials, Intervals)
    assert trials.columns["side"].tolist() == ["left", "right", "left"]
    assert (after.id, after.subject, after.licence, after.provenance) == (
        before.id,
        before.subject,
        before.licence,
        before.provenance,
    )
    assert lake.recording_digest(before.id) == digest == lake.publish_recording(after)


def test_slices_read_what_zarr_python_reads(lake: Lake) -> None:
    lake.publish_recording(small_recording())
    row = catalog.rows(lake, "recordings")[0]
    array = zarr.open_array(str(lake.root / row["path"] / "lfp" / "values"))
    window = lake.recording(row["recording_id"]).slice(2.0, 3.5).streams["lfp"]
    assert isinstance(window, Samples)
    assert window.t0_s == 2.0
    assert np.array_equal(window.values, np.asarray(array[200:350]))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 700), width=st.sampled_from([0, 1, 3]), dtype=st.sampled_from(["i2", "f4", "f8", "u1"]))
def test_direct_reader_equals_zarr_for_any_range(rows: int, width: int, dtype: str, tmp_path_factory) -> None:
    array = np.arange(rows * max(width, 1)).reshape((rows, width) if width else (rows,)).astype(dtype)
    array[rows // 3 : rows // 2] = 0  # a silent stretch must be stored too
    path = tmp_path_factory.mktemp("g") / "x.zarr"
    # several chunks a shard, several shards an array
    shards.write_group(path, {"v": array}, {}, chunk_bytes=256, shard_bytes=1024)
    direct, reference = shards.open_array(path / "v"), zarr.open_array(str(path / "v"))
    assert np.array_equal(np.asarray(direct), np.asarray(reference[...]))
    for lo, hi in [(0, rows), (rows // 4, rows // 2), (rows, rows)]:
        assert np.array_equal(direct[lo:hi], array[lo:hi])


def test_another_content_is_another_digest_and_the_old_group_stays(lake: Lake) -> None:
    first = lake.publish_recording(small_recording())
    old_path = lake.root / catalog.rows(lake, "recordings")[0]["path"]
    assert lake.publish_recording(small_recording(seed=1)) != first
    assert old_path.exists()
    assert len(catalog.rows(lake, "recordings")) == 1


def test_verify_finds_a_flipped_byte(lake: Lake) -> None:
    recording = replace(small_recording(), provenance=Provenance(files=(), reader="t@1"))
    lake.publish_recording(recording)
    assert all(check.passed for check in lake.verify())
    shard = next((lake.root / catalog.rows(lake, "recordings")[0]["path"] / "lfp" / "values").rglob("c/0/0"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    assert [c.name for c in lake.verify() if not c.passed] == ["recording a:b@1/r1"]


def test_a_missing_shard_is_named(lake: Lake) -> None:
    lake.publish_recording(small_recording())
    next((lake.root / catalog.rows(lake, "recordings")[0]["path"] / "lfp" / "values").rglob("c/0/0")).unlink()
    with pytest.raises(LakeCorrupt, match="no such file"):
        np.asarray(lake.recording("a:b@1/r1").streams["lfp"].values)  # type: ignore[union-attr]


def test_raw_bytes_are_kept_by_digest_and_a_wrong_digest_is_refused(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"abc")
    with pytest.raises(Mismatch, match="x.bin"):
        lake.add_raw(file, sha256="0" * 64)
    assert file.exists()
    sha = lake.add_raw(file)
    assert not file.exists()
    with lake.raw_view([RawFile(path="sub/x.bin", url="", sha256=sha, size=3)]) as folder:
        assert (folder / "sub" / "x.bin").read_bytes() == b"abc"


def test_tokens_are_current_only_for_the_present_recording(lake: Lake) -> None:
    lake.publish_recording(small_recording())
    spec = TokenSpec(name="s", version=1, modality="spikes", ops=(), bin_s=0.1, fields=("count",))
    grid = TokenGrid(
        values=np.ones((5, 2, 1), np.float32),
        mask=np.array([[True, False]] * 5),
        t0_s=0.5,
        dt_s=0.1,
        channels=Channels(ids=("a", "b")),
        fields=("count",),
    )
    lake.publish_tokens("a:b@1/r1", spec, grid)
    again = lake.tokens("a:b@1/r1", spec)
    assert np.array_equal(again.values, grid.values)
    assert np.array_equal(again.mask, grid.mask)
    assert lake.has_tokens("a:b@1/r1", spec)
    lake.publish_recording(small_recording(seed=1))
    assert not lake.has_tokens("a:b@1/r1", spec)
    with pytest.raises(NotThere):
        lake.tokens("a:b@1/r1", replace(spec, version=2))


def test_killed_writers_leave_the_lake_whole(lake: Lake) -> None:
    lake.publish_recording(replace(small_recording("old"), provenance=Provenance(files=(), reader="t@1")))
    code = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from dataclasses import replace
        from test_lake import small_recording
        from neurofmx.lake import Lake
        from neurofmx.types import Provenance
        lake = Lake.open({str(lake.root)!r})
        print("go", flush=True)
        for i in range(10_000):
            new = small_recording(f"n{{i}}", i)
            lake.publish_recording(replace(new, provenance=Provenance(files=(), reader="t@1")))
        """
    )
    for delay in (0.15, 0.4):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert all(check.passed for check in lake.verify())
        assert "a:b@1/old" in lake.recording_ids()


def test_a_full_disk_is_said_and_changes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.publish_recording(small_recording())
    before = lake.recording_digest("a:b@1/r1")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")  # what the kernel says; a real full disk needs root

    monkeypatch.setattr(shards, "write_arrays", full)
    with pytest.raises(NoSpace, match="bytes free"):
        lake.publish_recording(small_recording(seed=2))
    assert lake.recording_digest("a:b@1/r1") == before


def test_snapshot_is_the_digest_of_what_it_names(lake: Lake) -> None:
    lake.publish_recording(small_recording())
    first = lake.snapshot()
    assert first == lake.snapshot()
    lake.publish_recording(small_recording("r2"))
    assert lake.snapshot() != first
    assert (lake.root / "manifests" / "snapshots" / f"{first}.json").exists()
