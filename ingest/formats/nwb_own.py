"""NWB files that `exports.nwb` wrote: the same recording again, by the tables that it left in them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from neurofmx.clock import ClockMap
from neurofmx.scaled import Scaled
from neurofmx.types import Channels, Events, Intervals, Samples, Stream

MODULE = "neurofmx"


def is_own(nwb: Any) -> bool:
    """Whether an open NWB file was exported here."""
    return MODULE in nwb.processing and "streams" in nwb.processing[MODULE].data_interfaces


def about(nwb: Any) -> dict[str, Any]:
    """Domain, task, session and clocks of the recording, as fields of `Recording`."""
    row = _rows(nwb, "recording")
    return {
        "domain_s": (float(row["start_time"][0]), float(row["stop_time"][0])),
        "task": str(row["task"][0]),
        "session": str(row["session"][0]),
        "clock_error_s": float(row["clock_error_s"][0]),
        "clocks": {name: ClockMap.from_plain(clock) for name, clock in json.loads(row["clocks"][0]).items()},
    }


def streams(nwb: Any, table: Any, frames: Any) -> dict[str, Stream]:
    """Every stream of the file, as it was when it was exported.

    Args:
        nwb: the open file.
        table: reads an interval table of the file.
        frames: file name -> frames of the video beside the file, or None where it is not there.
    """
    objects = {item.name: item for item in nwb.objects.values() if item.name}
    rows, channels, valid = (_rows(nwb, name) for name in ("streams", "channels", "valid"))
    found: dict[str, Stream] = {}
    listed = zip(*(rows[c] for c in ("stream", "kind", "modality", "unit", "object", "dtype")))
    for name, kind, modality, unit, key, dtype in listed:
        mine = valid["stream"] == name
        spans = np.stack([valid["start_time"][mine], valid["stop_time"][mine]], axis=1)
        if kind == "Intervals":
            found[name] = _intervals(table(objects[key]), objects[key], modality, spans)
            continue
        mine = channels["stream"] == name
        own = {column: values[mine] for column, values in channels.items()}
        named = _channels(own)
        if kind == "Events":
            times, codes = _spikes(nwb.units, name) if modality == "spikes" else _events(objects[key])
            found[name] = Events(times_s=times, codes=codes, channels=named, modality=modality, valid=spans)
        elif (samples := _samples(objects[key], own, dtype, frames)) is not None:
            found[name] = Samples(**samples, unit=unit, channels=named, modality=modality, valid=spans)
    return found


def _rows(nwb: Any, table: str) -> dict[str, np.ndarray]:
    held = nwb.processing[MODULE]
    if table not in held.data_interfaces:
        return {c: np.empty(0) for c in ("stream", "channel", "region", "start_time", "stop_time")}
    return {name: np.asarray(held[table][name].data[:]) for name in held[table].colnames}


def _channels(own: dict[str, np.ndarray]) -> Channels:
    where = np.stack([own[f"{axis}_um"] for axis in "xyz"], axis=1) if len(own["channel"]) else np.empty((0, 3))
    return Channels(
        ids=tuple(map(str, own["channel"])),
        regions=tuple(map(str, own["region"])),
        positions_um=None if np.isnan(where).all() else where,
    )


def _spikes(units: Any, stream: str) -> tuple[np.ndarray, np.ndarray]:
    ends = np.asarray(units["spike_times"].data[:], np.int64)
    times = np.asarray(units["spike_times"].target.data[:], np.float64)
    codes = np.repeat(np.arange(len(ends), dtype=np.int32), np.diff(ends, prepend=0))
    if "stream" in units.colnames:
        mine = np.asarray(units["stream"].data[:]) == stream
        kept = mine[codes]
        times, codes = times[kept], (np.cumsum(mine) - 1)[codes[kept]].astype(np.int32)
    order = np.argsort(times, kind="stable")
    return times[order], codes[order]


def _events(item: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(item.timestamps[:], np.float64), np.asarray(item.data[:], np.int32)


def _intervals(table: Intervals, item: Any, modality: str, valid: np.ndarray) -> Intervals:
    # a column's description is its own name, which NWB may not allow
    columns = {str(item[name].description) if name != "tags" else name: v for name, v in table.columns.items()}
    return Intervals(start_s=table.start_s, stop_s=table.stop_s, columns=columns, modality=modality, valid=valid)


def _samples(item: Any, own: dict[str, np.ndarray], dtype: str, frames: Any) -> dict[str, Any] | None:
    clock: dict[str, Any] = (
        {"rate_hz": float(item.rate), "t0_s": float(item.starting_time)}
        if item.timestamps is None
        else {"times_s": np.asarray(item.timestamps[:], np.float64)}
    )
    if item.neurodata_type == "ImageSeries":
        values = frames(item.external_file[0])
        return None if values is None else {"values": values, **clock}
    values: Any = np.asarray(item.data[:])
    if not np.isnan(own["scale"]).any():
        values = Scaled(values, own["scale"], own["offset"], np.dtype(dtype))
    return {"values": values, **clock}
