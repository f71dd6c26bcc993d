"""A mirror server on loopback that misbehaves on request and keeps a log of what it was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from neurofmx.ingest.mirror_server import MirrorHandler, MirrorServer


@dataclass
class Fault:
    """What goes wrong with paths that end as stated.

    Args:
        path: end of the URL's path.
        kind: ``status``, ``truncate``, ``reset``, ``corrupt``, ``slow``, ``page`` (HTML with status 200),
            ``no_range`` or ``no_etag``.
        times: how often; -1 is always.
        status: for ``status``.
        retry_after: header beside it.
        at: byte at which ``truncate``, ``reset`` and ``corrupt`` happen.
        then: how many 503s follow it.
    """

    path: str
    kind: str
    times: int = 1
    status: int = 503
    retry_after: str = ""
    at: int = 1000
    then: int = 0


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)


class FaultyServer(MirrorServer):
    """A `MirrorServer` with faults and a log."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 0, FaultyHandler)
        self.faults: list[Fault] = []
        self.log: list[Asked] = []

    def take(self, path: str, *kinds: str) -> Fault | None:
        """The fault that this request meets, used up once."""
        for fault in self.faults:
            if path.split("?")[0].endswith(fault.path) and fault.kind in kinds and fault.times != 0:
                fault.times -= 1
                if fault.then:
                    self.faults.append(Fault(fault.path, "status", times=fault.then))
                return fault
        return None

    def asked(self, path: str) -> list[Asked]:
        """The requests for paths that end so."""
        return [one for one in self.log if one.path.split("?")[0].endswith(path)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken pipes are the point here."""


class FaultyHandler(MirrorHandler):
    """Meets the server's faults before it answers."""

    server: FaultyServer

    def do_GET(self) -> None:
        self.server.log.append(Asked(self.command, self.path, dict(self.headers.items())))
        if fault := self.server.take(self.path, "status"):
            self.send_plain(fault.status, "no", {"Retry-After": fault.retry_after} if fault.retry_after else {})
        elif self.server.take(self.path, "page"):
            self.send_plain(200, "<html>please log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        else:
            if self.server.take(self.path, "no_range"):
                del self.headers["Range"]
            super().do_GET()

    def do_POST(self) -> None:
        self.server.log.append(Asked("POST", self.path))
        if fault := self.server.take(self.path, "status"):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_plain(fault.status, "no")
        else:
            super().do_POST()

    def etag(self, file: Path) -> str:
        return (
            ""
            if any(f.kind == "no_etag" and self.path.endswith(f.path) for f in self.server.faults)
            else super().etag(file)
        )

    def send_file(self, file: Path, start: int, stop: int) -> None:
        fault = self.server.take(self.path, "truncate", "reset", "corrupt", "slow")
        if fault is None:
            super().send_file(file, start, stop)
            return
        data = bytearray(file.read_bytes()[start:stop])
        if fault.kind == "slow":
            for piece in range(0, len(data), max(1, len(data) // 5)):
                self.wfile.write(data[piece : piece + max(1, len(data) // 5)])
                time.sleep(0.05)
        elif fault.kind == "corrupt":
            data[min(fault.at, len(data) - 1)] ^= 0xFF
            self.wfile.write(data)
        else:
            self.wfile.write(data[: fault.at])
            self.wfile.flush()
            self.close_connection = True
            if fault.kind == "reset":
                import socket
                import struct

                # linger 0: the kernel answers with RST instead of a polite end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()


@contextmanager
def serving(folder: Path) -> Iterator[FaultyServer]:
    """A running server of a folder."""
    server = FaultyServer(folder)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
