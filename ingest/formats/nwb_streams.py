"""The time series of an NWB file as streams: what each is, its unit, its clock and its channels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import MalformedFile
from neurofmx.frames import COLOURS
from neurofmx.ingest.formats import spans
from neurofmx.ingest.formats.rows import Rows
from neurofmx.ingest.formats.video import Opener
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Events, Samples, Stream, sanitise

# what a series' name says it is: the first word that fits
_WORDS = (
    ("spectrogram", "spectrogram"),
    ("emg", "emg"),
    ("ecog", "ecog"),
    ("ieeg", "ecog"),
    ("eeg", "eeg"),
    ("lfp", "lfp"),
    ("force", "force"),
    ("torque", "force"),
    ("sound", "sound"),
    ("audio", "sound"),
    ("microphone", "sound"),
    ("running", "running"),
    ("speed", "running"),
    ("wheel", "wheel"),
    ("pupil", "pupil"),
    ("position", "position"),
    ("hand", "position"),
    ("cursor", "position"),
)
_UNITS = {
    "pixels": "px", "pixel": "px", "meters": "m", "meter": "m", "metres": "m", "centimeters": "cm", "radians": "rad",
    "volts": "V", "volt": "V", "millivolts": "mV", "millivolt": "mV", "microvolts": "uV", "microvolt": "uV",
    "µV": "uV", "amperes": "A", "lumens": "a.u.", "n.a.": "a.u.", "au": "a.u.", "seconds": "s", "degrees": "deg",
}  # fmt: skip
_IN_UV = {"V": 1e6, "mV": 1e3, "uV": 1.0}
_AXES = ("x", "y", "z")
_SMALL = 4 << 20  # bytes that are read at once: no file stays open for them


def series(nwb: Any, path: str, notes: list[str], frames: Opener) -> dict[str, Stream]:
    """Every time series of a file; images inside it and stimulus templates are left out.

    Args:
        nwb: the open file.
        path: its name, for messages.
        notes: takes one sentence for each thing that was left out.
        frames: opens a video that lies beside the file.

    Returns:
        Stream name -> stream: the modality, followed by the series' own name where several share one.

    Raises:
        MalformedFile: a series has no clock, or more time stamps than samples.
    """
    from pynwb.base import TimeSeries
    from pynwb.image import ImageSeries, IndexSeries

    found = []
    templates = set(map(id, nwb.stimulus_template.values()))
    held: list[Any] = sorted((o for o in nwb.objects.values() if isinstance(o, TimeSeries)), key=_where)
    for item in held:
        if id(item) not in templates and (film := _video(item, path, frames)) is not None:
            found.append(("video", item.name, film))
        elif isinstance(item, (ImageSeries, IndexSeries)) or id(item) in templates:
            notes.append(f"{_where(item)}: {type(item).__name__} left out")
        elif item.data is None or np.ndim(item.data) == 0 or not len(item.data):
            notes.append(f"{_where(item)}: no samples")
        else:
            modality = _modality(item)
            stream = _events(item, modality) if _is_events(item) else _samples(item, modality, path)
            found.append((modality, item.name, stream))
            comments = str(getattr(item, "comments", "") or "")
            if comments not in ("", "no comments"):  # pynwb's own words for none
                notes.append(f"{_where(item)}: {' '.join(comments.split())[:240]}")
    shared = Counter(modality for modality, _, _ in found)
    names = [modality if shared[modality] == 1 else f"{modality}_{sanitise(name)}" for modality, name, _ in found]
    repeated = Counter(names)
    return {
        name if repeated[name] == 1 else f"{name}_{number}": stream
        for number, (name, (_, _, stream)) in enumerate(zip(names, found), 1)
    }


def _video(item: Any, path: str, frames: Opener) -> Samples | None:
    """An image series whose frames are a video file beside this one, on the times that this one states."""
    files = list(item.external_file or ()) if item.neurodata_type == "ImageSeries" else []
    values = frames(str(files[0])) if len(files) == 1 else None
    if values is None:
        return None
    if item.timestamps is not None:
        times = np.asarray(item.timestamps[:], np.float64)
        if len(times) != len(values):
            raise MalformedFile(
                f"{_where(item)} of {path}", got=f"{len(times)} time stamps", expected=f"{len(values)}, one a frame"
            )
    else:  # the rate is nominal, the file's own stamps tell of frames that were dropped
        times = float(item.starting_time or 0.0) + (values.index.times_s() - values.index.times_s()[0])
    return Samples(
        values=values, unit="a.u.", channels=Channels(ids=COLOURS), modality="video", valid=spans.stamped(times),
        times_s=times,
    )  # fmt: skip


def _where(item: Any) -> str:
    parts: list[str] = []
    node = item
    while node is not None and node.parent is not None:
        parts.append(node.name)
        node = node.parent
    return "/".join(reversed(parts))


def _modality(item: Any) -> str:
    kind, holder = item.neurodata_type, getattr(item.parent, "neurodata_type", "")
    if kind == "SpatialSeries":
        return {"EyeTracking": "gaze", "CompassDirection": "head_direction"}.get(holder, "position")
    if kind == "RoiResponseSeries":
        return "calcium"
    if holder == "PupilTracking":
        return "pupil"
    name = item.name.lower()
    word = next((modality for word, modality in _WORDS if word in name), "")
    if kind == "ElectricalSeries":
        return word if word in ("emg", "ecog", "eeg", "lfp") else "lfp" if holder == "LFP" else "ecephys"
    return word or sanitise(item.name).lower()


def _is_events(item: Any) -> bool:
    return getattr(item.parent, "neurodata_type", "") == "BehavioralEvents" and item.timestamps is not None


def _events(item: Any, modality: str) -> Events:
    times = np.asarray(item.timestamps[:], np.float64)
    valid = np.array([[times.min(), times.max()]]) if len(times) else np.empty((0, 2))
    return Events(
        times_s=times,
        codes=np.zeros(len(times), np.int32),
        channels=Channels(ids=(item.name,)),
        modality=modality,
        valid=valid,
    )


def _samples(item: Any, modality: str, path: str) -> Samples:
    values, unit = _scaled(item)
    n = len(values)
    channels = _channels(item, modality, values)
    if item.timestamps is not None:
        times = np.asarray(item.timestamps[:], np.float64)
        if len(times) != n:
            raise MalformedFile(
                f"{_where(item)} of {path}", got=f"{len(times)} time stamps", expected=f"{n}, one a sample"
            )
        valid = spans.stamped(times, spans.finite_rows(values))
        return Samples(values=values, unit=unit, channels=channels, modality=modality, valid=valid, times_s=times)
    if not item.rate or item.rate <= 0:
        raise MalformedFile(f"{_where(item)} of {path}", got=f"rate {item.rate}", expected="a rate above 0 Hz")
    rate, t0 = float(item.rate), float(item.starting_time or 0.0)
    known = spans.finite_rows(values)
    valid = spans.whole(n, rate, t0) if known.all() else spans.stamped(t0 + np.arange(n) / rate, known)
    return Samples(values=values, unit=unit, channels=channels, modality=modality, valid=valid, rate_hz=rate, t0_s=t0)


def _scaled(item: Any) -> tuple[Any, str]:
    """Values in the stated unit; an electrode's volts become uV in float32, all else stays as exact as it is.

    Integers stay integers beside what makes them physical; what is large stays in the file until it is asked for.
    """
    raw = _stored(item.data)
    # what the file itself says: pynwb answers "volts" for any ElectricalSeries
    stated = item.data.attrs.get("unit", item.unit) if hasattr(item.data, "attrs") else item.unit
    unit = _UNITS.get(str(stated), str(stated))
    factor, offset = float(item.conversion or 1.0), float(item.offset or 0.0)
    electrode = item.neurodata_type == "ElectricalSeries"
    gain = np.asarray(item.channel_conversion[:]) if electrode and item.channel_conversion is not None else 1.0
    exact = np.dtype(np.float32 if raw.dtype.itemsize <= 2 else np.float64)
    if electrode and unit in ("V", "uV"):
        gain, offset, unit, exact = gain * _IN_UV[unit], offset * _IN_UV[unit], "uV", np.dtype(np.float32)
    elif factor == 1.0 and offset == 0.0 and np.all(gain == 1.0):
        return raw, unit
    return _physical(raw, np.asarray(factor * gain, np.float64), offset, exact), unit


def _stored(data: Any) -> Any:
    """The numbers as the file has them; a large dataset stays in the file, which stays open for it."""
    if not hasattr(data, "chunks") or data.size * data.dtype.itemsize <= _SMALL:
        return np.asarray(data[:])
    import h5py

    kept = h5py.File(data.file.filename, "r")[data.name]
    assert isinstance(kept, h5py.Dataset)

    def read(lo: int, hi: int) -> np.ndarray:
        try:
            return np.asarray(kept[lo:hi])
        except OSError as error:
            raise MalformedFile(
                f"{kept.name} of {Path(kept.file.filename).name}", got=str(error), expected="rows that can be decoded",
                fix="Fetch it again, or ask its authors.",
            ) from error  # fmt: skip

    return Rows(kept.shape, kept.dtype, read)


def _physical(raw: Any, scale: np.ndarray, offset: float, exact: np.dtype) -> Any:
    """``raw * scale + offset`` as ``exact``, worked out when rows are asked for."""
    wide = raw.shape[1] if raw.ndim == 2 else 1
    if raw.dtype.kind in "iu" and raw.ndim <= 2:
        return Scaled(raw, np.broadcast_to(scale, (wide,)).copy(), np.full(wide, offset), exact)

    def read(lo: int, hi: int) -> np.ndarray:
        return (raw[lo:hi] * scale + offset).astype(exact)

    return Rows(raw.shape, exact, read) if isinstance(raw, Rows) else read(0, len(raw))


def _channels(item: Any, modality: str, values: Any) -> Channels:
    n = values.shape[1] if values.ndim > 1 else 1
    region = getattr(item, "electrodes", None) if item.neurodata_type == "ElectricalSeries" else None
    if region is not None:
        rows, table = np.asarray(region.data[:], np.int64), region.table
        ids = tuple(str(table.id[int(r)]) for r in rows)
        locations = [str(v) for v in table["location"].data[:]]
        return Channels(ids=ids, regions=tuple(locations[r] for r in rows), positions_um=_positions(table, rows))
    if item.neurodata_type == "RoiResponseSeries" and item.rois is not None and len(item.rois.data) == n:
        ids = tuple(str(item.rois.table.id[int(r)]) for r in item.rois.data[:])
        place = getattr(getattr(item.rois.table, "imaging_plane", None), "location", "") or ""
        return Channels(ids=ids, regions=(place,) * n)
    if n == 1:
        return Channels(ids=(modality if values.ndim == 1 else "0",))
    if item.neurodata_type == "SpatialSeries" and n <= len(_AXES):
        return Channels(ids=_AXES[:n])
    return Channels(ids=tuple(str(i) for i in range(n)))


def _positions(table: Any, rows: np.ndarray) -> np.ndarray | None:
    """(C, 3) um where the electrode table has them."""
    for names in (("x", "y", "z"), ("rel_x", "rel_y", "rel_z")):
        if names[0] in table.colnames and names[1] in table.colnames:
            columns = [
                np.asarray(table[name].data[:], np.float64)[rows]
                if name in table.colnames
                else np.full(len(rows), np.nan)
                for name in names
            ]
            return np.stack(columns, axis=1)
    return None
