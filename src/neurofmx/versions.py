"""Snapshots as versions of one Icechunk repository of virtual references, for zarr and xarray.

    versions/icechunk/   /recordings/<archive>/<dataset@version>/<name>/...
                         /tokens/<spec digest>/<archive>/<dataset@version>/<name>[.<stream>]/...

A commit holds the metadata of the groups that a snapshot names and, for each shard file, one reference to the
file as it lies in the lake; nothing is copied, and the sharding codec reads through a reference as from a file.
Groups never change and no collection takes one that a snapshot names, so references stay valid. A commit is
tagged with the snapshot's digest and names; a name that was moved becomes a branch, since Icechunk gives no tag
twice. All of it is derived: removed, or its lake moved to another folder, it is published again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from neurofmx import files, snapshots
from neurofmx.errors import LakeCorrupt

if TYPE_CHECKING:
    import icechunk
    import zarr

    from neurofmx.lake import Lake

_SUFFIX = re.compile(r"-[0-9a-f]{16}(\.\w+)?\.zarr$")
_GROUP = b'{"zarr_format":3,"node_type":"group","attributes":{}}'


def publish(lake: Lake, name_or_digest: str) -> str:
    """Commits a snapshot, unless it was before, and tags it.

    Args:
        lake: local; its writers may go on.
        name_or_digest: as `snapshots.find`.

    Returns:
        Icechunk's own id of the commit.

    Raises:
        NotThere, Newer: as `snapshots.find`.
        LakeCorrupt: a group of the snapshot is gone or damaged.
        NoSpace, Denied: nothing was committed.
    """
    manifest = snapshots.find(lake, name_or_digest)
    folder = lake.root / "versions"
    with files.clear_faults(folder):
        folder.mkdir(exist_ok=True)
    # Icechunk has no safe commit on a local disk: of two at once, one is lost
    with files.locked(folder / ".lock"), files.clear_faults(folder):
        repo, lost = _repository(lake)
        for tag in [*lost, manifest.digest]:
            commit = _committed(lake, repo, snapshots.find(lake, tag))
        for name, digest in snapshots.names(lake).items():
            if digest == manifest.digest or digest in lost:
                _label(repo, name, repo.lookup_tag(digest))
    return commit


def open(lake: Lake, name_or_digest: str) -> zarr.Group:
    """The hierarchy of a snapshot, read only, through zarr; it is published first where it was not.

    Args:
        lake: local.
        name_or_digest: as `snapshots.find`.

    Returns:
        The root group: ``recordings`` and ``tokens`` below it; ``.store`` is what xarray opens.

    Raises:
        NotThere, Newer, LakeCorrupt, NoSpace, Denied: as `publish`.
    """
    import zarr

    digest = snapshots.find(lake, name_or_digest).digest
    repo = _opened(lake)
    if repo is None or digest not in repo.list_tags():
        publish(lake, name_or_digest)
        repo = _opened(lake)
    if repo is None:
        raise LakeCorrupt(f"versions of {lake.root}", got="no repository", expected="the one just written")
    return zarr.open_group(repo.readonly_session(tag=digest).store, mode="r")


def collect(lake: Lake, *, dry_run: bool = False, grace_s: float = 3600.0) -> int:
    """Removes what killed commits left in the repository; returns its bytes.

    Args:
        lake: local.
        dry_run: only say how much it is.
        grace_s: how old it must be.

    Raises:
        NoSpace, Denied: as `publish`.
    """
    folder = lake.root / "versions"
    with files.locked(folder / ".lock"), files.clear_faults(folder):
        repo = _opened(lake)
        if repo is None:
            return 0
        before = datetime.now(UTC) - timedelta(seconds=grace_s)
        return repo.garbage_collect(before, dry_run=dry_run).bytes_deleted


def _storage(lake: Lake) -> icechunk.Storage:
    import icechunk

    icechunk.set_logs_filter("error")  # it warns of commits at once, which the lock rules out
    return icechunk.local_filesystem_storage(str(lake.root / "versions" / "icechunk"))


def _url(path: Path) -> str:
    return f"file://{quote(str(path))}"


def _inside(lake: Lake) -> Path:
    """The folder below which references may lie: the lake, or one above it whose name needs no escapes.

    Icechunk 1.1 finds no prefix for references to a folder whose name has a space or a percent sign.
    """
    return next(folder for folder in (lake.root, *lake.root.parents) if quote(str(folder)) == str(folder))


def _prefix(lake: Lake) -> str:
    return f"file://{str(_inside(lake)).rstrip('/')}/"


def _opened(lake: Lake) -> icechunk.Repository | None:
    """The repository; None where there is none whose references lie in this folder."""
    import icechunk

    if not icechunk.Repository.exists(_storage(lake)):
        return None
    config = icechunk.Repository.fetch_config(_storage(lake))
    if config is None or _prefix(lake) not in (config.virtual_chunk_containers or {}):
        return None
    allowed = icechunk.containers_credentials({_prefix(lake): None})
    repo = icechunk.Repository.open(_storage(lake), authorize_virtual_chunk_access=allowed)
    folder = next(iter(repo.ancestry(branch="main"))).metadata.get("lake", str(lake.root))
    return repo if folder == str(lake.root) else None


def _repository(lake: Lake) -> tuple[icechunk.Repository, list[str]]:
    """The repository, made where there is none, and the snapshots that must be committed again.

    Those are the ones of a repository whose lake was in another folder then: references are whole paths.
    """
    import icechunk

    repo = _opened(lake)
    if repo is not None:
        return repo, []
    lost: list[str] = []
    if icechunk.Repository.exists(_storage(lake)):
        tags = icechunk.Repository.open(_storage(lake)).list_tags()
        lost = sorted(tags & set(snapshots.digests(lake)))
    shutil.rmtree(lake.root / "versions" / "icechunk", ignore_errors=True)
    config = icechunk.RepositoryConfig.default()
    inside = icechunk.local_filesystem_store(str(_inside(lake)))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(_prefix(lake), inside))
    allowed = icechunk.containers_credentials({_prefix(lake): None})
    return icechunk.Repository.create(_storage(lake), config=config, authorize_virtual_chunk_access=allowed), lost


def _committed(lake: Lake, repo: icechunk.Repository, manifest: snapshots.Manifest) -> str:
    """Commits what differs from the last commit, and tags it with the snapshot's digest."""
    from zarr.core.sync import sync

    if manifest.digest in repo.list_tags():
        return repo.lookup_tag(manifest.digest)
    last = next(iter(repo.ancestry(branch="main")))
    of_last = last.metadata.get("snapshot")
    before = _nodes(snapshots.find(lake, str(of_last))) if of_last else {}
    wanted = _nodes(manifest)
    session = repo.writable_session("main")
    sync(_write(lake, session.store, before, wanted))
    commit = last.id
    if session.has_uncommitted_changes:
        about = {"snapshot": manifest.digest, "lake": str(lake.root)}
        commit = session.commit(f"snapshot {manifest.digest}", metadata=about)
    repo.create_tag(manifest.digest, snapshot_id=commit)
    return commit


async def _write(lake: Lake, store: Any, before: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    from zarr.core.buffer import default_buffer_prototype

    buffer = default_buffer_prototype().buffer

    for node in sorted(before.keys() - {node for node, path in wanted.items() if before.get(node) == path}):
        await store.delete_dir(node)
    new = [node for node, path in wanted.items() if before.get(node) != path]
    above = {parent.as_posix() for node in new for parent in Path(node).parents} | {".", "recordings", "tokens"}
    for node in sorted(above):
        key = "zarr.json" if node == "." else f"{node}/zarr.json"
        if not await store.exists(key):
            await store.set(key, buffer.from_bytes(_GROUP))
    for node in new:
        for name, metadata, shards in _parts(lake.root / wanted[node]):
            at = f"{node}/{name}" if name else node
            await store.set(f"{at}/zarr.json", buffer.from_bytes(metadata))
            if shards and await store.set_virtual_refs_async(f"/{at}", shards):
                raise LakeCorrupt(f"references to {lake.root / wanted[node]}", got="refused by Icechunk",
                                  expected=f"files below {_prefix(lake)}")  # fmt: skip


def _parts(group: Path) -> list[tuple[str, bytes, list[icechunk.VirtualChunkSpec]]]:
    """Every node of a group: its path within, its metadata, and references to its shard files."""
    import icechunk

    found = []
    for folder, below, names in os.walk(group):
        path = Path(folder)
        if "zarr.json" not in names:
            raise LakeCorrupt(f"group {group}", got=f"no zarr.json in {path}", expected="a Zarr v3 group",
                              fix="Run: neurofmx lake verify")  # fmt: skip
        metadata = (path / "zarr.json").read_bytes()
        shards = []
        if json.loads(metadata)["node_type"] == "array":
            below.clear()
            for file in sorted((path / "c").rglob("*")):
                if file.is_file():
                    index = [int(part) for part in file.relative_to(path / "c").parts]
                    shards.append(icechunk.VirtualChunkSpec(
                        index=index, location=_url(file), offset=0, length=file.stat().st_size
                    ))  # fmt: skip
        found.append((path.relative_to(group).as_posix().removeprefix("."), metadata, shards))
    if not found:
        raise LakeCorrupt(f"group {group}", got="no such folder", fix="Run: neurofmx lake verify")
    return found


def _nodes(manifest: snapshots.Manifest) -> dict[str, str]:
    """Path in the hierarchy -> folder of the group, relative to the lake."""
    found = {_SUFFIX.sub("", row["path"]): row["path"] for row in manifest.recordings.values()}
    for key, row in manifest.tokens.items():
        stream = key.split("|")[-1]
        found[_SUFFIX.sub(f".{stream}" if stream else "", row["path"])] = row["path"]
    return found


def _label(repo: icechunk.Repository, name: str, commit: str) -> None:
    """Lets a name stand for a commit: a tag the first time, a branch once it has moved."""
    import icechunk

    if name in repo.list_branches():
        if repo.lookup_branch(name) != commit:
            repo.reset_branch(name, commit)
        return
    if name in repo.list_tags():
        if repo.lookup_tag(name) == commit:
            return
        repo.delete_tag(name)
    try:
        repo.create_tag(name, snapshot_id=commit)
    except icechunk.IcechunkError:  # deleted tags keep their names to themselves
        repo.create_branch(name, commit)
