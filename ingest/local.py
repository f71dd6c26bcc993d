"""One's own file or folder, judged and opened without a lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neurofmx.errors import ConfigError, NotThere, Refused
from neurofmx.ingest.archives import folder
from neurofmx.ingest.archives.table import list_sessions
from neurofmx.ingest.judged import blocking, read_and_judge
from neurofmx.ingest.sessions import Session, Source
from neurofmx.ingest.web import local_path
from neurofmx.provenance import digest_file
from neurofmx.types import Check, RawFile, Recording, sanitise


def local_sessions(path: str | Path) -> list[Session]:
    """The recordings that a path holds: an NWB, EDF, WFDB, WAV, torch_brain or video file, BIDS or an ALF session.

    Raises:
        NotThere: no such path, or nothing in it that can be read.
        ConfigError: a file of a kind that nothing here reads.
    """
    where = Path(path).expanduser().resolve()
    source = Source(archive="folder", dataset=sanitise(where.stem), version=folder.VERSION, address=str(where))
    found = list(list_sessions(source))
    if not found:
        raise NotThere(f"folder {where}", got="no recording", expected="NWB, EDF, WFDB or WAV files, BIDS or ALF")
    return found


def judge_local(path: str | Path) -> Iterator[tuple[str, tuple[Check, ...]]]:
    """Name and checks of every recording of a path, one after the other.

    Raises:
        NotThere: nothing is there.
        ConfigError: nothing reads it.
    """
    for session in local_sessions(path):
        root, files = _on_disk(session)
        yield str(session.id), read_and_judge(root, session, files)[1]


def open_local(path: str | Path) -> Recording:
    """Opens one's own recording where it lies.

    Args:
        path: a file, a BIDS run's data file or an ALF session folder.

    Raises:
        Refused: a blocking check failed; the message holds each one's evidence.
        ConfigError: the path holds several recordings.
        NotThere: nothing is there.
    """
    sessions = local_sessions(path)
    if len(sessions) > 1:
        names = ", ".join(session.files[0].path for session in sessions[:8])
        raise ConfigError(
            f"path {path}", got=f"{len(sessions)} recordings", expected="one", fix=f"Name one of: {names}"
        )
    root, files = _on_disk(sessions[0])
    recording, checks = read_and_judge(root, sessions[0], files)
    refused = blocking(checks)
    if refused or recording is None:
        reasons = "; ".join(f"{check.name}: {check.evidence}" for check in refused)
        raise Refused(f"{path} fails {len(refused)} checks", got=reasons, fix=f"See all: neurofmx validate {path}")
    return recording


def _on_disk(session: Session) -> tuple[Path, tuple[RawFile, ...]]:
    """The folder below which a session's files have their names, and their digests."""
    first = local_path(session.files[0].url)
    root = first.parents[len(Path(session.files[0].path).parts) - 1]
    files = []
    for file in session.files:
        path = local_path(file.url)
        files.append(RawFile(path=file.path, url=file.url, sha256=digest_file(path), size=path.stat().st_size))
    return root, tuple(files)
