"""What every reader ends with: streams on one clock become a Recording with its terms, subject and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats.table import reader_version
from neurofmx.ingest.sessions import Session
from neurofmx.types import Events, Intervals, Licence, Provenance, RawFile, Recording, Samples, Stream, Subject


def assemble(
    session: Session,
    files: tuple[RawFile, ...],
    streams: Mapping[str, Stream],
    *,
    subject: Subject | None = None,
    label: str = "",
    notes: Iterable[str] = (),
) -> Recording:
    """Puts streams together with what the archive and the file say of them.

    Args:
        session: what the archive says; it comes before the file.
        files: the raw files with their digests.
        streams: name -> stream, all in seconds of the session clock.
        subject: who the file says was recorded; fills what the archive left empty.
        label: the file's own session label.
        notes: what the reader had to decide.

    Raises:
        MalformedFile: there is no stream.
    """
    if not streams:
        raise MalformedFile(
            f"{files[0].path}", got="no signal, event or interval", expected="at least one stream that can be read"
        )
    who = session.subject or subject or Subject(id=PurePosixPath(files[0].path).name.split(".")[0])
    if session.subject and subject:
        known = {name: getattr(subject, name) for name in ("species", "sex", "age") if not getattr(who, name)}
        who = replace(who, **known)
    return Recording(
        id=session.id,
        streams=dict(streams),
        subject=who,
        domain_s=extent(streams.values()),
        provenance=Provenance(
            files=files, reader=reader_version(session.reader), notes=tuple(notes), citation=session.citation
        ),
        # an empty identifier is what the licence check refuses
        licence=session.licence or Licence(spdx=""),
        session=session.session or label,
        task=session.task,
    )


def extent(streams: Iterable[Stream]) -> tuple[float, float]:
    """The (start, stop) seconds that streams span, events and intervals outside their valid time included."""
    times: list[np.ndarray] = []
    for stream in streams:
        times.append(np.asarray(stream.valid, np.float64).ravel())
        if isinstance(stream, Intervals):
            times += [np.asarray(stream.start_s), np.asarray(stream.stop_s)]
        elif isinstance(stream, Events) or isinstance(stream, Samples) and stream.times_s is not None:
            times.append(np.asarray(stream.times_s))
    flat = np.concatenate(times) if times else np.empty(0)
    flat = flat[np.isfinite(flat)]
    return (float(flat.min()), float(flat.max())) if flat.size else (0.0, 0.0)
