"""A folder laid out as the archives, served as they serve: static files with ranges, DANDI's REST, OpenNeuro's GraphQL.

For anyone behind an air gap, and for tests. Addresses below the server's root: ``dandi/api``, ``physionet/files``,
``openneuro/graphql``, ``ibl`` and ``other``. Any folder answers ``manifest.json`` with path, size and sha256 of what
lies below it.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from neurofmx.errors import NotThere
from neurofmx.ingest.archives.trees import MANIFEST
from neurofmx.provenance import digest_file

_PAGE = 2  # assets a page where the client asks for no size: small, so that paging is always exercised
_BLOCK = 1 << 16


class MirrorServer(ThreadingHTTPServer):
    """The server of one folder; ``url`` is its root."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, handler: type[MirrorHandler] | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        if not self.folder.is_dir():
            raise NotThere(f"folder {self.folder}", expected="a folder laid out as the archives")
        super().__init__(("127.0.0.1", port), handler or MirrorHandler)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``"""
        return f"http://127.0.0.1:{self.server_address[1]}"


class MirrorHandler(BaseHTTPRequestHandler):
    """Answers one connection; only reads."""

    protocol_version = "HTTP/1.1"
    server: MirrorServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Silent: a mirror serves thousands of files."""

    def do_GET(self) -> None:
        """Routes by path."""
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path).lstrip("/")
        if path.startswith("dandi/api/"):
            self._dandi(path.removeprefix("dandi/api/"), urllib.parse.parse_qs(parts.query), parts.path)
        elif f"/{path}".endswith(f"/{MANIFEST}") and not (self.server.folder / path).exists():
            self._manifest(path.removesuffix(MANIFEST))
        else:
            self._static(path)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """OpenNeuro's one query: the files of a snapshot."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if urllib.parse.urlsplit(self.path).path != "/openneuro/graphql":
            self.send_plain(404, "no such address")
            return
        wanted = body.get("variables", {})
        root = self._inside(f"openneuro/{wanted.get('dataset')}")
        if root is None or not root.is_dir() or (version := self._snapshot(root)) != wanted.get("tag"):
            found = f"snapshot {wanted.get('dataset')} {wanted.get('tag')} not found"
            self.send_json({"errors": [{"message": found}], "data": {"snapshot": None}})
            return
        files = [
            {
                "filename": path.relative_to(root).as_posix(),
                "urls": [f"{self.server.url}/{urllib.parse.quote(path.relative_to(self.server.folder).as_posix())}"],
                "size": path.stat().st_size,
                "directory": False,
            }
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ]
        self.send_json({"data": {"snapshot": {"tag": version, "files": files}}})

    def _snapshot(self, root: Path) -> str:
        about = json.loads((root / "dataset_description.json").read_text())
        found = re.search(r"\.v([\w.]+)$", str(about.get("DatasetDOI", "")))
        return found.group(1) if found else "draft"

    def _dandi(self, path: str, query: dict[str, list[str]], raw_path: str) -> None:
        folder = self.server.folder / "dandi"
        if found := re.fullmatch(r"assets/([^/]+)/download/?", path):
            for listing in sorted(folder.glob("*/assets.json")):
                for row in json.loads(listing.read_text())["results"]:
                    if row["asset_id"] == found.group(1):
                        where = urllib.parse.quote(f"/dandi/{listing.parent.name}/{row['path']}")
                        self.send_plain(302, "", {"Location": where})
                        return
            self.send_plain(404, "no such asset")
            return
        found = re.fullmatch(r"dandisets/([^/]+)/versions/([^/]+)/(assets/)?(?:([^/]+)/)?", path)
        listing = folder / (found.group(1) if found else "-") / "assets.json"
        if not found or not listing.exists() or (version := _version(listing.parent))["version"] != found.group(2):
            self.send_plain(404, "no such dandiset")
        elif not found.group(3):
            self.send_json(version)
        elif found.group(4):
            rows = [r for r in json.loads(listing.read_text())["results"] if r["asset_id"] == found.group(4)]
            self.send_json(rows[0]["metadata"]) if rows else self.send_plain(404, "no such asset")
        else:
            self._assets(sorted(json.loads(listing.read_text())["results"], key=lambda r: r["path"]), query, raw_path)

    def _assets(self, rows: list[dict[str, Any]], query: dict[str, list[str]], raw_path: str) -> None:
        page, size = int(query.get("page", ["1"])[0]), int(query.get("page_size", [str(_PAGE)])[0])
        inline = query.get("metadata", ["false"])[0] == "true"
        shown = [
            {k: v for k, v in row.items() if inline or k != "metadata"} for row in rows[(page - 1) * size : page * size]
        ]
        following = None
        if page * size < len(rows):
            flat = {key: values[0] for key, values in query.items()} | {"page": str(page + 1)}
            following = f"{self.server.url}{raw_path}?{urllib.parse.urlencode(flat)}"
        self.send_json({"count": len(rows), "next": following, "previous": None, "results": shown})

    def _manifest(self, folder: str) -> None:
        root = self._inside(folder)
        if root is None or not root.is_dir():
            self.send_plain(404, "no such folder")
            return
        self.send_json(
            [
                {
                    "path": path.relative_to(root).as_posix(),
                    "size": path.stat().st_size,
                    "sha256": _sha256(path, path.stat().st_mtime_ns),
                }
                for path in sorted(root.rglob("*"))
                if path.is_file()
            ]
        )

    def _static(self, path: str) -> None:
        file = self._inside(path)
        if file is None or not file.is_file():
            self.send_plain(404, "no such file")
            return
        stat = file.stat()
        etag = self.etag(file)
        if etag and self.headers.get("If-None-Match") == etag:
            self.send_plain(304, "", {"ETag": etag})
            return
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        stop = stat.st_size
        if asked and self.headers.get("If-Range", etag) == etag:
            start, status = int(asked.group(1)), 206
            stop = min(stop, int(asked.group(2)) + 1) if asked.group(2) else stop
            if start >= stat.st_size:
                self.send_plain(416, "", {"Content-Range": f"bytes */{stat.st_size}"})
                return
        self.send_response(status)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        if etag:
            self.send_header("ETag", etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{stat.st_size}")
        self.end_headers()
        if self.command != "HEAD":
            self.send_file(file, start, stop)

    def etag(self, file: Path) -> str:
        """What names these bytes; a change of size or time changes it."""
        stat = file.stat()
        return f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'

    def send_file(self, file: Path, start: int, stop: int) -> None:
        """Streams the bytes [start, stop) of a file."""
        with file.open("rb") as handle:
            handle.seek(start)
            while start < stop and (block := handle.read(min(_BLOCK, stop - start))):
                self.wfile.write(block)
                start += len(block)

    def send_json(self, value: Any) -> None:
        """One JSON answer."""
        self.send_plain(200, json.dumps(value, default=str), {"Content-Type": "application/json"})

    def send_plain(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """One short answer."""
        body = text.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _inside(self, path: str) -> Path | None:
        """The file that a URL's path means, if it lies in the served folder."""
        file = (self.server.folder / path).resolve()
        return file if file.is_relative_to(self.server.folder) else None


def serve(folder: Path, port: int = 8765) -> None:
    """Serves a mirror on 127.0.0.1 until interrupted, printing the address of each archive that it holds.

    Raises:
        NotThere: no such folder.
    """
    server = MirrorServer(folder, port)
    for name, below in (("dandi", "dandi/api"), ("physionet", "physionet/files"), ("openneuro", "openneuro/graphql"),
                        ("ibl", "ibl"), ("other", "other")):  # fmt: skip
        if (server.folder / name).is_dir():
            print(f"{name:10} {server.url}/{below}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.server_close()


def _version(folder: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load((folder / "dandiset.yaml").read_text())


@cache
def _sha256(path: Path, mtime_ns: int) -> str:
    return digest_file(path)
