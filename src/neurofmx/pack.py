"""Small lakes to carry away, and the second encoding of a lake that stays.

A packed lake is a lake: folders of Zarr v3 shards, catalog and snapshot. Its arrays are stored with codec
``none`` unless asked otherwise, so numpy and pyarrow alone read it; ``lz4`` needs numcodecs where it is read.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurofmx import bases, catalog, files, groups, parts, publish, shards, snapshots, tables
from neurofmx.errors import ConfigError, LakeCorrupt, NotThere
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json, digest_file
from neurofmx.shards import ArrayFiles, Codec

LICENCE = "its licence does not let its bytes leave the lake"
OWN = ("streams", "channels", "intervals", "checks", "splits")  # tables packed by their column recording_id
SPARE = 64 << 10  # for the snapshot's manifest, the pointers and pack.json


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was packed.

    Args:
        path: the new lake.
        recordings: ids that it holds, sorted.
        left_out: id -> why it stayed behind.
        n_bytes: of all its files.
        snapshot: digest of what it holds.
    """

    path: Path
    recordings: tuple[str, ...]
    left_out: Mapping[str, str]
    n_bytes: int
    snapshot: str


@dataclass(frozen=True, kw_only=True)
class _Group:
    """One group that is wanted: its row in table ``recordings`` or ``tokens``, and its arrays' rows."""

    table: str
    key: str
    row: dict[str, Any]
    arrays: list[dict[str, Any]]


def pack(
    lake: Lake,
    out: Path,
    *,
    max_mb: float | None = None,
    recordings: Sequence[str] | None = None,
    where_sql: str = "",
    codec: Codec = "none",
) -> Packed:
    """Copies chosen recordings, their tokens and their rows of the catalog into a new small lake.

    Where not all fit, the smallest of each dataset are taken first, one of each dataset in turn, datasets by name:
    the same lake and limit always give the same choice. Raw files stay behind (frames of video with them), so the
    packed rows name none; a recording whose licence forbids it stays too.

    Args:
        lake: where from.
        out: folder to make; nothing may be there.
        max_mb: most that all files together may take, in units of 1e6 bytes; counted as stored with codec ``none``.
        recordings: ids to choose from, all when None.
        where_sql: a query over the catalog whose column ``recording_id`` narrows the choice.
        codec: how arrays are stored: ``none``, or ``lz4`` for about half the size.

    Raises:
        ConfigError: ``out`` is there, or the query has no column recording_id.
        NotThere: the lake has not one of ``recordings``, or nothing is left to pack.
        LakeCorrupt: a group is damaged.
        NoSpace, Denied: nothing is left behind.
    """
    if out.exists():
        raise ConfigError(f"folder {out}", got="it is there", expected="a new one", fix="Name another, or remove it.")
    with lake.reading():
        wanted, left_out = _wanted(lake, recordings, where_sql)
        found = _groups(lake, wanted)
        limit = None if max_mb is None else int(max_mb * 1e6)
        chosen = _fitting(lake, found, limit, left_out)
        if not chosen:
            why = "; ".join(f"{rid}: {said}" for rid, said in list(left_out.items())[:3])
            raise NotThere(f"recordings to pack into {out}", got=why or "none were chosen", expected="at least one")
        partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}{files.TEMPORARY}")
        with files.clear_faults(out):
            try:
                digest = _write(lake, partial, {rid: found[rid] for rid in chosen}, codec, left_out)
                out.parent.mkdir(parents=True, exist_ok=True)
                os.rename(partial, out)
                files.sync_folder(out.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return Packed(path=out, recordings=tuple(chosen), left_out=left_out, n_bytes=_size(out), snapshot=digest)


def convert(lake: Lake, codec: Codec, recordings: Sequence[str] | None = None) -> list[str]:
    """Stores recordings and their tokens in another encoding and points the catalog at it.

    The old groups are not touched: what a snapshot names stays readable, and the rest goes at the next collection.

    Args:
        lake: the lake.
        codec: ``none`` for training, ``lz4`` for the archive.
        recordings: ids, all when None.

    Returns:
        The folders of the new groups, relative to the lake.

    Raises:
        NotThere: the lake has not one of them.
        Conflict: another version was published meanwhile; that one stays.
        LakeCorrupt: a group is damaged; it is left as it is.
    """
    wanted, _ = _wanted(lake, recordings, "", licensed=False)
    made = []
    for own in _groups(lake, wanted).values():
        for group in own:
            if all(row["codec"] == codec for row in group.arrays):
                continue
            source, path = lake.root / group.row["path"], _tier(group.row["path"], codec)
            attributes = shards.read_attributes(source)
            lazy = {name: shards.open_array(source / name) for name in shards.array_names(source)}
            with publish.draft(lake, lazy, codec) as (partial, written):
                shards.finish_group(partial, attributes)
                _same(partial, group)
                arrays = _array_rows(written, attributes, group, path)
                rows = [("arrays", group.key, arrays), (group.table, group.key, [group.row | {"path": path}])]
                publish.point_at(lake, partial, rows, group.row["digest"])
            made.append(path)
    return made


# what is wanted


def _wanted(
    lake: Lake, recordings: Sequence[str] | None, where_sql: str, *, licensed: bool = True
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of table ``recordings``, sorted by id, and why others were left out."""
    rows = {row["recording_id"]: row for row in catalog.rows(lake, "recordings")}
    ids = sorted(rows if recordings is None else set(recordings))
    absent = [rid for rid in ids if rid not in rows]
    if absent:
        raise NotThere("recording", got=absent[0], expected="one that is in the lake", fix="Ingest it.")
    if where_sql:
        answer = catalog.query(lake, where_sql)
        if "recording_id" not in answer.column_names:
            raise ConfigError("query of what to pack", got=f"columns {answer.column_names}", expected="recording_id")
        kept = set(answer["recording_id"].to_pylist())
        ids = [rid for rid in ids if rid in kept]
    left_out = {rid: LICENCE for rid in ids if licensed and rows[rid]["redistribute"] is False}
    return [rows[rid] for rid in ids if rid not in left_out], left_out


def _groups(lake: Lake, wanted: Iterable[dict[str, Any]]) -> dict[str, list[_Group]]:
    """Recording -> its own group, then those of its tokens."""
    arrays: dict[str, list[dict[str, Any]]] = {}
    for row in catalog.rows(lake, "arrays"):
        arrays.setdefault(row["group"], []).append(row)
    found = {
        row["recording_id"]: [
            _Group(table="recordings", key=row["recording_id"], row=row, arrays=arrays.get(row["path"], []))
        ]
        for row in wanted
    }
    for row in sorted(catalog.rows(lake, "tokens"), key=lambda row: row["path"]):
        if row["recording_id"] in found:
            key = f"{row['recording_id']}|{row['spec']}|{row['spec_digest']}|{row['stream']}"
            found[row["recording_id"]].append(
                _Group(table="tokens", key=key, row=row, arrays=arrays.get(row["path"], []))
            )
    return found


def _fitting(lake: Lake, found: Mapping[str, list[_Group]], limit: int | None, left_out: dict[str, str]) -> list[str]:
    """Ids that fit, sorted; says in ``left_out`` why the others do not."""
    if limit is None:
        return sorted(found)
    size = {rid: sum(_group_size(lake, group) for group in own) for rid, own in found.items()}
    taken, used = [], SPARE
    for rid in _in_turn(found, size):
        if used + size[rid] <= limit:
            taken.append(rid)
            used += size[rid]
        else:
            left_out[rid] = f"{size[rid] / 1e6:.1f} MB, of which {max(0, limit - used) / 1e6:.1f} were left"
    # the catalog's share is known only when its rows are: what was taken last goes first
    while taken and used + sum(len(bases.parquet(t)) for t in _rows(lake, found, taken).values()) > limit:
        rid = taken.pop()
        used -= size[rid]
        left_out[rid] = f"{size[rid] / 1e6:.1f} MB, and no room for its rows of the catalog"
    return sorted(taken)


def _in_turn(found: Mapping[str, list[_Group]], size: Mapping[str, int]) -> Iterator[str]:
    """The smallest of each dataset, then the second smallest of each, and so on."""
    queues: dict[str, list[str]] = {}
    for rid in sorted(found, key=lambda rid: (size[rid], rid)):
        row = found[rid][0].row
        queues.setdefault(f"{row['archive']}:{row['dataset']}@{row['version']}", []).append(rid)
    for turn in range(max(map(len, queues.values()), default=0)):
        for dataset in sorted(queues):
            yield from queues[dataset][turn : turn + 1]


def _group_size(lake: Lake, group: _Group) -> int:
    """Bytes that a group takes with codec ``none``, its small files included; at most so many for one of another."""
    folder = lake.root / group.row["path"]
    if lake.remote is None and all(row["codec"] == "none" for row in group.arrays):
        return _size(folder)
    small = sum(file.stat().st_size for file in folder.rglob("zarr.json"))
    # of an array: its last chunk whole, and 16 bytes a chunk in the tables
    return small + sum(
        n + min(n, shards.CHUNK_BYTES) + n // 8192 + 64 for n in (row["n_bytes"] for row in group.arrays)
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# writing


def _write(
    lake: Lake, target: Path, found: Mapping[str, list[_Group]], codec: Codec, left_out: Mapping[str, str]
) -> str:
    """The new lake under its temporary name; returns the digest of its snapshot."""
    new = Lake.open(target)
    moved: dict[str, str] = {}
    arrays: list[dict[str, Any]] = []
    for own in found.values():
        for group in own:
            path, rows = _carry(lake, new, group, codec)
            moved[group.row["path"]] = path
            arrays += rows
    for table, rows in _rows(lake, found, list(found)).items():
        listed = rows.to_pylist()
        if table == "arrays":
            listed = arrays
        for row in listed:
            if table in ("recordings", "tokens"):
                row["path"] = moved[row["path"]]
        _put(new, table, listed)
    about = {"codec": codec, "recordings": sorted(found), "left_out": dict(left_out)}
    files.replace(
        new.root / "manifests" / "pack.json", json.dumps(json.loads(canonical_json(about)), indent=1).encode()
    )
    return snapshots.take(new, "packed")


def _carry(lake: Lake, new: Lake, group: _Group, codec: Codec) -> tuple[str, list[dict[str, Any]]]:
    """Brings one group over: its path in the new lake and its rows of table ``arrays``."""
    source, path = lake.root / group.row["path"], _tier(group.row["path"], codec)
    attributes, target = shards.read_attributes(source), new.root / path
    if lake.remote is None and group.arrays and all(row["codec"] == codec for row in group.arrays):
        shutil.copytree(source, target)
        shards.sync_group(target)
        for row in group.arrays:
            for file, digest in zip(row["files"], row["file_sha256"] or ()):
                if digest and digest_file(target / file) != digest:
                    raise LakeCorrupt(f"shard {source / file}", got="other bytes than were published",
                                      fix="Run: neurofmx lake verify")  # fmt: skip
        return path, [row | {"group": path} for row in group.arrays]
    lazy = {name: shards.open_array(source / name) for name in shards.array_names(source)}
    written = shards.write_group(target, lazy, attributes, codec)
    _same(target, group)
    return path, _array_rows(written, attributes, group, path)


def _same(path: Path, group: _Group) -> None:
    """Makes sure that a group in another encoding is the same data."""
    found = groups.logical_digest(path)
    if found != group.row["digest"]:
        raise LakeCorrupt(f"group {group.row['path']}", got=f"digest {found}", expected=group.row["digest"],
                          fix="Run: neurofmx lake verify")  # fmt: skip


def _tier(path: str, codec: Codec) -> str:
    """The folder of a group in an encoding: hot ones have the plain name."""
    plain = path.removesuffix(".zarr").removesuffix(".lz4")
    return f"{plain}.zarr" if codec == "none" else f"{plain}.{codec}.zarr"


def _array_rows(
    written: list[ArrayFiles], attributes: Mapping[str, Any], group: _Group, path: str
) -> list[dict[str, Any]]:
    row = group.row
    kind = "recording" if group.table == "recordings" else f"tokens:{row['spec_digest']}:{row['stream']}"
    return groups.array_rows(written, attributes["neurofmx"], row["recording_id"], kind, path)


def _rows(lake: Lake, found: Mapping[str, list[_Group]], chosen: Sequence[str]) -> dict[str, Any]:
    """Table -> its rows that belong to the chosen recordings, as Arrow."""
    import pyarrow as pa

    held = [group for rid in chosen for group in found[rid]]
    rows: dict[str, list[dict[str, Any]]] = {
        # the raw files stay behind: a packed row names none, so that nothing is missed
        "recordings": [g.row | {"raw_sha256": []} for g in held if g.table == "recordings"],
        "tokens": [g.row for g in held if g.table == "tokens"],
        "arrays": [row for group in held for row in group.arrays],
    }
    kept, own = set(chosen), rows["recordings"]
    for table in OWN:
        rows[table] = [row for row in catalog.rows(lake, table) if row["recording_id"] in kept]
    subjects = {f"{row['archive']}:{row['dataset']}/{row['subject_id']}" for row in own}
    datasets = {f"{row['archive']}:{row['dataset']}@{row['version']}" for row in own}
    rows["subjects"] = [row for row in catalog.rows(lake, "subjects") if row["subject_key"] in subjects]
    rows["datasets"] = [row for row in catalog.rows(lake, "datasets") if row["dataset_id"] in datasets]
    return {name: pa.Table.from_pylist(listed, schema=tables.schema(name)) for name, listed in rows.items()}


def _put(lake: Lake, table: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    if not rows:
        return
    specs = {(row["recording_id"], f"tokens:{row['spec_digest']}:{row['stream']}"): row["spec"]
             for row in catalog.rows(lake, "tokens")}  # fmt: skip
    keys = [_key(table, row, specs) for row in rows]
    parts.put_table(lake, table, keys, pa.Table.from_pylist(rows, schema=tables.schema(table)))


def _key(table: str, row: Mapping[str, Any], specs: Mapping[tuple[str, str], str]) -> str:
    """What a row's part is named by: as in a lake that was not packed."""
    if table == "tokens":
        return f"{row['recording_id']}|{row['spec']}|{row['spec_digest']}|{row['stream']}"
    if table == "arrays" and row["kind"] != "recording":
        _, spec, stream = row["kind"].split(":", 2)
        return f"{row['recording_id']}|{specs[row['recording_id'], row['kind']]}|{spec}|{stream}"
    if table == "splits":
        return f"{row['task']}|{row['split_id']}|{row['recording_id']}"
    if table == "subjects":
        return row["subject_key"]
    return row["dataset_id"] if table == "datasets" else row["recording_id"]
