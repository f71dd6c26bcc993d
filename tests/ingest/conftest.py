"""Loopback archives for the tests of ingest."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.formats import table
from neurofmx.ingest.sessions import Session, Source
from neurofmx.types import RawFile, Recording, RecordingId

# where the mirror keeps an archive, and where a session's files lie in it
_BASES = {
    "physionet": ("physionet/files", "{dataset}/{version}"),
    "other": ("other", ""),
    "openneuro": ("openneuro", "{dataset}"),
    "ibl": ("ibl", ""),
}


def _load(name: str) -> ModuleType:
    """A module of tests/servers, which is no package."""
    path = Path(__file__).resolve().parents[1] / "servers" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"servers_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    """The module of the misbehaving server."""
    return _load("faults")


@pytest.fixture
def files_server(tmp_path: Path, faults: ModuleType) -> Iterator[Any]:
    """A server of an empty folder of this test."""
    (tmp_path / "served").mkdir()
    with faults.serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
def mirror_server(mirror: Path, faults: ModuleType) -> Iterator[Any]:
    """A server of the mirror of real recordings."""
    with faults.serving(mirror) as server:
        yield server


@pytest.fixture(scope="session")
def read_files() -> Callable[..., Recording]:
    """Reads files of a folder by one row of the table of readers."""

    def read(reader: str, root: Path, *names: str, **options: Any) -> Recording:
        session = Session(id=RecordingId("test", "set", "1", "one"), files=(), reader=reader, options=options)
        return table.read(reader, root, session, tuple(RawFile(path=n, url=n, sha256="0" * 64, size=0) for n in names))

    return read


@pytest.fixture(scope="session")
def read_mirror(mirror: Path) -> Callable[[str, str], tuple[Recording, Path]]:
    """Reads one recording of the mirror, unjudged, by its source and name; gives the folder of its files as well."""

    def read(text: str, name: str) -> tuple[Recording, Path]:
        source = Source.parse(text)
        base, inner = _BASES[source.archive]
        root = mirror / base / inner.format(dataset=source.dataset, version=source.version)
        found = list_sessions(Source.parse(text, str(mirror / base)))
        session = next(session for session in found if session.id.name == name)
        files = tuple(RawFile(path=f.path, url=f.url, sha256="0" * 64, size=0) for f in session.files)
        return table.read(session.reader, root, session, files), root

    return read
