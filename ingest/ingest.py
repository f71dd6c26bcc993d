"""One session into the lake: fetch, judge the bytes, read, judge the recording, publish it or put it in quarantine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from neurofmx import catalog
from neurofmx.config import from_plain
from neurofmx.errors import Denied, Mismatch, NoSpace, NotThere, Refused, Transient
from neurofmx.ingest.fetch import fetch_session
from neurofmx.ingest.formats import table
from neurofmx.ingest.judged import blocking, read_and_judge
from neurofmx.ingest.local import judge_local, local_sessions, open_local
from neurofmx.ingest.sessions import Session
from neurofmx.ingest.sources import find_session, keep_session
from neurofmx.lake import Lake, now
from neurofmx.provenance import canonical_json
from neurofmx.types import Check, RawFile, RecordingId

__all__ = [
    "IngestReport", "fetch_step", "find_session", "ingest_session", "judge_local", "keep_raw", "local_sessions",
    "open_local", "quarantined", "raw_files", "record_step", "release",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What became of one session.

    Args:
        id: the recording.
        status: ``ingested``, ``unchanged`` (the lake holds this very version), ``quarantined`` (refused with
            reasons) or ``failed`` (its files could not be had this time).
        digest: logical digest of the published recording, ``""`` where there is none.
        checks: every judgement, passed or not.
        raw: the raw files with their digests.
        seconds: what it took.
    """

    id: RecordingId
    status: Literal["ingested", "unchanged", "quarantined", "failed"]
    digest: str
    checks: tuple[Check, ...]
    raw: tuple[RawFile, ...]
    seconds: float


def ingest_session(session: Session, lake: Lake, *, force: bool = False) -> IngestReport:
    """Takes one session from its archive to the catalog; asking twice changes nothing.

    Args:
        session: what a connector listed.
        lake: where it goes.
        force: read and judge again even where raw files and reader are those of the stored version.

    Returns:
        The report; a session that is refused or cannot be fetched does not raise, so that others go on.

    Raises:
        NoSpace: the disk is full; nothing in the lake was changed.
    """
    started = time.perf_counter()
    try:
        raw = fetch_step(session, lake)
    except Mismatch as error:
        found = (Check(name="digests", passed=False, severity="block", evidence=str(error)),)
        _refuse(lake, session, (), found)
        report = _report(session, "quarantined", "", found, ())
    except (NotThere, Denied, Transient) as error:
        found = (Check(name="fetched", passed=False, severity="block", evidence=str(error)),)
        report = _report(session, "failed", "", found, ())
    else:
        report = record_step(session, lake, raw, force=force)
    return replace(report, seconds=time.perf_counter() - started)


def fetch_step(session: Session, lake: Lake) -> tuple[RawFile, ...]:
    """Brings a session's files into the raw layer; notes them for `raw_files` and the session for `find_session`.

    Raises:
        NotThere, Denied, Mismatch, Transient, NoSpace: as `fetch.fetch_file`.
    """
    with _full_disk(lake):
        keep_session(lake, session)
    raw = fetch_session(session, lake)
    keep_raw(lake, session.id, raw)
    return raw


def keep_raw(lake: Lake, recording: RecordingId, raw: tuple[RawFile, ...]) -> None:
    """Notes the raw files of a recording, for `raw_files`.

    Raises:
        NoSpace: the disk is full.
    """
    path = _raw_manifest(lake, recording)
    text = canonical_json(list(raw))
    with _full_disk(lake):
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            partial.write_text(text)
            os.replace(partial, path)


def raw_files(lake: Lake, recording: RecordingId | str) -> tuple[RawFile, ...]:
    """The raw files that the last `fetch_step` of a recording brought.

    Raises:
        NotThere: it was never fetched.
    """
    path = _raw_manifest(lake, RecordingId.parse(str(recording)))
    if not path.exists():
        raise NotThere(f"raw files of {recording}", fix=f"Fetch them: neurofmx fetch {recording}")
    return tuple(from_plain(RawFile, row) for row in json.loads(path.read_text()))


def record_step(session: Session, lake: Lake, raw: tuple[RawFile, ...], *, force: bool = False) -> IngestReport:
    """Reads fetched files, judges them, and publishes the recording or puts it in quarantine.

    Args:
        session: what a connector listed.
        lake: holds the raw files.
        raw: what `fetch_step` returned.
        force: as in `ingest_session`.

    Raises:
        NoSpace: the disk is full; nothing in the lake was changed.
    """
    started = time.perf_counter()
    with _full_disk(lake):
        report = _recorded(session, lake, raw, force)
    return replace(report, seconds=time.perf_counter() - started)


def _recorded(session: Session, lake: Lake, raw: tuple[RawFile, ...], force: bool) -> IngestReport:
    key = str(session.id)
    before = (catalog.rows(lake, "recordings", key) or [None])[0]
    same = before and before["raw_sha256"] == [f.sha256 for f in raw]
    if before and same and before["reader"] == table.reader_version(session.reader) and not force:
        _clear(lake, key)  # a refusal of other bytes under this id is over
        return _report(session, "unchanged", before["digest"], _stored_checks(lake, key), raw)
    released = _released(lake, key, raw)
    with lake.raw_view(raw) as root:
        recording, found = read_and_judge(root, session, raw, released=released)
        found = (*found, *_identity(lake, session, raw, before), *_twins(lake, session, raw))
        refused = blocking(found)
        if released and recording is not None:
            found = tuple(_let_in(check) if check in refused else check for check in found)
        elif refused or recording is None:
            _refuse(lake, session, raw, found)
            return _report(session, "quarantined", before["digest"] if before else "", found, raw)
        digest = lake.publish_recording(recording, found)
    _claim(lake, session, raw)
    _clear(lake, key)
    status = "unchanged" if before and before["digest"] == digest else "ingested"
    return _report(session, status, digest, found, raw)


def quarantined(lake: Lake) -> list[dict[str, Any]]:
    """The rows of the quarantine: what was refused, why, from where, when, and whether a person let it in."""
    return sorted(catalog.rows(lake, "quarantine"), key=lambda row: row["recording_id"])


def release(lake: Lake, recording: RecordingId | str) -> IngestReport:
    """Lets a refused recording in despite its failed checks, which stay beside it as warnings.

    Raises:
        NotThere: it is not in quarantine.
        Refused: its files cannot be read, so there is nothing to let in.
    """
    key = str(recording)
    rows = catalog.rows(lake, "quarantine", key)
    if not rows:
        held = ", ".join(row["recording_id"] for row in quarantined(lake)[:5]) or "nothing"
        raise NotThere(f"{key} in quarantine", expected=f"one that is there: {held}")
    session = find_session(lake, key)
    raw = raw_files(lake, key) if _raw_manifest(lake, session.id).exists() else fetch_step(session, lake)
    catalog.put(lake, "quarantine", key, [rows[0] | {"released": True, "raw_sha256": [f.sha256 for f in raw]}])
    report = record_step(session, lake, raw, force=True)
    if report.status == "quarantined":
        raise Refused(f"{key} cannot be released", got="; ".join(rows[0]["reasons"]), expected="a recording to read",
                      fix="Replace the file at its source.")  # fmt: skip
    return report


def _report(
    session: Session,
    status: Literal["ingested", "unchanged", "quarantined", "failed"],
    digest: str,
    found: tuple[Check, ...],
    raw: tuple[RawFile, ...],
) -> IngestReport:
    return IngestReport(id=session.id, status=status, digest=digest, checks=found, raw=raw, seconds=0.0)


def _refuse(lake: Lake, session: Session, raw: tuple[RawFile, ...], found: tuple[Check, ...]) -> None:
    """Quarantine row and checks; an earlier good version of the recording, and its checks, stay as they are."""
    key, at = str(session.id), now()
    catalog.put(
        lake,
        "quarantine",
        key,
        [
            {"recording_id": key, "reasons": [f"{c.name}: {c.evidence}" for c in blocking(found)],
             "source_url": [f.url for f in session.files], "raw_sha256": [f.sha256 for f in raw],
             "released": False, "quarantined_at": at}
        ],
    )  # fmt: skip
    catalog.put(
        lake,
        "checks",
        f"{key}|refused",
        [
            {"recording_id": key, "stage": "quarantine", "check_name": c.name, "passed": c.passed,
             "severity": c.severity, "evidence": c.evidence, "checked_at": at}
            for c in found
        ],
    )  # fmt: skip


def _clear(lake: Lake, key: str) -> None:
    """Ends a refusal; the row of one that a person let in stays, as the record of that."""
    if not any(row["released"] for row in catalog.rows(lake, "quarantine", key)):
        catalog.drop(lake, "quarantine", key)
    catalog.drop(lake, "checks", f"{key}|refused")


def _released(lake: Lake, key: str, raw: tuple[RawFile, ...]) -> bool:
    """Whether a person let in these very bytes."""
    rows = catalog.rows(lake, "quarantine", key)
    return bool(rows and rows[0]["released"] and rows[0]["raw_sha256"] == [f.sha256 for f in raw])


def _let_in(check: Check) -> Check:
    return replace(check, severity="warn", evidence=f"{check.evidence} (let in by a person)")


def _stored_checks(lake: Lake, key: str) -> tuple[Check, ...]:
    return tuple(
        Check(name=row["check_name"], passed=row["passed"], severity=row["severity"], evidence=row["evidence"])
        for row in catalog.rows(lake, "checks", key)
    )


def _main_file(files: tuple[RawFile, ...]) -> RawFile:
    """The file that makes a recording what it is: the largest; sidecars may be shared, or edited later."""
    return max(files, key=lambda file: (file.size, file.sha256))


def _identity(lake: Lake, session: Session, raw: tuple[RawFile, ...], before: dict[str, Any] | None) -> list[Check]:
    if before is None:
        return []
    old, new = _main_file(lake.recording(session.id).provenance.files), _main_file(raw)
    return [
        Check(
            name="identity",
            passed=old.sha256 == new.sha256,
            severity="block",
            evidence=f"{session.id} is in the lake from {old.path} ({old.sha256}); {new.path} now has {new.sha256}: "
            "one id is one recording, give changed data a new dataset version",
        )
    ]


def _twins(lake: Lake, session: Session, raw: tuple[RawFile, ...]) -> list[Check]:
    """Whether the lake holds the same bytes under another id: one entry a recording below the main file's digest."""
    main = _main_file(raw)
    entries = _content(lake, main.sha256)
    names = {unquote(path.name) for path in entries.iterdir()} if entries.is_dir() else set()
    others = sorted(names - {str(session.id)})
    said = f"also {', '.join(others)}: split them together" if others else "no other recording has it"
    return [
        Check(
            name="content_twin",
            passed=not others,
            severity="warn",
            evidence=f"{main.path} ({main.sha256[:12]}): {said}",
        )
    ]


def _claim(lake: Lake, session: Session, raw: tuple[RawFile, ...]) -> None:
    folder = _content(lake, _main_file(raw).sha256)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / quote(str(session.id), safe="")).touch()


def _content(lake: Lake, sha256: str) -> Path:
    return lake.root / "manifests" / "content" / sha256[:2] / sha256


def _raw_manifest(lake: Lake, rid: RecordingId) -> Path:
    return lake.root / "manifests" / "raw" / rid.source.replace(":", "-") / f"{rid.name}.json"


@contextlib.contextmanager
def _full_disk(lake: Lake) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            f"disk of {lake.root}",
            got=f"{shutil.disk_usage(lake.root).free} bytes free",
            expected="room for the recording",
            fix="Free some space and run again; nothing that the lake held was changed.",
        ) from error
