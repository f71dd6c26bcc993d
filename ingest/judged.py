"""A session's files, read and judged: the same steps for the lake and for one's own file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neurofmx.errors import ConfigError, MalformedFile
from neurofmx.ingest import checks, governance
from neurofmx.ingest.formats import table
from neurofmx.ingest.sessions import Session
from neurofmx.types import Check, Licence, RawFile, Recording

UNSTATED = Licence(
    spdx="LicenseRef-unstated", text="none stated; let in by a person", source="quarantine", redistribute=False
)


def read_and_judge(
    root: Path, session: Session, files: tuple[RawFile, ...], *, released: bool = False
) -> tuple[Recording | None, tuple[Check, ...]]:
    """Judges the bytes, reads them, then judges the recording and its terms.

    Args:
        root: folder in which the files have their own relative names.
        session: what the archive says of them.
        files: the raw files with their digests.
        released: a person let these bytes in: read them even if a check of the bytes or the terms says no.

    Returns:
        The recording, or None where the bytes could not be read; and every check, passed or not.
    """
    found = (*checks.judge_files(root, session), *governance.judge_files(root, session))
    if blocking(found) and not released:
        return None, found
    if session.licence is None and released:
        session = replace(session, licence=UNSTATED)
    try:
        recording = table.read(session.reader, root, session, files)
        # arrays that stay in their file are read here: damage inside them is found now
        found = (*found, *checks.judge(recording), *governance.judge(recording))
    except (MalformedFile, ConfigError) as error:
        return None, (*found, Check(name="readable", passed=False, severity="block", evidence=str(error)))
    return recording, found


def blocking(found: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that stop a recording."""
    return tuple(check for check in found if not check.passed and check.severity == "block")
