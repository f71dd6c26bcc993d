"""The packed index: every stored array of many recordings from one table, no metadata file read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofmx import groups, handles, parts, shards
from neurofmx.errors import NotThere
from neurofmx.handles import OpenFiles
from neurofmx.lazy import TimeIndex
from neurofmx.shards import ArrayFiles, ShardedArray

if TYPE_CHECKING:
    import pyarrow as pa

    from neurofmx.lake import Lake

_OPENING = [
    "recording_id", "stream", "array", "group", "dtype", "shape", "chunk_rows", "shard_rows", "codec", "rate_hz",
    "t0_s",
]  # fmt: skip
_FILES = ["group", "array", "files", "file_sha256"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """The arrays of one kind of group over many recordings.

    Args:
        lake: where they are.
        kind: ``recording``, or ``tokens:<spec digest>:<stream>``.
        recordings: ids, sorted.
        table: rows of table ``arrays``, sorted by recording and array; less what only a verifier needs.
        open_files: the open files that its arrays use.
        frozen: as `open` was told.
    """

    lake: Lake
    kind: str
    recordings: tuple[str, ...]
    table: pa.Table
    open_files: OpenFiles
    frozen: Mapping[str, Sequence[str]] | None
    _span: Mapping[str, tuple[int, int]] = field(repr=False)
    _column: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(
        cls,
        lake: Lake,
        recordings: Sequence[str] | None = None,
        kind: str = "recording",
        *,
        frozen: Mapping[str, Sequence[str]] | None = None,
        random: bool = False,
    ) -> Index:
        """Opens the index of the groups that the catalog points at.

        Groups that an older version of this code published have no rows in table ``arrays``: theirs are read from
        the groups' own metadata.

        Args:
            lake: the lake.
            recordings: ids to keep, all when None.
            kind: which groups.
            frozen: table -> base names of a snapshot's catalog; the present state when None.
            random: tells the kernel to read nothing ahead, for windows drawn at random from a cold disk.

        Raises:
            NotThere: one of ``recordings`` has no such group.
        """
        import pyarrow as pa

        groups_of = _current(lake, kind, frozen)
        if recordings is not None:
            absent = [rid for rid in recordings if rid not in groups_of]
            if absent:
                raise NotThere(f"{kind} of {absent[0]}", expected="one that is in the lake", fix="Ingest it.")
            groups_of = {rid: groups_of[rid] for rid in recordings}
        rows, wanted = _read(lake, "arrays", _OPENING, frozen), set(groups_of.values())
        listed, coded = _coded(rows["group"])
        rows = rows.take(np.flatnonzero(np.array([group in wanted for group in listed], bool)[coded]))
        lacking = wanted.difference(listed)
        older = {rid: group for rid, group in groups_of.items() if group in lacking}
        if older:
            found = [row for rid, group in older.items() for row in described(lake, rid, kind, group)]
            rows = pa.concat_tables([rows, pa.Table.from_pylist(found, schema=rows.schema)])
        # of groups that are one and the same content, each recording has rows of its own
        names, coded = _coded(rows["recording_id"])
        rank = np.argsort(np.argsort(names))[coded]
        listed, coded = _coded(rows["array"])
        rows = rows.take(np.lexsort((np.argsort(np.argsort(listed))[coded], rank)))
        names, edges = sorted(names), np.searchsorted(np.sort(rank), np.arange(len(names) + 1)).tolist()
        return cls(
            lake=lake, kind=kind, recordings=tuple(sorted(groups_of)), table=rows, frozen=frozen,
            open_files=handles.RANDOM if random else handles.ORDINARY,
            _span={name: (edges[i], edges[i + 1]) for i, name in enumerate(names)}, _column=_columns(rows),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.recordings)

    def arrays(self, recording: str) -> tuple[str, ...]:
        """Names of a recording's arrays, sorted.

        Raises:
            NotThere: the index has no such recording.
        """
        lo, hi = self._rows(recording)
        return tuple(self.table["array"][lo:hi].to_pylist())

    def streams(self, recording: str) -> tuple[str, ...]:
        """Names of a recording's streams, sorted."""
        lo, hi = self._rows(recording)
        return tuple(sorted(set(self.table["stream"][lo:hi].to_pylist())))

    def row(self, recording: str, name: str) -> dict[str, Any]:
        """The row of table ``arrays``, less its files: see `files`.

        Raises:
            NotThere: there is no such array.
        """
        return self.table.slice(self._at(recording, name), 1).to_pylist()[0]

    def files(self, recording: str, name: str) -> list[tuple[str, str]]:
        """The shard files of an array, relative to the lake, and their digests (empty where none was stored)."""
        group = self._column["group"][self._at(recording, name)]
        found = self._files.get((group, name))
        if found is None:
            found = next(r for r in described(self.lake, recording, self.kind, group) if r["array"] == name)
        return [(f"{group}/{file}", digest) for file, digest in zip(found["files"], found["file_sha256"])]

    @cached_property
    def _files(self) -> dict[tuple[str, str], dict[str, Any]]:
        rows = _read(self.lake, "arrays", _FILES, self.frozen)
        return {(row["group"], row["array"]): row for row in rows.to_pylist()}

    def array(self, recording: str, name: str) -> ShardedArray:
        """One array, ready to be read.

        Raises:
            NotThere: there is no such array.
        """
        at, column = self._at(recording, name), self._column
        lo, hi = column["shape_at"][at], column["shape_at"][at + 1]
        folder = f"{self.lake.root}/{column['group'][at]}/{name}"
        return ShardedArray(
            path=Path(folder),
            shape=tuple(column["shape"][lo:hi].tolist()),
            dtype=np.dtype(column["dtype"][at]),
            chunk_rows=int(column["chunk_rows"][at]),
            shard_rows=int(column["shard_rows"][at]),
            codec=column["codec"][at],
            known=True,
            files=self.open_files,
            source=self.lake.remote,
        )

    def times(self, recording: str, stream: str) -> TimeIndex | None:
        """Where each step of time begins in a stream's stored times; None where it has no such index."""
        name = f"{stream}/{groups.BY_TIME}"
        lo, hi = self._rows(recording)
        if name not in self._column["array"][lo:hi]:
            return None
        at = self._at(recording, name)
        t0_s, rate_hz = float(self._column["t0_s"][at]), float(self._column["rate_hz"][at])
        return TimeIndex(self.array(recording, name), t0_s, 1 / rate_hz)

    def close(self) -> None:
        """Lets go of the open files of this lake."""
        self.open_files.close(f"{self.lake.root}/")

    def _rows(self, recording: str) -> tuple[int, int]:
        found = self._span.get(recording)
        if found is None:
            raise NotThere(f"{self.kind} {recording}", expected=f"one of {len(self.recordings)} in the index")
        return found

    def _at(self, recording: str, name: str) -> int:
        lo, hi = self._rows(recording)
        for at in range(lo, hi):
            if self._column["array"][at] == name:
                return at
        raise NotThere(f"array {name!r} of {recording}", expected=f"one of {list(self.arrays(recording))}")


def _read(lake: Lake, table: str, columns: list[str], frozen: Mapping[str, Sequence[str]] | None) -> pa.Table:
    return parts.read(lake, table, columns, frozen=None if frozen is None else frozen.get(table, ()))


def _current(lake: Lake, kind: str, frozen: Mapping[str, Sequence[str]] | None) -> dict[str, str]:
    """Recording -> folder of the group that the catalog points at."""
    if kind == "recording":
        table, columns, wanted = "recordings", ["recording_id", "path"], ()
    else:
        table, columns = "tokens", ["recording_id", "path", "spec_digest", "stream"]
        wanted = tuple(kind.split(":", 2)[1:])
    rows = _read(lake, table, columns, frozen)
    return {row[0]: row[1] for row in zip(*(rows[name].to_pylist() for name in columns)) if row[2:] == wanted}


def _coded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct texts of a column, and which of them each row has."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


def _columns(rows: pa.Table) -> dict[str, Any]:
    """What opening an array needs, as lists of shared values and numpy columns."""
    shape = rows["shape"].combine_chunks()
    found: dict[str, Any] = {"shape": shape.flatten().to_numpy(), "shape_at": shape.offsets.to_numpy()}
    for name in ("array", "group", "dtype", "codec"):
        texts, coded = _coded(rows[name])
        found[name] = np.array(texts, dtype=object)[coded]  # each text once in memory, however many rows have it
    for name in ("chunk_rows", "shard_rows", "rate_hz", "t0_s"):
        found[name] = rows[name].to_numpy()
    return found


def described(lake: Lake, recording_id: str, kind: str, group: str) -> list[dict[str, Any]]:
    """The rows of table ``arrays`` of a group that has none, from its own metadata; file digests are left out.

    Raises:
        LakeCorrupt: the group is damaged.
    """
    path = lake.root / group
    found = [_described(path, name) for name in shards.array_names(path)]
    rows = groups.array_rows(found, shards.read_attributes(path)["neurofmx"], recording_id, kind, group)
    return [row | {"file_sha256": [""] * len(row["files"])} for row in rows]


def _described(path: Path, name: str) -> ArrayFiles:
    array = shards.open_array(path / name)
    if len(array) and array.row_bytes:
        for shard in range(len(array.shard_files)):
            array.read(shard * array.shard_rows, shard * array.shard_rows + 1)  # checks the order of its chunks
    return ArrayFiles(
        array=name, dtype=array.dtype.name, shape=array.shape, chunk_rows=array.chunk_rows,
        shard_rows=array.shard_rows, codec=array.codec, n_bytes=array.nbytes,
        files=tuple(str(Path(file).relative_to(path)) for file in array.shard_files), file_sha256=(), digest="",
    )  # fmt: skip
