"""Digests: of files, of arrays, of settings; and what code made a thing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Turns dataclasses, paths, tuples and numpy scalars into JSON types, for digests and manifests.

    Raises:
        TypeError: the value has no stated plain form (so that nothing is digested by accident of repr).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return {"sha256": digest_array(value)}
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"no plain form for {type(value).__name__}: {value!r}")


def canonical_json(value: Any) -> str:
    """The same text for the same value, whatever the order of keys."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_array(array: Any) -> str:
    """sha256 of an array's dtype, shape and C-order bytes, in hex; blind to how it is stored."""
    dense = np.asarray(array)
    if dense.dtype.kind in "UO":
        return digest_of([str(x) for x in dense.ravel().tolist()] + list(dense.shape))
    little = dense.astype(dense.dtype.newbyteorder("<"), copy=False)
    h = hashlib.sha256(f"{little.dtype.str}{little.shape}".encode())
    h.update(np.ascontiguousarray(little).data if little.size else b"")
    return h.hexdigest()


class RowsDigest:
    """sha256 of an array's type, shape and rows, fed in order; blind to how the array is stored.

    The rows are digested in blocks, then the blocks' digests: a block holds about 64 MiB, by a rule that
    looks at the row's size alone, so that blocks may be digested apart and, where a shard file holds just one
    block uncompressed, its file digest is had from the same pass.

    Args:
        dtype: of the elements.
        shape: rows first.
    """

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._whole = hashlib.sha256(f"rows|{np.dtype(dtype).newbyteorder('<').str}{tuple(shape)}".encode())
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        piece = max(1, (256 << 10) // max(1, row_bytes))
        self.block_rows = piece * max(1, (64 << 20) // max(1, piece * row_bytes))
        self._block, self._rows = hashlib.sha256(), 0

    def update(self, rows: np.ndarray) -> None:
        """Adds rows: contiguous, little-endian."""
        at = 0
        while at < len(rows) and rows.size:
            end = min(len(rows), at + self.block_rows - self._rows)
            part = rows[at:end]
            self._block.update(part.data)
            self._rows, at = self._rows + end - at, end
            if self._rows == self.block_rows:
                self.add_block(self._block.digest())

    def add_block(self, digest: bytes) -> None:
        """Adds a whole block by the sha256 of its bytes."""
        self._whole.update(digest)
        self._block, self._rows = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """The digest, after the last row."""
        if self._rows:
            self.add_block(self._block.digest())
        return self._whole.hexdigest()


def digest_rows(array: Any) -> str:
    """The `RowsDigest` of a whole array, read in pieces where it is lazy."""
    shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype).newbyteorder("<")
    digest = RowsDigest(dtype, shape)
    step = max(1, (8 << 20) // max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize))
    for at in range(0, shape[0], step):
        digest.update(np.ascontiguousarray(np.asarray(array[at : at + step]), dtype))
    return digest.hexdigest()


def digest_file(path: Path, block: int = 8 << 20) -> str:
    """sha256 of a file's bytes, in hex, read in blocks."""
    h = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(block):
            h.update(chunk)
    return h.hexdigest()


def now() -> str:
    """The present time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package version, with the git commit where the source is a checkout, ``+dirty`` if it was edited."""
    version = metadata.version("neurofmx")
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        edited = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return version
    return f"{version}+g{commit}" + (".dirty" if edited else "")
