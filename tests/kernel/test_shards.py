"""Shards: what we write zarr-python reads and the other way round, by any range, codec and layout; damage is named."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec

from neurofmx import handles, shards
from neurofmx.errors import LakeCorrupt, MalformedFile
from neurofmx.handles import OpenFiles
from neurofmx.provenance import digest_rows
from neurofmx.shards import ShardedArray

DTYPES = st.sampled_from(["i2", "<f4", ">f8", "u1", "?", "f2", "i8", ">u2"])
TRAILING = st.sampled_from([(), (1,), (3,), (2, 5), (0,), (4, 1, 2)])


def values_of(rows: int, trailing: tuple[int, ...], dtype: str) -> np.ndarray:
    n = rows * int(np.prod(trailing, dtype=int))
    array = (np.arange(n) * 7 % 251).reshape((rows, *trailing)).astype(dtype)
    array[rows // 3 : rows // 2] = 0  # a silent stretch must be stored too
    return array


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 700), trailing=TRAILING, dtype=DTYPES, codec=st.sampled_from(["none", "lz4"]),
    chunk=st.integers(1, 600), shard=st.integers(500, 3000), lo=st.floats(0, 1), hi=st.floats(0, 1),
)  # fmt: skip
def test_zarr_reads_ours_and_so_do_we(rows, trailing, dtype, codec, chunk, shard, lo, hi, tmp_path_factory) -> None:
    array, path = values_of(rows, trailing, dtype), tmp_path_factory.mktemp("g") / "x.zarr"
    (written,) = shards.write_group(path, {"a/v": array}, {"n": 1}, codec, chunk_bytes=chunk, shard_bytes=shard)
    reference = zarr.open_group(str(path), mode="r")["a/v"]
    assert isinstance(reference, zarr.Array)
    assert reference.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(np.asarray(reference[...]), array)
    direct = shards.open_array(path / "a" / "v")
    assert (direct.shape, direct.dtype, direct.codec) == (array.shape, array.dtype.newbyteorder("<"), codec)
    a, b = sorted((round(lo * rows), round(hi * rows)))
    for ours in (direct, ShardedArray(direct.path, direct.shape, direct.dtype, direct.chunk_rows, direct.shard_rows,
                                      codec, known=True)):  # fmt: skip
        assert np.array_equal(np.asarray(ours), array)
        assert np.array_equal(ours[a:b], array[a:b])
        out = np.full((b - a, *trailing), 1, direct.dtype)
        ours.read_into(a, b, out)
        assert np.array_equal(out, array[a:b])
    assert (written.shape, written.n_bytes) == (array.shape, array.nbytes)
    assert written.digest == digest_rows(array) == digest_rows(direct)
    assert list(written.file_sha256) == [hashlib.sha256((path / f).read_bytes()).hexdigest() for f in written.files]
    assert sorted(written.files) == sorted(str(f.relative_to(path)) for f in path.rglob("c/**/*") if f.is_file())


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(0, 400), trailing=TRAILING.filter(lambda t: 0 not in t), dtype=st.sampled_from(["i2", "f4", "u1"]),
    packed=st.booleans(), chunk=st.integers(1, 50), per_shard=st.integers(1, 9),
)  # fmt: skip
def test_we_read_what_zarr_writes(rows, trailing, dtype, packed, chunk, per_shard, tmp_path_factory) -> None:
    array, path = values_of(rows, trailing, dtype), tmp_path_factory.mktemp("z") / "x.zarr"
    made = zarr.create_array(
        str(path), shape=array.shape, dtype=array.dtype, chunks=(chunk, *trailing),
        shards=(chunk * per_shard, *trailing), serializer=BytesCodec(),
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")] if packed else None,
        config={"write_empty_chunks": True},
    )  # fmt: skip
    made[...] = array
    assert np.array_equal(np.asarray(shards.open_array(path)), array)


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_the_metadata_is_what_zarr_itself_writes(codec, tmp_path: Path) -> None:
    import json

    for dtype in ("i2", "u1", "?", "f8"):
        array = values_of(100, (3,), dtype)
        (written,) = shards.write_group(tmp_path / f"ours-{dtype}", {"v": array}, {}, codec, chunk_bytes=600)
        made = zarr.create_array(
            str(tmp_path / f"theirs-{dtype}"), shape=array.shape, dtype=array.dtype, chunks=(written.chunk_rows, 3),
            shards=(written.shard_rows, 3), serializer=BytesCodec(),
            compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")] if codec == "lz4" else None,
            config={"write_empty_chunks": True},
        )  # fmt: skip
        made[...] = array
        ours, theirs = tmp_path / f"ours-{dtype}" / "v", tmp_path / f"theirs-{dtype}"
        assert json.loads((ours / "zarr.json").read_text()) == json.loads((theirs / "zarr.json").read_text())
        # and so are the shards, byte for byte
        assert [(ours / f).read_bytes() for f in ("c/0/0",)] == [(theirs / f).read_bytes() for f in ("c/0/0",)]


class Counted:
    """Rows of an array that nobody may have whole."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, key: slice) -> np.ndarray:
        part = self.array[key]
        self.most = max(self.most, part.nbytes)
        return part


def test_a_long_signal_is_written_in_pieces(tmp_path: Path) -> None:
    signal = Counted(values_of(3_000_000, (8,), "i2"))
    (written,) = shards.write_group(tmp_path / "g", {"v": signal}, {}, shard_bytes=16 << 20)
    assert signal.most <= 8 << 20
    assert len(written.files) == 3
    assert written.digest == digest_rows(signal.array)
    assert np.array_equal(np.asarray(shards.open_array(tmp_path / "g" / "v")), signal.array)


def test_text_and_single_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match="rows of numbers"):
        shards.write_group(tmp_path / "g", {"v": np.array(["a"])}, {})
    with pytest.raises(MalformedFile, match="rows of numbers"):
        shards.write_group(tmp_path / "h", {"v": np.array(1.0)}, {})


def test_a_buffer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    shards.write_group(tmp_path / "g", {"v": values_of(100, (4,), "f4")}, {})
    array = shards.open_array(tmp_path / "g" / "v")
    for out in (np.empty((9, 4), "f4"), np.empty((10, 4), "i4"), np.empty((4, 10), "f4").T):
        with pytest.raises((ValueError, BufferError), match=r"buffer|contiguous"):
            array.read_into(0, 10, out)
    with pytest.raises(IndexError):
        array.read_into(95, 105, np.empty((10, 4), "f4"))


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_damage_is_named(codec, tmp_path: Path) -> None:
    array = np.random.Generator(np.random.PCG64(0)).normal(size=(1000, 4))
    shards.write_group(tmp_path / "g", {"v": array}, {}, codec, chunk_bytes=4000)
    file = tmp_path / "g" / "v" / "c" / "0" / "0"
    whole = file.read_bytes()

    def after(data: bytes) -> np.ndarray:
        file.write_bytes(data)
        handles.close_files(str(tmp_path))
        return np.asarray(shards.open_array(tmp_path / "g" / "v"))

    assert np.array_equal(after(whole), array)
    for damaged in (whole[: len(whole) // 2], whole[:10], b"", whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]):
        with pytest.raises(LakeCorrupt, match="c/0/0"):
            after(damaged)
    if codec == "lz4":
        with pytest.raises(LakeCorrupt, match="c/0/0"):
            after(bytes([0xFF] * 8) + whole[8:])
    file.unlink()
    handles.close_files(str(tmp_path))
    with pytest.raises(LakeCorrupt, match="no such file"):
        np.asarray(shards.open_array(tmp_path / "g" / "v"))


def test_chunks_that_another_writer_left_out_are_not_read_as_others(tmp_path: Path) -> None:
    array = values_of(100, (2,), "f4")
    made = zarr.create_array(str(tmp_path / "z"), shape=array.shape, dtype="f4", chunks=(10, 2), shards=(50, 2),
                             serializer=BytesCodec(), compressors=None)  # fmt: skip
    made[...] = array
    with pytest.raises(LakeCorrupt, match="404 bytes; expected 484"):
        np.asarray(shards.open_array(tmp_path / "z"))


def test_few_files_stay_open_while_many_threads_read(tmp_path: Path) -> None:
    files = OpenFiles(limit=8)
    array = values_of(40_000, (2,), "i4")
    shards.write_group(tmp_path / "g", {"v": array}, {}, chunk_bytes=800, shard_bytes=8000)
    plain = shards.open_array(tmp_path / "g" / "v", files=files)
    assert len(plain.shard_files) == 40
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng, out = np.random.Generator(np.random.PCG64(seed)), np.empty((700, 2), "i4")
        for at in rng.integers(0, 40_000 - 700, 400).tolist():
            plain.read_into(at, at + 700, out)
            if not np.array_equal(out, array[at : at + 700]):
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(files.files) <= 8
    ours = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert sum(name.startswith(str(tmp_path)) for name in ours) <= 8
    files.close()


def test_a_file_that_is_let_go_stays_open_for_its_reader(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / str(i)).write_bytes(bytes([i]) * 10)
    files = OpenFiles(limit=8, random=True)
    held = files.open(str(tmp_path / "0"))
    for i in range(1, 20):
        files.open(str(tmp_path / str(i)))
    assert str(tmp_path / "0") not in files.files
    assert os.pread(held.fd, 10, 0) == bytes(10)
    fd = held.fd
    del held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    files.close()


def test_a_forked_child_reads_on(tmp_path: Path) -> None:
    array = values_of(1000, (), "i4")
    shards.write_group(tmp_path / "g", {"v": array}, {}, chunk_bytes=400, shard_bytes=2000)
    ours = shards.open_array(tmp_path / "g" / "v")
    ours.read(0, 10)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(np.asarray(ours), array) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(np.asarray(ours), array)


def test_files_elsewhere_come_from_the_source(tmp_path: Path) -> None:
    class Folder:
        def read_into(self, file: str, offset: int, out: memoryview) -> None:
            with open(file.replace("/away/", "/there/"), "rb") as handle:
                handle.seek(offset)
                handle.readinto(out)

        def size(self, file: str) -> int:
            return os.path.getsize(file.replace("/away/", "/there/"))

    array = values_of(1000, (3,), "i2")
    for codec in ("none", "lz4"):
        (w,) = shards.write_group(
            tmp_path / "there" / codec, {"v": array}, {}, codec, chunk_bytes=900, shard_bytes=3000
        )
        away = ShardedArray(tmp_path / "away" / codec / "v", w.shape, np.dtype(w.dtype), w.chunk_rows, w.shard_rows,
                            w.codec, known=True, source=Folder())  # fmt: skip
        assert np.array_equal(away[123:777], array[123:777])
