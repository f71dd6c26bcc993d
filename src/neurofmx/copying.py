"""One lake into another, on this disk or on S3: files that the other lacks, then snapshots, then the catalog's rows."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neurofmx import bases, files, parts, remote_head
from neurofmx.errors import LakeCorrupt, Mismatch
from neurofmx.provenance import digest_file
from neurofmx.remote import DAMAGED
from neurofmx.tables import TABLES

if TYPE_CHECKING:
    from neurofmx.lake import Lake

LAYERS = ("raw", "recordings", "tokens", "runs")  # files of these never change
NOTES = ("manifests/raw", "manifests/sessions", "sources.toml")  # what ingest knows of archives


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What copying a lake did.

    Args:
        files: how many were brought over.
        bytes: how much that was.
        unchanged: how many were there already.
    """

    files: int = 0
    bytes: int = 0
    unchanged: int = 0


def copy(source: Lake, target: Lake) -> Copied:
    """Brings over all that a lake holds and the other lacks; what the other holds beside that stays.

    Args:
        source: where from; its writers may go on.
        target: where to; of a key that both have, the source's rows count.

    Raises:
        Mismatch: a file's bytes are not those that were published; nothing is pointed at them.
        LakeCorrupt: a file that the source names is gone.
        NotThere, Denied, NoSpace, Transient: what a disk or a server said.
    """
    files_n = bytes_n = unchanged = 0
    with source.reading():
        wanted = _digests(source)
        for layer in LAYERS:
            there = _listed(target, layer)
            for name, size in sorted(
                _listed(source, layer).items(), key=lambda one: one[0].endswith(".zarr/zarr.json")
            ):
                if there.get(name) == size:
                    unchanged += 1
                    continue
                sha = Path(name).name if layer == "raw" else wanted.get(name, "")
                _carry(source, target, name, sha)
                files_n, bytes_n = files_n + 1, bytes_n + size
        for name, data in _notes(source):
            if data == _read(target, name):
                unchanged += 1
                continue
            _write(target, name, data)
            files_n, bytes_n = files_n + 1, bytes_n + len(data)
        _catalog(target, source)
    return Copied(files=files_n, bytes=bytes_n, unchanged=unchanged)


def _digests(lake: Lake) -> dict[str, str]:
    """Name of a shard file -> its digest, as the catalog has it."""
    rows = parts.read(lake, "arrays", ["group", "files", "file_sha256"]).to_pylist()
    return {
        f"{row['group']}/{file}": sha for row in rows for file, sha in zip(row["files"] or (), row["file_sha256"] or ())
    }


def _listed(lake: Lake, layer: str) -> dict[str, int]:
    """Name -> bytes of the finished files of a layer."""
    if lake.remote is not None:
        return lake.remote.listed(layer)
    found = (path for path in (lake.root / layer).rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(lake.root).as_posix(): path.stat().st_size for path in found}


def _carry(source: Lake, target: Lake, name: str, sha256: str) -> None:
    """One file that never changes, its digest compared on the way."""
    partial, path = target.root / "tmp" / f"copy-{uuid.uuid4().hex}", source.root / name
    try:
        with files.clear_faults(partial):
            if source.remote is not None:
                path = source.remote.fetch(path, sha256, to=partial)
            elif sha256 and (got := digest_file(path)) != sha256:
                raise Mismatch(f"file {path}", got=got, expected=sha256, fix=DAMAGED)
            if target.remote is not None:
                target.remote.send(path, name)
                return
            if path != partial:
                shutil.copyfile(path, partial)
            (target.root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, target.root / name)
    finally:
        partial.unlink(missing_ok=True)


def _notes(lake: Lake) -> Iterator[tuple[str, bytes]]:
    for layer in NOTES:
        named = _listed(lake, layer) or ({layer: 0} if _read(lake, layer) is not None else {})
        for name in sorted(named):
            if (data := _read(lake, name)) is not None:
                yield name, data


def _read(lake: Lake, name: str) -> bytes | None:
    path = lake.root / name
    if lake.remote is not None:
        return None if lake.remote.size_of(name) is None else lake.remote.get(name)
    return path.read_bytes() if path.is_file() else None


def _write(lake: Lake, name: str, data: bytes) -> None:
    if lake.remote is not None:
        lake.remote.put(name, data)
    files.replace(lake.root / name, data)


# what is read through the catalog: its bases, then snapshots, then rows


@remote_head.transaction
def _catalog(target: Lake, source: Lake) -> None:
    with remote_head.current(source, *remote_head.FOLDERS):
        for folder in (*remote_head.SNAPSHOTS, remote_head.SALT, remote_head.TASKS):
            for path in (source.root / folder).glob("*.json"):
                if not (target.root / folder / path.name).exists():
                    files.replace(target.root / folder / path.name, path.read_bytes())
        for table in TABLES:
            _table(source, target, table)


def _table(source: Lake, target: Lake, table: str) -> None:
    folder = source.root / "catalog" / table
    pointer = bases.read_pointer(folder)
    for base in dict.fromkeys((*pointer.bases, *pointer.frozen)):
        name = f"catalog/{table}/{base}"
        try:
            data = bases.open_base(folder / base).path.read_bytes()
        except FileNotFoundError as error:
            raise LakeCorrupt(f"catalog file {folder / base}", got="no such file") from error
        if f"base-{hashlib.sha256(data).hexdigest()[:16]}.parquet" != base:
            raise Mismatch(
                f"catalog file {folder / base}", got="other bytes", expected="those of its name", fix=DAMAGED
            )
        if not (target.root / name).exists():
            files.replace(target.root / name, data)
        if target.remote is not None:
            target.remote.send(target.root / name)
    if not parts.read(source, table).equals(parts.read(target, table)):
        parts.take_in(target, table, folder)
