"""Small files that are replaced whole: written beside their name, synced, renamed; faults in one clear sentence."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neurofmx.errors import Denied, NoSpace

TEMPORARY = ".tmp"


@contextlib.contextmanager
def clear_faults(target: Path) -> Iterator[None]:
    """Turns a full disk, a read-only disk and a refused permission into errors that name the file and the fix.

    Raises:
        NoSpace: the disk, or the quota on it, is full.
        Denied: the disk is read only, or this user may not write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            there = next(folder for folder in (target, *target.parents) if folder.exists())
            raise NoSpace(
                f"disk of {target}", got=f"{shutil.disk_usage(there).free} bytes free", expected="room for it",
                fix="Free some space and run again; nothing in the lake was changed.",
            ) from error  # fmt: skip
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            why = "a read-only disk" if error.errno == errno.EROFS else "permission denied"
            raise Denied(
                f"writing {target}", got=why, expected="a lake that this user may write",
                fix="Check the mount and the owner of the lake.",
            ) from error  # fmt: skip
        raise


def replace(target: Path, data: Any) -> None:
    """Writes bytes under a temporary name, syncs them and renames: a reader sees the old file or the new one whole.

    Raises:
        NoSpace: the disk is full; the old file stays.
        Denied: writing is not allowed there; the old file stays.
    """
    with clear_faults(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            with partial.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(partial, target)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Makes the renames in a folder last, so that what they replace may go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that processes and threads share by the name of its file; the kernel frees it when one dies.

    Raises:
        Denied: the lock's file may not be written.
        NoSpace: the disk is full, and the file was not there.
    """
    with clear_faults(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
