"""Writes arrays as sharded Zarr v3, piece by piece, with the digests of what was written.

zarr-python's own writer costs several times the CPU of the bytes it writes and holds the whole array; this
one streams. Any Zarr v3 reader opens the result. The layout is the `sharding_indexed` codec of the Zarr v3
specification: inner chunks end to end, then a table of (offset, bytes), then its crc32c.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.provenance import RowsDigest

Codec = Literal["none", "lz4"]
CHUNK_BYTES = 256 << 10  # lz4 decodes a whole chunk for its first row, so half of that there
SHARD_BYTES = 64 << 20
PIECE_BYTES = 8 << 20  # held at a time
ABSENT = 2**64 - 1  # marks a chunk that lies beyond the array's end
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


@dataclass(frozen=True, kw_only=True)
class ArrayFiles:
    """What was written of one array: all that a reader needs, and all that a verifier compares.

    Args:
        array: path within the group, such as ``lfp/values``.
        dtype: numpy's name of it.
        shape: rows first.
        chunk_rows: rows of an inner chunk.
        shard_rows: rows of a shard file.
        codec: ``none`` is byte-linear: row r lies at its own offset; ``lz4`` is blosc with bitshuffle.
        n_bytes: decoded bytes.
        files: shard files, relative to the group, in order.
        file_sha256: their digests.
        digest: of type, shape and rows as decoded: see `provenance.RowsDigest`.
    """

    array: str
    dtype: str
    shape: tuple[int, ...]
    chunk_rows: int
    shard_rows: int
    codec: Codec
    n_bytes: int
    files: tuple[str, ...]
    file_sha256: tuple[str, ...]
    digest: str


def write_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Makes ``path`` the root of a Zarr v3 group with these JSON attributes; written last, it completes a group."""
    _write_json(path / "zarr.json", {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def write_array(
    group: Path,
    name: str,
    array: Any,
    *,
    codec: Codec = "none",
    chunk_bytes: int = CHUNK_BYTES,
    shard_bytes: int = SHARD_BYTES,
) -> ArrayFiles:
    """Writes one array below a group; nothing is synced to the disk.

    Args:
        group: the group's folder; made if it is not there.
        name: ``a/b`` path within it; what lies between becomes groups.
        array: numbers or bools, rows first: a numpy array, or anything with ``shape``, ``dtype`` and slices.
        codec: how chunks are stored.
        chunk_bytes: about how much an inner chunk holds; half of it in lz4.
        shard_bytes: the most that a shard file holds.

    Raises:
        MalformedFile: the array holds neither numbers nor bools.
        OSError: the disk refused.
    """
    shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype).newbyteorder("<")
    if dtype.kind not in "iufb" or not shape:
        raise MalformedFile(f"array {name}", got=f"{dtype}, {len(shape)} axes", expected="rows of numbers or bools")
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    chunk_bytes //= 1 if codec == "none" else 2
    rows = max(1, min(max(shape[0], 1), chunk_bytes // max(1, row_bytes)))
    per_shard = max(1, min(-(-max(shape[0], 1) // rows), shard_bytes // max(1, rows * row_bytes)))
    folder = group / name
    folder.mkdir(parents=True)
    for parent in reversed(folder.relative_to(group).parents):
        if parent != Path() and not (group / parent / "zarr.json").exists():
            write_attributes(group / parent, {})
    decoded = RowsDigest(dtype, shape)
    # where every file begins with just one block of rows as they are, one pass gives both digests
    one = shape[0] <= min(rows * per_shard, decoded.block_rows)
    both = codec == "none" and (one or decoded.block_rows == rows * per_shard)
    files, digests = [], []
    for shard in range(-(-shape[0] // (rows * per_shard)) if row_bytes else 0):
        lo = shard * rows * per_shard
        relative = Path(name, "c", str(shard), *["0"] * (len(shape) - 1))
        pieces = _pieces(array, dtype, lo, min(lo + rows * per_shard, shape[0]), rows, row_bytes)
        digests.append(_write_shard(group / relative, pieces, rows, per_shard, dtype, codec, decoded, both))
        files.append(relative.as_posix())
    _write_json(folder / "zarr.json", _array_json(shape, dtype, rows, rows * per_shard, codec))
    return ArrayFiles(
        array=name,
        dtype=dtype.name,
        shape=shape,
        chunk_rows=rows,
        shard_rows=rows * per_shard,
        codec=codec,
        n_bytes=shape[0] * row_bytes,
        files=tuple(files),
        file_sha256=tuple(digests),
        digest=decoded.hexdigest(),
    )


def _pieces(array: Any, dtype: np.dtype, lo: int, hi: int, rows: int, row_bytes: int) -> Iterator[np.ndarray]:
    """Rows [lo, hi) in pieces of whole chunks, dense and little-endian."""
    step = rows * max(1, PIECE_BYTES // max(1, rows * row_bytes))
    for at in range(lo, hi, step):
        yield np.ascontiguousarray(np.asarray(array[at : min(at + step, hi)]), dtype=dtype)


def _write_shard(
    path: Path,
    pieces: Iterator[np.ndarray],
    rows: int,
    per_shard: int,
    dtype: np.dtype,
    codec: Codec,
    decoded: RowsDigest,
    both: bool,
) -> str:
    """Writes one shard file; returns its sha256."""
    import google_crc32c

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = hashlib.sha256()
    table = np.full((per_shard, 2), ABSENT, "<u8")
    at = chunk = 0
    with path.open("wb", buffering=0) as handle:
        block = None
        for piece in pieces:
            if not both:
                decoded.update(piece)
            n, padding = -(-len(piece) // rows), b""
            if codec == "none":
                sizes = np.full(n, rows * piece[0].nbytes)
                encoded = [piece.data.cast("B")]
                padding = bytes(-len(piece) % rows * piece[0].nbytes)  # the last chunk is stored whole
            else:
                encoded = [memoryview(_lz4(piece[i * rows : (i + 1) * rows], rows, dtype)) for i in range(n)]
                sizes = np.array([len(part) for part in encoded])
            table[chunk : chunk + n, 0] = at + np.cumsum(sizes) - sizes
            table[chunk : chunk + n, 1] = sizes
            for part in encoded:
                _put(handle, whole, part)
            block = whole.copy() if both else None
            _put(handle, whole, memoryview(padding))
            chunk, at = chunk + n, at + int(sizes.sum())
        if block is not None:
            decoded.add_block(block.digest())
        tail = table.tobytes()
        _put(handle, whole, memoryview(tail + int(google_crc32c.value(tail)).to_bytes(4, "little")))
    return whole.hexdigest()


def _put(handle: RawIOBase, digest: Any, data: memoryview) -> None:
    digest.update(data)
    while len(data):
        data = data[handle.write(data) :]


def _lz4(part: np.ndarray, rows: int, dtype: np.dtype) -> bytes:
    if len(part) < rows:
        part = np.concatenate([part, np.zeros((rows - len(part), *part.shape[1:]), dtype)])
    codec = blosc()
    return codec.compress(part, b"lz4", 5, codec.BITSHUFFLE, typesize=dtype.itemsize)


def blosc() -> Any:
    """The module that packs and unpacks chunks, told to do so in the calling thread."""
    import numcodecs.blosc

    numcodecs.blosc.use_threads = False  # its own threads must not be used from several of ours
    return numcodecs.blosc


def _array_json(shape: tuple[int, ...], dtype: np.dtype, rows: int, shard_rows: int, codec: Codec) -> dict[str, Any]:
    trailing = [max(1, n) for n in shape[1:]]
    inner: list[dict[str, Any]] = [_LITTLE if dtype.itemsize > 1 else {"name": "bytes"}]
    if codec == "lz4":
        inner.append({"name": "blosc", "configuration": {
            "typesize": dtype.itemsize, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0,
        }})  # fmt: skip
    sharding = {
        "chunk_shape": [rows, *trailing],
        "codecs": inner,
        "index_codecs": [_LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard_rows, *trailing]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if dtype.kind == "b" else 0 if dtype.kind in "iu" else 0.0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        json.dump(value, handle, indent=1)
