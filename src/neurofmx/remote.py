"""A lake on S3: its objects, and the working copy on this machine from which they are written and into which they come.

Object names are the paths that the same files have in a lake on a disk. Objects are never changed, so they are
created once; what does change is the head (`remote_head`). Large files are not fetched: their rows are read by
ranges.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurofmx import files
from neurofmx.errors import ConfigError, Conflict, LakeCorrupt, Mismatch, NotThere, Transient
from neurofmx.provenance import digest_file, digest_of
from neurofmx.remote_client import client, said

MARKER = "remote.json"
SMALL = 256 << 10  # bytes up to which a file of a group is fetched whole when the group is opened
DAMAGED = "It is damaged: remove the object, and publish again from a lake that is whole."
ONE_PUT = 128 << 20  # bytes past which an object is sent in parts, which S3 cannot make conditional
THREADS = 8
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*):/+(.+)")


class Overtaken(Transient):
    """Another machine changed the lake between the reading and the writing of its head."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """Where a lake's objects are, and where they lie on this machine.

    Args:
        url: such as ``s3://bucket/prefix``.
        root: the working copy: a folder laid out as a lake; may be removed when nobody writes.
        endpoint: of another service than AWS, ``""`` for AWS itself.
        credentials: region and keys by obstore's names where they are not those of the environment; kept nowhere.
    """

    url: str
    root: Path
    endpoint: str = ""
    credentials: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def name(self, path: str | Path) -> str:
        """The object's name of a path in the working copy."""
        return str(path)[len(str(self.root)) + 1 :]

    # reading

    def get(self, name: str) -> bytes:
        """A whole object.

        Raises:
            NotThere, Denied, Transient: what the server said.
        """
        import obstore

        with self._said(name):
            return bytes(obstore.get(self._store, name).bytes())

    def get_changed(self, name: str, etag: str) -> tuple[bytes, str] | None:
        """An object and its ETag; None where it is still the one of this ETag. An absent object has no bytes."""
        import obstore
        from obstore.exceptions import NotModifiedError

        try:
            with self._said(name):
                found = obstore.get(self._store, name, options={"if_none_match": etag} if etag else {})
                return bytes(found.bytes()), str(found.meta["e_tag"])
        except NotModifiedError:
            return None
        except NotThere:
            with self._said(""):  # an absent bucket cannot be listed
                next(iter(obstore.list(self._store, "catalog", chunk_size=1)), None)
            return b"", ""

    def read_into(self, file: str, offset: int, out: memoryview) -> None:
        """Fills ``out`` from an object (its path in the working copy), by one range request.

        Raises:
            LakeCorrupt: there is no such object, or it is shorter.
            Denied, Transient: what the server said.
        """
        import obstore

        name = self.name(file)
        try:
            with self._said(name):
                got = memoryview(obstore.get_range(self._store, name, start=offset, length=len(out)))
        except NotThere as error:
            raise self._no_shard(name, "no such object") from error
        if len(got) != len(out):
            raise self._no_shard(name, f"{offset + len(got)} bytes", f"{offset + len(out)} or more")
        out[:] = got

    def ranges(self, file: str, offsets: Sequence[int], sizes: Sequence[int]) -> list[memoryview]:
        """Several ranges of an object (its path in the working copy), asked for together.

        Raises:
            LakeCorrupt: there is no such object, or it is shorter.
            Denied, Transient: what the server said.
        """
        import obstore

        name = self.name(file)
        try:
            with self._said(name):  # coalescing would fetch what lies between
                got = obstore.get_ranges(self._store, name, starts=offsets, lengths=sizes, coalesce=0)
        except NotThere as error:
            raise self._no_shard(name, "no such object") from error
        for block, offset, size in zip(got, offsets, sizes, strict=True):
            if len(block) != size:
                raise self._no_shard(name, f"{offset + len(block)} bytes", f"{offset + size} or more")
        return [memoryview(block) for block in got]

    def size(self, file: str) -> int:
        """Bytes of an object (its path in the working copy).

        Raises:
            LakeCorrupt: there is none.
        """
        found = self.size_of(self.name(file))
        if found is None:
            raise self._no_shard(self.name(file), "no such object")
        return found

    def size_of(self, name: str) -> int | None:
        """Bytes of an object, None where there is none."""
        import obstore

        try:
            with self._said(name):
                return int(obstore.head(self._store, name)["size"])
        except NotThere:
            return None

    def digest(self, name: str) -> str:
        """The sha256 of an object as it lies there, read through without being kept.

        Raises:
            NotThere, Denied, Transient: what the server said.
        """
        import obstore

        found = hashlib.sha256()
        with self._said(name):
            for block in obstore.get(self._store, name).stream(min_chunk_size=1 << 20):
                found.update(memoryview(block))
        return found.hexdigest()

    def listed(self, folder: str) -> dict[str, int]:
        """Name -> bytes of all objects below a folder."""
        import obstore

        with self._said(folder):
            return {one["path"]: one["size"] for batch in obstore.list(self._store, folder) for one in batch}

    # fetching

    def fetch(self, path: Path, sha256: str = "", *, to: Path | None = None) -> Path:
        """Brings one file to this machine.

        Args:
            path: its place in the working copy.
            sha256: what its bytes must have, if known.
            to: where to put it instead.

        Raises:
            NotThere, Denied, Transient: what the server said.
            Mismatch: the object's bytes have another digest; nothing is kept.
            NoSpace: the disk is full.
        """
        import obstore

        name, target, partial = self.name(path), to or path, self.root / "tmp" / f"fetch-{uuid.uuid4().hex}"
        with files.clear_faults(target):
            try:
                with self._said(name):
                    found = obstore.get(self._store, name)
                    with partial.open("wb") as handle:
                        for block in found.stream(min_chunk_size=1 << 20):
                            handle.write(memoryview(block))
                if sha256 and (got := digest_file(partial)) != sha256:
                    raise Mismatch(f"object {self._at(name)}", got=got, expected=sha256, fix=DAMAGED)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
        return target

    def bring_small(self, group: Path) -> None:
        """Fetches the small files of a group; the group's own metadata comes last.

        Raises:
            NotThere: there is nothing of that name.
            Denied, Transient, NoSpace: as `fetch`.
        """
        found = self.listed(self.name(group))
        if not found:
            raise NotThere(f"group {self._at(self.name(group))}", fix="Run: neurofmx lake verify")
        wanted = [self.root / name for name, size in found.items() if size <= SMALL]
        for batch in ([p for p in wanted if p.parent != group], [p for p in wanted if p.parent == group]):
            self.each(self.fetch, [path for path in batch if not path.exists()])

    def bring(self, path: Path) -> None:
        """Fetches a file, or a folder with all that is in it.

        Raises:
            NotThere, Denied, Transient, NoSpace: as `fetch`; nothing is kept.
        """
        names, partial = self.listed(self.name(path)), self.root / "tmp" / f"fetch-{uuid.uuid4().hex}"
        if not names:
            self.fetch(path)
            return
        try:
            self.each(lambda n: self.fetch(self.root / n, to=partial / (self.root / n).relative_to(path)), names)
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                os.rename(partial, path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # another process was first
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    # writing

    def put(self, name: str, data: Any, *, replaces: str | None = None) -> str:
        """Writes one small object; returns its ETag.

        Args:
            name: the object.
            data: its bytes.
            replaces: ETag of the version that this one follows; ``""`` for none; None to write in any case.

        Raises:
            Overtaken: the object is not, or no longer, that version.
            NotThere, Denied, NoSpace, Transient: what the server said.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = {None: "overwrite", "": "create"}.get(replaces, {"e_tag": replaces})
        try:
            with self._said(name):
                return str(obstore.put(self._store, name, data, mode=mode, use_multipart=False)["e_tag"])
        except (AlreadyExistsError, PreconditionError) as error:
            raise Overtaken(
                self._at(name), got="a version of another writer", expected=replaces or "none", fix="Run again."
            ) from error

    def send(self, path: Path, name: str = "") -> None:
        """Sends a file, or a folder file by file; what is there already under its name and size is left alone.

        Args:
            path: on this machine.
            name: of the object or folder; the path's place in the working copy when empty.

        Raises:
            Conflict: an object of that name has other bytes.
            NotThere, Denied, NoSpace, Transient: what the server said.
        """
        name = name or self.name(path)
        if path.is_file():
            if self.size_of(name) != path.stat().st_size:
                self._send(path, name)
            return
        there, below = self.listed(name), sorted(p for p in path.rglob("*") if p.is_file())
        names = {p: f"{name}/{p.relative_to(path).as_posix()}" for p in below}
        wanted = [p for p in below if there.get(names[p]) != p.stat().st_size]
        for batch in ([p for p in wanted if p.parent != path], [p for p in wanted if p.parent == path]):
            self.each(lambda p: self._send(p, names[p]), batch)

    def _send(self, path: Path, name: str) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        size = path.stat().st_size
        try:
            with self._said(name):
                if size > ONE_PUT:
                    obstore.put(self._store, name, path)
                else:
                    obstore.put(self._store, name, path, mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            there = self.size_of(name)
            if there != size:
                raise Conflict(f"object {self._at(name)}", got=f"{there} bytes", expected=f"{size}",
                               fix=DAMAGED) from error  # fmt: skip

    def each(self, function: Callable[[Any], Any], given: Iterable[Any]) -> list[Any]:
        """Calls a function for each, several at a time; the first error is raised when all have ended."""
        listed = list(given)
        if len(listed) < 2:
            return [function(one) for one in listed]
        with ThreadPoolExecutor(min(THREADS, len(listed))) as pool:
            return list(pool.map(function, listed))

    # the client

    @property
    def _store(self) -> Any:
        return client(self.url, self.endpoint, self.credentials)

    def _said(self, name: str) -> contextlib.AbstractContextManager[None]:
        return said(self.url, name)

    def _at(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _no_shard(self, name: str, got: str, expected: str = "") -> LakeCorrupt:
        return LakeCorrupt(f"shard {self._at(name)}", got=got, expected=expected, fix="Run: neurofmx lake verify")


_OPENED: dict[str, Remote] = {}  # working copy -> remote, so that a path leads to its bytes


# which lakes are remote


def is_address(path: object) -> bool:
    """Whether a lake's place is an address rather than a folder (``Path`` turns ``s3://`` into ``s3:/``)."""
    found = _ADDRESS.fullmatch(str(path))
    return found is not None and found[1] != "file"


def open_remote(
    address: str | Path, *, endpoint: str | None = None, credentials: Mapping[str, str] | None = None
) -> Remote:
    """The remote of an address, its working copy made if need be; asks the server nothing.

    Args:
        address: such as ``s3://bucket/prefix``.
        endpoint: of the service; that of the environment when None.
        credentials: as `Remote` has them; those of the environment when None.

    Raises:
        ConfigError: the address is of no kind that is known, or names no bucket.
    """
    found = _ADDRESS.fullmatch(str(address).rstrip("/"))
    if found is None or found[1] != "s3":
        raise ConfigError("lake", got=str(address), expected="a folder, or s3://bucket/prefix")
    url = f"s3://{found[2]}"
    if endpoint is None:
        endpoint = next((os.environ[v] for v in _ENDPOINTS if os.environ.get(v)), "")
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", found[2])[-60:]
    root = _cache() / "lakes" / f"{readable}-{digest_of([url, endpoint])[:12]}"
    (root / "tmp").mkdir(parents=True, exist_ok=True)
    if not (root / MARKER).exists():
        files.replace(root / MARKER, json.dumps({"url": url, "endpoint": endpoint}).encode())
    return _opened(Remote(url=url, root=root, endpoint=endpoint, credentials=tuple((credentials or {}).items())))


_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def of_folder(root: Path) -> Remote | None:
    """The remote of which a folder is the working copy; None for a lake of its own."""
    try:
        value = json.loads((root / MARKER).read_bytes())
    except FileNotFoundError:
        return None
    return _opened(Remote(url=value["url"], root=root, endpoint=value["endpoint"]))


def behind(path: str | Path) -> Remote | None:
    """The remote that has the bytes of a path in a working copy that this process has opened."""
    for root, remote in _OPENED.items():
        if str(path).startswith(root):
            return remote
    return None


def at_hand(path: Path, sha256: str = "") -> Path:
    """The path, fetched first where it is in a working copy and not yet there.

    Raises:
        NotThere, Mismatch, Denied, Transient, NoSpace: as `Remote.fetch`.
    """
    remote = None if path.exists() else behind(path)
    return path if remote is None else remote.fetch(path, sha256)


def group_at_hand(path: Path) -> Path:
    """The path of a group, its small files fetched first where it is in a working copy and not yet there."""
    remote = None if (path / "zarr.json").exists() else behind(path)
    if remote is not None:
        with contextlib.suppress(NotThere):  # who reads it says so
            remote.bring_small(path)
    return path


def digest(path: Path) -> str:
    """The sha256 of a file as the lake has it: of the object, where the lake is elsewhere.

    Raises:
        FileNotFoundError: the lake has none.
        Denied, Transient: what the server said.
    """
    remote = behind(path)
    if remote is None:
        return digest_file(path)
    try:
        return remote.digest(remote.name(path))
    except NotThere as error:
        raise FileNotFoundError(path) from error


def n_bytes(path: Path) -> int | None:
    """Bytes of a file as the lake has it, None where it has none."""
    remote = behind(path)
    if remote is not None:
        return remote.size_of(remote.name(path))
    return path.stat().st_size if path.exists() else None


def _opened(remote: Remote) -> Remote:
    _OPENED[f"{remote.root}/"] = remote
    return remote


def _cache() -> Path:
    """`$NEUROFMX_CACHE`, else the platform's place for what can be made again."""
    if own := os.environ.get("NEUROFMX_CACHE"):
        return Path(own).expanduser().resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "neurofmx"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "neurofmx"
