"""Groups of sharded Zarr v3 arrays: written whole, read directly by row ranges.

A shard of codec ``none`` is byte-linear: row r of it lies at r times the bytes of a row, so a window of rows
is one `preadv` into the caller's buffer. Any Zarr v3 reader opens the same files. The direct reader exists
because zarr-python's call costs some hundred times the read itself at one-second windows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from neurofmx import handles, remote
from neurofmx.errors import LakeCorrupt
from neurofmx.files import sync_folder
from neurofmx.handles import OpenFile, OpenFiles
from neurofmx.shard_writer import (
    ABSENT,
    CHUNK_BYTES,
    SHARD_BYTES,
    ArrayFiles,
    Codec,
    blosc,
    write_array,
    write_attributes,
)

_preadv = os.preadv


def write_group(
    path: Path,
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any],
    codec: Codec = "none",
    *,
    chunk_bytes: int = CHUNK_BYTES,
    shard_bytes: int = SHARD_BYTES,
) -> list[ArrayFiles]:
    """Writes arrays and JSON attributes as one Zarr v3 group at ``path``, synced to the disk.

    Args:
        path: folder to create; must not exist.
        arrays: ``a/b`` names -> numbers or bools, rows first; lazy ones are read piece by piece.
        attributes: JSON attributes of the root group.
        codec: ``none`` for reading at the disk's rate, ``lz4`` for the smaller archive tier.
        chunk_bytes: about how much an inner chunk holds.
        shard_bytes: the most that a shard file holds.

    Returns:
        What the index and a verifier need, an entry an array.

    Raises:
        MalformedFile: an array holds neither numbers nor bools.
        OSError: the disk refused; what was written stays for the caller to remove.
    """
    written = write_arrays(path, arrays, codec, chunk_bytes=chunk_bytes, shard_bytes=shard_bytes)
    finish_group(path, attributes)
    return written


def write_arrays(
    path: Path,
    arrays: Mapping[str, Any],
    codec: Codec = "none",
    *,
    chunk_bytes: int = CHUNK_BYTES,
    shard_bytes: int = SHARD_BYTES,
) -> list[ArrayFiles]:
    """The first half of `write_group`, for attributes that depend on the digests of what was written."""
    path.mkdir(parents=True)
    return [
        write_array(path, name, array, codec=codec, chunk_bytes=chunk_bytes, shard_bytes=shard_bytes)
        for name, array in arrays.items()
    ]


def finish_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """The second half of `write_group`: the root's attributes, then everything synced to the disk."""
    write_attributes(path, attributes)
    sync_group(path)


def sync_group(path: Path) -> None:
    """Syncs every file and folder of a group to the disk."""
    # all files first, then one sync each: the first carries most of the others with it
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            handle = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(folder))


class Source(Protocol):
    """Where the bytes of files that are not on this disk come from."""

    def read_into(self, file: str, offset: int, out: memoryview) -> None:
        """Fills ``out`` from a file (its path, as the array names it), from ``offset`` on."""
        ...

    def size(self, file: str) -> int:
        """Bytes of a file."""
        ...


@dataclass(frozen=True, eq=False)
class ShardedArray:
    """A Zarr v3 array read by rows without zarr: behaves as a read-only numpy array along axis 0.

    Any number of threads may read one array. Shard files stay open, up to a bound over all arrays.

    Args:
        path: the array's folder.
        shape: as stored.
        dtype: as stored.
        chunk_rows: rows of an inner chunk.
        shard_rows: rows of a shard.
        codec: ``none`` or ``lz4``.
        known: the table at the end of a shard need not be read: the lake's own writer wrote it.
        files: the open files to use.
        source: reads the files where they are not on this disk.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk_rows: int
    shard_rows: int
    codec: Codec = "none"
    known: bool = False
    files: OpenFiles = handles.ORDINARY
    source: Source | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Decoded bytes."""
        return self.size * self.dtype.itemsize

    @cached_property
    def row_bytes(self) -> int:
        """Decoded bytes of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @cached_property
    def shard_files(self) -> tuple[str, ...]:
        """The paths of the shard files, in order."""
        inner = "/0" * (self.ndim - 1)
        return tuple(f"{self.path}/c/{i}{inner}" for i in range(-(-self.shape[0] // self.shard_rows)))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.read(0, len(self))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice) and first.step in (None, 1):
            lo, hi, _ = first.indices(len(self))
            rows = self.read(lo, max(lo, hi))
        elif isinstance(first, (int, np.integer)):
            at = int(first) + (len(self) if first < 0 else 0)
            rows = self.read(at, at + 1)[0]
            return rows[tuple(rest)] if rest else rows
        else:
            rows = self.read(0, len(self))[first]
        return rows[(slice(None), *rest)] if rest else rows

    def read(self, lo: int, hi: int) -> np.ndarray:
        """Rows [lo, hi) as a new array.

        Raises:
            IndexError: the range is outside the array.
            LakeCorrupt: a shard is missing or too short.
        """
        out = np.empty((max(0, hi - lo), *self.shape[1:]), self.dtype)
        self.read_into(lo, hi, out)
        return out

    def read_into(self, lo: int, hi: int, out: np.ndarray | memoryview) -> None:
        """Rows [lo, hi) into the caller's memory: one system call where the rows lie in one shard of codec ``none``.

        Args:
            lo: first row.
            hi: the row after the last.
            out: contiguous, with room for exactly these rows: a numpy array of this array's type, of any shape, or a
                memoryview of bytes (of the shortest windows, numpy's own view of an array costs as much as the read).

        Raises:
            IndexError: the range is outside the array.
            ValueError: ``out`` has another size or type.
            BufferError: ``out`` is not contiguous.
            LakeCorrupt: a shard is missing, too short or undecodable.
        """
        rows, row_bytes, shard_rows, files, names = self._usual
        wanted = (hi - lo) * row_bytes
        if not 0 <= lo <= hi <= rows:
            raise IndexError(f"rows [{lo}, {hi}) of {rows} in {self.path}")
        if type(out) is not memoryview:
            if out.dtype != self.dtype:
                raise ValueError(f"a buffer of {out.dtype} for {self.dtype}")
            out = out.data
        if out.nbytes != wanted:
            raise ValueError(f"a buffer of {out.nbytes} bytes for {wanted}")
        if not wanted:
            return
        if files is not None:
            shard = lo // shard_rows
            begin = lo - shard * shard_rows
            if begin + hi - lo <= shard_rows:
                file = files.get(names[shard]) or self._open(shard)
                file.used = True
                if _preadv(file.fd, (out,), begin * row_bytes) == wanted:
                    return
        if not out.c_contiguous:
            raise BufferError(f"a buffer with strides {out.strides}, not contiguous")
        self._read_shards(lo, hi, out.cast("B"))

    @cached_property
    def _usual(self) -> tuple[int, int, int, dict[str, OpenFile] | None, tuple[str, ...]]:
        """What `read_into` looks at, in one place: of a window of a second, every step of it counts."""
        direct = self.codec == "none" and self.source is None and self.known
        return self.shape[0], self.row_bytes, self.shard_rows, self.files.files if direct else None, self.shard_files

    def _read_shards(self, lo: int, hi: int, out: memoryview) -> None:
        """The general way: any number of shards, any codec, anywhere."""
        at = lo
        while at < hi:
            shard = at // self.shard_rows
            base, end = shard * self.shard_rows, min(hi, (shard + 1) * self.shard_rows)
            part = out[(at - lo) * self.row_bytes : (end - lo) * self.row_bytes]
            file = self._file(shard)
            if self.codec == "none":
                if file is not None and file.table is None and not self.known:
                    self._check_table(shard, file)
                self._bytes(shard, file, (at - base) * self.row_bytes, part)
            else:
                self._decode(shard, file, at - base, end - base, part)
            at = end

    def _decode(self, shard: int, file: OpenFile | None, lo: int, hi: int, out: memoryview) -> None:
        """Rows [lo, hi) of one compressed shard: its chunks are read in one call, then decoded one by one."""
        codec = blosc()
        table = self._table(shard, file)
        first, last = lo // self.chunk_rows, (hi - 1) // self.chunk_rows
        begin, size = int(table[first, 0]), int(table[last].sum()) - int(table[first, 0])
        encoded = memoryview(bytearray(size))
        self._bytes(shard, file, begin, encoded)
        whole = self.chunk_rows * self.row_bytes
        for chunk in range(first, last + 1):
            a, b = max(lo, chunk * self.chunk_rows), min(hi, (chunk + 1) * self.chunk_rows)
            part = encoded[int(table[chunk, 0]) - begin :][: int(table[chunk, 1])]
            target = out[(a - lo) * self.row_bytes : (b - lo) * self.row_bytes]
            if int.from_bytes(part[4:8], "little") != whole:  # blosc's own header states the decoded size
                raise LakeCorrupt(f"chunk {chunk} of {self.shard_files[shard]}", got="another size than the array says")
            try:
                if len(target) == whole:
                    codec.decompress(part, target)
                else:
                    skip = (a - chunk * self.chunk_rows) * self.row_bytes
                    target[:] = memoryview(codec.decompress(part))[skip : skip + len(target)]
            except RuntimeError as error:
                raise LakeCorrupt(f"chunk {chunk} of {self.shard_files[shard]}", got=str(error)) from error

    def _file(self, shard: int) -> OpenFile | None:
        """The open shard, or None where it has to come from the source."""
        name = self.shard_files[shard]
        file = self.files.files.get(name)
        if file is None:
            if self.source is not None and not os.path.exists(name):
                return None
            file = self._open(shard)
        file.used = True
        return file

    def _open(self, shard: int) -> OpenFile:
        name = self.shard_files[shard]
        try:
            file = self.files.open(name)
        except FileNotFoundError as error:
            raise LakeCorrupt(f"shard {name}", got="no such file", fix="Run: neurofmx lake verify") from error
        if self.codec == "none":
            want = self._chunks(shard) * self.chunk_rows * self.row_bytes + self._table_bytes
            if file.size < want:
                self.files.close(name)
                raise LakeCorrupt(f"shard {name}", got=f"{file.size} bytes", expected=f"{want}",
                                  fix="Run: neurofmx lake verify")  # fmt: skip
        return file

    def _bytes(self, shard: int, file: OpenFile | None, offset: int, out: memoryview) -> None:
        name = self.shard_files[shard]
        if file is None:
            assert self.source is not None
            self.source.read_into(name, offset, out)
            return
        done = 0
        while done < len(out):
            got = _preadv(file.fd, [out[done:]], offset + done)
            if not got:
                raise LakeCorrupt(f"shard {name}", got=f"{file.size} bytes", expected=f"{offset + len(out)} or more")
            done += got

    # the table at a shard's end: (offset, bytes) a chunk, then a crc32c

    @cached_property
    def _far(self) -> dict[int, np.ndarray]:
        """Tables of the shards that come from the source."""
        return {}

    @property
    def _table_bytes(self) -> int:
        return 16 * (self.shard_rows // self.chunk_rows) + 4

    def _chunks(self, shard: int) -> int:
        return -(-min(self.shard_rows, self.shape[0] - shard * self.shard_rows) // self.chunk_rows)

    def _check_table(self, shard: int, file: OpenFile) -> None:
        """Makes sure that a shard which another writer may have written is byte-linear."""
        table, each = self._read_table(shard, file), self.chunk_rows * self.row_bytes
        n = self._chunks(shard)
        if not (np.array_equal(table[:n, 0], np.arange(n, dtype=np.uint64) * each) and (table[:n, 1] == each).all()):
            got = "absent chunks" if (table[:n, 0] == ABSENT).any() else "chunks in another order"
            raise LakeCorrupt(f"shard {self.shard_files[shard]}", got=got, expected="all chunks end to end",
                              fix="Run: neurofmx lake verify")  # fmt: skip
        file.table = table

    def _table(self, shard: int, file: OpenFile | None) -> np.ndarray:
        if file is None:
            table = self._far.get(shard)
            if table is None:
                table = self._far[shard] = self._read_table(shard, None)
            return table
        if file.table is None:
            file.table = self._read_table(shard, file)
        return file.table

    def _read_table(self, shard: int, file: OpenFile | None) -> np.ndarray:
        name = self.shard_files[shard]
        if file is not None:
            size = file.size
        else:
            assert self.source is not None
            size = self.source.size(name)
        if size < self._table_bytes:
            raise LakeCorrupt(f"shard {name}", got=f"{size} bytes", expected=f"at least {self._table_bytes}")
        raw = bytearray(self._table_bytes)
        self._bytes(shard, file, size - len(raw), memoryview(raw))
        table, n = np.frombuffer(raw, "<u8", len(raw) // 8).reshape(-1, 2), self._chunks(shard)
        if self.codec == "lz4":
            import google_crc32c

            if google_crc32c.value(bytes(raw[:-4])) != int.from_bytes(raw[-4:], "little"):
                raise LakeCorrupt(f"table of shard {name}", got="another checksum", fix="Run: neurofmx lake verify")
            # what lies between two chunks of a range is read along: they must lie end to end
            if not np.array_equal(table[1:n, 0], table[: n - 1].sum(axis=1)):
                raise LakeCorrupt(f"shard {name}", got="chunks in another order", expected="end to end")
        return table


def open_array(path: Path, *, files: OpenFiles = handles.ORDINARY) -> ShardedArray:
    """Opens one array of a group by its ``zarr.json``.

    Raises:
        LakeCorrupt: the metadata is missing or of a layout that the lake does not write.
    """
    try:
        meta = json.loads((path / "zarr.json").read_text())
        sharding = next(c for c in meta["codecs"] if c["name"] == "sharding_indexed")["configuration"]
        inner, shape = sharding["chunk_shape"], tuple(meta["shape"])
        outer = meta["chunk_grid"]["configuration"]["chunk_shape"]
        dtype = np.dtype(meta["data_type"])
        codecs = [c["name"] for c in sharding["codecs"]]
    except (OSError, KeyError, StopIteration, ValueError, TypeError) as error:
        raise LakeCorrupt(f"array {path}", got=str(error), expected="a sharded Zarr v3 array") from error
    if codecs not in (["bytes"], ["bytes", "blosc"]) or sharding.get("index_location", "end") != "end":
        raise LakeCorrupt(
            f"array {path}", got=str(sharding), expected="bytes, or bytes and blosc; the table at the end"
        )
    if any(n > 1 and n != whole for n, whole in zip(inner[1:], shape[1:])) or inner[1:] != outer[1:]:
        raise LakeCorrupt(f"array {path}", got=f"chunks of {inner} in {shape}", expected="chunks along the rows alone")
    codec = "none" if codecs == ["bytes"] else "lz4"
    far = remote.behind(path)
    return ShardedArray(path, shape, dtype, int(inner[0]), int(outer[0]), codec, files=files, source=far)


def array_names(path: Path) -> list[str]:
    """Names of the arrays of a group, sorted.

    Raises:
        LakeCorrupt: metadata below ``path`` is damaged.
    """
    try:
        nodes = {file: json.loads(file.read_text())["node_type"] for file in path.rglob("zarr.json")}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise LakeCorrupt(f"group {path}", got=str(error), expected="a Zarr v3 group") from error
    return sorted(file.parent.relative_to(path).as_posix() for file, node in nodes.items() if node == "array")


def read_attributes(path: Path) -> dict[str, Any]:
    """The JSON attributes of a group.

    Raises:
        LakeCorrupt: there is no group at ``path``.
    """
    try:
        return json.loads((remote.group_at_hand(path) / "zarr.json").read_text())["attributes"]
    except (OSError, KeyError, ValueError) as error:
        raise LakeCorrupt(f"group {path}", got=str(error), expected="a Zarr v3 group") from error
