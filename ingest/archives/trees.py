"""The files of a dataset as one listing, whether it lies in a folder or behind a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neurofmx.errors import NotThere
from neurofmx.ingest.sessions import RemoteFile
from neurofmx.ingest.web import is_url, join, read_json, read_text

MANIFEST = "manifest.json"  # what `neurofmx mirror serve` answers for any folder: path, size and sha256 of all below


@dataclass(frozen=True)
class Tree:
    """Path inside the dataset -> file.

    Args:
        files: sorted by path.
        origin: the address it was listed from, for messages.
    """

    files: Mapping[str, RemoteFile]
    origin: str

    def text(self, path: str) -> str:
        """The text of a small file.

        Raises:
            NotThere: the dataset has no such file.
        """
        if path not in self.files:
            raise NotThere(f"{path} of {self.origin}", expected="a file that this kind of dataset has")
        return read_text(self.files[path].url)


def folder_tree(root: Path, under: str = "") -> Tree:
    """Lists a folder; names are relative to ``root``, hidden files are left out.

    Raises:
        NotThere: no such folder.
    """
    base = root / under
    if not base.is_dir():
        raise NotThere(
            f"folder {base}", expected="a folder laid out as the archive lays it out", fix="Check the address."
        )
    files = {}
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        relative = path.relative_to(root)
        if not any(part.startswith(".") for part in relative.parts):
            name = relative.as_posix()
            files[name] = RemoteFile(path=name, url=path.resolve().as_uri(), size=path.stat().st_size)
    return Tree(files, str(base))


def served_tree(address: str, under: str = "") -> Tree:
    """Lists a folder that `neurofmx mirror serve` serves, by its manifest; names are relative to ``address``.

    Raises:
        NotThere: the server has no manifest there.
    """
    base = join(address, under) if under else address.rstrip("/")
    rows = read_json(f"{base}/{MANIFEST}")
    prefix = f"{under}/" if under else ""
    files = {
        prefix + row["path"]: RemoteFile(
            path=prefix + row["path"],
            url=join(base, row["path"]),
            size=row["size"],
            digests={"sha256": row["sha256"]},
        )
        for row in rows
    }
    return Tree(dict(sorted(files.items())), base)


def tree(address: str, under: str = "") -> Tree:
    """Lists a folder or a served mirror, by the look of the address."""
    return served_tree(address, under) if is_url(address) else folder_tree(Path(address).expanduser().resolve(), under)
