"""Publishing: a group written under a temporary name, then named by the catalog in one step that a kill cannot halve.

A version is written beside the lake, at its writer's pace. Then, under one lock for the whole lake, the rows that
will point at it are noted in one small file, the group is renamed to its place, and the rows are put. Killed
before the note, the last version stays; killed after it, whoever takes the lock next completes what was noted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurofmx import catalog, files, groups, pins, remote_head, shards
from neurofmx.errors import ConfigError, Conflict, LakeCorrupt
from neurofmx.provenance import canonical_json, code_version, now
from neurofmx.shards import ArrayFiles, Codec
from neurofmx.types import Check, Recording, RecordingId, TokenGrid, TokenSpec

if TYPE_CHECKING:
    from neurofmx.lake import Lake

LOCK = ".pointing"
Rows = list[tuple[str, str, list[dict[str, Any]]]]  # table, key, rows


def recording(lake: Lake, given: Recording, checks: Iterable[Check] = ()) -> str:
    """Writes a recording as an immutable group and points the catalog at it.

    Args:
        lake: where it goes.
        given: what to keep; times and values are stored exactly as they are.
        checks: judgements to keep beside it.

    Returns:
        The logical digest (of decoded values, types and metadata): identity and data version.

    Raises:
        Conflict: another writer published another version of it meanwhile; that one stays.
        NoSpace: the disk is full; no reader sees a part of it.
        Denied: the lake may not be written here.
    """
    rid, key = given.id, str(given.id)
    at, before = now(), _digest(lake, "recordings", key)
    arrays, attributes = groups.pack_recording(given)
    with draft(lake, arrays) as (partial, written):
        digests = {one.array: one.digest for one in written}
        digest = groups.recording_digest(attributes, digests)
        path = Path("recordings") / rid.archive / f"{rid.dataset}@{rid.version}" / f"{rid.name}-{digest[:16]}.zarr"
        shards.finish_group(partial, {"neurofmx": attributes, "digest": digest})
        subject = groups.subject_rows(given)
        row = groups.recording_row(given)
        row |= {"digest": digest, "path": path.as_posix(), "bytes": sum(one.n_bytes for one in written),
                "code_version": code_version(), "ingested_at": at}  # fmt: skip
        rows: Rows = [
            ("streams", key, groups.stream_rows(given, groups.stream_digests(attributes, digests))),
            ("channels", key, groups.channel_rows(given)),
            ("intervals", key, groups.interval_rows(given)),
            ("checks", key, [
                {"recording_id": key, "stage": "ingest", "check_name": c.name, "passed": c.passed,
                 "severity": c.severity, "evidence": c.evidence, "checked_at": at}
                for c in checks
            ]),
            ("lineage", key, [
                {"child": key, "child_kind": "recording", "parent": f.sha256, "parent_kind": "raw",
                 "detail": canonical_json(f)}
                for f in given.provenance.files
            ]),
            ("subjects", subject[0]["subject_key"], subject),
            ("arrays", key, groups.array_rows(written, attributes, key, "recording", path.as_posix())),
            ("recordings", key, [row]),  # last: this is what makes the new version visible
        ]  # fmt: skip
        point_at(lake, partial, rows, before)
    return digest


def tokens(lake: Lake, rid: RecordingId | str, spec: TokenSpec, grid: TokenGrid, *, stream: str = "") -> str:
    """Stores one recording's tokens under the spec's digest; returns their logical digest.

    Raises:
        NotThere: the lake has no such recording.
        Conflict: another writer stored other tokens of this spec meanwhile; those stay.
        NoSpace, Denied: as `recording`.
    """
    rid, of = RecordingId.parse(str(rid)), spec.digest()
    key = f"{rid}|{spec.name}|{of}|{stream}"
    before, parent = _digest(lake, "tokens", key), lake.recording_digest(rid)
    arrays, attributes = groups.pack_grid(grid)
    with draft(lake, arrays) as (partial, written):
        digest = groups.grid_digest(attributes, {one.array: one.digest for one in written}, parent)
        path = Path("tokens", of, rid.archive, f"{rid.dataset}@{rid.version}", f"{rid.name}-{digest[:16]}.zarr")
        shards.finish_group(partial, {"neurofmx": attributes, "digest": digest, "recording": parent})
        t, c, p = grid.values.shape
        row = {"recording_id": str(rid), "spec": spec.name, "spec_digest": of, "stream": stream,
               "modality": spec.modality, "bin_s": grid.dt_s, "n_bins": t, "n_channels": c, "n_fields": p,
               "digest": digest, "path": path.as_posix()}  # fmt: skip
        of_arrays = groups.array_rows(written, attributes, str(rid), f"tokens:{of}:{stream}", path.as_posix())
        point_at(lake, partial, [("arrays", key, of_arrays), ("tokens", key, [row])], before)
    return digest


@contextlib.contextmanager
def pointing(lake: Lake) -> Iterator[None]:
    """Held for the moments in which what the catalog or a snapshot points at changes, or is collected.

    Rows that a killed writer noted and did not put are put first.
    """
    with remote_head.changing(lake), files.locked(lake.root / LOCK):
        for note in notes(lake):
            _put(lake, read_note(note), note)
        yield


def notes(lake: Lake) -> list[Path]:
    """Notes of publications that are under way, or that a killed writer left."""
    return sorted((lake.root / "manifests" / "publishing").glob("*.json"))


def read_note(path: Path) -> Rows:
    """The rows that a note holds: table, key and rows, in the order in which they are put.

    Raises:
        LakeCorrupt: it is damaged.
    """
    try:
        return [(table, key, rows) for table, key, rows in json.loads(path.read_bytes())]
    except (ValueError, TypeError) as error:
        raise LakeCorrupt(f"note {path}", got=str(error), expected="rows of the catalog",
                          fix="Remove it and publish again.") from error  # fmt: skip


def _digest(lake: Lake, table: str, key: str) -> str:
    found = catalog.rows(lake, table, key)
    return found[0]["digest"] if found else ""


@contextlib.contextmanager
def draft(lake: Lake, arrays: Mapping[str, Any], codec: Codec = "none") -> Iterator[tuple[Path, list[ArrayFiles]]]:
    """A group without its root, under a temporary name: what is not given another name by then is removed."""
    partial = lake.root / "tmp" / f"group-{uuid.uuid4().hex}"
    with files.clear_faults(partial), pins.held(lake):
        try:
            yield partial, shards.write_arrays(partial, arrays, codec)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def point_at(lake: Lake, partial: Path, rows: Rows, before: str) -> None:
    """Sends a finished group where the lake is elsewhere, then lets the catalog point at it; see `_point`."""
    if lake.remote is not None:
        lake.remote.send(partial, rows[-1][2][0]["path"])
    _pointed(lake, partial, rows, before)


@remote_head.transaction
def _pointed(lake: Lake, partial: Path, rows: Rows, before: str) -> None:
    with pointing(lake):
        _point(lake, partial, rows, before)


def _point(lake: Lake, partial: Path, rows: Rows, before: str) -> None:
    """Gives a finished group its name and lets the catalog point at it.

    Args:
        lake: `pointing` is held.
        partial: the group.
        rows: what to put; the last is the one row that points at the group.
        before: the digest that this row had when the version was begun, empty for none.
    """
    table, key, (row,) = rows[-1]
    there = catalog.rows(lake, table, key)
    if there and there[0]["digest"] not in (before, row["digest"]):
        raise Conflict(
            f"publishing {key} as {row['digest'][:16]}", got=f"{there[0]['digest'][:16]}, published meanwhile",
            expected="no other writer of it", fix="The other writer's version stays; run again to replace it.",
        )  # fmt: skip
    target = lake.root / row["path"]
    if not target.exists():  # it is named by its digest: what is there under this name is this
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(partial, target)
        files.sync_folder(target.parent)
    for old in there:  # unnamed from now on: a collection counts from here
        for path in (lake.root / old["path"], *map(lake.raw_path, old.get("raw_sha256") or ())):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
    note = lake.root / "manifests" / "publishing" / f"{uuid.uuid4().hex}.json"
    files.replace(note, json.dumps(rows, default=_number).encode())
    _put(lake, rows, note)


def _put(lake: Lake, rows: Rows, note: Path) -> None:
    try:
        for table, key, listed in rows:
            catalog.put(lake, table, key, listed)
    except ConfigError:  # no row of this code's: another try would end the same way
        note.unlink()
        raise
    note.unlink()


def _number(value: Any) -> Any:
    """A numpy scalar as JSON has it."""
    return value.item()
