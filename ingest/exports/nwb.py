"""A recording as an NWB file, with pynwb: each stream as the type that NWB has for it, validated before it is kept.

Beside them stands the processing module ``neurofmx`` with what NWB has no place for (the stream a series was, its
channels' names, valid time by stream), so that `formats.nwb` gives back the same recording.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile, Refused
from neurofmx.files import clear_faults
from neurofmx.frames import Frames
from neurofmx.ingest.exports.nwb_streams import Placed, place
from neurofmx.types import Events, Intervals, Recording, Samples

# NWB wants a start; the lake keeps none, since archives blur or remove dates
UNKNOWN_START = datetime(2000, 1, 1, tzinfo=UTC)
MODULE = "neurofmx"
_FMRI = ("fmri", "bold")


def export_nwb(recording: Recording, path: Path) -> Path:
    """Writes one recording as one NWB file; times and values are stored exactly as they are.

    Spikes become Units with their observed intervals, voltages ElectricalSeries in volts by a conversion factor
    (integers stay integers), position SpatialSeries, other signals TimeSeries, calcium RoiResponseSeries, events
    BehavioralEvents, tables TimeIntervals, gaps invalid times. A video stays a file, copied beside the NWB file.
    Spikes at the very same time are ordered by unit.

    Args:
        recording: what is written.
        path: the file to make or replace.

    Returns:
        The path.

    Raises:
        Refused: the recording holds fMRI, for which NWB has no sound place, or nothing that can be written.
        MalformedFile: what pynwb wrote does not pass its own validator; nothing is kept.
        NotThere: the file of a video is not in the raw layer.
        NoSpace, Denied: the disk does not take the file; what was there stays.
    """
    fmri = [name for name, stream in recording.streams.items() if stream.modality in _FMRI]
    if fmri:
        raise Refused(
            f"export of {recording.id} to NWB", got=f"fMRI ({', '.join(fmri)})",
            expected="signals that NWB has a type for: it has none for voxels of a scanner",
            fix="Keep it as BIDS, or export to torch-brain or webdataset.",
        )  # fmt: skip
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.nwb")
    with clear_faults(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynwb warns of what is stated in the notes
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            videos = _write(recording, partial, path)
            _validate(partial, path)
            for name, video in videos.items():
                shutil.copyfile(video, path.with_name(name))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def _write(recording: Recording, partial: Path, path: Path) -> dict[str, Path]:
    """Writes the NWB file; returns name -> file of the videos that belong beside it."""
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.file import Subject

    who = recording.subject
    known = {name: getattr(who, name) for name in ("species", "sex", "age") if getattr(who, name)}
    subject: Any = Subject(**{"subject_id": who.id, **known})
    nwb: Any = NWBFile(
        session_description=f"{recording.id}" + (f": {recording.task}" if recording.task else ""),
        identifier=str(recording.id),
        session_start_time=UNKNOWN_START,
        session_id=recording.session or recording.id.name,
        keywords=sorted({s.modality for s in recording.streams.values()}) + [f"licence:{recording.licence.spdx}"],
        related_publications=[recording.provenance.citation] if recording.provenance.citation else None,
        notes=_notes(recording),
        subject=subject,
    )
    placed = [place(nwb, n, s, path.stem) for n, s in recording.streams.items() if _has_rows(s)]
    if not placed:
        raise Refused(f"export of {recording.id} to NWB", got="no row in any stream", expected="at least one")
    _units(nwb, recording)
    _gaps(nwb, placed)
    _describe(nwb, recording, placed)
    with NWBHDF5IO(path=partial, mode="w") as io:
        io.write(container=nwb)
    return {
        one.series.external_file[0]: one.stream.values.original()
        for one in placed
        if isinstance(one.stream, Samples) and isinstance(one.stream.values, Frames)
    }


def _has_rows(stream: Any) -> bool:
    return len(stream.start_s if isinstance(stream, Intervals) else stream.channels) > 0


def _notes(recording: Recording) -> str:
    terms, files = recording.licence, recording.provenance.files
    return "\n".join(
        [
            f"exported by neurofmx from {recording.id}, read by {recording.provenance.reader}",
            f"session_start_time {UNKNOWN_START.isoformat()} is a placeholder: the start is not known; all times are "
            "seconds of the session clock",
            f"licence: {terms.spdx or 'none stated'}; {terms.text}; read from {terms.source or 'nowhere'}"
            + ("" if terms.redistribute else "; these data may not be passed on"),
            f"citation: {recording.provenance.citation or 'none stated'}",
            f"stated alignment error: {recording.clock_error_s:g} s",
            *(f"source: {f.path} {f.url} sha256 {f.sha256} {f.size} bytes" for f in files),
            *(f"note: {note}" for note in recording.provenance.notes),
            *(f"left out: {name}, an empty table" for name, s in recording.streams.items() if not _has_rows(s)),
        ]
    )


def _units(nwb: Any, recording: Recording) -> None:
    """One table of units, whichever stream they are of; a unit was observed while its stream was valid."""
    from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
    from pynwb.misc import Units

    found = {n: s for n, s in recording.streams.items() if isinstance(s, Events) and s.modality == "spikes"}
    names, regions, streams, spikes, ends, observed, observed_ends = [], [], [], [], [], [], []
    for name, stream in found.items():
        codes, times = np.asarray(stream.codes), np.asarray(stream.times_s, np.float64)
        order = np.argsort(codes, kind="stable")
        valid = np.asarray(stream.valid, np.float64).reshape(-1, 2)
        n = len(stream.channels)
        names += stream.channels.ids
        regions += stream.channels.regions
        streams += [name] * n
        spikes.append(times[order])
        ends.append(np.searchsorted(codes[order], np.arange(n), side="right") + sum(map(len, spikes[:-1])))
        observed += [valid] * n
        observed_ends += [len(valid)] * n
    if not names:
        return
    numbers = [int(n) if n.isascii() and n.isdecimal() and str(int(n)) == n else -1 for n in names]
    named = len(set(numbers)) < len(numbers) or -1 in numbers
    times = VectorData(name="spike_times", description="spike times in seconds", data=np.concatenate(spikes))
    seen = VectorData(name="obs_intervals", description="when the unit was observed", data=np.concatenate(observed))
    columns: list[Any] = [
        VectorIndex(name="spike_times_index", data=np.concatenate(ends), target=times), times,
        VectorIndex(name="obs_intervals_index", data=np.cumsum(observed_ends), target=seen), seen,
    ]  # fmt: skip
    for column, text, wanted in (
        ("unit_name", "name of the unit", names if named else []),
        ("brain_area", "anatomical region", regions if any(regions) else []),
        ("stream", "stream of the recording", streams if len(found) > 1 else []),
    ):
        if wanted:
            columns.append(VectorData(name=column, description=text, data=list(wanted)))
    ids = ElementIdentifiers(name="id", data=np.arange(len(names)) if named else numbers)
    nwb.units = Units(name="units", description="sorted units", id=ids, columns=columns)


def _gaps(nwb: Any, placed: list[Placed]) -> None:
    """Time between a series' first and last sample that is not valid, with a reference to the series."""
    for one in placed:
        if not isinstance(one.stream, Samples) or one.series is None or not len(one.stream.values):
            continue
        times = one.stream.times() if one.stream.times_s is not None else None
        first = one.stream.t0_s if times is None else float(times[0])
        rate = float(one.stream.rate_hz or 1.0)
        last = first + len(one.stream.values) / rate if times is None else float(times[-1])
        edges = np.concatenate([[first], np.asarray(one.stream.valid, np.float64).ravel(), [last]]).reshape(-1, 2)
        for start, stop in edges[edges[:, 1] > edges[:, 0]]:
            nwb.add_invalid_time_interval(
                start_time=float(start), stop_time=float(stop), tags=["no valid data"], timeseries=[one.series]
            )


def _describe(nwb: Any, recording: Recording, placed: list[Placed]) -> None:
    """The tables from which the same recording is read again."""
    from hdmf.common import DynamicTable, VectorData

    streams, channels, valid = [], [], []
    for one in placed:
        s, name = one.stream, one.name
        unit = s.unit if isinstance(s, Samples) else "s"
        dtype = str(s.values.dtype) if isinstance(s, Samples) else ""
        streams.append((name, type(s).__name__, s.modality, unit, one.key, dtype))
        valid += [(name, float(lo), float(hi)) for lo, hi in np.asarray(s.valid, np.float64).reshape(-1, 2)]
        if not isinstance(s, Intervals):
            where = s.channels.positions_um
            where = np.full((len(s.channels), 3), np.nan) if where is None else np.asarray(where, np.float64)
            scale, offset = one.scale
            channels += zip([name] * len(s.channels), s.channels.ids, s.channels.regions, *where.T, scale, offset)
    tables = (
        ("streams", "the streams of the recording", ("stream", "kind", "modality", "unit", "object", "dtype"),
         streams),
        ("channels", "the channels of its streams, in order; a value is stored * scale + offset where there is one",
         ("stream", "channel", "region", "x_um", "y_um", "z_um", "scale", "offset"), channels),
        ("valid", "the seconds in which data exist", ("stream", "start_time", "stop_time"), valid),
        ("recording", "the recording as a whole",
         ("start_time", "stop_time", "task", "session", "clock_error_s", "clocks"),
         [(*map(float, recording.domain_s), recording.task, recording.session, float(recording.clock_error_s),
           json.dumps({name: clock.plain() for name, clock in recording.clocks.items()}))]),
    )  # fmt: skip
    module = nwb.create_processing_module(name=MODULE, description="what the file was exported from, for neurofmx")
    for table, text, names, rows in tables:
        if rows:
            columns = [VectorData(name=n, description=n, data=list(v)) for n, v in zip(names, zip(*rows))]
            module.add(DynamicTable(name=table, description=text, columns=columns))


def _validate(partial: Path, path: Path) -> None:
    import pynwb

    errors = pynwb.validate(path=str(partial))
    found = errors[0] if isinstance(errors, tuple) else errors
    if found:
        raise MalformedFile(
            f"{path.name} as NWB", got="; ".join(str(e) for e in found[:3]), expected="a file that pynwb's validator "
            "passes", fix="Report it with the recording's id: this is a fault of the export.",
        )  # fmt: skip
