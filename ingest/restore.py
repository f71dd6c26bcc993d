"""A lake rebuilt from a snapshot's manifest: raw files fetched again, recordings read again, every digest compared."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from neurofmx import catalog, snapshots
from neurofmx.config import from_plain
from neurofmx.errors import Denied, Mismatch, NeurofmxError, NotThere, Refused, Transient
from neurofmx.files import clear_faults
from neurofmx.ingest.fetch import fetch_file
from neurofmx.ingest.ingest import keep_raw, raw_files, record_step, release
from neurofmx.ingest.sessions import RemoteFile, Session, Source
from neurofmx.ingest.sources import find_session, keep_session, list_source, read_sources, write_sources
from neurofmx.ingest.web import is_url
from neurofmx.lake import Lake
from neurofmx.provenance import canonical_json, digest_file
from neurofmx.snapshots import Manifest
from neurofmx.types import RawFile, RecordingId

_SOURCE = ("archive", "dataset", "version", "address")
_LOST = (NotThere, Denied, Mismatch, Transient)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What became of one thing that the manifest names.

    Args:
        kind: ``raw``, ``recording`` or ``tokens``.
        name: the raw file's name, the recording's id, or the key of a token grid.
        status: ``equal``, ``different``, or ``missing`` where it is not to be had.
        expected: the manifest's digest.
        found: the digest that came out, ``""`` for none.
        reason: why it is not equal.
    """

    kind: Literal["raw", "recording", "tokens"]
    name: str
    status: Literal["equal", "different", "missing"]
    expected: str
    found: str = ""
    reason: str = ""


def restore(
    target: Lake,
    manifest: Path | Manifest,
    *,
    origin: Lake | None = None,
    addresses: Mapping[str, str] | None = None,
    tokens: Callable[[Lake, str], Any] | None = None,
) -> Iterator[Restored]:
    """Rebuilds what a snapshot names, one recording after the other; asking again goes on where it stopped.

    Args:
        target: an empty lake, or one that a restore was stopped in.
        manifest: a snapshot's manifest, or its file. Addresses are part of what a recording is, so what comes from
            elsewhere keeps the one that the manifest states.
        origin: another lake whose raw layer has the bytes; without one, or where it lacks some, they come from
            their archives.
        addresses: source -> folder or URL that stands in for the archive now.
        tokens: makes the stored tokens of one recording; tokens are left out without it.

    Returns:
        One row for every raw file, recording and token grid of the manifest, none left out.

    Raises:
        NotThere: there is no such manifest.
        Newer: newer code made it.
        LakeCorrupt: the manifest is not one.
        NoSpace: the disk is full.
    """
    wanted = snapshots.load(manifest) if isinstance(manifest, Path) else manifest
    stated = [from_plain(Source, {k: s[k] for k in _SOURCE}) for s in wanted.sources]
    told = [Source.parse(text, address) for text, address in (addresses or {}).items()]
    known = [*(read_sources(origin) if origin else ()), *read_sources(target), *stated, *told]
    sources = {source.text: source for source in known}
    if sources:
        write_sources(target, sources.values())
    into = _Into(target=target, origin=origin, sources=sources, moved={s.text for s in told},
                 before={s.text: s.address for s in stated})  # fmt: skip
    grids: dict[str, dict[str, str]] = {}
    for key, row in wanted.tokens.items():
        grids.setdefault(key.partition("|")[0], {})[key] = row["digest"]
    for rid, row in wanted.recordings.items():
        with target.lock():
            rows = list(_recording(rid, row, into))
        yield from rows
        if tokens is not None and rid in grids:
            yield from _tokens(rid, grids.pop(rid), target, tokens)
    for keys in grids.values() if tokens is not None else ():
        for key, digest in keys.items():
            yield Restored(kind="tokens", name=key, status="missing", expected=digest,
                           reason="the manifest does not name its recording")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Into:
    """Where things go, and where they may come from.

    Args:
        target: the lake that is rebuilt.
        origin: the lake whose raw layer helps, or None.
        sources: source text -> where it is listed.
        moved: texts of the sources that are told to be somewhere else now.
        before: source text -> address that the manifest states.
        listed: source text -> recording -> session, filled when a source is first listed.
    """

    target: Lake
    origin: Lake | None
    sources: Mapping[str, Source]
    moved: set[str]
    before: Mapping[str, str]
    listed: dict[str, dict[str, Session]] = field(default_factory=dict)


def _recording(rid: str, row: Mapping[str, Any], into: _Into) -> Iterator[Restored]:
    expected, target = row["digest"], into.target
    try:
        session, urls = _session(rid, into)
        files = _files(rid, row, session, into.origin)
    except NeurofmxError as error:
        for sha in row["raw_sha256"]:
            yield Restored(kind="raw", name=sha, status="missing", expected=sha, reason=str(error))
        yield Restored(kind="recording", name=rid, status="missing", expected=expected, reason=str(error))
        return
    lost = []
    for file in files:
        one = _raw(file, urls.get(file.path, ()), into)
        lost += [one] if one.status != "equal" else []
        yield one
    if lost:
        why = f"{len(lost)} of its {len(files)} raw files: {lost[0].reason}"
        yield Restored(kind="recording", name=rid, status="missing", expected=expected, reason=why)
        return
    # an archive that lists no size states none either
    files = tuple(replace(file, size=target.raw_path(file.sha256).stat().st_size) for file in files)
    keep_session(target, session)
    keep_raw(target, session.id, files)
    report = record_step(session, target, files)
    reason = ""
    if report.status == "quarantined":  # the snapshot has it: a person let it in, or the checks were others
        reason = "; ".join(f"{c.name}: {c.evidence}" for c in report.checks if not c.passed and c.severity == "block")
        try:
            report = release(target, rid)
        except Refused:
            yield Restored(kind="recording", name=rid, status="missing", expected=expected, reason=reason)
            return
    same = report.digest == expected
    if not same:
        reason = f"the same bytes give another recording: {_readers(rid, row, target)}"
    yield Restored(kind="recording", name=rid, status="equal" if same else "different", expected=expected,
                   found=report.digest, reason=reason)  # fmt: skip


def _readers(rid: str, row: Mapping[str, Any], target: Lake) -> str:
    now = catalog.rows(target, "recordings", rid)[0]["reader"]
    then = row.get("reader", "a reader that the manifest does not name")
    return f"read by {then} then and by {now} now, or listed at another address"


def _session(rid: str, into: _Into) -> tuple[Session, dict[str, list[str]]]:
    """The recording as it was listed for the snapshot; and path -> addresses at which a file may be now."""
    source = RecordingId.parse(rid).source
    before = now = None
    if into.origin is not None:
        with contextlib.suppress(NotThere):
            before = find_session(into.origin, rid)
    if before is None or source in into.moved:
        try:
            now = _listed(rid, source, into)
        except NeurofmxError:
            if before is None:
                raise  # else the address that it had may still answer
    session = before or (_as_before(now, source, into) if now else None)
    assert session is not None
    urls: dict[str, list[str]] = {}
    for one in (now, session):
        for file in one.files if one else ():
            urls.setdefault(file.path, []).append(file.url)
    return session, urls


def _as_before(session: Session, source: str, into: _Into) -> Session:
    """What another copy of an archive lists, with the addresses of the one that the snapshot was made from."""
    before = into.before.get(source, "").rstrip("/")
    now = into.sources[source].address.rstrip("/") if source in into.sources else ""
    if source not in into.moved or not (before and now):
        return session
    text = canonical_json(session)
    for had, has in ((_url(before), _url(now)), (before, now)):
        text = text.replace(has, had)
    return from_plain(Session, json.loads(text))


def _url(address: str) -> str:
    return address if is_url(address) else Path(address).expanduser().resolve().as_uri()


def _listed(rid: str, source: str, into: _Into) -> Session:
    if source not in into.sources:
        return find_session(into.target, rid)
    if source not in into.listed:
        found = list_source(into.target, into.sources[source])
        into.listed[source] = {str(session.id): session for session in found}
    if rid not in into.listed[source]:
        raise NotThere(f"recording {rid}", got=f"no such recording in {into.sources[source].address or source}",
                       expected="the dataset that the snapshot was made from")  # fmt: skip
    return into.listed[source][rid]


def _files(rid: str, row: Mapping[str, Any], session: Session, origin: Lake | None) -> tuple[RawFile, ...]:
    """The raw files as the snapshot had them: their addresses are part of what a recording is."""
    shas = list(row["raw_sha256"])
    if row.get("files"):
        return tuple(from_plain(RawFile, file) for file in row["files"])
    if origin is not None:
        try:
            files = raw_files(origin, rid)
        except NotThere:
            files = ()
        if [file.sha256 for file in files] == shas:
            return files
    if len(shas) != len(session.files):
        raise NotThere(f"raw files of {rid}", got=f"{len(session.files)} files in the archive's listing",
                       expected=f"the {len(shas)} of the snapshot")  # fmt: skip
    return tuple(RawFile(path=f.path, url=f.url, sha256=sha, size=f.size or 0) for f, sha in zip(session.files, shas))


def _raw(file: RawFile, urls: Iterable[str], into: _Into) -> Restored:
    """One raw file into the target: from itself, the other lake, the archive's present address, the one it had."""
    target, origin, reasons = into.target, into.origin, []
    if target.raw_path(file.sha256).exists():
        found = digest_file(target.raw_path(file.sha256))
        return _compared(file, found, "the file in this lake is damaged")
    if origin is not None and origin.raw_path(file.sha256).exists():
        try:
            _copy(origin.raw_path(file.sha256), target, file.sha256)
            return _compared(file, file.sha256, "")
        except Mismatch as error:
            reasons.append(f"{error}")
    found = ""
    for url in dict.fromkeys([*urls, file.url]):
        remote = RemoteFile(path=file.path, url=url, size=file.size or None, digests={"sha256": file.sha256})
        try:
            return _compared(file, fetch_file(remote, target).sha256, "")
        except _LOST as error:
            found = str(error.got) if isinstance(error, Mismatch) else found
            reasons.append(f"{error}")
    return Restored(kind="raw", name=file.path, status="different" if found else "missing", expected=file.sha256,
                    found=found, reason="; ".join(reasons))  # fmt: skip


def _compared(file: RawFile, found: str, reason: str) -> Restored:
    same = found == file.sha256
    return Restored(kind="raw", name=file.path, status="equal" if same else "different", expected=file.sha256,
                    found=found, reason="" if same else reason)  # fmt: skip


def _copy(source: Path, target: Lake, sha256: str) -> None:
    partial = target.root / "tmp" / f"raw-{uuid.uuid4().hex}"
    with clear_faults(partial):
        try:
            shutil.copyfile(source, partial)
            target.add_raw(partial, sha256=sha256)
        finally:
            partial.unlink(missing_ok=True)


def _tokens(rid: str, wanted: Mapping[str, str], target: Lake, make: Callable[[Lake, str], Any]) -> Iterator[Restored]:
    if not target.has_recording(rid):
        for key, digest in wanted.items():
            yield Restored(
                kind="tokens", name=key, status="missing", expected=digest, reason="its recording is missing"
            )
        return
    with target.lock():
        make(target, rid)
    made: dict[str, str] = {}
    for row in catalog.rows(target, "tokens"):
        if row["recording_id"] == rid:
            spec, of, stream = row["spec"], row["spec_digest"], row["stream"]
            made[f"{rid}|{spec}|{of}|{stream}"] = made[f"{rid}|{spec}|{stream}"] = row["digest"]  # the second: schema 1
    for key, digest in wanted.items():
        found = made.get(key, "")
        status = "missing" if not found else "equal" if found == digest else "different"
        reason = {"equal": "", "missing": "no such token spec now", "different": "the spec or its recording is another"}
        yield Restored(kind="tokens", name=key, status=status, expected=digest, found=found, reason=reason[status])
