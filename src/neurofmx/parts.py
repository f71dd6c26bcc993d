"""Parts of the catalog: one small Parquet file a key, merged past 64 into a few immutable bases.

    catalog/<table>/<key>.parquet            the rows of one key, replaced whole; hides the key's rows in every base
    catalog/<table>/base-<digest16>.parquet  the rows of many keys, never changed
    catalog/<table>/current.json             which bases count, oldest first, replaced whole
    catalog/<table>/.lock                    shared by those who put, exclusive for who merges; readers take none

A reader lists the loose parts first and reads the pointer second: what a merge takes away in between is in
the bases that the pointer then names.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from neurofmx import bases, files, merging, remote_head
from neurofmx.bases import PART, Base
from neurofmx.errors import ConfigError, LakeCorrupt
from neurofmx.merging import GRACE_S
from neurofmx.tables import TABLES, schema

if TYPE_CHECKING:
    import pyarrow as pa

    from neurofmx.lake import Lake

T = TypeVar("T")

LOOSE = 64  # loose parts a table holds before they are merged
ATTEMPTS = 50  # how often a reader starts again when a merge takes files away under it

Cache = dict[str, tuple[tuple[int, int, int], "pa.Table"]]


@dataclass(frozen=True, kw_only=True)
class State:
    """What a table holds at one moment.

    Args:
        loose: the rows of the loose parts.
        bases: (base, parts hidden in it), oldest first.
        stamp: equal for equal states.
    """

    loose: pa.Table
    bases: tuple[tuple[Base, frozenset[str]], ...]
    stamp: tuple[Any, ...] = ()


# writing


@remote_head.transaction
def put(lake: Lake, table: str, key: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes the rows of one key, replacing all that the key had; readers see the old or the new, never a part.

    Args:
        lake: the lake.
        table: a name in `TABLES`.
        key: what the rows belong to (a recording, run or task id); becomes the file's name.
        rows: mappings column -> value; a column left out is null.

    Returns:
        Where the rows lie until they are merged.

    Raises:
        ConfigError: a row has a column that the table lacks.
        NoSpace: the disk is full; nothing is changed.
        Denied: the lake may not be written here; nothing is changed.
    """
    import pyarrow as pa

    fields, listed, target = schema(table), [dict(row) for row in rows], part_path(lake, table, key)
    for name in {name for row in listed for name in row} - set(fields.names):
        near = difflib.get_close_matches(name, fields.names, n=1)
        raise ConfigError(
            f"column {name!r} of catalog table {table}",
            expected=f"one of {', '.join(fields.names)}",
            fix=f"Did you mean {near[0]!r}?" if near else "",
        )
    if not listed and not _known(lake, table, key):
        return target
    data = bases.parquet(pa.Table.from_pylist(listed, schema=fields))
    with merging.locked(target.parent, fcntl.LOCK_SH):
        files.replace(target, data)
    if len(merging.loose_names(target.parent)) > LOOSE:
        compact(lake, table)
    return target


@remote_head.transaction
def put_table(lake: Lake, table: str, keys: Sequence[str], rows: pa.Table) -> None:
    """Writes the rows of many keys at once, as one base, replacing all that these keys had.

    Args:
        lake: the lake.
        table: a name in `TABLES`.
        keys: the key of each row; rows of one key keep their order.
        rows: as many rows, with columns of the table; a column left out is null.
    """
    import pyarrow as pa

    fields, names = schema(table), {key: part_path(lake, table, key).stem for key in set(keys)}
    unknown = set(rows.column_names) - set(fields.names)
    if unknown:
        raise ConfigError(f"catalog table {table}", got=f"columns {sorted(unknown)}", expected=", ".join(fields.names))
    named = bases.fit(rows, fields).append_column(PART, pa.array([names[key] for key in keys], pa.string()))
    folder = _folder(lake, table)
    with merging.locked(folder, fcntl.LOCK_EX):
        merging.merge(folder, fields, named)


@remote_head.transaction
def take_in(lake: Lake, table: str, copied: Path) -> None:
    """Brings in the rows of another lake's table: what it has of a key replaces what this lake had.

    Args:
        lake: the lake; the other's bases are among its own already.
        table: a name in `TABLES`.
        copied: the other's loose parts and pointer.
    """
    folder, fields = _folder(lake, table), schema(table)
    rows = merging.everything(copied, fields, folder)
    if rows.num_rows:
        with merging.locked(folder, fcntl.LOCK_EX):
            merging.merge(folder, fields, rows)


def drop(lake: Lake, table: str, key: str) -> None:
    """Takes away the rows of a key."""
    put(lake, table, key, [])


def part_path(lake: Lake, table: str, key: str) -> Path:
    """The Parquet file that holds the rows of one key until they are merged."""
    from neurofmx.provenance import digest_of
    from neurofmx.types import sanitise

    readable = sanitise(key)
    plain = readable == key and not bases.NAME.fullmatch(f"{key}.parquet")
    return _folder(lake, table) / f"{readable if plain else f'{readable[:120]}-{digest_of(key)[:8]}'}.parquet"


# reading, by pyarrow alone


def rows(lake: Lake, table: str, key: str | None = None) -> list[dict[str, Any]]:
    """All rows of a table, or of one key, by pyarrow alone (no DuckDB needed)."""
    return (read(lake, table) if key is None else _part(lake, table, key)).to_pylist()


def read(lake: Lake, table: str, columns: list[str] | None = None, *, frozen: Sequence[str] | None = None) -> pa.Table:
    """A table, or some of its columns, as Arrow.

    Args:
        lake: the lake.
        table: a name in `TABLES`.
        columns: the columns wanted, all when None.
        frozen: base names of a frozen state, as `freeze` gave them; the present state when None.

    Raises:
        LakeCorrupt: a file that the pointer, or the frozen state, names is damaged or gone.
    """
    import pyarrow as pa

    fields = schema(table)

    def once() -> pa.Table:
        now = _state(lake, table, frozen, {}, columns)
        merged = [base.read(fields, hidden=hidden, columns=columns) for base, hidden in now.bases]
        return pa.concat_tables([*merged, now.loose])

    return _steady(lake, table, once)


def count(lake: Lake, table: str) -> int:
    """Rows of a table, from the footers and the names of hidden parts alone."""

    def once() -> int:
        now = _state(lake, table, None, {})
        return now.loose.num_rows + sum(base.rows - len(base.rows_of(hidden)) for base, hidden in now.bases)

    return _steady(lake, table, once)


def state(lake: Lake, table: str, frozen: Sequence[str] | None = None, cache: Cache | None = None) -> State:
    """What a table holds now, or held when it was frozen, without reading its bases' rows.

    Args:
        lake: the lake.
        table: a name in `TABLES`.
        frozen: base names of a frozen state; the present state when None.
        cache: loose parts that were read before, by file name; kept up to date here.
    """
    return _steady(lake, table, lambda: _state(lake, table, frozen, {} if cache is None else cache))


def _state(
    lake: Lake, table: str, frozen: Sequence[str] | None, cache: Cache, columns: list[str] | None = None
) -> State:
    import pyarrow as pa

    folder, fields = _folder(lake, table), schema(table)
    loose = _read_loose(folder, fields, cache, columns) if frozen is None else {}
    names = bases.read_pointer(folder).bases if frozen is None else tuple(frozen)
    hidden, found = frozenset(loose), []
    for name in reversed(names):
        base = bases.open_base(folder / name)
        found.insert(0, (base, hidden))
        hidden |= base.hides
    none = bases.fit(fields.empty_table(), fields, columns)
    return State(
        loose=pa.concat_tables([none, *(part for _, part in loose.values())]),
        bases=tuple(found),
        stamp=(names, tuple((name, stat) for name, (stat, _) in loose.items())),
    )


def _read_loose(folder: Path, fields: pa.Schema, cache: Cache, columns: list[str] | None) -> Cache:
    """The loose parts by part name, those that have not changed from the cache."""
    found: Cache = {}
    for name in merging.loose_names(folder):
        status, part = os.stat(folder / name), Path(name).stem
        # a file this young may be replaced once more within the clock's step, by one that looks the same
        settled = time.time_ns() - status.st_mtime_ns > 200_000_000
        stat = (status.st_ino, status.st_mtime_ns, status.st_size if settled else -time.time_ns())
        kept = cache.get(part)
        found[part] = kept if kept and kept[0] == stat else (stat, merging.read_part(folder / name, fields, columns))
    cache.clear()
    cache.update(found)
    return found


def _part(lake: Lake, table: str, key: str) -> pa.Table:
    fields, path = schema(table), part_path(lake, table, key)

    def once() -> pa.Table:
        with contextlib.suppress(FileNotFoundError):
            return merging.read_part(path, fields)
        for name in reversed(bases.read_pointer(path.parent).bases):
            base = bases.open_base(path.parent / name)
            found = base.part(fields, path.stem)
            if found.num_rows or path.stem in base.hides:
                return found
        return fields.empty_table()

    return _steady(lake, table, once)


def _known(lake: Lake, table: str, key: str) -> bool:
    return part_path(lake, table, key).exists() or _part(lake, table, key).num_rows > 0


def _steady(lake: Lake, table: str, once: Callable[[], T]) -> T:
    """Starts again when a merge has taken away a file that was about to be read."""
    gone = FileNotFoundError(table)
    for attempt in range(ATTEMPTS):
        try:
            with remote_head.current(lake, f"catalog/{table}"):
                return once()
        except FileNotFoundError as error:
            gone = error
            time.sleep(min(0.001 * attempt, 0.05))
    raise LakeCorrupt(
        f"catalog table {table}", got=f"no file {gone.filename or gone}", expected="the files that its pointer names",
        fix="Verify the lake: neurofmx lake verify",
    ) from gone  # fmt: skip


# merging


@remote_head.transaction
def compact(lake: Lake, table: str) -> None:
    """Merges the loose parts of a table into its bases; killed anywhere, the table is as before or as after."""
    folder, fields = _folder(lake, table), schema(table)
    with merging.locked(folder, fcntl.LOCK_EX):
        merging.merge(folder, fields)


@remote_head.transaction
def freeze(lake: Lake) -> dict[str, list[str]]:
    """Merges the loose parts of all tables at one moment and names the bases that then hold everything.

    Returns:
        Table -> names of its bases, oldest first, to be kept in this order; tables without rows are left out.
    """
    frozen: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        folders = {table: _folder(lake, table) for table in sorted(TABLES) if _folder(lake, table).is_dir()}
        for folder in folders.values():
            stack.enter_context(merging.locked(folder, fcntl.LOCK_EX))
        for table, folder in folders.items():
            pointer = merging.merge(folder, schema(table))
            if pointer.bases:
                frozen[table] = list(pointer.bases)
                there = tuple(name for name in pointer.frozen if (folder / name).exists())
                bases.write_pointer(folder, replace(pointer, frozen=tuple(dict.fromkeys((*there, *pointer.bases)))))
    return frozen


def garbage(lake: Lake, keep: Set[str], *, grace_s: float = GRACE_S) -> list[Path]:
    """What killed writers left, and bases that neither the present nor a snapshot needs.

    Args:
        lake: the lake.
        keep: base names of all snapshots.
        grace_s: how long a base that a merge replaced is left to readers that are in it.
    """
    return [path for table in TABLES for path in _garbage(lake, table, keep, grace_s, collect=False)]


@remote_head.transaction
def collect(lake: Lake, keep: Set[str], *, grace_s: float = GRACE_S) -> list[Path]:
    """Removes what `garbage` lists, under each table's lock: a merge may write a base of the same name again."""
    return [path for table in TABLES for path in _garbage(lake, table, keep, grace_s, collect=True)]


def _garbage(lake: Lake, table: str, keep: Set[str], grace_s: float, *, collect: bool) -> list[Path]:
    folder = _folder(lake, table)
    if not folder.is_dir():
        return []
    with merging.locked(folder, fcntl.LOCK_EX):
        pointer, now = bases.read_pointer(folder), time.time()
        wanted = {*keep, *pointer.bases} | {name for name, at in pointer.retired.items() if now - at < grace_s}
        found = [
            path
            for path in sorted(folder.iterdir())
            # whoever writes holds the lock, so a temporary name is nobody's
            if path.name.endswith(files.TEMPORARY) or (bases.NAME.fullmatch(path.name) and path.name not in wanted)
        ]
        for path in found if collect else []:
            path.unlink()
        return found


def _folder(lake: Lake, table: str) -> Path:
    return lake.root / "catalog" / table
