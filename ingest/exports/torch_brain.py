"""A recording as the HDF5 file of torch_brain (temporaldata), written with h5py alone.

Layout: https://torch-brain.readthedocs.io, `torch_brain.data.Data.to_hdf5` (0.2): one group an object, whose class
is in the attribute ``object``. What that layout has no place for (units, valid time, text beyond ASCII) stands as
JSON in attributes called ``neurofmx``, which torch_brain passes over and `formats.torch_brain` reads back.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from neurofmx.errors import Refused
from neurofmx.files import clear_faults
from neurofmx.frames import Frames
from neurofmx.ingest.formats import spans
from neurofmx.provenance import plain
from neurofmx.types import Channels, Events, Intervals, Recording, Samples, Stream

ABOUT = "neurofmx"  # attribute that holds JSON
TAKEN = ("domain", "brainset", "subject", "session", "units")
_BLOCK = 1 << 24  # values copied at a time
_CLOSE = 1e-6  # of a sample


def export_torch_brain(recording: Recording, path: Path) -> Path:
    """Writes one recording as a file that torch_brain's Dataset opens.

    Spikes are ``spikes`` with ``units``; signals at a rate are RegularTimeSeries from the first valid sample to the
    last, those at stated times IrregularTimeSeries, both with their samples as ``values``; interval tables are
    Interval, whose columns that end in ``_time`` or ``_times`` count as times. Integers with a scale are written in
    their unit. Frames of video and streams without valid time are left out; the file says so.

    Args:
        recording: what is written.
        path: the file to make or replace.

    Returns:
        The path.

    Raises:
        Refused: no stream is left to write.
        NoSpace, Denied: the disk does not take the file; what was there stays.
    """
    import h5py

    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with clear_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with h5py.File(partial, "w") as file:
                _write(file, recording)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def _write(file: Any, recording: Recording) -> None:
    about = plain(recording.provenance) | {
        name: plain(getattr(recording, name))
        for name in ("id", "subject", "domain_s", "licence", "session", "task", "clock_error_s")
    }
    about["clocks"] = {name: clock.plain() for name, clock in recording.clocks.items()}
    left_out = {}
    taken: set[str] = set(TAKEN)
    for name, stream in recording.streams.items():
        if isinstance(stream, Samples) and isinstance(stream.values, Frames):
            left_out[name] = "frames of video stay in their own file"
        elif not len(np.asarray(stream.valid).reshape(-1, 2)):
            left_out[name] = "it has no valid time"
        else:
            key = _free(name, taken)
            _stream(file, key, name, stream)
            taken |= {key, f"{key}_channels", f"{key}_outside"}
    if len(left_out) == len(recording.streams):
        raise Refused(f"export of {recording.id}", got=json.dumps(left_out), expected="a stream with valid time")
    file.attrs["object"], file.attrs["absolute_start"] = "Data", 0.0
    file.attrs[ABOUT] = json.dumps(about | {"left_out": left_out}, sort_keys=True)
    _interval(file.create_group("domain"), np.array([recording.domain_s]))
    _described(file, "brainset", {
        "id": recording.id.dataset, "origin_version": recording.id.version, "derived_version": "neurofmx",
        "source": recording.provenance.files[0].url if recording.provenance.files else recording.id.source,
        "description": recording.provenance.citation or recording.id.source,
    })  # fmt: skip
    who = recording.subject
    _described(file, "subject", {"id": who.id, "species": who.species, "sex": who.sex})
    _described(file, "session", {"id": recording.id.name, "task": recording.task})


def _described(file: Any, name: str, values: dict[str, str]) -> None:
    group = file.create_group(name)
    group.attrs["object"], group.attrs["absolute_start"] = "Data", 0.0
    for key, value in values.items():
        if value:
            group.attrs[key] = value


def _stream(file: Any, key: str, name: str, stream: Stream) -> None:
    group = file.create_group(key)
    valid = np.asarray(stream.valid, np.float64).reshape(-1, 2)
    about: dict[str, Any] = {"stream": name, "kind": type(stream).__name__, "modality": stream.modality,
                             "valid": valid.tolist()}  # fmt: skip
    if isinstance(stream, Intervals):
        about["columns"] = _intervals(group, stream)
    else:
        table = "units" if key == "spikes" else f"{key}_channels"
        about |= {"channels": table, "ids": list(stream.channels.ids), "regions": list(stream.channels.regions)}
        _channels(file.create_group(table), stream.channels)
    if isinstance(stream, Events):
        _irregular(group, np.asarray(stream.times_s, np.float64), valid)
        group.create_dataset("unit_index", data=np.asarray(stream.codes, np.int64))
    elif isinstance(stream, Samples):
        about |= {"unit": stream.unit}
        if stream.times_s is not None:
            _irregular(group, np.asarray(stream.times_s, np.float64), valid)
            _values(group, "values", stream, 0, len(stream.values))
        else:
            about |= {"t0_s": stream.t0_s, "outside": _regular(file, group, stream, valid)}
    group.attrs[ABOUT] = json.dumps(about, sort_keys=True)


def _irregular(group: Any, times_s: np.ndarray, valid: np.ndarray) -> None:
    group.create_dataset("timestamps", data=times_s)
    grid = np.arange(valid[0, 0], valid[-1, 1] + 1.0, 1.0, dtype=np.float64)
    group.create_dataset("timestamp_indices_1s", data=np.searchsorted(times_s, grid))
    _interval(group.create_group("domain"), valid)
    group.attrs["object"] = "IrregularTimeSeries"
    group.attrs["_unicode_keys"] = np.array([], dtype="S1")
    group.attrs["timekeys"] = np.array(["timestamps"], dtype="S")


def _regular(file: Any, group: Any, stream: Samples, valid: np.ndarray) -> str:
    """The class knows a start, a rate and gaps on the grid, and its first and last rows must be real ones.

    Rows before the first valid one and after the last go to a group beside it; returns its name, ``""`` for none.
    """
    rate, t0, n = float(stream.rate_hz or 1.0), stream.t0_s, len(stream.values)
    rows = np.clip(np.ceil((valid - t0) * rate - _CLOSE), 0, n).astype(np.int64)
    rows = spans.merged(rows[rows[:, 1] > rows[:, 0]]).astype(np.int64)
    rows = rows if len(rows) else np.array([[0, n]])
    lo, hi = int(rows[0, 0]), int(rows[-1, 1])
    _interval(group.create_group("domain"), t0 + rows / rate)
    _values(group, "values", stream, lo, hi)
    group.attrs["object"], group.attrs["sampling_rate"] = "RegularTimeSeries", rate
    if (lo, hi) == (0, n):
        return ""
    outside = file.create_group(f"{group.name.strip('/')}_outside")
    outside.attrs["object"], outside.attrs["absolute_start"] = "Data", 0.0
    _values(outside, "before", stream, 0, lo)
    _values(outside, "after", stream, hi, n)
    return outside.name.strip("/")


def _values(group: Any, name: str, stream: Samples, lo: int, hi: int) -> None:
    shape = np.shape(stream.values)
    step = max(1, _BLOCK // max(1, int(np.prod(shape[1:], dtype=np.int64))))
    out = None
    for start in range(lo, max(hi, lo + 1), step):
        block = np.asarray(stream.values[start : min(start + step, hi)])
        if out is None:
            out = group.create_dataset(name, shape=(hi - lo, *shape[1:]), dtype=block.dtype)
        out[start - lo : start - lo + len(block)] = block


def _interval(group: Any, intervals: np.ndarray) -> None:
    group.create_dataset("start", data=intervals[:, 0])
    group.create_dataset("end", data=intervals[:, 1])
    group.attrs["object"] = "Interval"
    group.attrs["_unicode_keys"] = np.array([], dtype="S1")
    group.attrs["timekeys"] = np.array(["start", "end"], dtype="S")


def _intervals(group: Any, stream: Intervals) -> dict[str, Any]:
    """Writes a table; returns key -> the column's own name, and its text where ASCII does not hold it."""
    _interval(group, np.stack([stream.start_s, stream.stop_s], axis=1).astype(np.float64))
    taken, named, text, times = {"start", "end"}, {}, [], ["start", "end"]
    for column, values in stream.columns.items():
        key = _free(column, taken)
        taken.add(key)
        array = np.asarray(values)
        named[key] = {"name": column}
        if array.dtype.kind in "UOS":
            words = [str(v) for v in array.tolist()]
            array = _ascii(words)
            text.append(key)
            if any(not word.isascii() for word in words):
                named[key]["text"] = words
        elif array.dtype.kind == "f" and column.endswith(("_time", "_times")):
            times.append(key)
        group.create_dataset(key, data=array)
    group.attrs["_unicode_keys"] = np.array(text, dtype="S")
    group.attrs["timekeys"] = np.array(times, dtype="S")
    return named


def _channels(group: Any, channels: Channels) -> None:
    group.create_dataset("id", data=_ascii(channels.ids))
    group.create_dataset("brain_region", data=_ascii(channels.regions))
    if channels.positions_um is not None:
        for axis, values in zip("xyz", np.asarray(channels.positions_um, np.float64).T):
            group.create_dataset(f"{axis}_um", data=values)
    group.attrs["object"] = "ArrayDict"
    group.attrs["_unicode_keys"] = np.array(["id", "brain_region"], dtype="S")


def _ascii(words: Any) -> np.ndarray:
    """Fixed-length ASCII, at least one byte wide: torch_brain decodes nothing else."""
    array = np.array([str(word).encode("ascii", "backslashreplace") for word in words], dtype="S")
    return array.astype("S1") if array.dtype.itemsize == 0 or not array.size else array


def _free(name: str, taken: set[str]) -> str:
    key = name.replace("/", "_")
    while {key, f"{key}_channels", f"{key}_outside"} & taken:
        key += "_"
    return key
