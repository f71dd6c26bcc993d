"""Merging the loose parts of one table's folder into bases.

Merging is geometric: an older base is merged along while it is not much larger than what is new, so that a row is
copied a few times in its life, not once a merge, and a table has a handful of bases. The pointer is replaced last:
killed before, nothing has changed; killed after, what is left over is hidden by its own equal rows, or named by nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neurofmx import bases, files
from neurofmx.bases import PART, Base, Pointer

if TYPE_CHECKING:
    import pyarrow as pa

GROWTH = 4  # an older base is merged along when it has fewer than this many times the newer rows
LARGEST = 1 << 20  # rows past which bases are no longer merged together: bounds a merge's memory
HIDDEN = 4096  # parts that bases may hide in one another before all are written again
GRACE_S = 600.0  # how long a base that a merge replaced stays for readers that are in it


def merge(folder: Path, fields: pa.Schema, added: pa.Table | None = None) -> Pointer:
    """Brings the loose parts, and rows added at once, into the bases; the caller holds the exclusive lock.

    Args:
        folder: of the table.
        fields: the table's schema.
        added: rows with `PART`, which replace all that their parts had.

    Returns:
        The pointer as it is now.
    """
    import pyarrow as pa

    pointer, loose = bases.read_pointer(folder), loose_names(folder)
    if not loose and added is None:
        return pointer
    if loose and added is not None:  # one step each: a kill between them must not let an old part hide a new row
        pointer, loose = merge(folder, fields), []
    merged = _named(folder, fields, loose) if added is None else added
    hides = {Path(name).stem for name in loose} if added is None else set(added[PART].unique().to_pylist())
    older = [bases.open_base(folder / name) for name in pointer.bases]
    while older and older[-1].rows < GROWTH * merged.num_rows and older[-1].rows + merged.num_rows <= LARGEST:
        last = older.pop()
        merged = pa.concat_tables([last.read(fields, hidden=hides, columns=[*fields.names, PART]), merged])
        hides |= last.hides
    hides = {part for base in older for part in base.holds(hides)}
    if len(hides) + sum(len(base.hides) for base in older) > HIDDEN:
        older, hides = _cleared(folder, fields, older, hides), set()
    kept = [base.path.name for base in older]
    if merged.num_rows or hides:
        kept.append(bases.write_base(folder, merged.sort_by(PART), hides))
    return _point(folder, pointer, kept, loose)


def everything(folder: Path, fields: pa.Schema, stored: Path) -> pa.Table:
    """All rows of a copied folder with their `PART`.

    Args:
        folder: its loose parts and its pointer; nobody changes them meanwhile.
        fields: the table's schema.
        stored: where its bases are.
    """
    import pyarrow as pa

    loose = loose_names(folder)
    found, hidden = [_named(folder, fields, loose)], frozenset(Path(name).stem for name in loose)
    for name in reversed(bases.read_pointer(folder).bases):
        base = bases.open_base(stored / name)
        found.append(base.read(fields, hidden=hidden, columns=[*fields.names, PART]))
        hidden |= base.hides
    return pa.concat_tables(found)


def _named(folder: Path, fields: pa.Schema, loose: list[str]) -> pa.Table:
    """The rows of loose parts with their `PART`."""
    import pyarrow as pa

    none = fields.append(pa.field(PART, pa.string())).empty_table()
    read = ((Path(name).stem, read_part(folder / name, fields)) for name in loose)
    named = [t.append_column(PART, pa.array([part] * t.num_rows, pa.string())) for part, t in read]
    return pa.concat_tables([none, *named])


def _cleared(folder: Path, fields: pa.Schema, older: list[Base], hides: Set[str]) -> list[Base]:
    """The same rows in bases that hide nothing in one another."""
    hidden, cleared = frozenset(hides), []
    for base in reversed(older):
        left = base.read(fields, hidden=hidden, columns=[*fields.names, PART])
        if left.num_rows:
            cleared.insert(0, bases.open_base(folder / bases.write_base(folder, left, frozenset())))
        hidden |= base.hides
    return cleared


def _point(folder: Path, before: Pointer, kept: list[str], loose: list[str]) -> Pointer:
    """Makes the new bases the present state, then removes what no reader that comes now can want."""
    now = time.time()
    retired = before.retired | dict.fromkeys(before.bases, now)
    retired = {name: at for name, at in retired.items() if name not in kept}
    old = [name for name, at in retired.items() if now - at > GRACE_S]
    after = replace(before, bases=tuple(kept), retired={name: at for name, at in retired.items() if name not in old})
    bases.write_pointer(folder, after)
    for name in (*loose, *(name for name in old if name not in before.frozen)):
        (folder / name).unlink(missing_ok=True)
    return after


def loose_names(folder: Path) -> list[str]:
    """The file names of the loose parts, sorted."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.endswith(".parquet") and not bases.NAME.fullmatch(name))


def read_part(path: Path, fields: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The rows of one loose part: the columns wanted, null where it is too old to have one."""
    import pyarrow.parquet as pq

    with bases.damage_named(path), pq.ParquetFile(path) as file:
        there = columns and [name for name in file.schema_arrow.names if name in columns]
        return bases.fit(file.read(there, use_threads=False), fields, columns)


@contextlib.contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Holds the lock of a table's folder, made where it is not there.

    Args:
        folder: of the table.
        how: ``fcntl.LOCK_SH`` to put a part, ``fcntl.LOCK_EX`` to merge or collect.
    """
    with files.clear_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
