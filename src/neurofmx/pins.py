"""Pins: who holds one keeps what was in the lake when it began from being collected, for as long as it lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from neurofmx import files

if TYPE_CHECKING:
    from neurofmx.lake import Lake


@contextlib.contextmanager
def held(lake: Lake) -> Iterator[None]:
    """While this is held, a collection leaves alone what the catalog named since, and what is written in tmp/.

    The pin is a locked file that says whose it is: the kernel frees the lock when its holder dies.

    Raises:
        NoSpace, Denied: the pin cannot be written.
    """
    path = _folder(lake) / f"{uuid.uuid4().hex}.json"
    partial = path.with_suffix(files.TEMPORARY)
    with files.clear_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = partial.open("wb", buffering=0)
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with files.clear_faults(path):
            try:
                handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                os.replace(partial, path)  # it is looked at under this name alone, and then it is locked
            except OSError:
                partial.unlink()
                raise
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def oldest(lake: Lake) -> float | None:
    """When the oldest pin that is held was made, as Unix time; pins of the dead are removed."""
    times = []
    for path in _folder(lake).glob("*.json"):
        with contextlib.suppress(FileNotFoundError), path.open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                times.append(os.fstat(handle.fileno()).st_mtime)
            else:
                path.unlink(missing_ok=True)
    return min(times, default=None)


def _folder(lake: Lake) -> Path:
    return lake.root / "tmp" / "pins"
