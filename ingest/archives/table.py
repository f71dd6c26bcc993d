"""The table of archives, and the one way to list any of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from neurofmx.errors import ConfigError, MalformedFile
from neurofmx.ingest.sessions import Session, Source

# archive -> module with list_sessions(source); imported when it is asked for
ARCHIVES = {
    name: f"neurofmx.ingest.archives.{name}"
    for name in ("sample", "simulated", "folder", "dandi", "physionet", "openneuro", "ibl", "other")
}


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the recordings of one dataset of any archive, checking that no two share a name.

    Raises:
        ConfigError: no such archive.
        MalformedFile: two recordings of the dataset have one id.
        NotThere: no such dataset; and what the archive's module raises.
    """
    if source.archive not in ARCHIVES:
        raise ConfigError("archive", got=source.archive, expected=f"one of {', '.join(ARCHIVES)}")
    seen: dict[str, str] = {}
    for session in importlib.import_module(ARCHIVES[source.archive]).list_sessions(source):
        key, path = str(session.id), session.files[0].path
        if key in seen:
            raise MalformedFile(
                f"listing of {source.text}",
                got=f"{seen[key]} and {path} both named {key}",
                expected="one recording an id",
                fix="Rename one of the files.",
            )
        seen[key] = path
        yield session
