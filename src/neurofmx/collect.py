"""Collection of what nothing names any more, beside writers and readers.

A group is garbage once neither the catalog nor a snapshot names it. Publishing touches the group that it
un-names, so a group's time of change is when it was last named, and a reader that came before has `grace_s`
seconds from there. A reader that needs longer holds a pin (`Lake.reading`): whatever was un-named after the
oldest pin stays. Nothing is moved to a waiting place first: readers open shards by path as they go. All is
decided and renamed away under the lock of publishing, so that a writer who finds a group in place may point at
it; a kill leaves folders in tmp/ that the next collection removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurofmx import files, parts, pins, publish, snapshots
from neurofmx.errors import ConfigError, LakeCorrupt, NoSpace

if TYPE_CHECKING:
    from neurofmx.lake import Lake

GRACE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """One thing that nothing names.

    Args:
        kind: ``group``, ``raw``, ``base`` (of the catalog), ``leftover`` (of a killed writer) or ``version`` (of a
            killed commit to Icechunk).
        path: relative to the lake.
        bytes: on disk.
        removed: whether it was removed.
        waits_s: seconds until a collection may remove it, 0 where it may now.
    """

    kind: str
    path: str
    bytes: int
    removed: bool = False
    waits_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Named:
    """What must stay.

    Args:
        groups: folders relative to the lake.
        raw: digests of raw files.
        bases: names of catalog files.
    """

    groups: set[str]
    raw: set[str]
    bases: set[str]


def gc(lake: Lake, *, dry_run: bool = False, grace_s: float = GRACE_S) -> list[Garbage]:
    """Removes groups, raw files, catalog bases and leftovers that neither the catalog nor any snapshot names.

    Args:
        lake: the lake; its writers wait while this decides, its readers never.
        dry_run: only say what would be removed.
        grace_s: how long a thing must have gone unnamed.

    Returns:
        All that nothing names, removed or not.

    Raises:
        Newer, LakeCorrupt: a snapshot or a note of what was fetched cannot be read, so that what it names is not
            known; nothing is removed.
        Denied: the lake may not be written here.
        ConfigError: the lake is on S3, where a writer elsewhere may point at what nothing names yet.
    """
    if lake.remote is not None:
        raise ConfigError("collection", got=f"a lake at {lake.remote.url}", expected="a lake on a disk",
                          fix=f"Of a lake on S3 only its working copy may be removed: {lake.root}")  # fmt: skip
    trash: list[Path] = []
    with lake.lock(), _pointing(lake), files.clear_faults(lake.root):
        keep, now = named(lake), time.time()
        pin = pins.oldest(lake)
        before = now - grace_s if pin is None else min(now - grace_s, pin)
        judged = [_judged(lake, kind, path, before) for kind, path in _unnamed(lake, keep)]
        found = [one for one in judged if one is not None]
        if not dry_run:
            found = [one if one.waits_s else _moved(lake, one, trash) for one in found]
        bases = parts.garbage(lake, keep.bases, grace_s=now - before)
        found += [Garbage(kind="base", path=_relative(lake, path), bytes=_size(path), removed=not dry_run)
                  for path in bases]  # fmt: skip
        if not dry_run:
            parts.collect(lake, keep.bases, grace_s=now - before)
    for path in trash:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found + _versions(lake, dry_run, grace_s)


@contextlib.contextmanager
def _pointing(lake: Lake) -> Iterator[None]:
    """As `publish.pointing`; on a full disk without putting what is noted, since this is what makes room."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(publish.pointing(lake))
        except NoSpace:
            stack.enter_context(files.locked(lake.root / publish.LOCK))
        yield


def named(lake: Lake) -> Named:
    """Everything that the catalog, a note of a publication or of a fetch, or a snapshot names.

    Raises:
        Newer, LakeCorrupt: one of them cannot be read.
    """
    keep = Named(groups=set(), raw=set(), bases=set())
    for table in ("recordings", "tokens", "quarantine", "arrays"):
        _add(keep, parts.read(lake, table, _COLUMNS[table]).to_pylist())
    for note in publish.notes(lake):
        for table, _, rows in publish.read_note(note):
            _add(keep, rows if table in _COLUMNS else [])
    for note in (lake.root / "manifests" / "raw").rglob("*.json"):
        keep.raw.update(file["sha256"] for file in _json(note))
    for manifest in snapshots.every(lake):
        keep.groups.update(manifest.groups())
        keep.raw.update(manifest.raw())
        keep.bases.update(base for bases in manifest.catalog.values() for base in bases)
        if frozen := manifest.catalog.get("arrays"):
            _add(keep, parts.read(lake, "arrays", ["group"], frozen=frozen).to_pylist())
    return keep


_COLUMNS = {"recordings": ["path", "raw_sha256"], "tokens": ["path"], "quarantine": ["raw_sha256"], "arrays": ["group"]}


def _add(keep: Named, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        keep.groups.update(row[name] for name in ("path", "group") if row.get(name))
        keep.raw.update(row.get("raw_sha256") or ())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise LakeCorrupt(f"note {path}", got=str(error), expected="JSON", fix="Remove it and fetch again.") from error


def _unnamed(lake: Lake, keep: Named) -> Iterator[tuple[str, Path]]:
    for layer in ("recordings", "tokens"):
        for folder, below, _ in os.walk(lake.root / layer):
            groups = [name for name in below if name.endswith(".zarr")]
            below[:] = sorted(set(below) - set(groups))
            for path in (Path(folder, name) for name in groups):
                if _relative(lake, path) not in keep.groups:
                    yield "group", path
    for path in (lake.root / "raw").glob("*/*"):
        if path.name not in keep.raw:
            yield "leftover" if path.name.startswith(".") else "raw", path
    for path in (lake.root / "tmp").iterdir():
        if path.name in ("fetch", "wheels"):  # kept over runs: each file by its own age
            yield from (("leftover", each) for each in path.iterdir() if each.suffix != ".lock")
        elif path.name != "pins":
            yield "leftover", path
    for path in [*(lake.root / "manifests").rglob("*"), *(lake.root / "tmp" / "pins").glob(f"*{files.TEMPORARY}")]:
        if path.is_file() and (path.name.endswith(files.TEMPORARY) or path.name.startswith(".")):
            yield "leftover", path


def _judged(lake: Lake, kind: str, path: Path, before: float) -> Garbage | None:
    """None where it is gone: a writer works on below tmp/ while this looks."""
    try:
        # a leftover may be written below its top; what was published is touched at its top when it loses its name
        within = (path, *path.rglob("*")) if kind == "leftover" else (path,)
        changed = max(p.lstat().st_mtime for p in within)
        return Garbage(kind=kind, path=_relative(lake, path), bytes=_size(path), waits_s=max(0.0, changed - before))
    except FileNotFoundError:
        return None


def _moved(lake: Lake, one: Garbage, trash: list[Path]) -> Garbage:
    """Renames a thing into tmp/, where it is removed, now or after a kill; a full disk has room for that."""
    trash.append(lake.root / "tmp" / f"gc-{uuid.uuid4().hex}")
    os.rename(lake.root / one.path, trash[-1])
    return replace(one, removed=True)


def _versions(lake: Lake, dry_run: bool, grace_s: float) -> list[Garbage]:
    """What commits of versions that were killed left in the Icechunk repository."""
    if not (lake.root / "versions" / "icechunk").is_dir():
        return []
    from neurofmx import versions

    size = versions.collect(lake, dry_run=dry_run, grace_s=grace_s)
    return [Garbage(kind="version", path="versions/icechunk", bytes=size, removed=not dry_run)] if size else []


def _size(path: Path) -> int:
    return sum(p.lstat().st_size for p in (path, *path.rglob("*")) if p.is_symlink() or p.is_file())


def _relative(lake: Lake, path: Path) -> str:
    return path.relative_to(lake.root).as_posix()
