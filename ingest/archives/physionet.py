"""PhysioNet: RECORDS names the records, SHA256SUMS.txt their files; the same code reads a folder and the web."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from neurofmx.errors import MalformedFile, NotThere
from neurofmx.ingest.archives.licences import licence
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.web import is_url, join, local_path, read_text
from neurofmx.types import RecordingId, Subject, sanitise

FILES = "https://physionet.org/files"

# projects whose runs mean something that no file says; source: the projects' own pages
_RUNS = {
    "eegmmidb": {
        "R01": "rest, eyes open",
        "R02": "rest, eyes closed",
        **dict.fromkeys(("R03", "R07", "R11"), "move left or right fist"),
        **dict.fromkeys(("R04", "R08", "R12"), "imagine left or right fist"),
        **dict.fromkeys(("R05", "R09", "R13"), "move both fists or both feet"),
        **dict.fromkeys(("R06", "R10", "R14"), "imagine both fists or both feet"),
    }
}
_CITATIONS = {
    "eegmmidb": "Schalk et al. 2004, IEEE TBME 51:1034; Goldberger et al. 2000, Circulation 101:e215",
}
_SPECIES = {"eegmmidb": "Homo sapiens", "wfdb-sample": "Homo sapiens"}


def list_sessions(source: Source) -> Iterator[Session]:
    """Lists the records of a project.

    Args:
        source: ``address`` is a folder or URL under which ``<project>/<version>/RECORDS`` lies, or ``""`` for
            the public archive.

    Raises:
        NotThere: no such project or version, or a file that RECORDS or a header names is not in SHA256SUMS.txt.
        MalformedFile: SHA256SUMS.txt is not one.
    """
    base = join(source.address or FILES, f"{source.dataset}/{source.version}")
    sums = _sums(f"{base}/SHA256SUMS.txt")
    terms = None
    if "LICENSE.txt" in sums:
        terms = licence(read_text(f"{base}/LICENSE.txt"), f"{base}/LICENSE.txt")
    annotators = ()
    if "ANNOTATORS" in sums:
        annotators = tuple(line.split()[0] for line in read_text(f"{base}/ANNOTATORS").splitlines() if line.strip())
    for record in read_text(f"{base}/RECORDS").split():
        edf = record.lower().endswith((".edf", ".bdf"))
        paths = _edf_files(record, sums) if edf else _wfdb_files(base, record, annotators, sums)
        name = PurePosixPath(record)
        run = re.search(r"R\d\d$", name.stem)
        yield Session(
            id=RecordingId(
                source.archive, source.dataset, source.version, sanitise(str(name.with_suffix("")) if edf else record)
            ),
            files=tuple(_file(base, path, sums) for path in paths),
            reader="edf" if edf else "wfdb",
            licence=terms,
            citation=_CITATIONS.get(source.dataset, "Goldberger et al. 2000, Circulation 101:e215"),
            subject=Subject(
                id=name.parts[0] if len(name.parts) > 1 else name.stem, species=_SPECIES.get(source.dataset, "")
            ),
            session=run.group(0) if run else name.stem,
            task=_RUNS.get(source.dataset, {}).get(run.group(0), "") if run else "",
            options={} if edf else {"annotators": list(annotators)},
        )


def datasets(folder: Path) -> list[tuple[str, str]]:
    """The (project, version) pairs that a folder holds."""
    return [(path.parent.parent.name, path.parent.name) for path in sorted(folder.glob("*/*/RECORDS"))]


def _sums(url: str) -> dict[str, str]:
    found = {}
    for number, line in enumerate(read_text(url).splitlines(), 1):
        digest, _, path = line.strip().partition(" ")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise MalformedFile(f"{url} line {number}", got=line[:80], expected="a sha256, blanks and a path")
        found[path.strip().lstrip("*")] = digest.lower()
    return found


def _edf_files(record: str, sums: Mapping[str, str]) -> list[str]:
    return [record, *sorted(path for path in sums if path.startswith(f"{record}."))]


def _wfdb_files(base: str, record: str, annotators: tuple[str, ...], sums: Mapping[str, str]) -> list[str]:
    """The header, the signal files that it names, and the annotations."""
    folder = PurePosixPath(record).parent
    lines = [line for line in read_text(f"{base}/{record}.hea").splitlines() if line.strip() and line[0] != "#"]
    if not lines or not lines[0].split()[0].startswith(PurePosixPath(record).name):
        raise MalformedFile(f"{base}/{record}.hea", got=lines[0][:60] if lines else "nothing", expected="a WFDB header")
    segments = lines[0].split()[0].partition("/")[2]
    if segments:  # each segment is a record of its own; "~" is a gap
        parts = dict.fromkeys(line.split()[0] for line in lines[1 : 1 + int(segments)] if line[0] != "~")
        inner = [file for part in parts for file in _wfdb_files(base, str(folder / part), (), sums)]
        return [*dict.fromkeys([f"{record}.hea", *inner]), *_notes(record, annotators, sums)]
    count = int(lines[0].split()[1].partition("/")[0])
    signals = dict.fromkeys(str(folder / line.split()[0]) for line in lines[1 : 1 + count] if line[0] != "~")
    return [f"{record}.hea", *signals, *_notes(record, annotators, sums)]


def _notes(record: str, annotators: tuple[str, ...], sums: Mapping[str, str]) -> list[str]:
    return [f"{record}.{name}" for name in annotators if f"{record}.{name}" in sums]


def _file(base: str, path: str, sums: Mapping[str, str]) -> RemoteFile:
    if path not in sums:
        raise NotThere(f"{path} in {base}/SHA256SUMS.txt", expected="every file of a record with its sha256")
    url = f"{base}/{path}"
    size = None if is_url(url) else (local_path(url).stat().st_size if local_path(url).exists() else None)
    return RemoteFile(path=path, url=url, size=size, digests={"sha256": sums[path]})
