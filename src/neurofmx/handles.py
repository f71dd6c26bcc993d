"""Files that are read at any place by any thread, kept open and few.

A reader holds the open file while it reads; dropping it from the table closes it only when the last reader
has let go, so no lock is taken on the way and no descriptor is closed, or used again, under a read.
"""

from __future__ import annotations

import os
import threading
from typing import Any

_close = os.close  # a name of our own: files may be let go when the interpreter has emptied its modules


class OpenFile:
    """One file open for reading; closed when nobody holds it any more.

    Args:
        name: path of the file.
        random: tells the kernel that reads will not follow one another, so that it reads nothing ahead.
    """

    __slots__ = ("fd", "size", "table", "used")

    def __init__(self, name: str, random: bool) -> None:
        self.fd = -1  # stands if opening fails
        self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size
        self.table: Any = None
        self.used = True
        if random:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self.fd >= 0:
            _close(self.fd)


class OpenFiles:
    """The files of one way of reading; those that were not used lately are let go first.

    Args:
        limit: how many to keep; None for a quarter of what the process may have open, at most 2,048.
        random: see `OpenFile`.
    """

    def __init__(self, limit: int | None = None, *, random: bool = False) -> None:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.limit = max(8, min(2048, soft // 4)) if limit is None else limit
        self.random = random
        self.files: dict[str, OpenFile] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._unlock)

    def open(self, name: str) -> OpenFile:
        """The open file of this name, newly opened if need be.

        Raises:
            OSError: it cannot be opened.
        """
        with self._lock:
            file = self.files.get(name)
            if file is None:
                self._make_room()
                file = OpenFile(name, self.random)
                self.files[name] = file
            return file

    def close(self, under: str = "") -> None:
        """Lets go of all files whose path begins with ``under``; who reads one now reads on."""
        with self._lock:
            for name in [name for name in self.files if name.startswith(under)]:
                del self.files[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, (self.random,)  # descriptors do not travel: the other process has its own

    def _make_room(self) -> None:
        # second chance: a file that was read since it was last looked at goes to the end of the line
        while len(self.files) >= self.limit:
            name = next(iter(self.files))
            file = self.files.pop(name)
            if file.used:
                file.used = False
                self.files[name] = file

    def _unlock(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it


ORDINARY = OpenFiles()
RANDOM = OpenFiles(random=True)


def _shared(random: bool) -> OpenFiles:
    return RANDOM if random else ORDINARY


def close_files(under: str = "") -> None:
    """Lets go of every kept file whose path begins with ``under``, so that files replaced there are seen."""
    for files in (ORDINARY, RANDOM):
        files.close(under)
