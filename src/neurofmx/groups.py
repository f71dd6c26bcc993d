"""Recordings and token grids as arrays plus JSON, and back; and their catalog rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurofmx import shards
from neurofmx.config import from_plain
from neurofmx.errors import MalformedFile
from neurofmx.provenance import canonical_json, digest_array, digest_of, plain
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

SCHEMA = 1


def pack_recording(recording: Recording) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, str]]:
    """Lays a recording out as named arrays, JSON attributes and one digest a stream."""
    arrays: dict[str, np.ndarray] = {}
    described: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for name, stream in sorted(recording.streams.items()):
        own, about = _pack_stream(stream)
        arrays |= {f"{name}/{key}": value for key, value in own.items()}
        described[name] = about
        digests[name] = digest_of({"about": about, "arrays": {k: digest_array(v) for k, v in sorted(own.items())}})
    meta = {
        name: plain(getattr(recording, name))
        for name in ("id", "subject", "domain_s", "provenance", "licence", "session", "task", "clock_error_s")
    }
    return arrays, {"schema": SCHEMA, "recording": meta, "streams": described}, digests


def _pack_stream(stream: Stream) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    about: dict[str, Any] = {"kind": type(stream).__name__, "modality": stream.modality}
    arrays: dict[str, np.ndarray] = {"valid": np.asarray(stream.valid, np.float64).reshape(-1, 2)}
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
        arrays |= {"times_s": np.asarray(stream.times_s, np.float64), "codes": np.asarray(stream.codes, np.int32)}
        return arrays, about
    about |= {"unit": stream.unit, "rate_hz": stream.rate_hz, "t0_s": stream.t0_s}
    values = np.asarray(stream.values)
    if values.dtype.kind not in "iufb":
        raise MalformedFile(f"samples of {stream.modality}", got=str(values.dtype), expected="numbers")
    arrays["values"] = values
    if stream.times_s is not None:
        arrays["times_s"] = np.asarray(stream.times_s, np.float64)
    return arrays, about


def open_recording(path: Path) -> Recording:
    """Opens a group written by `pack_recording`, reading only small arrays at once."""
    about = shards.read_attributes(path)["neurofmx"]
    meta = about["recording"]
    return Recording(
        id=RecordingId(**meta["id"]),
        streams={name: _open_stream(path / name, described) for name, described in about["streams"].items()},
        subject=Subject(**meta["subject"]),
        domain_s=(float(meta["domain_s"][0]), float(meta["domain_s"][1])),
        provenance=from_plain(Provenance, meta["provenance"]),
        licence=Licence(**meta["licence"]),
        session=meta["session"],
        task=meta["task"],
        clock_error_s=float(meta["clock_error_s"]),
    )


def _open_stream(path: Path, about: dict[str, Any]) -> Stream:
    def read(name: str) -> np.ndarray:
        return np.asarray(shards.open_array(path / name))

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
        return Events(times_s=read("times_s"), codes=read("codes"), channels=channels, modality=modality, valid=valid)
    return Samples(
        values=shards.open_array(path / "values"),
        unit=about["unit"],
        channels=channels,
        modality=modality,
        valid=valid,
        rate_hz=about["rate_hz"],
        t0_s=about["t0_s"],
        times_s=read("times_s") if about["rate_hz"] is None else None,
    )


def pack_grid(grid: TokenGrid) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Lays a token grid out as arrays and JSON attributes."""
    about = {
        "schema": SCHEMA, "t0_s": grid.t0_s, "dt_s": grid.dt_s, "fields": list(grid.fields),
        "channels": {"ids": list(grid.channels.ids), "regions": list(grid.channels.regions)},
    }  # fmt: skip
    return {"values": np.asarray(grid.values, np.float32), "mask": np.asarray(grid.mask, np.uint8)}, about


def open_grid(path: Path) -> TokenGrid:
    """Opens a group written by `pack_grid`."""
    about = shards.read_attributes(path)["neurofmx"]
    return TokenGrid(
        values=np.asarray(shards.open_array(path / "values")),
        mask=np.asarray(shards.open_array(path / "mask")).astype(bool),
        t0_s=about["t0_s"],
        dt_s=about["dt_s"],
        channels=Channels(ids=tuple(about["channels"]["ids"]), regions=tuple(about["channels"]["regions"])),
        fields=tuple(about["fields"]),
    )


def logical_digest(path: Path) -> str:
    """Derives a published group's logical digest again from the bytes on disk."""
    attributes = shards.read_attributes(path)
    if "streams" in attributes["neurofmx"]:
        _, again, streams = pack_recording(open_recording(path))
        return digest_of({"attributes": again, "streams": streams})
    arrays, again = pack_grid(open_grid(path))
    return digest_of({"attributes": again, "arrays": arrays, "recording": attributes["recording"]})


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
