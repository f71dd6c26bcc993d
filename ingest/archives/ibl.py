"""IBL: session folders in ALF, ``lab/Subjects/subject/date/number/alf``; the dataset is the lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neurofmx.errors import NotThere
from neurofmx.ingest.archives.trees import tree
from neurofmx.ingest.sessions import Session, Source
from neurofmx.ingest.web import is_url
from neurofmx.types import Licence, RecordingId, Subject, sanitise

VERSION = "public"
# Alyx records carry no licence: it is the connector's to state
_LICENCE = Licence(
    spdx="CC-BY-4.0",
    text="Creative Commons Attribution 4.0, the terms of the IBL public data release",
    source="neurofmx.ingest.archives.ibl: the records of the archive state none",
)
_CITATION = "International Brain Laboratory, public data release"


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the sessions of a lab.

    Args:
        source: ``address`` is a folder that holds ``<lab>/Subjects``, or a server that `neurofmx mirror serve` runs.

    Raises:
        NotThere: no such lab, or an Alyx database, which needs the ONE client.
    """
    lab = source.dataset
    if not source.address:
        raise NotThere(
            f"sessions of {lab} in the Alyx database",
            got="no address",
            expected="a folder, or a mirror's URL, laid out as lab/Subjects/subject/date/number/alf",
            fix="Fetch sessions with the ONE client (pip install 'neurofmx[archives]') and give their folder.",
        )
    try:
        files = tree(source.address, f"{lab}/Subjects").files
    except NotThere as error:
        if not is_url(source.address):
            raise
        raise NotThere(
            f"sessions of {lab} at {source.address}",
            got="no manifest.json there: an unknown lab, or an Alyx database",
            expected="a mirror that `neurofmx mirror serve` serves",
            fix="Fetch sessions with the ONE client (pip install 'neurofmx[archives]') and give their folder.",
        ) from error
    folders: dict[str, list[str]] = {}
    for path in files:
        parts = path.split("/")
        if len(parts) >= 6:
            folders.setdefault("/".join(parts[:5]), []).append(path)
    for folder, paths in folders.items():
        subject, date, number = folder.split("/")[2:5]
        yield Session(
            id=RecordingId(source.archive, lab, source.version, sanitise(f"{subject}_{date}_{number}")),
            files=tuple(files[path] for path in paths),
            reader="alf",
            licence=_LICENCE,
            citation=_CITATION,
            subject=Subject(id=subject, species="Mus musculus"),
            session=f"{date}_{number}",
            options={"session_dir": folder},
        )


def datasets(folder: Path) -> list[tuple[str, str]]:
    """The (lab, version) pairs that a folder holds."""
    return [(path.parent.name, VERSION) for path in sorted(folder.glob("*/Subjects"))]
