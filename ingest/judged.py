"""A session's files, read and judged: the same steps for the lake and for one's own file."""

from __future__ import annotations

from pathlib import Path

from neurofmx.errors import MalformedFile
from neurofmx.ingest import checks, governance
from neurofmx.ingest.formats import table
from neurofmx.ingest.sessions import Session
from neurofmx.types import Check, RawFile, Recording


def read_and_judge(
    root: Path, session: Session, files: tuple[RawFile, ...]
) -> tuple[Recording | None, tuple[Check, ...]]:
    """Judges the bytes, reads them, then judges the recording and its terms.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.
        files: the raw files with their digests.

    Returns:
        The recording, or None where the bytes could not be read; and every check, passed or not.
    """
    found = (*checks.judge_files(root, session), *governance.judge_files(root, session))
    if blocking(found):
        return None, found
    try:
        recording = table.read(session.reader, root, session, files)
    except MalformedFile as error:
        return None, (*found, Check(name="readable", passed=False, severity="block", evidence=str(error)))
    return recording, (*found, *checks.judge(recording), *governance.judge(recording))


def blocking(found: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that stop a recording."""
    return tuple(check for check in found if not check.passed and check.severity == "block")
