"""NWB files, with pynwb: units, signals and interval tables on the file's own clock."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.ingest.formats import nwb_own, nwb_streams, spans, video
from neurofmx.ingest.formats.assemble import assemble, extent
from neurofmx.ingest.sessions import Session
from neurofmx.types import Channels, Events, Intervals, RawFile, Recording, Stream, Subject

_REGION_COLUMNS = ("brain_area", "brain_region", "region", "location", "area", "acronym")
_SHARED_ENOUGH = 0.8  # of the time in which any unit was observed


def read(root: Path, session: Session, files: tuple[RawFile, ...]) -> Recording:
    """Reads one NWB file.

    Args:
        root: folder in which the file has its own relative name.
        session: what the archive says of it.
        files: the file; spike times are kept as they are, voltages of electrodes become uV, other units stay.

    Raises:
        MalformedFile: the file is no NWB file, is damaged, or its tables contradict themselves.
    """
    import h5py
    from hdmf.build.errors import ConstructError
    from pynwb import NWBHDF5IO

    path = root / files[0].path
    notes: list[str] = []
    try:
        with warnings.catch_warnings(), h5py.File(path, "r") as handle:
            # pynwb warns of its own cached schemas and of what the checks of the recording judge by value
            warnings.simplefilter("ignore")
            with NWBHDF5IO(file=handle, mode="r") as io:
                nwb: Any = io.read()
                frames = video.beside(root, files, notes)
                own = nwb_own.about(nwb) if nwb_own.is_own(nwb) else {}
                if own:
                    streams = nwb_own.streams(nwb, lambda table: _table(table, notes), frames)
                else:
                    streams = _streams(nwb, files[0].path, notes, frames)
                subject, label = _subject(nwb), str(nwb.session_id or "")
                notes.insert(0, f"the file says: {' '.join(str(nwb.session_description).split())[:240]}")
    except (OSError, TypeError, ValueError, KeyError, AttributeError, IndexError, ConstructError) as error:
        raise MalformedFile(
            f"{files[0].path}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            expected="an NWB file that pynwb can read",
            fix="Fetch it again, or ask its authors.",
        ) from error
    return replace(assemble(session, files, streams, subject=subject, label=label, notes=notes), **own)


def _streams(nwb: Any, path: str, notes: list[str], frames: video.Opener) -> dict[str, Stream]:
    from pynwb.epoch import TimeIntervals

    streams: dict[str, Stream] = nwb_streams.series(nwb, path, notes, frames)
    tables = {}
    for table in sorted((o for o in nwb.objects.values() if isinstance(o, TimeIntervals)), key=lambda t: t.name):
        tables[table.name] = _table(table, notes)
    invalid = tables.pop("invalid_times", None)
    streams |= {name if name not in streams else f"{name}_intervals": table for name, table in tables.items()}
    if nwb.units is not None and "spike_times" in nwb.units.colnames:
        streams |= _units(nwb.units, path, extent(streams.values()), notes)
    span = np.array([extent(streams.values())])
    for name, stream in streams.items():
        valid = span if isinstance(stream, Intervals) else stream.valid
        if invalid is not None:
            valid = spans.without(valid, np.stack([invalid.start_s, invalid.stop_s], axis=1))
        streams[name] = replace(stream, valid=valid)
    return streams


def _subject(nwb: Any) -> Subject | None:
    if nwb.subject is None or not nwb.subject.subject_id:
        return None
    return Subject(
        id=str(nwb.subject.subject_id),
        species=str(nwb.subject.species or ""),
        sex=str(nwb.subject.sex or ""),
        age=str(nwb.subject.age or ""),
    )


def _units(units: Any, path: str, span: tuple[float, float], notes: list[str]) -> dict[str, Stream]:
    """All spikes in one pass over the flat columns, never unit by unit."""
    index = np.asarray(units["spike_times"].data[:], np.int64)
    times = np.asarray(units["spike_times"].target.data[:], np.float64)
    if len(index) and (np.any(np.diff(index) < 0) or index[-1] != len(times)):
        raise MalformedFile(
            f"units table of {path}", got=f"an index that ends at {index[-1]}", expected=f"{len(times)} spike times"
        )
    codes = np.repeat(np.arange(len(index), dtype=np.int32), np.diff(index, prepend=0))
    within = codes[1:] == codes[:-1]
    if np.all(np.isfinite(times)) and np.all(np.diff(times)[within] >= 0):
        order = np.argsort(times, kind="stable")
        times, codes = times[order], codes[order]
    # else: left as the file has them, unit after unit, so that the checks can name the units that are wrong
    channels = Channels(ids=tuple(str(i) for i in units.id[:]), regions=_regions(units, len(index)))
    spikes = Events(times_s=times, codes=codes, channels=channels, modality="spikes", valid=np.empty((0, 2)))
    if "obs_intervals" not in units.colnames:
        finite = times[np.isfinite(times)]
        ends = [*span, *((finite.min(), finite.max()) if len(finite) else ())]
        notes.append("units: no obs_intervals in the file, taken as observed throughout")
        return {"spikes": replace(spikes, valid=np.array([[min(ends), max(ends)]]))}
    return _observed(spikes, *_obs_intervals(units), notes)


def _obs_intervals(units: Any) -> tuple[np.ndarray, np.ndarray]:
    """(M, 2) seconds in which a unit was observed, and (M,) the unit."""
    index = np.asarray(units["obs_intervals"].data[:], np.int64)
    observed = np.asarray(units["obs_intervals"].target.data[:], np.float64).reshape(-1, 2)
    return observed, np.repeat(np.arange(len(index)), np.diff(index, prepend=0))


def _observed(spikes: Events, observed: np.ndarray, owner: np.ndarray, notes: list[str]) -> dict[str, Stream]:
    """One stream where the units were observed together; one for each set of intervals where they were not.

    An absent trial is not zero spikes: time in which only some units were observed is not valid.
    """
    sets: dict[bytes, list[int]] = {}
    bounds = np.searchsorted(owner, np.arange(len(spikes.channels) + 1))
    for unit, (lo, hi) in enumerate(zip(bounds[:-1], bounds[1:])):
        sets.setdefault(observed[lo:hi].tobytes(), []).append(unit)
    if len(sets) == 1:
        return {"spikes": replace(spikes, valid=spans.merged(observed[: bounds[1]]))}
    shared = spans.common(observed, owner, len(spikes.channels))
    total = _seconds(spans.merged(observed))
    if _seconds(shared) >= _SHARED_ENOUGH * total:
        notes.append(
            f"units: observed at {len(sets)} different sets of intervals; valid is the {_seconds(shared):g} s of "
            f"{total:g} s in which all {len(spikes.channels)} were"
        )
        return {"spikes": replace(spikes, valid=shared)}
    notes.append(f"units: observed at {len(sets)} different sets of intervals; one stream for each")
    found: dict[str, Stream] = {}
    for number, members in enumerate(sets.values(), 1):
        keep = np.isin(spikes.codes, members)
        rows = np.full(len(spikes.channels), -1, np.int32)
        rows[members] = np.arange(len(members))
        found[f"spikes_{number}"] = replace(
            spikes,
            times_s=spikes.times_s[keep],
            codes=rows[spikes.codes[keep]],
            channels=Channels(
                ids=tuple(spikes.channels.ids[m] for m in members),
                regions=tuple(spikes.channels.regions[m] for m in members),
            ),
            valid=spans.merged(observed[bounds[members[0]] : bounds[members[0] + 1]]),
        )
    return found


def _seconds(intervals: np.ndarray) -> float:
    return float(np.sum(intervals[:, 1] - intervals[:, 0]))


def _regions(units: Any, n: int) -> tuple[str, ...]:
    for column in _REGION_COLUMNS:
        if column in units.colnames:
            return tuple(str(v) for v in units[column].data[:])
    if "electrodes" in units.colnames:
        index = np.asarray(units["electrodes"].data[:], np.int64)
        rows = np.asarray(units["electrodes"].target.data[:], np.int64)
        locations = [str(v) for v in units["electrodes"].target.table["location"].data[:]]
        starts = np.concatenate([[0], index[:-1]])
        return tuple(locations[rows[lo]] if hi > lo else "" for lo, hi in zip(starts, index))
    if "electrode_group" in units.colnames:
        return tuple(str(group.location or "") for group in units["electrode_group"].data[:])
    return ("",) * n


def _table(table: Any, notes: list[str]) -> Intervals:
    columns: dict[str, np.ndarray] = {}
    for name in table.colnames:
        if name in ("start_time", "stop_time"):
            continue
        values = _column(table[name])
        if values is None:
            notes.append(f"{table.name}.{name}: left out, neither one number nor text a row")
        elif values.ndim == 2:
            columns |= {f"{name}_{i}": values[:, i] for i in range(values.shape[1])}
        else:
            columns[name.replace("/", "_")] = values
    return Intervals(
        start_s=np.asarray(table["start_time"].data[:], np.float64),
        stop_s=np.asarray(table["stop_time"].data[:], np.float64),
        columns=columns,
        modality="trials" if table.name == "trials" else "epochs",
        valid=np.empty((0, 2)),
    )


def _column(column: Any) -> np.ndarray | None:
    """(N,) or (N, K) numbers or text of a table's column; ragged text is joined by commas."""
    from hdmf.common import DynamicTableRegion, VectorIndex

    if isinstance(column, VectorIndex):
        if isinstance(column.target, (VectorIndex, DynamicTableRegion)):
            return None
        flat = np.asarray(column.target.data[:])
        if flat.dtype.kind not in "OUS" or any(not isinstance(v, (str, bytes)) for v in flat.tolist()):
            return None
        ends = np.asarray(column.data[:], np.int64).tolist()
        return np.array([",".join(map(_text, flat[lo:hi])) for lo, hi in zip([0, *ends], ends)], dtype=str)
    if isinstance(column, DynamicTableRegion):
        return None
    values = np.asarray(column.data[:])
    if values.dtype.kind in "OS":
        if any(not isinstance(v, (str, bytes)) for v in values.ravel().tolist()):
            return None
        values = np.array([_text(v) for v in values.ravel()], dtype=str).reshape(values.shape)
    return values if values.ndim in (1, 2) and values.dtype.kind in "biufU" else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
