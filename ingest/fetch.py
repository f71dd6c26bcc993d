"""One remote file into the lake's raw layer: resumed, checked against every published digest, or a reason why not."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from neurofmx.errors import ConfigError, Denied, Mismatch, NoSpace, NotThere
from neurofmx.ingest import wheels
from neurofmx.ingest.sessions import RemoteFile, Session
from neurofmx.ingest.web import Busy, ask, is_url, local_path, patiently
from neurofmx.lake import Lake
from neurofmx.types import RawFile

BLOCK = 1 << 20
SPARE = 64 << 20  # bytes that must stay free on the disk after a file has landed


class Digests:
    """Several digests of one stream of bytes, computed while it passes.

    Args:
        wanted: names among ``sha256``, ``md5`` and ``dandi-etag``; sha256 is always computed.
        size: the file's size where known (DANDI's part size depends on it).
    """

    def __init__(self, wanted: Iterable[str], size: int | None) -> None:
        self.size = 0
        self._running: dict[str, Any] = {"sha256": hashlib.sha256()}
        for name in wanted:
            if name == "md5":
                self._running[name] = hashlib.md5(usedforsecurity=False)
            elif name == "dandi-etag":
                self._running[name] = DandiEtag(size)

    def update(self, block: bytes) -> None:
        """Takes the next bytes."""
        self.size += len(block)
        for digest in self._running.values():
            digest.update(block)

    def hexes(self) -> dict[str, str]:
        """Name -> digest in hex."""
        return {name: digest.hexdigest() for name, digest in self._running.items()}


class DandiEtag:
    """DANDI's digest: the md5 of the parts' md5s and the number of parts.

    Source: dandischema.digests.dandietag (64 MiB parts, larger where there would be more than 10,000).
    """

    def __init__(self, size: int | None) -> None:
        self._part = 64 << 20
        if size and math.ceil(size / self._part) > 10_000:
            self._part = math.ceil(size / 10_000)
        self._done: list[bytes] = []
        self._now, self._filled = hashlib.md5(usedforsecurity=False), 0

    def update(self, block: bytes) -> None:
        """Takes the next bytes."""
        view = memoryview(block)
        while view:
            if self._filled == self._part:
                self._done.append(self._now.digest())
                self._now, self._filled = hashlib.md5(usedforsecurity=False), 0
            piece = view[: self._part - self._filled]
            self._now.update(piece)
            self._filled += len(piece)
            view = view[len(piece) :]

    def hexdigest(self) -> str:
        """The digest in DANDI's form, ``<hex>-<parts>``."""
        parts = [*self._done, self._now.digest()]
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def fetch_session(session: Session, lake: Lake) -> tuple[RawFile, ...]:
    """Brings all files of a session into the lake, in their order; raises what `fetch_file` raises."""
    return tuple(fetch_file(remote, lake) for remote in session.files)


def fetch_file(remote: RemoteFile, lake: Lake) -> RawFile:
    """Brings one file into the lake's raw layer, unless its bytes are there already.

    Args:
        remote: a ``file``, ``http(s)``, ``wheel`` or ``data`` URL with what the archive says of the bytes.
        lake: where it goes.

    Returns:
        The file under its own name with its sha256 and size.

    Raises:
        NotThere: no such file.
        Denied: the server will not give it, or gave a web page in its place.
        Mismatch: a digest or the size is not the published one, twice.
        Transient: the server failed several times; what came is kept and resumed by the next try.
        NoSpace: the disk has no room; what came is removed.
    """
    known = remote.digests.get("sha256", "").lower()
    if known and lake.raw_path(known).exists():
        return RawFile(path=remote.path, url=remote.url, sha256=known, size=lake.raw_path(known).stat().st_size)
    folder = lake.root / "tmp" / "fetch"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{hashlib.sha256(remote.url.encode()).hexdigest()[:32]}.part"
    with _alone(part), _full_disk(part, remote):
        if is_url(remote.url) and (same := _unchanged(remote, lake)):
            return same
        return _land(remote, lake, part)


def _land(remote: RemoteFile, lake: Lake, part: Path) -> RawFile:
    """Transfers into ``part``, once more from nothing if the bytes are wrong, and hands it to the lake."""
    problem = None
    for _ in range(2):
        found = _transfer(remote, lake, part)
        problem = _problem(remote, found)
        if problem is None:
            break
        part.unlink()
        _note(part).unlink(missing_ok=True)
    if problem is not None:
        raise problem
    digest, size = found.hexes()["sha256"], found.size
    if _note(part).exists():  # an ETag: the next fetch may ask whether anything changed
        seen = json.loads(_note(part).read_text()) | {"sha256": digest}
        _remembered(remote, lake).parent.mkdir(parents=True, exist_ok=True)
        _write(_remembered(remote, lake), json.dumps(seen))
        _note(part).unlink()
    lake.add_raw(part, sha256=digest)
    return RawFile(path=remote.path, url=remote.url, sha256=digest, size=size)


def _problem(remote: RemoteFile, found: Digests) -> Mismatch | None:
    if remote.size is not None and found.size != remote.size:
        return Mismatch(
            f"size of {remote.path}",
            got=f"{found.size} bytes",
            expected=f"{remote.size} bytes, as {remote.url} was listed",
            fix="Fetched twice; ask the archive, or list the dataset again.",
        )
    hexes = found.hexes()
    for name, wanted in remote.digests.items():
        if name in hexes and hexes[name] != wanted.lower():
            return Mismatch(
                f"{name} of {remote.path}",
                got=hexes[name],
                expected=f"{wanted}, as published for {remote.url}",
                fix="Fetched twice with the same result: the archive's copy or its digest is wrong.",
            )
    return None


def _transfer(remote: RemoteFile, lake: Lake, part: Path) -> Digests:
    scheme = remote.url.partition(":")[0]
    if is_url(remote.url):
        return patiently(lambda: _download(remote, part), progress=lambda: part.stat().st_size if part.exists() else 0)
    found = Digests(remote.digests, remote.size)
    if scheme == "file":
        source = local_path(remote.url)
        if not source.is_file():
            raise NotThere(
                f"file {source}", expected=f"{remote.path} of the dataset", fix="Check the source's address."
            )
        _room(part, source.stat().st_size)
        with source.open("rb") as reading, part.open("wb") as writing:
            while block := reading.read(BLOCK):
                _keep(block, writing, found)
            _settle(writing)
    elif scheme == "wheel":
        with wheels.open_member(remote.url, lake.root / "tmp" / "wheels") as reading, part.open("wb") as writing:
            while block := reading.read(BLOCK):
                _keep(block, writing, found)
            _settle(writing)
    elif scheme == "data":
        with part.open("wb") as writing:
            _keep(base64.b64decode(remote.url.partition(";base64,")[2], validate=True), writing, found)
            _settle(writing)
    else:
        raise ConfigError(f"address of {remote.path}", got=remote.url, expected="file, http, https, wheel or data")
    return found


def _download(remote: RemoteFile, part: Path) -> Digests:
    """One try over HTTP: goes on from ``part`` if the server's ETag is the one that its bytes came under."""
    import requests

    found = Digests(remote.digests, remote.size)
    note = _note(part)
    seen = json.loads(note.read_text()) if note.exists() else {}
    headers = {}
    if part.exists() and part.stat().st_size and seen.get("etag"):
        headers = {"Range": f"bytes={part.stat().st_size}-", "If-Range": seen["etag"]}
    with ask(remote.url, headers=headers) as answer:
        if answer.status_code == 416:  # what we hold is not the start of what the server has
            part.unlink()
            note.unlink(missing_ok=True)
            raise Busy(remote.url, got="HTTP 416", expected="the rest of the file", fix="Fetching it from the start.")
        resumed = answer.status_code == 206 and answer.headers.get("ETag") == seen.get("etag")
        if answer.status_code == 206 and not resumed:
            part.unlink()
            raise Busy(
                remote.url, got="another ETag", expected=str(seen.get("etag")), fix="Fetching it from the start."
            )
        if not resumed:
            _refuse_page(remote, answer.headers)
        length = answer.headers.get("Content-Length")
        _room(part, int(length) if length else (remote.size or 0))
        etag = answer.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):  # a weak one does not promise the same bytes
            _write(note, json.dumps({"url": remote.url, "etag": etag}))
        else:
            note.unlink(missing_ok=True)
        with part.open("r+b" if resumed else "wb") as writing:
            if resumed:
                while block := writing.read(BLOCK):
                    found.update(block)
            try:
                for block in answer.iter_content(BLOCK):
                    _keep(block, writing, found)
            except requests.RequestException as error:
                raise Busy(
                    remote.url, got=f"{type(error).__name__} after {found.size} bytes", expected="a whole file"
                ) from error
            _settle(writing)
    return found


def _refuse_page(remote: RemoteFile, headers: Any) -> None:
    kind = headers.get("Content-Type", "")
    if kind.startswith("text/html") and not remote.path.lower().endswith((".html", ".htm")):
        raise Denied(
            f"{remote.path} at {remote.url}",
            got="a web page (text/html)",
            expected="the file",
            fix="The server shows a login or error page: ask for access, or check the address.",
        )


def _unchanged(remote: RemoteFile, lake: Lake) -> RawFile | None:
    """The file as fetched before, if the server says by its ETag that nothing changed since."""
    path = _remembered(remote, lake)
    if not path.exists():
        return None
    seen = json.loads(path.read_text())
    raw = lake.raw_path(seen["sha256"])
    wanted = remote.digests.get("sha256", seen["sha256"]).lower()
    if not raw.exists() or wanted != seen["sha256"]:
        return None
    with patiently(lambda: ask(remote.url, headers={"If-None-Match": seen["etag"]})) as answer:
        if answer.status_code != 304:
            return None
    return RawFile(path=remote.path, url=remote.url, sha256=seen["sha256"], size=raw.stat().st_size)


def _remembered(remote: RemoteFile, lake: Lake) -> Path:
    name = hashlib.sha256(remote.url.encode()).hexdigest()
    return lake.root / "manifests" / "fetched" / name[:2] / f"{name}.json"


def _note(part: Path) -> Path:
    return part.with_suffix(".json")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def _keep(block: bytes, writing: IO[bytes], found: Digests) -> None:
    writing.write(block)
    found.update(block)


def _settle(writing: IO[bytes]) -> None:
    writing.flush()
    os.fsync(writing.fileno())


def _room(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size + SPARE > free:
        raise NoSpace(
            f"disk of {part.parent}",
            got=f"{free} bytes free",
            expected=f"{size + SPARE} bytes ({size} to come and {SPARE} to spare)",
            fix="Free some space, or put the lake elsewhere with --lake; nothing in it was changed.",
        )


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """One process a file: recordings share files (participants.tsv, one .dat under three headers)."""
    with part.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _full_disk(part: Path, remote: RemoteFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        part.unlink(missing_ok=True)
        raise NoSpace(
            f"disk of {part.parent}",
            got=f"full while fetching {remote.path}",
            expected="room for the whole file",
            fix="Free some space and run again; nothing in the lake was changed.",
        ) from error
