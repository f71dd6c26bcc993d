"""Zarr v3 groups: written through zarr-python, read directly by row ranges.

Every array is chunked along time only and stored uncompressed in shards, so a window of rows is one
`pread` per shard it touches. Any Zarr v3 reader opens the same files. The direct reader exists because
zarr-python's call costs some hundred times the read itself at one-second windows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import LakeCorrupt

CHUNK_BYTES = 256 << 10
SHARD_BYTES = 64 << 20
_MISSING = np.uint64(2**64 - 1)


def write_group(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Writes arrays and JSON attributes as one Zarr v3 group at ``path``, which must not exist.

    Args:
        path: folder to create.
        arrays: ``a/b`` names -> arrays of numbers or bools, time first.
        attributes: JSON attributes of the root group.
    """
    import zarr
    from zarr.codecs import BytesCodec

    root = zarr.open_group(str(path), mode="w-", zarr_format=3, attributes=dict(attributes))
    for name, array in arrays.items():
        dense = np.ascontiguousarray(array)
        rows = max(1, min(max(len(dense), 1), CHUNK_BYTES // max(1, dense[:1].nbytes or dense.itemsize)))
        per_shard = max(1, min(-(-max(len(dense), 1) // rows), SHARD_BYTES // max(1, rows * (dense[:1].nbytes or 1))))
        target = root.create_array(
            name,
            shape=dense.shape,
            dtype=dense.dtype,
            chunks=(rows, *dense.shape[1:]) if dense.ndim > 1 else (rows,),
            shards=(rows * per_shard, *dense.shape[1:]) if dense.ndim > 1 else (rows * per_shard,),
            serializer=BytesCodec(),
            compressors=None,
            # zarr drops all-fill chunks otherwise, and a silent second would not be in the file
            config={"write_empty_chunks": True},
        )
        if dense.size:
            target[...] = dense
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@dataclass(frozen=True)
class ShardedArray:
    """A Zarr v3 array read by rows without zarr: behaves as a read-only numpy array along axis 0.

    Args:
        path: the array's folder (holds ``zarr.json``).
        shape: as stored.
        dtype: as stored.
        chunk_rows: rows of an inner chunk.
        shard_rows: rows of a shard.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk_rows: int
    shard_rows: int
    _index: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @cached_property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.read(0, len(self))
        return whole if dtype is None else whole.astype(dtype)

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
        if not 0 <= lo <= hi <= len(self):
            raise IndexError(f"rows [{lo}, {hi}) of {len(self)} in {self.path.name}")
        out = np.empty((hi - lo, *self.shape[1:]), self.dtype)
        if out.nbytes == 0:
            return out
        flat = out.reshape(-1).view(np.uint8)
        row = lo
        while row < hi:
            shard = row // self.shard_rows
            stop = min(hi, (shard + 1) * self.shard_rows)
            self._read_shard(shard, row, stop, flat[(row - lo) * self._row_bytes : (stop - lo) * self._row_bytes])
            row = stop
        return out

    def _read_shard(self, shard: int, lo: int, hi: int, into: np.ndarray) -> None:
        name = self.path / "c" / "/".join([str(shard), *["0"] * (self.ndim - 1)])
        try:
            handle = os.open(name, os.O_RDONLY)
        except FileNotFoundError as error:
            raise LakeCorrupt(f"shard {name}", got="no such file", fix="Run: neurofmx lake verify") from error
        try:
            index = self._index.get(shard)
            if index is None:
                index = self._index[shard] = self._read_index(handle, name)
            base, at = shard * self.shard_rows, lo
            while at < hi:
                chunk = (at - base) // self.chunk_rows
                end, last = min(hi, base + (chunk + 1) * self.chunk_rows), chunk
                # neighbouring chunks lie end to end in the file: read them in one call
                while end < hi and index[last + 1, 0] == index[last, 0] + index[last, 1]:
                    last += 1
                    end = min(hi, base + (last + 1) * self.chunk_rows)
                if index[chunk, 0] == _MISSING:
                    raise LakeCorrupt(f"chunk {chunk} of {name}", got="absent", expected="stored (written with it)")
                offset = int(index[chunk, 0]) + (at - base - chunk * self.chunk_rows) * self._row_bytes
                part = into[(at - lo) * self._row_bytes : (end - lo) * self._row_bytes]
                got = os.preadv(handle, [part.data], offset)
                if got != part.nbytes:
                    raise LakeCorrupt(f"shard {name}", got=f"{got} bytes at {offset}", expected=f"{part.nbytes}")
                at = end
        finally:
            os.close(handle)

    def _read_index(self, handle: int, name: Path) -> np.ndarray:
        n = self.shard_rows // self.chunk_rows
        size, want = os.fstat(handle).st_size, 16 * n + 4  # (offset, nbytes) a chunk, then a crc32c
        if size < want:
            raise LakeCorrupt(f"shard {name}", got=f"{size} bytes", expected=f"at least {want}")
        return np.frombuffer(os.pread(handle, want - 4, size - want), "<u8").reshape(n, 2)


def open_array(path: Path) -> ShardedArray:
    """Opens one array written by `write_group`.

    Raises:
        LakeCorrupt: the metadata is missing or of a layout that the lake does not write.
    """
    try:
        meta = json.loads((path / "zarr.json").read_text())
        sharding = next(c for c in meta["codecs"] if c["name"] == "sharding_indexed")["configuration"]
        inner, shape = sharding["chunk_shape"], tuple(meta["shape"])
        outer = meta["chunk_grid"]["configuration"]["chunk_shape"]
        dtype = np.dtype(meta["data_type"])
    except (OSError, KeyError, StopIteration, ValueError, TypeError) as error:
        raise LakeCorrupt(f"array {path}", got=str(error), expected="a sharded Zarr v3 array") from error
    if [c["name"] for c in sharding["codecs"]] != ["bytes"]:
        raise LakeCorrupt(f"array {path}", got=str(sharding["codecs"]), expected="the bytes codec alone")
    return ShardedArray(path, shape, dtype, int(inner[0]), int(outer[0]))


def read_attributes(path: Path) -> dict[str, Any]:
    """The JSON attributes of a group.

    Raises:
        LakeCorrupt: there is no group at ``path``.
    """
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, KeyError, ValueError) as error:
        raise LakeCorrupt(f"group {path}", got=str(error), expected="a Zarr v3 group") from error
