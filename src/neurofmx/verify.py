"""Verification: everything stored is read again and compared with the digest it was published under."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import bases, groups, parts, publish, remote, snapshots
from neurofmx.errors import LakeCorrupt, NeurofmxError
from neurofmx.tables import TABLES
from neurofmx.types import Check

if TYPE_CHECKING:
    from neurofmx.lake import Lake

OnProgress = Callable[[int, int], None]


def verify(lake: Lake, on: OnProgress | None = None, *, threads: int | None = None) -> list[Check]:
    """Reads every group, raw file, catalog file and manifest again, and compares digests.

    What the catalog names now and what any snapshot names are both read. A shard that is missing, cut short or
    altered is named where table ``arrays`` has its digest; the logical digest is derived in any case.

    Args:
        lake: the lake; writers may go on.
        on: told how many of all things have been read.
        threads: how many read at once; twice the cores when None, at most 16.

    Returns:
        One check for each thing: a table of the catalog, a snapshot, a group, a raw file.
    """
    tables = [_table(lake, table) for table in TABLES]
    manifests, taken = _snapshots(lake)
    checks = [*tables, *taken, _notes(lake)]
    jobs: list[Callable[[], Check | None]] = []
    whole = {table for table, check in zip(TABLES, tables, strict=True) if check.passed}
    shards = _shards(lake) if "arrays" in whole else {}
    named, raw = _named(lake, manifests, whole)
    jobs += [partial(_group, lake, one, shards.get(one.path, [])) for one in named]
    jobs += [partial(_raw, lake, sha) for sha in raw]
    with ThreadPoolExecutor(threads or min(16, 2 * (os.cpu_count() or 1))) as pool:
        for done, check in enumerate(pool.map(lambda job: job(), jobs), 1):
            if check is not None:
                checks.append(check)
            if on is not None:
                on(done, len(jobs))
    return checks


def _check(name: str, wrong: Iterable[str], right: str) -> Check:
    found = list(wrong)
    return Check(name=name, passed=not found, severity="block", evidence="; ".join(found) or right)


# catalog and snapshots


def _table(lake: Lake, table: str) -> Check:
    """The loose parts, the pointer, the bases that it names, and each base's own digest."""
    folder = lake.root / "catalog" / table
    try:
        n = parts.read(lake, table).num_rows
        wrong = [said for name in bases.read_pointer(folder).bases for said in _base(folder / name)]
    except NeurofmxError as error:
        return _check(f"catalog {table}", [str(error)], "")
    return _check(f"catalog {table}", wrong, f"{n} rows")


def _base(path: Path) -> Iterator[str]:
    try:
        found = f"base-{remote.digest(path)[:16]}.parquet"
    except FileNotFoundError:
        # a merge beside this replaced it, and the pointer with it
        found = path.name if path.name not in bases.read_pointer(path.parent).bases else "no such file"
    if found != path.name:
        yield f"{path}: {found}, expected the bytes of that name"


def _snapshots(lake: Lake) -> tuple[list[snapshots.Manifest], list[Check]]:
    found, checks = [], []
    for name in [*snapshots.digests(lake), *_names(lake)]:
        try:
            manifest = snapshots.find(lake, name)
            derived = snapshots.rederived(lake, manifest.digest)
            wrong = [] if derived == manifest.digest else [f"digest is {derived}, its name says {manifest.digest}"]
            for table, kept in manifest.catalog.items():
                for base in kept:
                    path = lake.root / "catalog" / table / base
                    wrong += list(_base(path)) if remote.n_bytes(path) is not None else [f"{path}: no such file"]
            found.append(manifest)
        except NeurofmxError as error:
            wrong = [str(error)]
        checks.append(_check(f"snapshot {name}", wrong, "whole"))
    return found, checks


def _names(lake: Lake) -> list[str]:
    return sorted(path.stem for path in (lake.root / "manifests" / "names").glob("*.json"))


def _notes(lake: Lake) -> Check:
    """Whether what a killed writer noted can be put; it is put by the next who publishes."""
    wrong = []
    for path in publish.notes(lake):
        try:
            publish.read_note(path)
        except LakeCorrupt as error:
            wrong.append(str(error))
        except FileNotFoundError:
            continue  # its writer is done
    return _check("notes of publications", wrong, "whole")


# groups and raw files


@dataclass(frozen=True)
class _Group:
    path: str
    what: str
    digest: str
    kept: bool  # by a snapshot, so that it cannot be collected


def _named(lake: Lake, manifests: list[snapshots.Manifest], whole: Set[str]) -> tuple[list[_Group], list[str]]:
    """The groups, sorted by path, and the digests of raw files."""
    found: dict[str, _Group] = {}
    raw: set[str] = set()

    def add(row: Mapping[str, Any], what: str, kept: bool) -> None:
        found[row["path"]] = _Group(row["path"], what, row["digest"], kept)
        raw.update(row.get("raw_sha256") or ())

    for table, what in (("recordings", "recording {recording_id}"), ("tokens", "tokens {spec} of {recording_id}")):
        if table in whole:
            columns = ["recording_id", "digest", "path", *(["raw_sha256"] if table == "recordings" else ["spec"])]
            for row in parts.read(lake, table, columns).to_pylist():
                add(row, what.format(**row), kept=False)
    for manifest in manifests:
        for rid, row in manifest.recordings.items():
            add(row, f"recording {rid}", kept=True)
        for key, row in manifest.tokens.items():
            add(row, "tokens {1} of {0}".format(*key.split("|")), kept=True)
    return [found[path] for path in sorted(found)], sorted(raw)


def _shards(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """Group -> rows of table ``arrays``."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in parts.read(lake, "arrays").to_pylist():
        found.setdefault(row["group"], []).append(row)
    return found


def _group(lake: Lake, one: _Group, arrays: Iterable[dict[str, Any]]) -> Check | None:
    folder = lake.root / one.path
    wrong = [said for row in arrays for said in _files(folder, row)]
    try:
        found = groups.logical_digest(folder)
    except (NeurofmxError, OSError, ValueError, KeyError) as error:
        found = str(error)
    if found != one.digest:
        if not folder.exists() and not one.kept and not _still_named(lake, one.path):
            return None  # replaced and collected since this began
        wrong.append(f"digest of {folder} is {found}, the catalog says {one.digest}")
    return _check(one.what, wrong, f"digest is {one.digest}")


def _still_named(lake: Lake, path: str) -> bool:
    return any(path in parts.read(lake, table, ["path"])["path"].to_pylist() for table in ("recordings", "tokens"))


def _files(folder: Path, row: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the shard files of one array: missing, cut short, or altered."""
    for number, (name, wanted) in enumerate(zip(row["files"] or (), row["file_sha256"] or (), strict=True)):
        path = folder / name
        size = remote.n_bytes(path)
        if size is None:
            yield f"{path}: missing"
        elif remote.digest(path) != wanted:
            least = _least_bytes(row, number)
            yield f"{path}: cut short at {size} bytes, expected {least}" if size < least else f"{path}: altered bytes"


def _least_bytes(row: dict[str, Any], number: int) -> int:
    """Bytes that a shard has (codec none), or has at least (any codec: its index)."""
    n_chunks = row["shard_rows"] // row["chunk_rows"]
    index = 16 * n_chunks + 4
    if row["codec"] != "none":
        return index
    stored = min(row["shard_rows"], row["shape"][0] - number * row["shard_rows"])
    row_bytes = int(np.prod(row["shape"][1:], dtype=np.int64)) * np.dtype(row["dtype"]).itemsize
    return index + -(-stored // row["chunk_rows"]) * row["chunk_rows"] * row_bytes


def _raw(lake: Lake, sha256: str) -> Check:
    path = lake.raw_path(sha256)
    try:
        found = remote.digest(path)
    except FileNotFoundError:
        found = "that of no file"
    wrong = [] if found == sha256 else [f"{path}: sha256 is {found}, the catalog says {sha256}"]
    return _check(f"raw {sha256[:12]}", wrong, "its bytes are those of its name")
