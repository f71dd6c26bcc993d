"""Recordings and token grids as arrays plus JSON, and back; and their catalog rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from neurofmx import shards
from neurofmx.clock import ClockMap
from neurofmx.config import from_plain
from neurofmx.errors import LakeCorrupt, MalformedFile, Newer
from neurofmx.frames import FrameIndex, Frames
from neurofmx.lazy import LazyRows, TimeIndex
from neurofmx.provenance import canonical_json, digest_array, digest_of, digest_rows, plain
from neurofmx.scaled import Scaled
from neurofmx.shards import ArrayFiles, ShardedArray
from neurofmx.types import (
    Channels,
    Events,
    Intervals,
    Licence,
    Provenance,
    Recording,
    RecordingId,
    Samples,
    Stream,
    Subject,
    TokenGrid,
)

SCHEMA = 2  # 1 digested whole arrays at once, and had neither integers with a law nor an index of times
BY_TIME = "rows_by_time"

OpenArray = Callable[[Path], ShardedArray]


def pack_recording(recording: Recording) -> tuple[dict[str, Any], dict[str, Any]]:
    """Lays a recording out as named arrays, lazy ones unread, and JSON attributes."""
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for name, stream in sorted(recording.streams.items()):
        own, about = _pack_stream(stream)
        arrays |= {f"{name}/{key}": value for key, value in own.items()}
        described[name] = about
    meta = {
        name: plain(getattr(recording, name))
        for name in ("id", "subject", "domain_s", "provenance", "licence", "session", "task", "clock_error_s")
    }
    if recording.clocks:
        meta["clocks"] = {name: clock.plain() for name, clock in sorted(recording.clocks.items())}
    return arrays, {"schema": SCHEMA, "recording": meta, "streams": described}


def stream_digests(attributes: Mapping[str, Any], arrays: Mapping[str, str]) -> dict[str, str]:
    """One digest a stream.

    Args:
        attributes: of a recording, as `pack_recording` gives them.
        arrays: name -> digest of each array.
    """
    own: dict[str, dict[str, str]] = {name: {} for name in attributes["streams"]}
    for array, digest in sorted(arrays.items()):
        stream = _stream_of(array, own)
        own[stream][array.removeprefix(f"{stream}/")] = digest
    return {name: digest_of({"about": attributes["streams"][name], "arrays": own[name]}) for name in own}


def _stream_of(array: str, streams: Iterable[str]) -> str:
    """The stream that an array belongs to: the longest, where one stream's name begins with another's."""
    found = max((name for name in streams if array.startswith(f"{name}/")), key=len, default=None)
    if found is None:
        raise LakeCorrupt(f"array {array}", got="in no stream", expected=f"one of {sorted(streams)}")
    return found


def _pack_stream(stream: Stream) -> tuple[dict[str, Any], dict[str, Any]]:
    about: dict[str, Any] = {"kind": type(stream).__name__, "modality": stream.modality}
    arrays: dict[str, Any] = {"valid": np.asarray(stream.valid, np.float64).reshape(-1, 2)}
    if isinstance(stream, Intervals):
        arrays |= {"start_s": np.asarray(stream.start_s, np.float64), "stop_s": np.asarray(stream.stop_s, np.float64)}
        about["columns"] = {}
        for column, values in stream.columns.items():
            values = np.asarray(values)
            if values.dtype.kind in "UOS":  # text is stored as rows of a list of its values
                words, rows = np.unique([str(v) for v in values.tolist()], return_inverse=True)
                about["columns"][column] = {"words": [str(w) for w in words]}
                values = rows.astype(np.int32)
            else:
                about["columns"][column] = {}
            arrays[f"columns/{column}"] = values
        return arrays, about
    about["channels"] = {"ids": list(stream.channels.ids), "regions": list(stream.channels.regions)}
    if stream.channels.positions_um is not None:
        arrays["positions_um"] = np.asarray(stream.channels.positions_um, np.float64)
    if isinstance(stream, Events):
        arrays |= _pack_times(stream.times_s, about) | {"codes": np.asarray(stream.codes, np.int32)}
        return arrays, about
    about |= {"unit": stream.unit, "rate_hz": stream.rate_hz, "t0_s": stream.t0_s}
    if isinstance(stream.values, Frames):  # the file is in raw/: here is where its frames are
        index = stream.values.index
        about["frames"] = {name: plain(getattr(index, name)) for name in ("sha256", "path", "shape", "time_base")}
        arrays |= {"pts": index.pts, "keyframes": index.keyframes, "times_s": np.asarray(stream.times_s, np.float64)}
        return arrays, about
    values = stream.values if hasattr(stream.values, "dtype") else np.asarray(stream.values)
    if isinstance(values, Scaled):  # the integers are kept, and the law beside them
        about |= {"scale": values.scale.tolist(), "offset": values.offset.tolist(), "reads_as": values.dtype.name}
        values = values.values
    if values.dtype.kind not in "iufb":
        raise MalformedFile(f"samples of {stream.modality}", got=str(values.dtype), expected="numbers")
    arrays["values"] = values
    if stream.times_s is not None:
        arrays |= _pack_times(stream.times_s, about)
    return arrays, about


def _pack_times(times_s: Any, about: dict[str, Any]) -> dict[str, np.ndarray]:
    times = np.asarray(times_s, np.float64)
    index = TimeIndex.of(times)
    if index is None:
        return {"times_s": times}
    about[BY_TIME] = {"t0_s": index.t0_s, "step_s": index.step_s}
    return {"times_s": times, BY_TIME: index.first}


def open_recording(path: Path, raw: Path | None = None, open_array: OpenArray = shards.open_array) -> Recording:
    """Opens a group written by `pack_recording`, reading only small arrays at once.

    Args:
        path: the group.
        raw: folder of the raw layer, from which frames of video are decoded.
        open_array: opens an array of the group by its folder.

    Raises:
        LakeCorrupt: the group is damaged.
        Newer: a newer version of this code wrote it.
    """
    about = _about(shards.read_attributes(path), path)
    meta = about["recording"]
    return Recording(
        id=RecordingId(**meta["id"]),
        streams={name: _open_stream(path / name, said, raw, open_array) for name, said in about["streams"].items()},
        subject=Subject(**meta["subject"]),
        domain_s=(float(meta["domain_s"][0]), float(meta["domain_s"][1])),
        provenance=from_plain(Provenance, meta["provenance"]),
        licence=Licence(**meta["licence"]),
        session=meta["session"],
        task=meta["task"],
        clock_error_s=float(meta["clock_error_s"]),
        clocks={name: ClockMap.from_plain(clock) for name, clock in meta.get("clocks", {}).items()},
    )


def _about(attributes: dict[str, Any], path: Path) -> dict[str, Any]:
    about = attributes.get("neurofmx", {})
    if about.get("schema", 0) > SCHEMA:
        raise Newer(f"group {path}", got=f"schema {about['schema']}", expected=f"schema {SCHEMA} or older",
                    fix="Update neurofmx.")  # fmt: skip
    return about


def _open_stream(path: Path, about: dict[str, Any], raw: Path | None, open_array: OpenArray) -> Stream:
    def read(name: str) -> np.ndarray:
        return np.asarray(open_array(path / name))

    def lazy(name: str) -> np.ndarray:
        law = about.get(BY_TIME)
        index = TimeIndex(open_array(path / BY_TIME), **law) if law and name == "times_s" else None
        return cast(np.ndarray, LazyRows(open_array(path / name), index))  # stands for one

    modality, valid = about["modality"], read("valid")
    if about["kind"] == "Intervals":
        columns = {}
        for column, detail in about["columns"].items():
            values = read(f"columns/{column}")
            columns[column] = np.array(detail["words"], dtype=str)[values] if "words" in detail else values
        return Intervals(
            start_s=read("start_s"), stop_s=read("stop_s"), columns=columns, modality=modality, valid=valid
        )
    positions = read("positions_um") if (path / "positions_um").exists() else None
    channels = Channels(
        ids=tuple(about["channels"]["ids"]), regions=tuple(about["channels"]["regions"]), positions_um=positions
    )
    if about["kind"] == "Events":
        return Events(times_s=lazy("times_s"), codes=lazy("codes"), channels=channels, modality=modality, valid=valid)
    if "frames" in about:
        values: Any = _open_frames(read, about["frames"], raw)
    else:
        values = open_array(path / "values")
    if "scale" in about:
        values = Scaled(values, np.array(about["scale"]), np.array(about["offset"]), np.dtype(about["reads_as"]))
    return Samples(
        values=values,
        unit=about["unit"],
        channels=channels,
        modality=modality,
        valid=valid,
        rate_hz=about["rate_hz"],
        t0_s=about["t0_s"],
        times_s=lazy("times_s") if about["rate_hz"] is None else None,
    )


def _open_frames(read: Callable[[str], np.ndarray], about: dict[str, Any], raw: Path | None) -> Frames:
    index = FrameIndex(
        pts=read("pts"), keyframes=read("keyframes"), sha256=about["sha256"], path=about["path"],
        time_base=(about["time_base"][0], about["time_base"][1]), shape=tuple(about["shape"]),
    )  # fmt: skip
    return Frames(index, raw / index.sha256[:2] / index.sha256 if raw else None)


def pack_grid(grid: TokenGrid) -> tuple[dict[str, Any], dict[str, Any]]:
    """Lays a token grid out as arrays and JSON attributes."""
    about = {
        "schema": SCHEMA, "t0_s": grid.t0_s, "dt_s": grid.dt_s, "fields": list(grid.fields),
        "channels": {"ids": list(grid.channels.ids), "regions": list(grid.channels.regions)},
    }  # fmt: skip
    return {"values": np.asarray(grid.values, np.float32), "mask": np.asarray(grid.mask, np.uint8)}, about


def open_grid(path: Path, open_array: OpenArray = shards.open_array) -> TokenGrid:
    """Opens a group written by `pack_grid`."""
    about = _about(shards.read_attributes(path), path)
    return TokenGrid(
        values=np.asarray(open_array(path / "values")),
        mask=np.asarray(open_array(path / "mask")).astype(bool),
        t0_s=about["t0_s"],
        dt_s=about["dt_s"],
        channels=Channels(ids=tuple(about["channels"]["ids"]), regions=tuple(about["channels"]["regions"])),
        fields=tuple(about["fields"]),
    )


def recording_digest(attributes: Mapping[str, Any], arrays: Mapping[str, str]) -> str:
    """The logical digest of a recording: of its attributes, and of the type, shape and rows of every array."""
    return digest_of({"attributes": attributes, "streams": stream_digests(attributes, arrays)})


def grid_digest(attributes: Mapping[str, Any], arrays: Mapping[str, str], recording: str) -> str:
    """The logical digest of tokens made from the recording of another logical digest."""
    return digest_of({"attributes": attributes, "arrays": dict(arrays), "recording": recording})


def logical_digest(path: Path) -> str:
    """Derives a published group's logical digest again from the bytes on disk."""
    attributes = shards.read_attributes(path)
    about = _about(attributes, path)
    one = digest_rows if about.get("schema") == SCHEMA else digest_array
    arrays = {name: one(shards.open_array(path / name)) for name in shards.array_names(path)}
    if "streams" in about:
        return recording_digest(about, arrays)
    # schema 1 digested the plain form of arrays
    plain_arrays = arrays if about.get("schema") == SCHEMA else {k: {"sha256": v} for k, v in arrays.items()}
    return digest_of({"attributes": about, "arrays": plain_arrays, "recording": attributes["recording"]})


# catalog rows


def recording_row(recording: Recording) -> dict[str, Any]:
    """The row of table ``recordings``, less what publishing adds."""
    rid, files = recording.id, recording.provenance.files
    streams = recording.streams.values()
    return {
        "recording_id": str(rid), "archive": rid.archive, "dataset": rid.dataset, "version": rid.version,
        "name": rid.name, "subject_id": recording.subject.id, "species": recording.subject.species,
        "session": recording.session, "task": recording.task, "start_s": recording.domain_s[0],
        "stop_s": recording.domain_s[1], "duration_s": recording.domain_s[1] - recording.domain_s[0],
        "modalities": sorted({s.modality for s in streams}), "n_streams": len(recording.streams),
        "n_channels": sum(len(s.channels) for s in streams if not isinstance(s, Intervals)),
        "licence": recording.licence.spdx, "redistribute": recording.licence.redistribute,
        "citation": recording.provenance.citation, "reader": recording.provenance.reader,
        "notes": list(recording.provenance.notes), "raw_sha256": [f.sha256 for f in files],
        "source_url": [f.url for f in files], "clock_error_s": recording.clock_error_s,
    }  # fmt: skip


def subject_rows(recording: Recording) -> list[dict[str, Any]]:
    """The row of table ``subjects``."""
    s, rid = recording.subject, recording.id
    return [{
        "subject_key": f"{rid.archive}:{rid.dataset}/{s.id}", "archive": rid.archive, "dataset": rid.dataset,
        "subject_id": s.id, "species": s.species, "sex": s.sex, "age": s.age,
    }]  # fmt: skip


def stream_rows(recording: Recording, digests: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of table ``streams``."""
    rows = []
    for name, s in recording.streams.items():
        if isinstance(s, Intervals):
            first, last = (s.start_s.min(), s.stop_s.max()) if len(s.start_s) else (np.nan, np.nan)
            rate, n, c, unit = None, len(s.start_s), 0, "s"
        else:
            times = s.times_s if isinstance(s, Events) else None
            if isinstance(s, Samples) and s.rate_hz is not None:
                first, last = s.t0_s, s.t0_s + max(len(s.values) - 1, 0) / s.rate_hz
            else:
                times = s.times_s if times is None else times
                first, last = (times[0], times[-1]) if times is not None and len(times) else (np.nan, np.nan)
            rate = s.rate_hz if isinstance(s, Samples) else None
            n = len(s.values) if isinstance(s, Samples) else len(s.times_s)
            c, unit = len(s.channels), s.unit if isinstance(s, Samples) else "s"
        rows.append({
            "recording_id": str(recording.id), "stream": name, "kind": type(s).__name__.lower(),
            "modality": s.modality, "unit": unit, "rate_hz": rate, "n": n, "n_channels": c, "first_s": float(first),
            "last_s": float(last), "valid_s": float(np.diff(s.valid, axis=1).sum()), "digest": digests[name],
            "clock_error_s": recording.clock_error_of(name),
            "drift_ppm": recording.clocks[name].worst_ppm if name in recording.clocks else None,
        })  # fmt: skip
    return rows


def channel_rows(recording: Recording) -> list[dict[str, Any]]:
    """The rows of table ``channels``."""
    rows = []
    for name, s in recording.streams.items():
        if isinstance(s, Intervals):
            continue
        where = s.channels.positions_um
        for i, (channel, region) in enumerate(zip(s.channels.ids, s.channels.regions)):
            x, y, z = (None, None, None) if where is None else (float(v) for v in where[i])
            rows.append({"recording_id": str(recording.id), "stream": name, "row": i, "channel": channel,
                         "region": region, "x_um": x, "y_um": y, "z_um": z})  # fmt: skip
    return rows


def interval_rows(recording: Recording) -> list[dict[str, Any]]:
    """The rows of table ``intervals``; further columns as JSON."""
    rows = []
    for name, s in recording.streams.items():
        if not isinstance(s, Intervals):
            continue
        columns = {k: np.asarray(v) for k, v in s.columns.items()}
        for i in range(len(s.start_s)):
            own = {k: v[i].item() if hasattr(v[i], "item") else str(v[i]) for k, v in columns.items()}
            rows.append({"recording_id": str(recording.id), "stream": name, "row": i, "start_s": float(s.start_s[i]),
                         "stop_s": float(s.stop_s[i]), "columns": canonical_json(own)})  # fmt: skip
    return rows


def array_rows(
    written: Iterable[ArrayFiles], attributes: Mapping[str, Any], recording_id: str, kind: str, group: str
) -> list[dict[str, Any]]:
    """The rows of table ``arrays``, from which the packed index opens arrays.

    Args:
        written: what the writer said of each array.
        attributes: of the group, as `pack_recording` or `pack_grid` gives them.
        recording_id: text form.
        kind: ``recording`` or ``tokens:<spec digest>:<stream>``.
        group: folder, relative to the lake.
    """
    rows = []
    for one in written:
        if "streams" in attributes:
            stream = _stream_of(one.array, attributes["streams"])
            about, key = attributes["streams"][stream], one.array.removeprefix(f"{stream}/")
            clock = about if key == "values" else None
            if key == BY_TIME:
                clock = {"rate_hz": 1 / about[BY_TIME]["step_s"], "t0_s": about[BY_TIME]["t0_s"]}
        else:
            stream, clock = kind.split(":", 2)[2], {"rate_hz": 1 / attributes["dt_s"], "t0_s": attributes["t0_s"]}
        timed = clock is not None and clock.get("rate_hz") is not None
        rows.append({
            "recording_id": recording_id, "kind": kind, "stream": stream, "array": one.array, "group": group,
            "dtype": one.dtype, "shape": list(one.shape), "chunk_rows": one.chunk_rows, "shard_rows": one.shard_rows,
            "codec": one.codec, "rate_hz": clock["rate_hz"] if clock and timed else None,
            "t0_s": clock["t0_s"] if clock and timed else None, "n_bytes": one.n_bytes, "files": list(one.files),
            "file_sha256": list(one.file_sha256),
        })  # fmt: skip
    return rows
