"""The head of a lake on S3: one small object that says what the catalog is, replaced by compare-and-swap.

    catalog/head.json          name -> sha256 of every file of the catalog that changes (loose parts, pointers) and
                               of snapshots, their names, the salt of splits and the specs of scored tasks
    catalog/blobs/<sha256>     the bytes of such a file
    catalog/<table>/base-*     as on a disk: bases never change

A change is made in the working copy under a lock of this machine, its new blobs are sent, and then the head is
replaced if it still is the one from which the change began (``If-Match``): else the working copy is set back and the
change made again. So one request says whether anything changed since the last, readers see a change whole or not at
all, and machines that write at once lose nothing, also where one of them merges the parts that another replaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from neurofmx import bases, files
from neurofmx.errors import LakeCorrupt, Newer, Transient
from neurofmx.remote import Overtaken, Remote
from neurofmx.tables import TABLES

if TYPE_CHECKING:
    from neurofmx.lake import Lake

P = ParamSpec("P")
T = TypeVar("T")
Mark = tuple[int, int, int]  # inode, time of change in ns, bytes

SCHEMA = 1
HEAD = "catalog/head.json"
SNAPSHOTS = ("manifests/names", "manifests/snapshots")
SALT, TASKS = "manifests", "manifests/tasks"
FOLDERS = (*(f"catalog/{table}" for table in TABLES), *SNAPSHOTS, SALT, TASKS)
ATTEMPTS = 30
SETTLED_NS = 200_000_000  # a file younger than this may have been replaced by one that looks the same
_held = threading.local()  # working copies that this thread is changing


@dataclass(frozen=True, kw_only=True)
class _State:
    """What the working copy is a copy of.

    Args:
        etag: of the head; ``""`` before the first.
        files: name -> sha256, as the head has it.
        have: name -> sha256, inode, time of change, bytes of what was written here.
    """

    etag: str = ""
    files: dict[str, str] = field(default_factory=dict)
    have: dict[str, tuple[str, int, int, int]] = field(default_factory=dict)


@contextlib.contextmanager
def current(lake: Lake, *folders: str) -> Iterator[None]:
    """While this is held, these folders of the working copy are what the head says, and nobody here changes them.

    Args:
        lake: nothing is done for one on a disk.
        folders: some of `FOLDERS`.

    Raises:
        NotThere, Denied, Transient: what the server said.
    """
    remote = lake.remote
    if remote is None or _changing(remote):
        yield
        return
    for _ in range(ATTEMPTS):
        with _locked(remote, fcntl.LOCK_SH):
            state = _read_state(remote)
            if not _dirty(remote).exists() and _unchanged(remote, state) and not _stale(remote, state, folders):
                yield
                return
        with _locked(remote, fcntl.LOCK_EX):
            _pull(remote, folders)
    raise Transient(f"lake {remote.url}", got="a head that changes faster than it is read", fix="Try again.")


def reader(*folders: str) -> Callable[[Callable[Concatenate[Lake, P], T]], Callable[Concatenate[Lake, P], T]]:
    """Makes a function that reads these folders of a lake one that holds `current` meanwhile."""

    def wrapped(function: Callable[Concatenate[Lake, P], T]) -> Callable[Concatenate[Lake, P], T]:
        @functools.wraps(function)
        def run(lake: Lake, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with current(lake, *folders):
                return function(lake, *args, **kwargs)
            raise AssertionError("unreachable")

        return run

    return wrapped


@contextlib.contextmanager
def changing(lake: Lake) -> Iterator[None]:
    """What is changed in the catalog and in the manifests while this is held becomes the head, as a whole, at its end.

    Within itself it does nothing: the outermost one counts. Nothing is changed where the body raises.

    Raises:
        Overtaken: another machine was first; nothing was changed.
        NotThere, Denied, NoSpace, Transient: what the server said.
    """
    remote = lake.remote
    if remote is None or _changing(remote):
        yield
        return
    with _locked(remote, fcntl.LOCK_EX):
        state = _pull(remote, FOLDERS)
        _dirty(remote).touch()
        _roots().add(str(remote.root))
        try:
            yield
            _push(remote, state)
        finally:
            _roots().discard(str(remote.root))
        _dirty(remote).unlink()


def transaction(function: Callable[Concatenate[Lake, P], T]) -> Callable[Concatenate[Lake, P], T]:
    """Makes a function that changes a lake one `changing`, made again while other machines are first."""

    @functools.wraps(function)
    def run(lake: Lake, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(ATTEMPTS):
            try:
                with changing(lake):
                    return function(lake, *args, **kwargs)
            except Overtaken:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.0, min(2.0, 0.02 * 2**attempt)))
        raise AssertionError("unreachable")

    return run


# the head


def _unchanged(remote: Remote, state: _State) -> bool:
    found = remote.get_changed(HEAD, state.etag)
    return found is None or found[1] == state.etag


def _pull(remote: Remote, folders: tuple[str, ...]) -> _State:
    """Makes folders of the working copy what the head says; the caller holds the exclusive lock."""
    state = _read_state(remote)
    found = remote.get_changed(HEAD, state.etag)
    if found is not None:
        state = _State(etag=found[1], files=_parsed(remote, found[0]), have=state.have)
    if _dirty(remote).exists():
        # a writer of this machine died, or was overtaken: what it wrote and noted is of no head
        folders = FOLDERS
        state.have.clear()
        for note in (remote.root / "manifests" / "publishing").glob("*.json"):
            note.unlink()
    stale = _stale(remote, state, folders)
    # what a pointer names before the pointer; only then what it replaced
    for batch in (
        [n for n in stale if not n.endswith("/current.json")],
        [n for n in stale if n.endswith("/current.json")],
    ):
        blobs = remote.each(lambda name: remote.get(_blob(state.files[name])), [n for n in batch if n in state.files])
        for name, data in zip((n for n in batch if n in state.files), blobs, strict=True):
            if hashlib.sha256(data).hexdigest() != state.files[name]:
                raise LakeCorrupt(f"{remote.url}/{_blob(state.files[name])}", got="other bytes than its name says")
            files.replace(remote.root / name, data)
            state.have[name] = (state.files[name], *_mark(remote.root / name))
    for name in stale:
        if name not in state.files:
            (remote.root / name).unlink(missing_ok=True)
            state.have.pop(name, None)
    if stale or found is not None:
        _write_state(remote, state)
    if set(folders) == set(FOLDERS):
        _dirty(remote).unlink(missing_ok=True)
    return state


def _push(remote: Remote, before: _State) -> None:
    """Sends what was changed here and makes it the head."""
    now = _scan(remote, FOLDERS)
    digests = {name: _digest(remote, before, name, mark) for name, mark in now.items()}
    if digests == before.files:
        return
    for name in digests:
        if name.endswith("/current.json") and digests[name] != before.files.get(name):
            folder = (remote.root / name).parent
            for base in bases.read_pointer(folder).bases:
                remote.send(folder / base)
    fresh = {digests[name]: name for name in digests if digests[name] not in before.files.values()}
    remote.each(lambda sha: remote.send(remote.root / fresh[sha], _blob(sha)), fresh)
    commit = uuid.uuid4().hex
    head = json.dumps({"schema": SCHEMA, "commit": commit, "files": digests}, sort_keys=True).encode()
    try:
        etag = remote.put(HEAD, head, replaces=before.etag)
    except Overtaken:
        found = remote.get_changed(HEAD, "")
        if found is None or found[0] != head:  # a try whose answer was lost may have been the one that counted
            raise
        etag = found[1]
    _write_state(remote, _State(etag=etag, files=digests, have={n: (digests[n], *mark) for n, mark in now.items()}))


def _parsed(remote: Remote, data: bytes) -> dict[str, str]:
    if not data:
        return {}
    try:
        value = json.loads(data)
        schema, named = value["schema"], value["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise LakeCorrupt(f"{remote.url}/{HEAD}", got=str(error), expected="a JSON object with files") from error
    if schema > SCHEMA:
        raise Newer(f"{remote.url}/{HEAD}", got=f"schema {schema}", expected=f"schema {SCHEMA} or older",
                    fix="A newer neurofmx wrote it: update this one.")  # fmt: skip
    return named


def _blob(sha256: str) -> str:
    return f"catalog/blobs/{sha256}"


# the working copy


def _stale(remote: Remote, state: _State, folders: tuple[str, ...]) -> list[str]:
    """Names in folders that are not here as the head has them, and those that are here and not in the head."""
    now = _scan(remote, folders)
    within = {name: sha for name, sha in state.files.items() if name.rpartition("/")[0] in folders}
    differ = [n for n, sha in within.items() if n not in now or state.have.get(n) != (sha, *now[n])]
    return [*differ, *(name for name in now if name not in within)]


def _scan(remote: Remote, folders: tuple[str, ...]) -> dict[str, Mark]:
    """Name -> mark of the files in the working copy that the head is about."""
    found = {}
    for folder in folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(remote.root / folder) as entries:
            for entry in entries:
                if entry.name.endswith((".parquet", ".json")) and not (
                    entry.name.startswith(".") or bases.NAME.fullmatch(entry.name)
                ):
                    status = entry.stat()
                    found[f"{folder}/{entry.name}"] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def _mark(path: Path) -> Mark:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _digest(remote: Remote, state: _State, name: str, mark: Mark) -> str:
    known = state.have.get(name)
    if known and known[1:] == mark and time.time_ns() - mark[1] > SETTLED_NS:
        return known[0]
    return hashlib.sha256((remote.root / name).read_bytes()).hexdigest()


def _own(remote: Remote) -> Path:
    return remote.root / ".remote"


def _dirty(remote: Remote) -> Path:
    return _own(remote) / "changing"


def _read_state(remote: Remote) -> _State:
    try:
        value = json.loads((_own(remote) / "state.json").read_bytes())
    except (FileNotFoundError, ValueError):  # it can be made again
        return _State()
    return _State(etag=value["etag"], files=value["files"], have={n: tuple(v) for n, v in value["have"].items()})


def _write_state(remote: Remote, state: _State) -> None:
    files.replace(_own(remote) / "state.json", json.dumps(asdict(state)).encode())


def _roots() -> set[str]:
    if not hasattr(_held, "roots"):
        _held.roots = set()
    return _held.roots


def _changing(remote: Remote) -> bool:
    return str(remote.root) in _roots()


@contextlib.contextmanager
def _locked(remote: Remote, how: int) -> Iterator[None]:
    path = _own(remote) / "lock"
    with files.clear_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
