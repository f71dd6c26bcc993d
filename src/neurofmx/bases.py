"""Bases: immutable Parquet files that hold the catalog rows of many keys, and the pointer that names them.

A base is sorted by the hidden column `_part` (the name of the part that a row came from), so row-group
statistics lead to a key, and to a recording, without reading the rest. Its footer lists the parts that it
hides in older bases: replaced there, or dropped. Bases and their order are all that a frozen state needs.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neurofmx import files, remote
from neurofmx.errors import LakeCorrupt

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PART = "_part"
ROW_GROUP = 8192  # rows that a point lookup decodes
NAME = re.compile(r"base-[0-9a-f]{16}\.parquet")
_HIDES = b"neurofmx.hides"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The footer of one base.

    Args:
        path: the file.
        footer: its Parquet metadata.
        columns: its columns.
        hides: parts whose rows in older bases do not count.
        lows: first part of each row group.
        highs: last part of each row group.
        spans: part -> its rows here, (first, one past the last), of the parts that were asked for before.
    """

    path: Path
    footer: pq.FileMetaData
    columns: tuple[str, ...]
    hides: frozenset[str]
    lows: tuple[str, ...]
    highs: tuple[str, ...]
    spans: dict[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rows(self) -> int:
        """Number of rows, hidden ones included."""
        return self.footer.num_rows

    def groups(self, parts: Set[str]) -> list[int]:
        """The row groups that may hold rows of these parts."""
        found: set[int] = set()
        for part in parts:
            first, last = bisect.bisect_left(self.highs, part), bisect.bisect_right(self.lows, part)
            found.update(range(first, last))
        return sorted(found)

    def read(self, fields: pa.Schema, *, hidden: Set[str] = frozenset(), columns: list[str] | None = None) -> pa.Table:
        """The rows whose part is not hidden, in the order of the file.

        Args:
            fields: the table's schema; a column that the file lacks is null.
            hidden: parts to leave out.
            columns: the columns wanted, `PART` among them if so; all of the schema when None.
        """
        import pyarrow as pa

        wanted = fields.names if columns is None else columns
        table = fit(self._groups(None, {*wanted}), fields, wanted)
        without = self.rows_of(hidden)
        if not len(without):
            return table
        keep = np.ones(self.rows, dtype=bool)
        keep[without] = False
        return table.filter(pa.array(keep))

    def part(self, fields: pa.Schema, part: str) -> pa.Table:
        """The rows of one part, in the order in which they were put."""
        from pyarrow import compute as pc

        groups = self.groups({part})
        if not groups:
            return fields.empty_table()
        table = self._groups(groups, {*fields.names, PART})
        return fit(table.filter(pc.equal(table[PART], part)), fields)  # pyright: ignore

    def holds(self, parts: Set[str]) -> set[str]:
        """Which of these parts have rows here."""
        self._find(parts)
        return {part for part in parts if self.spans[part][1]}

    def rows_of(self, parts: Set[str]) -> np.ndarray:
        """(N,) int64, ascending: the rows of these parts here."""
        self._find(parts)
        spans = sorted(self.spans[part] for part in parts if self.spans[part][1])
        return np.concatenate([np.empty(0, np.int64), *(np.arange(lo, hi) for lo, hi in spans)])

    def _find(self, parts: Set[str]) -> None:
        """Looks up the spans of parts not asked for before, with one read of the row groups that may have them."""
        import pyarrow as pa
        from pyarrow import compute as pc

        new = {part for part in parts if part not in self.spans}
        found = dict.fromkeys(new, (0, 0))
        if groups := self.groups(new):
            sizes = [self.footer.row_group(g).num_rows for g in range(self.footer.num_row_groups)]
            first = np.concatenate([[0], np.cumsum(sizes)])
            numbers = np.concatenate([np.arange(first[g], first[g + 1]) for g in groups])
            column = self._groups(groups, {PART})[PART]
            mine = np.flatnonzero(pc.is_in(column, pa.array(sorted(new), pa.string())).to_numpy())  # pyright: ignore
            for row, part in zip(numbers[mine].tolist(), column.take(mine).to_pylist()):
                lo = found[part][0] if found[part][1] else row
                found[part] = (lo, row + 1)
        self.spans.update(found)

    def _groups(self, groups: list[int] | None, columns: Set[str]) -> pa.Table:
        import pyarrow.parquet as pq

        with damage_named(self.path), pq.ParquetFile(self.path, metadata=self.footer) as file:
            there = [name for name in self.columns if name in columns]
            return file.read(there) if groups is None else file.read_row_groups(groups, there)


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns Parquet's own complaint about a file into one that names it.

    Raises:
        LakeCorrupt: the file is not whole.
    """
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise LakeCorrupt(f"catalog file {path}", got=str(error), expected="a whole Parquet file") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise LakeCorrupt(f"catalog file {path}", got=str(error), expected="a whole Parquet file") from error


def fit(table: pa.Table, fields: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The table with the schema's columns, or those asked for: null where an older file lacks one."""
    import pyarrow as pa

    if columns is None and table.schema.equals(fields):
        return table
    arrays, kept = [], []
    for name in fields.names if columns is None else columns:
        wanted = pa.field(name, pa.string()) if name == PART else fields.field(name)
        there = name in table.column_names
        arrays.append(table[name].cast(wanted.type) if there else pa.nulls(table.num_rows, wanted.type))
        kept.append(wanted)
    return pa.table(arrays, schema=pa.schema(kept))


def open_base(path: Path) -> Base:
    """Reads a base's footer; kept, since the file never changes.

    Raises:
        FileNotFoundError: there is no such file (a merge or a collection took it away).
        LakeCorrupt: it is not a whole Parquet file.
    """
    return _opened(remote.at_hand(path))


@lru_cache(maxsize=512)
def _opened(path: Path) -> Base:
    import pyarrow.parquet as pq

    with damage_named(path):
        footer = pq.read_metadata(path)
    groups = [footer.row_group(g) for g in range(footer.num_row_groups) if footer.num_rows]
    column = footer.schema.names.index(PART)
    spans = [group.column(column).statistics for group in groups]
    return Base(
        path=path, footer=footer, columns=tuple(footer.schema.to_arrow_schema().names),
        hides=frozenset(json.loads((footer.metadata or {}).get(_HIDES, b"[]"))),
        lows=tuple(s.min for s in spans), highs=tuple(s.max for s in spans),
    )  # fmt: skip


def write_base(folder: Path, rows: pa.Table, hides: Set[str]) -> str:
    """Writes rows, sorted by `PART`, as a base; returns its name, which its bytes determine."""
    data = parquet(rows.replace_schema_metadata({_HIDES: json.dumps(sorted(hides)).encode()}))
    name = f"base-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    files.replace(folder / name, data)
    return name


def parquet(rows: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue()


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Which bases count.

    Args:
        bases: names, oldest first; each hides what its footer lists in those before it.
        retired: name -> Unix time at which a merge replaced it; readers may still be in it.
        frozen: names that a snapshot may keep; only a collection that knows the snapshots removes them.
    """

    bases: tuple[str, ...] = ()
    retired: dict[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()


def read_pointer(folder: Path) -> Pointer:
    """The pointer of a table's folder; empty where nothing has been merged yet.

    Raises:
        LakeCorrupt: it is not what this code writes.
    """
    path = folder / "current.json"
    try:
        value = json.loads(path.read_bytes())
        return Pointer(
            bases=tuple(value["bases"]), retired=value.get("retired", {}), frozen=tuple(value.get("frozen", ()))
        )
    except FileNotFoundError:
        return Pointer()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakeCorrupt(f"catalog pointer {path}", got=str(error), expected="a JSON object with bases") from error


def write_pointer(folder: Path, pointer: Pointer) -> None:
    """Replaces the pointer; once this returns, the new state lasts."""
    files.replace(folder / "current.json", json.dumps(asdict(pointer)).encode())
    files.sync_folder(folder)
